"""What worker processes share with the main process: memory, or pipes where there is none, and descriptors."""

import errno
import gc
import os
import resource
import warnings

import numpy as np
from acts import die, note_warnings, numbers, once, play, say, warned
from leftovers import descriptors, descriptors_at_first, left
from running import children

from pipekit import apply, pipeline, prefetch, processes, shuffle


def there_is_no_shared_memory():
    def none(name):
        raise OSError(errno.EMFILE, 'no memory files')

    os.memfd_create = none
    data = np.arange(300_000)
    stage = apply(lambda array: array[::2] + data[0], workers=processes(2))
    with pipeline([data] * 9, stage, prefetch()) as batches:
        say([np.array_equal(batch, data[::2]) for batch in batches] == [True] * 9)
    say(warned, left())


def files_are_small():
    resource.setrlimit(resource.RLIMIT_FSIZE, (5 << 20, 5 << 20))


def no_space_is_left():
    def none(*_):
        raise OSError(errno.ENOSPC, 'No space')

    os.posix_fallocate = none


def there_is_too_little_shared_memory(why):
    {'files are small': files_are_small, 'no space is left': no_space_is_left}[why]()

    def load(array):
        return array + 1, 'x' * 5_000_000

    kept = []
    with pipeline([np.arange(524_288)] * 8, apply(load, workers=processes(2, ahead=4)), prefetch()) as batches:
        kept.extend(batches)
    say(all(np.array_equal(array, np.arange(524_288) + 1) for array, _ in kept), len(warned))
    say(warned[0])
    kept.clear()
    say(left())


def a_warning_is_an_error():
    def load(value):
        if value == 30 and once():
            die()
        return value

    warnings.simplefilter('error')
    workers = processes(2)
    batches = pipeline(numbers, apply(load, workers=workers), shuffle(1), apply(abs, workers=workers), prefetch())
    try:
        for _ in batches:
            pass
    except RuntimeWarning as warning:
        say(warning)
    batches.close()
    say(left())


def batches_are_kept_where_descriptors_are_few():
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    kept = []
    batches = pipeline(numbers, apply(lambda n: np.full(20_000, n), workers=processes(2)), prefetch(300))
    with batches:
        kept.extend(batches)
        say(len(descriptors()) - len(descriptors_at_first) < 20)
    say(all((batch == number).all() for number, batch in enumerate(kept)), kept[7].flags.writeable)
    gc.collect()
    say(len(descriptors()) - len(descriptors_at_first) <= 2, children())
    kept.clear()
    del batches
    say(left())


def there_are_too_few_descriptors():
    resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))
    batches = pipeline(numbers, apply(abs, workers=processes(16)), prefetch(300))
    try:
        list(batches)
    except OSError as error:
        say(error.errno == errno.EMFILE)
    batches.close()
    say(left())


def values_are_big_in_both_directions():
    def swap(pair):
        text, array = pair
        return text[::-1], array * 2, list(range(100_000))

    values = [('ab' * 2_500_000, np.ones(1 << 20)) for _ in range(8)]
    with pipeline(values, apply(swap, workers=processes(2, ahead=8)), prefetch(buffer_size=1)) as batches:
        say(all(text == 'ba' * 2_500_000 and (array == 2).all() for text, array, _ in batches))
    say(left())


note_warnings()
play(globals())
