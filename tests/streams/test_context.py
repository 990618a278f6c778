"""Nothing in ``Context.run`` changes a value or a cursor."""

from itertools import islice, product
from operator import itemgetter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipekit import (
    apply,
    arrays,
    combine_batches,
    combine_to_arrays,
    expiration_pool,
    flatten,
    keep,
    mix,
    pipeline,
    processes,
    repeat,
    replace,
    retry,
    sample,
    shard,
    shuffle,
    skip,
    take,
    threads,
    unpack,
)
from pipekit.describing.descriptions import same
from pipekit.memory.blocks import BlockPool
from pipekit.streams.context import Context, Run
from pipekit.streams.cursors import START
from pipekit.streams.failures import Failures
from pipekit.streams.metering import Meter
from pipekit.workers.pools import WorkerPools

LIMIT = 30
TWO = threads(2)


def pair(value):
    return value, value


def jitter(value, rng):
    return value, rng.random()


def jitter_fields(*fields, rng):
    return (*fields, rng.random())


def is_odd(value):
    return sum(str(value).encode()) % 2


def refuse_odd(value):
    if is_odd(value):
        raise ValueError(value)
    return value


def fits(chunk, value):
    return len(chunk) < 3


STAGES = {
    'apply': apply(pair, workers=TWO),
    'apply, random': apply(jitter, seed=0, workers=TWO),
    'apply, skip': apply(refuse_odd, on_error=skip(ValueError, budget=1.0), workers=TWO),
    'apply, replace': apply(refuse_odd, on_error=replace(pair, ValueError)),
    'apply, retry': apply(pair, on_error=retry(2, ValueError)),
    'unpack': pipeline(apply(pair), unpack(jitter_fields, seed=1, workers=TWO)),
    'keep': keep(is_odd),
    'flatten': pipeline(apply(pair), flatten()),
    'shuffle': shuffle(4, seed=0),
    'take': take(9),
    'repeat': repeat(2),
    'shard': shard(1, 2),
    'expiration_pool': expiration_pool(3, 2, seed=0),
    'combine_batches': combine_batches(2, workers=TWO),
    'combine_batches, full': combine_batches(2, list, drop_last=True),
    'combine_batches, adaptive': combine_batches(fits, list),
}
SOURCES = {
    'a range': range(20),
    'arrays': arrays(np.arange(20)),
    'sample': sample(range(20), seed=0),
    'passes': sample(arrays(np.arange(20)), replace=False, seed=0),
    'mix': mix(sample(range(20), seed=0), pipeline(range(20), repeat()), seed=0),
}
PARTS_OF_RUN = {
    'pools': [None, WorkerPools],
    'meter': [None, Meter, lambda: Meter(is_exact=True)],
    'memory': [None, BlockPool],
    'failures': [Failures],  # without it, the failures of each pass are counted apart
    'fuses': [None, lambda: False],
}
RUNS = [
    {name: make for name, make in zip(PARTS_OF_RUN, makes, strict=True) if make is not None}
    for makes in product(*PARTS_OF_RUN.values())
]


def pairs(stream, makes, limit=LIMIT, cursor=START):
    """The first pairs of a stream, in a run with these parts; an error as the last one."""
    run = Run(**{name: make() for name, make in ({'failures': Failures} | makes).items()})
    found = []
    try:
        found.extend(islice(stream.open(cursor, Context(run=run)), limit))
    except Exception as error:
        found.append((type(error), str(error)))
    finally:
        if run.pools is not None:
            run.pools.close()
    return found


def test_every_part_of_a_run_is_varied():
    assert list(Run._fields) == list(PARTS_OF_RUN)


@pytest.mark.parametrize('source', SOURCES)
@pytest.mark.parametrize('stage', STAGES)
def test_a_run_changes_no_value_and_no_cursor(source, stage):
    stream = pipeline(SOURCES[source], STAGES[stage])
    expected = pairs(stream, {})
    for run in RUNS:
        assert same(pairs(stream, run), expected), run


@given(
    st.sampled_from(sorted(SOURCES)),
    st.lists(st.sampled_from(sorted(STAGES)), max_size=4),
    st.sampled_from(RUNS),
    st.data(),
)
@settings(max_examples=150, deadline=None)
def test_a_run_changes_nothing_in_any_composition_at_any_cursor(source, names, run, data):
    ends = take(50)  # else the search for a sample that is not skipped may have no end
    stream = pipeline(SOURCES[source], ends, *(STAGES[name] for name in names))
    expected = pairs(stream, {})
    assert same(pairs(stream, run), expected)
    k = data.draw(st.integers(0, len(expected) - 1)) if expected else 0
    if expected and not isinstance(expected[k][0], type):
        assert same(pairs(stream, run, LIMIT - k - 1, expected[k][1]), pairs(stream, {}, LIMIT - k - 1, expected[k][1]))


@pytest.mark.parametrize('combine', [combine_to_arrays, np.stack])
def test_a_run_changes_no_large_batch(combine):
    images = np.arange(6 << 19, dtype=np.uint8).reshape(6, 1 << 19)
    stream = pipeline(arrays(images=images), apply(itemgetter('images')), combine_batches(2, combine, workers=TWO))
    assert [value.nbytes for value, _ in pairs(stream, {})] == [1 << 20] * 3
    for run in RUNS:
        assert same(pairs(stream, run), pairs(stream, {})), run


def test_a_run_changes_no_batch_made_in_processes():
    workers = processes(2)
    stream = pipeline(range(20), apply(jitter, seed=0, workers=workers), combine_batches(3, list, drop_last=True))
    expected = pairs(stream, {})
    assert len(expected) == 6
    for run in [run for run in RUNS if 'pools' in run and len(run) in {1, len(PARTS_OF_RUN)}]:
        assert same(pairs(stream, run), expected), run
