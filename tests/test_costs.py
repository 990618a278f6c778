"""What sources, stages and batches cost, in numbers that a busy machine does not move: calls, and bytes in memory.

A budget is what something took when it was written down, rounded, and a quarter more is let pass: another version of
Python is no failure, and a cost that has doubled is one. What takes more is made cheaper, or its budget argued for;
what takes less is given a smaller one. The functions of this file stand for a user's: their calls are not counted.
"""

import gc
import math
import sys
import threading
import tracemalloc
from collections import Counter, deque
from contextlib import contextmanager
from functools import partial
from itertools import islice
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np
import pytest

import pipekit
from pipekit import (
    BatchIterator,
    Stage,
    apply,
    apply_at,
    arrays,
    combine_batches,
    combine_pad,
    combine_to_arrays,
    combine_to_tuples,
    expiration_pool,
    flatten,
    keep,
    load_by_random_id,
    make_infinite_batch_iter,
    mix,
    multiply,
    pipeline,
    prefetch,
    random_apply,
    repeat,
    replace,
    reseeded,
    retry,
    rows,
    sample,
    sample_args,
    seeded,
    shard,
    shuffle,
    skip,
    take,
    unpack,
    unpack_args,
    zip_apply,
)
from pipekit.streams.context import Context
from pipekit.streams.cursors import START
from pipekit.streams.stream import Source

IMAGE = (64, 16, 16)
SIZE = 4 * math.prod(IMAGE)  # bytes, beside which the rest of a sample weighs little
SAMPLES, BATCHES = 2048, 32  # whole numbers of what is drawn, shuffled or combined at once
MANY, PLENTY = 10_000, 10**9
PATIENCE = 60  # seconds
ROOM = 1.25  # times a budget
NOTHING = 0.1  # where the budget is none: what is done once for a thousand samples
COMPREHENSIONS = {'<listcomp>', '<dictcomp>', '<setcomp>'}  # functions in Python 3.11 alone


def load(number):
    return np.zeros(IMAGE, np.float32), number


def same(sample):
    return sample


def same_fields(image, label, **rng):
    return image, label


def same_at_random(sample, rng):
    return sample


class Transform:
    def __init__(self):
        self.rng = np.random.default_rng(0)

    def __call__(self, sample):
        return sample


def first_of_two(sample, other):
    return sample


def zero(rng):
    return 0


def fits(chunk, sample):
    return len(chunk) < 32


class PerSample(NamedTuple):
    """What each sample takes that goes into a stage, or comes out of a source."""

    stream: Any
    calls: float  # of functions written in Python; that a generator goes on is one
    builtins: float  # calls in Python of functions written in C
    held: float  # the most memory in use, in samples


class PerBatch(NamedTuple):
    """What making a batch of 32 samples takes."""

    make: Any
    calls: float
    builtins: float
    memory: float  # the most in use, in batches


class HandOver(NamedTuple):
    """What a loop over ``iterable(n)`` takes for each of its ``n`` values, when it has to wait for none."""

    iterable: Any
    calls: float  # in the loop
    calls_ahead: float  # in the thread of prefetch


def batch_of(source, *stages):
    return partial(next, iter(pipeline(source, *stages)))


IDS = range(4096)
ENDLESS = take(PLENTY)  # behind it, cursors are tuples
PAIRS = [load(number) for number in range(32)]
DICTS = [{'image': image, 'label': label} for image, label in PAIRS]
VIEWS = [image.T for image, _ in PAIRS]
RAGGED = [image[number:] for image, number in PAIRS]
FILES, LENGTHS = [f'{number}.npy' for number in range(16)], [256] * 16
COLUMNS = arrays(np.zeros((64, *IMAGE), np.float32), np.arange(64))
BACKWARDS = arrays(np.zeros((64, *IMAGE), np.float32)[::-1], np.arange(64))

