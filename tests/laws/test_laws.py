"""Every public stage obeys the laws, alone and in random compositions."""

from dataclasses import dataclass
from functools import partial
from operator import methodcaller
from types import FunctionType

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from more_itertools import pairwise
from toolz.curried import partition_all

import pipekit
from pipekit import (
    apply,
    apply_at,
    combine_batches,
    combine_pad,
    combine_to_tuples,
    expiration_pool,
    flatten,
    keep,
    load_by_random_id,
    mix,
    multiply,
    pipeline,
    random_apply,
    repeat,
    sample,
    sample_args,
    shard,
    shuffle,
    take,
    unpack,
    unpack_args,
    zip_apply,
)
from pipekit.testing import check_stage


class Sample(tuple):
    """A pair that can be referred to weakly: (number, array)."""


def samples(n=13):
    for number in range(n):
        yield Sample((number, np.full(number % 3 + 1, number)))


def many():
    return samples(60)


def jitter(value, rng):
    return Sample((value[0], value[1] + rng.random()))


def jitter_fields(number, array, rng):
    return Sample((number, array * rng.random()))


def is_kept(value):
    return value[0] % 3 != 1


def halves(value):
    yield Sample(value)
    if value[0] % 2:
        yield Sample((value[0], -value[1]))


def fits(chunk, value):
    return len(chunk) < 4 and sum(len(array) for _, array in chunk) + len(value[1]) <= 5


@dataclass
class Case:
    stage: object
    reads_at_most: int | None = None


PADDED = partial(combine_pad, padding_values=(0, np.min))

CASES = {
    'apply': Case(apply(Sample), 1),
    'apply, random': Case(apply(jitter, seed=0), 1),
    'unpack': Case(unpack(lambda number, array: Sample((number, array))), 1),
    'unpack, random': Case(unpack(jitter_fields, seed=0), 1),
    'keep': Case(keep(is_kept), 2),
    'flatten': Case(pipeline(apply(halves), flatten()), 2),
    'flatten, of lists': Case(pipeline(combine_batches(3, list), flatten()), 3),
    'shuffle': Case(shuffle(4, seed=0), 4),
    'take': Case(take(5), 1),
    'take nothing': Case(take(0), 0),
    'repeat': Case(repeat(3), 1),
    'repeat for ever': Case(repeat(), 1),
    'shard': Case(shard(1, 3), 3),
    'shard, full rounds': Case(shard(1, 3, drop_last=True), 3),
    'expiration_pool': Case(expiration_pool(3, repetitions=2, seed=0), 3),
    'expiration_pool, eager': Case(expiration_pool(3, 3, iterations=2, seed=0), 3),
    'combine_batches': Case(combine_batches(3, PADDED), 3),
    'combine_batches, full': Case(combine_batches(3, list, drop_last=True), 3),
    'combine_batches, adaptive': Case(combine_batches(fits, combine_to_tuples), 5),
    'a foreign stage': Case(pairwise, 2),
    'a foreign stage of toolz': Case(partition_all(2)),
    'unpack_args': Case(apply(unpack_args(lambda number, array: Sample((number, array)))), 1),
    'apply_at': Case(apply(apply_at(0, str)), 1),
    'multiply': Case(apply(multiply(np.sum)), 1),
    'zip_apply': Case(apply(zip_apply(str, np.sum)), 1),
    'random_apply': Case(apply(random_apply(0.5, jitter), seed=0), 1),
    'sample_args': Case(apply(apply_at(1, sample_args(np.add, methodcaller('normal'))), seed=0), 1),
}


@pytest.mark.parametrize('name', CASES)
def test_a_stage_obeys_the_laws(name):
    case = CASES[name]
    check_stage(case.stage, many, limit=25, reads_at_most=case.reads_at_most)
    check_stage(case.stage, samples, limit=60, reads_at_most=None)


