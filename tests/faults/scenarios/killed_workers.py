"""Worker processes that are killed, by whomever and whenever, or that leave."""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from shlex import quote

import numpy as np
from acts import die, kept, note_warnings, numbers, once, play, say, warned
from leftovers import left
from running import children

from pipekit import (
    TooManyFailures,
    WorkerCrashed,
    apply,
    combine_batches,
    combine_to_arrays,
    flatten,
    pipeline,
    prefetch,
    processes,
    repeat,
    replace,
    retry,
    skip,
)


def one_is_killed():
    def double(value):
        if value == 50 and once():
            die()
        return value * 2

    with pipeline(range(200), apply(double, workers=processes(2)), prefetch()) as batches:
        say(list(batches) == [value * 2 for value in range(200)])
    say(warned, left())


def all_are_killed_again_and_again(size):
    def load(number):
        return np.full((60, 1000), number, np.float32), number

    whole = [combine_batches(int(size))] if size else []
    stages = apply(load, workers=processes(3)), *whole
    expected = list(pipeline(range(60), *stages))
    with pipeline(range(60), *stages, prefetch()) as batches:
        got = []
        for batch in batches:
            got.append(batch)
            if len(got) in (1, 2, 5, 9, 15):
                for pid in children():
                    os.kill(pid, signal.SIGKILL)
    pairs = [pair for ones, others in zip(got, expected, strict=True) for pair in zip(ones, others, strict=True)]
    say(all(np.array_equal(one, other) for one, other in pairs), len(warned))
    del got, batch, pairs
    say(left())


class DeadlyInABlock:
    """What comes before it in a sample is in the block already when this is pickled."""

    def __init__(self, value):
        self.value = value

    def __reduce__(self):
        if self.value in (3, 7) and once(f'block {self.value}'):
            die()
        return DeadlyInABlock, (self.value,)


def one_is_killed_while_it_writes_a_block():
    def load(number):
        return np.full(1_000_000, number), DeadlyInABlock(number)

    with pipeline(range(12), apply(load, workers=processes(2)), prefetch()) as batches:
        got = [(int(array.sum()), value.value) for array, value in batches]
    say(got == [(n * 1_000_000, n) for n in range(12)])
    say(left(), os.path.exists('block 3'), os.path.exists('block 7'))


def one_is_killed_in_the_middle_of_a_batch():
    def load(number):
        return np.full(100_000, number)

    def combine(samples):
        batch = combine_to_arrays(samples)  # into a shared block
        if samples[0][0] == 8 and once():
            die()
        return batch

    stages = apply(load, workers=processes(2)), combine_batches(4, combine)
    with pipeline(range(30), *stages, prefetch()) as batches:
        say([batch[:, 0].tolist() for batch in batches] == [list(range(30))[at : at + 4] for at in range(0, 30, 4)])
    say(warned, left())


def start_workers_with(*lines):
    """Have a shell run some lines before it runs Python in each worker process."""
    file = Path('python')
    file.write_text('\n'.join(['#!/bin/sh', *lines, f'exec {quote(sys.executable)} "$@"\n']))
    file.chmod(0o755)
    sys.executable = str(file.absolute())


def nine_are_killed_as_they_start():
    start_workers_with('for n in 1 2 3 4 5 6 7 8 9; do mkdir start$n 2>/dev/null && kill -9 $$; done')
    with pipeline(range(100), apply(float, workers=processes(2)), prefetch()) as batches:
        say(list(batches) == list(range(100)))
    say(warned, left())


def none_ever_starts(told):
    start_workers_with('exit 3')
    batches = pipeline(range(100), apply(float, workers=processes(4)), prefetch())
    try:
        list(batches)
    except WorkerCrashed as error:
        say(*([error, error.exit_code] if told == 'error' else error.__notes__[:1]))
    batches.close()
    say(left())


WAYS_TO_LEAVE = {
    'exits': lambda: os._exit(7),
    'aborts': os.abort,
    'closes its descriptors': lambda: os.closerange(3, 100),
}