SAMPLE_BUDGETS = {
    'a sequence': PerSample(pipeline(range(PLENTY)), 1, 0, 1),
    'a function': PerSample(pipeline(lambda: iter(range(PLENTY))), 2, 0, 1),
    'arrays': PerSample(sample(COLUMNS, seed=0), 3, 3, 1.2),
    'sample': PerSample(sample(IDS, seed=0), 1, 0, 1.7),
    'sample, weighted': PerSample(sample(IDS, np.ones(len(IDS)), seed=0), 1, 0, 1.7),
    'sample, in passes': PerSample(sample(IDS, replace=False, seed=0), 1, 0, 2.2),
    'sample, in passes over many': PerSample(sample(range(PLENTY), replace=False, seed=0), 1, 0, 1.7),
    'rows': PerSample(rows(FILES, LENGTHS, seed=0), 3, 2, 1.7),
    'rows, in windows': PerSample(rows(FILES, LENGTHS, window=100, seed=0), 3.2, 2.2, 2.4),
    'rows, in lanes': PerSample(rows(FILES, LENGTHS, window=100, lanes=8, batch_size=64, seed=0), 3.2, 2.2, 2.5),
    'load_by_random_id': PerSample(load_by_random_id(same, same, ids=IDS, seed=0).stream, 3, 0, 1.7),
    'mix': PerSample(mix(sample(IDS, seed=0), sample(IDS, seed=0), seed=0), 3, 1, 2.5),
    'apply': PerSample(apply(same), 1, 0, 1),
    'apply, three': PerSample(pipeline(apply(same), apply(same), apply(same)), 1, 0, 1),
    'apply, random': PerSample(apply(same_at_random, seed=0), 3, 2, 1),
    'apply, random behind a take': PerSample(pipeline(ENDLESS, apply(same_at_random, seed=0)), 5, 6, 1),
    'unpack': PerSample(unpack(same_fields), 2, 1, 1),
    'unpack, random': PerSample(unpack(same_fields, seed=0), 4, 3, 1),
    'skip': PerSample(apply(same, on_error=skip(ValueError)), 5, 4, 1),
    'replace': PerSample(apply(same, on_error=replace(same, ValueError)), 5, 4, 1),
    'retry': PerSample(apply(same, on_error=retry(3, ValueError)), 4, 0, 1),
    'unpack_args': PerSample(apply(unpack_args(same_fields)), 3, 1, 1),
    'apply_at': PerSample(apply(apply_at(0, same)), 6, 7, 1),
    'multiply': PerSample(apply(multiply(same)), 5, 3, 1),
    'zip_apply': PerSample(apply(zip_apply(same, same)), 5, 5, 1),
    'random_apply': PerSample(apply(random_apply(1, same), seed=0), 5, 2, 1),
    'seeded': PerSample(apply(seeded(same), seed=0), 35, 38, 1.6),
    'reseeded': PerSample(apply(reseeded(Transform()), seed=0), 12, 10, 1),
    'sample_args': PerSample(apply(sample_args(first_of_two, zero), seed=0), 5, 2, 1),
    'keep': PerSample(keep(same), 1, 0, 1),
    'flatten': PerSample(flatten(), 5, 2, 1),
    'shuffle': PerSample(shuffle(32, seed=0), 1.3, 1.3, 32),
    'take': PerSample(ENDLESS, 1, 0, 1),
    'repeat': PerSample(repeat(1), 2, 0, 1),
    'shard': PerSample(shard(1, 4), 0, 0, 1),
    'shard, full rounds': PerSample(shard(1, 4, drop_last=True), 0.8, 0.3, 4),
    'expiration_pool': PerSample(expiration_pool(32, repetitions=2, seed=0), 8, 6, 32),
    'combine_batches': PerSample(combine_batches(32, list), 0.1, 0, 32),
    'combine_batches, full': PerSample(combine_batches(32, list, drop_last=True), 0.12, 0, 32),
    'combine_batches, adaptive': PerSample(combine_batches(fits, list), 1, 1, 33),
}

BATCH_BUDGETS = {
    'combine_to_tuples': PerBatch(lambda: combine_to_tuples(PAIRS), 17, 23, 0),
    'combine_to_arrays': PerBatch(lambda: combine_to_arrays(PAIRS), 25, 30, 1),
    'combine_to_arrays, of dicts': PerBatch(lambda: combine_to_arrays(DICTS), 60, 95, 1),
    'combine_to_arrays, of views': PerBatch(lambda: combine_to_arrays(VIEWS), 11, 14, 1),
    'combine_pad': PerBatch(lambda: combine_pad(RAGGED), 32, 75, 1),
    'combine_pad, of equal shapes': PerBatch(lambda: combine_pad(PAIRS), 65, 75, 1),
    # Into memory used before, but for views.
    'arrays': PerBatch(batch_of(sample(COLUMNS, seed=0), combine_batches(32)), 24, 30, 0),
    'arrays, of views': PerBatch(batch_of(sample(BACKWARDS, seed=0), combine_batches(32)), 13, 11, 1),
    'pipeline': PerBatch(
        batch_of(sample(IDS, seed=0), apply(load), unpack(same_fields, seed=0), combine_batches(32)), 235, 145, 1
    ),
}

HAND_OVER_BUDGETS = {
    'pipeline': HandOver(lambda n: pipeline(range(n)), 2, 0),
    'prefetch': HandOver(lambda n: pipeline(range(n), prefetch(n, buffer_size=n + 9)), 3, 4),
    'prefetch, in passes': HandOver(lambda n: pipeline(iter(range(n)), prefetch(buffer_size=n + 9)), 3, 7),
    'make_infinite_batch_iter': HandOver(
        lambda n: make_infinite_batch_iter(
            range(32 * n), apply(str), batch_size=32, n_iters_per_epoch=n, buffer_size=n + 9, combiner=len
        ),
        3,
        70,
    ),
}


def is_source(stream):
    return not isinstance(stream, Stage)


def exhaust(stream, n):
    """Take ``n`` samples from a source, or feed them to a stage."""
    samples = Source(lambda cursor, context: ((load(number), number) for number in range(1, n + 1)))
    opened = (stream if is_source(stream) else pipeline(samples, stream)).open(START, Context())
    deque(islice(opened, n if is_source(stream) else None), maxlen=0)


def make_again(make, n):
    for _ in range(n):
        make()


