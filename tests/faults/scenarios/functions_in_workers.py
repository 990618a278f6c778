"""What functions may do in worker processes."""

import multiprocessing
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
from acts import die, note_warnings, numbers, once, play, say, warned
from leftovers import left

from pipekit import apply, combine_to_arrays, pipeline, prefetch, processes


def a_function_prints():
    def load(value):
        print('value', value)  # noqa: T201
        print('error', value, file=sys.stderr)  # noqa: T201
        return value

    with pipeline(range(5), apply(load, workers=processes(1)), prefetch(5)) as batches:
        list(batches)
    say(left())


def a_function_starts_threads(then):
    def load(value):
        threading.Thread(target=threading.Event().wait).start()
        return value

    batches = pipeline(numbers, apply(load, workers=processes(2, ahead=2)), prefetch())
    next(iter(batches))
    if then == 'dies':
        die()
    batches.close()
    say(left())


def a_function_forks(then):
    def part(value):
        return combine_to_arrays([np.full(50_000, value)] * 2)

    def load(value):
        warnings.simplefilter('ignore', DeprecationWarning)  # of a fork beside threads
        fork = multiprocessing.get_context('fork')
        queue = fork.SimpleQueue()
        child = fork.Process(target=lambda: queue.put(part(value)))
        child.start()
        mine = part(value + 1)  # in a block of this process, which the other must not take
        sums = [int(array.sum()) // 100_000 for array in (queue.get(), mine)]
        if value == 2 and then == 'is killed' and once():
            die()
        child.join()
        return sums

    with pipeline(range(6), apply(load, workers=processes(2)), prefetch()) as batches:
        say(list(batches) == [[value, value + 1] for value in range(6)], len(warned))
    say(left())


def the_folder_has_modules_with_names_of_pythons():
    for name in ('pickle', 'socket', 'numpy'):
        Path(f'{name}.py').write_text('raise ImportError\n')
    with pipeline(range(3), apply(float, workers=processes(1)), prefetch()) as batches:
        say(list(batches))
    say(left())


note_warnings()
play(globals())
