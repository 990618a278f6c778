"""With processes(n), a stream gives what it gives without them, lazily, and holds no value longer."""

import functools
import os
from dataclasses import dataclass
from itertools import count, islice

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipekit import (
    apply,
    combine_batches,
    combine_to_tuples,
    flatten,
    keep,
    mix,
    pipeline,
    prefetch,
    processes,
    repeat,
    sample,
    shuffle,
    take,
    threads,
    unpack,
)
from pipekit.describing.descriptions import same
from pipekit.streams.context import Context, Run
from pipekit.streams.cursors import START, cursor_of
from pipekit.workers.pools import WorkerPools

TWO = processes(2, ahead=8)


@pytest.fixture(scope='module')
def pools():
    pools = WorkerPools()
    yield pools
    pools.cancel()
    pools.close()


def opened(stream, pools, cursor=START):
    return stream.open(cursor, Context(run=Run(pools)))


def through(pools, function, values, workers=TWO):
    return [value for value, _ in opened(pipeline(values, apply(function, workers=workers)), pools)]


def jitter(value, rng):
    return value + rng.random()


def scale(batch, rng):
    return [value * rng.random() for value in batch]


class Broken(Exception):
    pass


def fails_at(bad, value):
    if int(value) == bad:
        raise Broken(value)
    return value


def some(n, bad):
    def numbers():
        for number in range(n):
            if number == bad:
                raise OSError(number, 'of the source')
            yield number

    return numbers


def is_kept(value):
    return int(value) % 3 != 1


def twice(value):
    return [value, value + 0.5]


def fits(chunk, value):
    return len(chunk) < 3 and sum(chunk) + value < 20


WORKERS = st.sampled_from([None, TWO, processes(2, ahead=2), threads(2)])
SEEDS = st.sampled_from([None, 0, 1])
SIZES = st.one_of(st.integers(1, 5), st.just(fits))


def batches(size, combine, drop_last, workers):
    return combine_batches(size, combine, drop_last=drop_last, workers=workers)


EACH = st.one_of(
    st.builds(lambda seed, w: apply(jitter, seed=seed, workers=w), st.integers(0, 1), WORKERS),
    st.builds(lambda bad, w: apply(functools.partial(fails_at, bad), workers=w), st.integers(0, 30), WORKERS),
    st.builds(lambda w: apply(float, workers=w), WORKERS),
)
OTHERS = st.one_of(
    st.just(keep(is_kept)),
    st.builds(lambda n: shuffle(n, seed=0), st.integers(1, 4)),
    st.just(pipeline(apply(twice), flatten())),
    st.builds(take, st.integers(0, 15)),
    st.builds(repeat, st.integers(1, 2)),
)
BATCHES = st.builds(batches, SIZES, st.sampled_from([list, tuple, sum]), st.booleans(), WORKERS)
AFTER = st.one_of(
    st.builds(lambda w: apply(repr, workers=w), WORKERS),
    st.builds(lambda w: apply(lambda batch, rng: (batch, rng.random()), seed=0, workers=w), WORKERS),
)
SOURCES = st.one_of(
    st.builds(some, st.integers(0, 20), st.one_of(st.none(), st.integers(0, 20))),
    st.just(sample(range(30), seed=0)),
    st.just(sample(range(10), replace=False, seed=0)),
    st.builds(
        lambda stage, n: mix(pipeline(range(n), stage), pipeline(range(9), repeat()), seed=0), EACH, st.integers(1, 9)
    ),
)
COMPOSITIONS = st.builds(
    lambda source, before, each, whole, after: pipeline(source, *before, each, whole, *after),
    SOURCES,
    st.lists(st.one_of(EACH, OTHERS), max_size=2),
    EACH,
    BATCHES,
    st.lists(AFTER, max_size=2),
)
LIMIT = 12


def outcome(stream, context, cursor=START, limit=LIMIT):
    pairs = []
    try:
        pairs.extend(islice(stream.open(cursor, context), limit))
    except Exception as error:
        return pairs, (type(error), error.args)
    return pairs, None


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(COMPOSITIONS, st.data())
def test_random_compositions_give_the_same_as_inline(pools, stream, data):
    pairs, error = outcome(stream, Context(run=Run(fuses=False)))
    worked = outcome(stream, Context(run=Run(pools)))
    assert worked[1] == error
    assert same(worked[0], pairs)
    if pairs:
        number = data.draw(st.integers(1, len(pairs)))
        rest = outcome(stream, Context(run=Run(pools)), cursor_of(pairs[number - 1][1]), LIMIT - number)
        assert same(rest[0], pairs[number:])
        assert rest[1] == error


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    n=st.integers(0, 13),
    bad=st.one_of(st.none(), st.integers(0, 13)),
    bad_sample=st.integers(0, 14),
    size=st.integers(1, 6),
    drop_last=st.booleans(),
)
def test_the_first_error_is_that_of_the_inline_run(pools, n, bad, bad_sample, size, drop_last):
    def stream(workers):
        load = apply(functools.partial(fails_at, bad_sample), workers=workers)
        return pipeline(some(n, bad), load, combine_batches(size, list, drop_last=drop_last))

    assert outcome(stream(TWO), Context(run=Run(pools))) == outcome(stream(None), Context())