def loop_over(iterable):
    if isinstance(iterable, BatchIterator):
        with iterable:
            iterable._delivery._thread.join(PATIENCE)  # it has room for all
            deque(iterable, maxlen=0)
    else:
        deque(iterable, maxlen=0)


@contextmanager
def without_collection():
    gc.collect()
    gc.disable()  # it runs finalizers, and lets go of what should not have waited for it
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def counted_calls():
    """Count the calls in a block: by whether they are in this thread, the kind of function, and its name."""
    here, calls = threading.get_ident(), Counter()

    def count(frame, event, argument):
        code = frame.f_code
        if code.co_filename == count.__code__.co_filename:
            return
        if event == 'call' and code.co_name not in COMPREHENSIONS:
            calls[threading.get_ident() == here, 'calls', code.co_qualname] += 1
        elif event == 'c_call':
            calls[threading.get_ident() == here, 'builtins', argument.__qualname__] += 1

    with without_collection():
        threading.setprofile(count)
        sys.setprofile(count)
        try:
            yield calls
        finally:
            sys.setprofile(None)
            threading.setprofile(None)


def growth(run, n):
    """The calls in ``run(n)`` that come with each of ``n``, rather than once for all."""
    run(n)  # what is done but once in a process is done
    with counted_calls() as fewer:
        run(n)
    with counted_calls() as more:
        run(2 * n)
    return {key: (times - fewer[key]) / n for key, times in more.items()}


def check(name, cost, unit, budget, details=''):
    over = f'{cost - budget:.3g} over its budget of {budget:g}, of which a quarter is let pass'
    assert cost <= max(ROOM * budget, NOTHING), f'{name} takes {cost:.4g} {unit}, {over}{details}'


def check_calls(name, grown, kind, budget, *, here=True):
    times_of = Counter({function: times for (*where, function), times in grown.items() if where == [here, kind]})
    most = ', '.join(f'{times:.4g} {function}' for function, times in times_of.most_common(8) if times > 0)
    check(name, sum(times_of.values()), kind, budget, f': {most}')


def peak(run):
    """The most bytes in memory while something runs, beyond what was there."""
    with without_collection():
        run()  # Python keeps some of the memory that this has used, for use again
        tracemalloc.start()
        try:
            run()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


def test_everything_public_has_a_budget():
    makers = {name for name in pipekit.__all__ if isinstance(getattr(pipekit, name), FunctionType)}
    budgets = {name.partition(',')[0] for name in [*SAMPLE_BUDGETS, *BATCH_BUDGETS, *HAND_OVER_BUDGETS]}
    readers = {name for name in makers if name.startswith('read_')}  # what they take is up to other packages
    assert not makers - {'described', 'executor', 'per_worker', 'processes', 'threads', 'show'} - readers - budgets


@pytest.mark.parametrize('name', SAMPLE_BUDGETS)
def test_a_sample_takes_no_more_calls(name):
    stream, calls, builtins, _ = SAMPLE_BUDGETS[name]
    grown = growth(partial(exhaust, stream), SAMPLES)
    check_calls(name, grown, 'calls', calls)
    check_calls(name, grown, 'builtins', builtins)


@pytest.mark.parametrize(
    'name', [name for name in SAMPLE_BUDGETS if name != 'seeded']
)  # whose states take long to trace
def test_memory_does_not_grow_with_the_number_of_samples(name):
    stream, *_, budget = SAMPLE_BUDGETS[name]
    of_images = pipeline(stream, apply(load)) if is_source(stream) else stream
    check(name, peak(partial(exhaust, of_images, MANY)) / SIZE, 'samples in memory', budget)


@pytest.mark.parametrize('name', BATCH_BUDGETS)
def test_a_batch_takes_no_more_calls(name):
    make, calls, builtins, _ = BATCH_BUDGETS[name]
    grown = growth(partial(make_again, make), BATCHES)
    check_calls(name, grown, 'calls', calls)
    check_calls(name, grown, 'builtins', builtins)


@pytest.mark.parametrize('name', BATCH_BUDGETS)
def test_a_batch_is_copied_once(name):
    make, *_, budget = BATCH_BUDGETS[name]
    check(name, peak(make) / (32 * SIZE), 'batches in memory', budget)


@pytest.mark.parametrize('name', HAND_OVER_BUDGETS)
def test_a_hand_over_takes_no_more_calls(name, monkeypatch):
    monkeypatch.setattr(
        'pipekit.streams.metering.FAST_BATCH_SECONDS', math.inf
    )  # else it depends on time which batches are looked into
    iterable, calls, calls_ahead = HAND_OVER_BUDGETS[name]
    grown = growth(lambda n: loop_over(iterable(n)), 512)
    check_calls(name, grown, 'calls', calls)
    check_calls(f'{name}, ahead,', grown, 'calls', calls_ahead, here=False)


def test_memory_does_not_grow_with_the_number_of_batches():
    def passed_on(n):
        def run():
            with pipeline(range(n), prefetch(n)) as batches:
                deque(batches, maxlen=0)

        return peak(run)

    kept = (passed_on(2 * MANY) - passed_on(MANY)) / MANY
    assert kept < 1, f'prefetch keeps {kept:g} bytes for each batch'
