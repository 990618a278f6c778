"""Worker processes that are ended in the middle of their work: by close, by exit, by a signal."""

import ctypes
import os
import sys
import threading
import time

from acts import die, kept, note_warnings, numbers, play, say, stuck, until
from leftovers import left

from pipekit import apply, pipeline, prefetch, processes


def busy(value):
    while value > 2:
        pass
    return value


def slow(value):
    if value == 2:
        say('stuck')
    time.sleep(0.05)
    return value


def hold_the_gil(value):
    if value == 2:
        os.write(1, b'stuck\n')
        ctypes.PyDLL(None).sleep(3)
    return value


FUNCTIONS = {'stuck': stuck, 'busy': busy, 'slow': slow, 'hold_the_gil': hold_the_gil, 'float': float}


def it_is_closed_while_a_function_is_stuck():
    batches = pipeline(numbers, apply(stuck, workers=processes(2)), prefetch())
    epoch = iter(batches)
    say(next(epoch), next(epoch))
    begin = time.monotonic()
    batches.close()
    took = time.monotonic() - begin
    say(left())
    say(took)


def it_ends_while_an_initializer_is_stuck(then):
    def setup():
        os.write(1, b'stuck\n')
        threading.Event().wait()

    batches = pipeline(numbers, apply(float, workers=processes(1, initializer=setup)), prefetch())
    iter(batches)
    until(lambda: os.path.exists('go'))
    if then == 'dies':
        die()
    batches.close()
    say(left())


def it_is_closed_while_a_function_runs():
    def load(value):
        if value == 2:
            say('begun')
            time.sleep(0.3)
            sys.stdout.write('done\n')
        return value

    batches = pipeline(numbers, apply(load, workers=processes(1)), prefetch())
    iter(batches)
    until(lambda: os.path.exists('go'))
    batches.close()
    say(left())


def raise_an_error():
    raise KeyError(1)


WAYS_TO_LEAVE = {
    'returns': lambda: None,
    'exits': lambda: sys.exit(7),
    'exits at once': lambda: os._exit(7),
    'is killed': die,
    'raises': raise_an_error,
}


def it_leaves_while_workers_run(function, how):
    batches = pipeline(numbers, apply(FUNCTIONS[function], workers=processes(2)), prefetch())
    epoch = iter(batches)
    kept.extend([batches, epoch])
    assert next(epoch) == 0
    for _ in epoch:
        break
    os.write(1, b'ready\n')
    WAYS_TO_LEAVE[how]()


def it_lets_go_of_workers_that_run(function, how):
    batches = pipeline(numbers, apply(FUNCTIONS[function], workers=processes(2)), prefetch())
    epoch = iter(batches)
    assert next(epoch) == 0
    for _ in epoch:
        break
    os.write(1, b'ready\n')
    epoch = None
    if how == 'closes':
        batches.close()
    else:
        batches = None
    say(left())


def it_is_interrupted(function):
    for _ in pipeline(numbers, apply(FUNCTIONS[function], workers=processes(2)), prefetch()):
        pass


def it_gets_a_signal_as_it_starts(number, delay):
    with pipeline(numbers, apply(float, workers=processes(4)), prefetch(10**9)) as batches:
        say('starts')
        threading.Timer(float(delay), os.kill, [os.getpid(), int(number)]).start()
        for _ in batches:
            pass


def it_forgets_workers_that_are_stuck():
    batches = pipeline(numbers, apply(stuck, workers=processes(2)), prefetch())
    iter(batches)
    until(lambda: os.path.exists('go'))
    del batches


note_warnings()
play(globals())