def test_every_cursor_of_batches_made_in_workers_resumes(pools):
    stages = apply(jitter, seed=0, workers=TWO), combine_batches(3, list), apply(scale, seed=0)
    stream = pipeline(range(16), *stages)
    pairs, _ = outcome(stream, Context())
    assert len(pairs) == 6
    for number, (_, cursor) in enumerate(pairs, 1):
        assert outcome(stream, Context(run=Run(pools)), cursor) == (pairs[number:], None)


def test_a_worker_makes_whole_batches_and_only_where_it_may(pools):
    def makers(*stages):
        return {pid for batch, _ in opened(pipeline(range(12), *stages), pools) for pid in batch[1]}

    def combined(samples):
        return samples, {os.getpid()}

    def others(batch):
        return batch[0], batch[1] | {os.getpid()}

    load, here = apply(abs, workers=TWO), {os.getpid()}
    assert not makers(load, combine_batches(3, combined)) & here
    assert not makers(load, combine_batches(3, combined, workers=TWO), apply(others, workers=TWO)) & here
    assert makers(load, combine_batches(3, combined), apply(others)) > here
    assert makers(load, combine_batches(lambda chunk, value: len(chunk) < 3, combined)) == here
    assert makers(load, shuffle(3, seed=0), combine_batches(3, combined)) == here
    assert makers(load, combine_batches(3, combined, workers=threads(1))) == here
    assert not makers(load, combine_batches(3, combined, workers=processes(1, name='other'))) & here


def test_a_state_can_be_loaded_with_other_workers():
    def make(workers):
        return pipeline(
            sample(range(100), seed=0),
            apply(jitter, seed=0, workers=workers),
            combine_batches(4, list, workers=workers),
            prefetch(3),
        )

    kinds = [TWO, None, threads(2), TWO]
    inline = make(None)
    expected = [list(inline) for _ in kinds]
    inline.close()
    state = None
    for workers, epoch in zip(kinds, expected, strict=True):
        with make(workers) as batches_:
            if state is not None:
                batches_.load_state_dict(state)
            assert list(batches_) == epoch
            state = batches_.state_dict()


def test_each_pass_has_its_own_randomness(pools):
    def make(workers):
        return pipeline(range(5), apply(jitter, seed=0, workers=workers), combine_batches(2, list), prefetch())

    inline = make(None)
    expected = [list(inline) for _ in range(3)]
    inline.close()
    assert len({repr(epoch) for epoch in expected}) == 3
    with make(TWO) as epochs:
        assert [list(epochs) for _ in range(3)] == expected


def test_groups_change_no_value(pools):
    numbers = range(3000)
    assert through(pools, jitter_alone, numbers, processes(2)) == list(map(jitter_alone, numbers))


def jitter_alone(number):
    return number * 1.5


@pytest.mark.parametrize('ahead', [2, 3, 8, 50])
def test_no_more_than_ahead_are_in_flight(ahead, pools):
    read = count()
    numbers = pipeline(lambda: iter(read), apply(abs, workers=processes(2, ahead=ahead)))
    for delivered, _ in enumerate(islice(opened(numbers, pools), 300)):
        assert int(repr(read)[6:-1]) <= delivered + ahead


def test_no_more_than_ahead_batches_are_in_flight(pools):
    read = count()
    stages = apply(abs, workers=processes(2, ahead=4)), combine_batches(5, list)
    for delivered, _ in enumerate(islice(opened(pipeline(lambda: iter(read), *stages), pools), 50)):
        assert int(repr(read)[6:-1]) <= 5 * (delivered + 4)


def test_nothing_is_read_before_a_value_is_requested(pools):
    read = count()
    opened(pipeline(lambda: iter(read), apply(abs, workers=TWO)), pools)
    opened(pipeline(lambda: iter(read), apply(abs, workers=TWO), combine_batches(2)), pools)
    assert next(read) == 0


@dataclass
class Image:
    pixels: np.ndarray


def image(number):
    return Image(np.full(100_000, number))


@pytest.mark.parametrize('stages', [(), (combine_batches(2, combine_to_tuples),)], ids=['samples', 'batches'])
def test_a_value_is_freed_with_the_last_reference_of_its_consumer(stages, pools):
    import weakref

    def arrays(value):
        return value.pixels if isinstance(value.pixels, tuple) else (value.pixels,)

    values = opened(pipeline(range(30), apply(image, workers=TWO), *stages), pools)
    for value, _ in values:
        references = [weakref.ref(array) for array in arrays(value)]
        del value, _
        assert not any(reference() is not None for reference in references)


def test_batches_that_are_kept_do_not_change_even_after_close():
    stages = apply(lambda number: np.full(50_000, number), workers=TWO), combine_batches(2)
    with pipeline(range(60), *stages, prefetch()) as batches_:
        kept = [(number, batch[:, :9] if number % 2 else memoryview(batch)) for number, batch in enumerate(batches_)]
    for number, batch in kept:
        assert np.unique(np.asarray(batch)).tolist() == [2 * number, 2 * number + 1]


def test_a_batch_can_be_written_to_and_changes_no_other(pools):
    stages = apply(lambda number: np.full(50_000, number), workers=TWO), combine_batches(2)
    found = []
    for batch, _ in opened(pipeline(range(40), *stages), pools):
        found.append(batch.max())
        batch[...] = -1
    assert found == list(range(1, 40, 2))


def test_unpack_runs_in_processes(pools):
    stream = pipeline([(1, 2), (3, 4)], unpack(max, workers=TWO))
    assert [value for value, _ in opened(stream, pools)] == [2, 4]