def one_leaves(how):
    leave = WAYS_TO_LEAVE[how]

    def load(value):
        if value == 30 and once():
            leave()
        return value

    with pipeline(range(100), apply(load, workers=processes(2)), prefetch()) as batches:
        say(list(batches) == list(range(100)), len(warned))
    say(left(), warned)


def one_is_killed_that_has_started_another_process():
    def load(value):
        if value == 3 and once():
            kept.append(subprocess.Popen(['sleep', '100']))
            die()
        return value

    with pipeline(range(9), apply(load, workers=processes(1)), prefetch()) as batches:
        say(list(batches) == list(range(9)))
    say(left())


def one_with_an_initializer_is_killed(when):
    def setup(number):
        sys.numbers = [*getattr(sys, 'numbers', []), number]  # in a module of the process
        if when == 'in it' and once():
            die()

    def load(value):
        if value == 50 and when == 'after it' and once():
            die()
        return value, sys.numbers

    workers = processes(2, initializer=setup, initargs=(7,))
    with pipeline(range(100), apply(load, workers=workers), prefetch()) as batches:
        say(list(batches) == [(value, [7]) for value in range(100)], len(warned))
    say(left())


def a_sample_kills(ahead, memory):
    def none(name):
        raise OSError('no memory files')

    if memory == 'no shared memory':
        del os.posix_fallocate  # an old system
        os.memfd_create = none

    def load(value):
        if value == 300:
            die()
        return value

    got = []
    workers = processes(2, ahead=int(ahead)) if ahead else processes(2)
    batches = pipeline(numbers, apply(load, workers=workers), prefetch())
    try:
        got.extend(batches)
    except WorkerCrashed as error:
        say(error)
        say(error.exit_code)
    batches.close()
    say(got == list(range(300)), left())


def a_sample_of_a_batch_kills(guilty):
    def load(value):
        if value == 30 and guilty == 'load':
            die()
        return value

    def combine(samples):
        if samples[0] == 28 and guilty == 'combine':
            os._exit(5)
        return samples

    got = []
    stages = apply(load, workers=processes(2)), combine_batches(4, combine)
    batches = pipeline(range(100), *stages, prefetch())
    try:
        for batch in batches:
            got += batch
    except WorkerCrashed as error:
        say(error)
    batches.close()
    say(got == list(range(28)), left())


def a_sample_kills_until_the_next_epoch():
    def load(value):
        if value == 30 and not os.path.exists('enough'):
            die()
        return value

    batches = pipeline(range(60), apply(load, workers=processes(2)), prefetch(60))
    got = []
    try:
        got.extend(batches)
    except WorkerCrashed:
        once('enough')
    got += batches
    batches.close()
    say(got == list(range(60)), left())


def dies_at(deadly, times):
    """A function that dies at a value, or a batch with it, as many times as this in all."""

    def keep_or_die(value):
        if deadly in (value if isinstance(value, list) else [value]) and any(map(once, map(str, range(times)))):
            die()
        return value

    return keep_or_die