def test_every_public_stage_and_sample_function_is_tried():
    makers = {name for name in pipekit.__all__ if isinstance(getattr(pipekit, name), FunctionType)}
    elsewhere = {'described', 'per_worker', 'processes', 'threads', 'skip', 'replace', 'retry', 'arrays', 'show'}
    elsewhere |= {name for name in makers if name.startswith('read_')}  # in tests/files
    elsewhere |= {'executor', 'seeded', 'reseeded'}  # in tests/workers/test_borrowed.py, tests/stages/test_seeding.py
    elsewhere |= {
        'rows',
        'pipeline',
        'prefetch',
        'sample',
        'mix',
        'load_by_random_id',
        'make_infinite_batch_iter',
        'show',
    }
    combiners = {name for name in makers if name.startswith('combine_to') or name == 'combine_pad'}
    assert makers - elsewhere - combiners <= {name.partition(',')[0] for name in CASES}


SOURCES = {
    'a list': [Sample(pair) for pair in samples(7)],
    'a set': frozenset((number, 'x') for number in range(7)),
    'a function': samples,
    'sample': sample([Sample(pair) for pair in samples(7)], seed=0),
    'sample, weighted': sample([Sample(pair) for pair in samples(3)], [1, 0, 2], seed=0),
    'sample in passes': sample([Sample(pair) for pair in samples(7)], replace=False, seed=0),
    'sample in weighted passes': sample([Sample(pair) for pair in samples(3)], [1, 0, 2], replace=False, seed=0),
    'sample of many': sample(range(10**9), replace=False, seed=0),
    'load_by_random_id': load_by_random_id(abs, str, ids=range(9), seed=0),
    'mix': mix(pipeline(samples, apply(jitter, seed=0)), pipeline(samples, apply(jitter, seed=0), repeat()), seed=0),
    'an iterator that has begun': pipeline(samples, shuffle(3, seed=0)).resume((0, 2)),
}


@pytest.mark.parametrize('name', SOURCES)
def test_a_source_obeys_the_laws(name):
    check_stage(pipeline(take(40), shuffle(5, seed=0)), SOURCES[name], limit=25)


@pytest.mark.parametrize('name', ['apply, random', 'shuffle', 'repeat', 'combine_batches', 'expiration_pool'])
def test_a_stage_resumes_in_a_new_process(name):
    check_stage(CASES[name].stage, samples, limit=15, fresh_process=True)


shares = st.sampled_from([(0, 1), (0, 2), (1, 2), (2, 3)])
stages = st.one_of(  # from samples to samples, so that they may stand in any order
    st.just(apply(Sample)),
    st.builds(lambda seed: apply(jitter, seed=seed), st.integers(0, 1)),
    st.builds(lambda seed: unpack(jitter_fields, seed=seed), st.integers(0, 1)),
    st.just(keep(is_kept)),
    st.just(pipeline(apply(halves), flatten())),
    st.builds(lambda n, seed: shuffle(n, seed=seed), st.integers(1, 5), st.integers(0, 1)),
    st.builds(take, st.integers(0, 20)),
    st.builds(repeat, st.integers(1, 3)),
    st.builds(lambda share, drop_last: shard(*share, drop_last=drop_last), shares, st.booleans()),
    st.builds(lambda n, m: expiration_pool(n, m, seed=0), st.integers(1, 4), st.integers(1, 3)),
    st.builds(lambda n: pipeline(combine_batches(n, iter), flatten()), st.integers(1, 4)),
    st.just(pipeline(combine_batches(fits, iter), flatten())),
    st.just(pipeline(pairwise, apply(iter), flatten())),
)
compositions = st.builds(
    lambda outer, inner: pipeline(*outer, pipeline(*inner)),
    st.lists(stages, max_size=2),
    st.lists(stages, min_size=1, max_size=2),
)
sources = st.one_of(
    st.sampled_from([samples, [Sample(pair) for pair in samples(9)], SOURCES['sample in passes']]),
    st.builds(
        lambda n, stage, seed: mix(*[pipeline(samples, stage)] * n, seed=seed),
        st.integers(1, 3),
        stages,
        st.integers(0, 1),
    ),
)


@given(compositions, sources)
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_random_compositions_obey_the_laws(stage, source):
    check_stage(stage, source, limit=12)
