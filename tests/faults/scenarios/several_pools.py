"""Several stages, pipelines, threads or processes that use worker processes at once."""

import os
import signal
import sys
import threading
import time
import warnings
from contextlib import suppress

import numpy as np
from acts import die, note_warnings, numbers, play, say, until
from leftovers import left
from running import children

from pipekit import Closed, apply, pipeline, prefetch, processes, shuffle


def two_pipelines_run_at_once():
    stage = apply(lambda value: np.full(50_000, value), workers=processes(2))
    with pipeline(range(40), stage, prefetch()) as first, pipeline(range(40), stage, prefetch()) as second:
        pairs = zip(first, second, strict=True)
        say(all((one == number).all() and (one == other).all() for number, (one, other) in enumerate(pairs)))
        say(len(children()))
    del pairs
    say(left())


def workers_of_two_stages_are_killed(name):
    stages = (
        apply(lambda value: value + 1, workers=processes(2)),
        shuffle(5, seed=0),
        apply(lambda value: value * 2, workers=processes(2, name=name or None)),
    )
    expected = list(pipeline(range(500), *stages))
    seen = set()
    with pipeline(range(500), *stages, prefetch()) as batches:
        got = []
        for batch in batches:
            if not len(got) % 100:
                seen.add(len(children()))
                for pid in children()[:1]:
                    os.kill(pid, signal.SIGKILL)
            got.append(batch)
    say(got == expected, max(seen))
    say(left())


def all_are_killed_between_two_stages_and_none_can_start():
    def values():
        for value in range(100):
            if value == 50:
                for pid in children():
                    os.kill(pid, signal.SIGKILL)
                sys.executable = '/nowhere/python'
            yield value

    workers = processes(2)
    batches = pipeline(values, apply(float, workers=workers), shuffle(1), apply(abs, workers=workers), prefetch())
    got = []
    try:
        got.extend(batches)
    except FileNotFoundError as error:
        say(got == list(range(len(got))), error.filename)
    batches.close()
    say(left())


def threads_consume():
    def consume():
        with pipeline(range(50), apply(lambda value: value * 3, workers=processes(1)), prefetch()) as batches:
            results.append(list(batches))

    results = []
    consumers = [threading.Thread(target=consume) for _ in range(4)]
    for thread in consumers:
        thread.start()
    for thread in consumers:
        thread.join()
    say(results == [[value * 3 for value in range(50)]] * 4, left())


def the_main_process_forks():
    warnings.filterwarnings('ignore', 'This process', DeprecationWarning)  # has threads, and forks
    batches = pipeline(numbers, apply(float, workers=processes(2)), prefetch(5))
    epoch = iter(batches)
    next(epoch)
    child = os.fork()
    if not child:
        try:
            next(epoch)
        except Closed:
            batches.close()
            sys.exit(0)
        os._exit(1)
    say(os.waitpid(child, 0)[1], list(epoch), list(batches))
    if not os.fork():
        os.setsid()  # a daemon, which lives on
        os.close(1), os.close(2)
        until(lambda: os.path.exists('go'))
        os._exit(0)
    die()


def a_storm_of_signals_that_close():
    def handle(*_):
        batches.close()

    got = []
    batches = pipeline(numbers, apply(float, workers=processes(1)), prefetch(50, buffer_size=2))
    signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.2, 0.23)
    end = time.monotonic() + 2
    while time.monotonic() < end:
        with suppress(Closed), batches:
            for batch in batches:
                got.append(batch)  # noqa: PERF402  # a loop in Python is what is interrupted
    signal.setitimer(signal.ITIMER_REAL, 0)
    batches.close()
    say(got == list(range(len(got))), left())


note_warnings()
play(globals())