WORKERS = processes(2)
FOR_EVER = 100
HANDLED = {
    'skip': [apply(dies_at(5, FOR_EVER), workers=WORKERS, on_error=skip(WorkerCrashed))],
    'skip any exception': [apply(dies_at(5, FOR_EVER), workers=WORKERS, on_error=skip())],
    'replace': [apply(dies_at(5, FOR_EVER), workers=WORKERS, on_error=replace(lambda value: -value, WorkerCrashed))],
    'replace before another function': [
        apply(dies_at(5, FOR_EVER), workers=WORKERS, on_error=replace(str, WorkerCrashed)),
        apply(int, workers=WORKERS),
    ],
    'random numbers': [
        apply(
            lambda value, rng: rng.random() and dies_at(5, FOR_EVER)(value),
            seed=0,
            workers=WORKERS,
            on_error=skip(WorkerCrashed),
        )
    ],
    'the policy of another function': [
        apply(int, workers=WORKERS, on_error=skip(OSError)),
        apply(dies_at(5, FOR_EVER), workers=WORKERS, on_error=skip(WorkerCrashed)),
    ],
    'retry': [apply(dies_at(5, 5), workers=WORKERS, on_error=retry(1, WorkerCrashed, backoff=1000.0))],
    'retry too often': [apply(dies_at(5, FOR_EVER), workers=WORKERS, on_error=retry(1, WorkerCrashed))],
    'retry and skip': [
        apply(dies_at(5, FOR_EVER), workers=WORKERS, on_error=[retry(1, WorkerCrashed), skip(WorkerCrashed)])
    ],
    'retry in a batch': [
        apply(dies_at(5, 5), workers=WORKERS, on_error=retry(1, WorkerCrashed)),
        combine_batches(3, list),
        flatten(),
    ],
    'retry a batch': [
        apply(int, workers=WORKERS),
        combine_batches(3, list, workers=WORKERS),
        apply(dies_at(5, 5), workers=WORKERS, on_error=retry(1)),
        flatten(),
    ],
    'skip a batch': [
        apply(int, workers=WORKERS),
        combine_batches(3, list, workers=WORKERS),
        apply(dies_at(5, FOR_EVER), workers=WORKERS, on_error=skip()),
        flatten(),
    ],
    'over the budget': [apply(dies_at(5, FOR_EVER), workers=WORKERS, on_error=skip(budget=0))],
    'other exceptions': [apply(dies_at(5, FOR_EVER), workers=WORKERS, on_error=[skip(OSError), retry(3, OSError)])],
    'a replacement that dies': [
        apply(dies_at(5, FOR_EVER), workers=WORKERS, on_error=replace(lambda value: die(), WorkerCrashed))
    ],
    'another function that dies': [
        apply(float, workers=WORKERS, on_error=replace(float, WorkerCrashed)),
        apply(dies_at(5, FOR_EVER), workers=WORKERS),
    ],
}


def a_sample_kills_and_is_handled(how):
    logging.disable()
    batches = pipeline(range(12), *HANDLED[how], prefetch(FOR_EVER))  # no second pass is made ahead, which kills too
    got = []
    try:
        got.extend(batches)
    except (WorkerCrashed, TooManyFailures) as error:
        say(type(error).__name__, end=' ')
    say(got, [failure.sample for failure in batches.failures], sum(map(os.path.exists, map(str, range(FOR_EVER)))))
    batches.close()
    say(left())


def a_sample_kills_in_each_pass():
    logging.disable()
    deadly = apply(dies_at(3, FOR_EVER), workers=WORKERS, on_error=skip(WorkerCrashed, budget=None))
    got = []
    with pipeline(range(6), deadly, repeat(), combine_batches(4, list), prefetch(2)) as batches:
        got += batches
        state = batches.state_dict()
    with pipeline(range(6), deadly, repeat(), combine_batches(4, list), prefetch(2)) as batches:
        batches.load_state_dict(state)
        got += batches
        counts = batches.state_dict()['failures']
    say(got == [[0, 1, 2, 4], [5, 0, 1, 2], [4, 5, 0, 1], [2, 4, 5, 0]], counts)
    say(left())


class DeadlyToRead:
    def __reduce__(self):
        return die, ()


class DeadlyToWrite:
    def __reduce__(self):
        die()


def a_value_kills_as_it_is_sent(way):
    def values():
        for value in range(100):
            yield DeadlyToRead() if value == 60 and way == 'there' else value

    def load(value):
        return DeadlyToWrite() if value == 60 and way == 'back' else value

    got = []
    batches = pipeline(values, apply(load, workers=processes(2)), prefetch())
    try:
        got.extend(batches)
    except WorkerCrashed as error:
        say(error)
    batches.close()
    say(got == list(range(60)), left())


note_warnings()
play(globals())
