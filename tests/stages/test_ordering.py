from collections import Counter
from itertools import count, islice

import numpy as np
import pytest
from more_itertools import take as first_of

from pipekit import apply, expiration_pool, flatten, keep, pipeline, repeat, shard, shuffle, take


def test_shuffle_stays_within_its_window():
    values = list(shuffle(5, seed=0)(range(50)))
    assert sorted(values) == list(range(50)) != values
    assert all(value // 5 == place // 5 for place, value in enumerate(values))


def test_two_windows_are_shuffled_differently():
    values = list(shuffle(20, seed=0)(range(40)))
    assert [value - 20 for value in values[20:]] != values[:20]


def test_take_reads_no_more_than_it_needs():
    numbers = count()
    assert list(take(2)(numbers)) == [0, 1]
    assert next(numbers) == 2


def test_take_of_nothing_opens_nothing():
    assert list(pipeline(lambda: 1 / 0, take(0))) == []


def test_repeat_opens_the_stream_again():
    assert list(pipeline(lambda: iter('ab'), repeat(3))) == list('ababab')
    assert first_of(5, pipeline('ab', repeat())) == list('ababa')


def test_an_empty_stream_is_repeated_as_empty():
    assert list(pipeline([], repeat())) == []
    assert list(pipeline(range(9), keep(lambda x: x > 9), repeat())) == []


def test_shards_are_disjoint_and_complete():
    parts = [list(shard(rank, 3)(range(8))) for rank in range(3)]
    assert parts == [[0, 3, 6], [1, 4, 7], [2, 5]]


def test_shards_without_the_last_round_are_equally_long():
    parts = [list(shard(rank, 3, drop_last=True)(range(8))) for rank in range(3)]
    assert parts == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize(('pool_size', 'repetitions', 'iterations'), [(1, 1, 1), (3, 4, 1), (3, 4, 4), (50, 2, 2)])
def test_each_sample_leaves_the_expiration_pool_after_its_repetitions(pool_size, repetitions, iterations):
    stage = expiration_pool(pool_size, repetitions, iterations, seed=0)
    assert set(Counter(stage(range(20))).values()) == {repetitions}


def test_the_expiration_pool_holds_no_more_than_its_size():
    read = count()
    values = pipeline(lambda: iter(read), expiration_pool(5, 100, seed=0))
    assert set(islice(values, 300)) <= set(range(8))


def test_numpy_integers_are_ints():
    assert list(take(np.int64(2))('abc')) == ['a', 'b']


@pytest.mark.parametrize(
    ('make', 'error', 'message'),
    [
        (lambda: shard(0, 2, drop_last=None), TypeError, 'drop_last must be True or False, got None'),
        (lambda: shuffle(0), ValueError, 'window must be a positive int, got 0'),
        (lambda: shuffle(2.5), ValueError, 'window must be a positive int, got 2.5'),
        (lambda: take(-1), ValueError, 'n must be a non-negative int, got -1'),
        (lambda: take('3'), TypeError, "n must be a non-negative int, got '3'"),
        (lambda: repeat(0), ValueError, 'times must be a positive int or None, got 0'),
        (lambda: shard(2, 2), ValueError, 'rank must be less than world_size, got rank 2 of 2'),
        (lambda: shard(-1, 2), ValueError, 'rank must be a non-negative int, got -1'),
        (lambda: shard(0, 0), ValueError, 'world_size must be a positive int, got 0'),
        (lambda: expiration_pool(0, 1), ValueError, 'pool_size must be a positive int, got 0'),
        (lambda: expiration_pool(1, 1, 2), ValueError, 'iterations must be at most repetitions, got 2 of 1'),
    ],
)
def test_a_bad_argument_is_an_error_when_the_stage_is_made(make, error, message):
    with pytest.raises(error, match=message):
        make()


def draw_one(value, rng):
    return int(rng.integers(10**9))


@pytest.mark.parametrize('drop_last', [True, False])
@pytest.mark.parametrize('world_size', [2, 3, 7])
@pytest.mark.parametrize('source', [range(50), pipeline(range(5), repeat(10)), pipeline([range(25)] * 2, flatten())])
def test_ranks_draw_differently(source, world_size, drop_last):
    ranks = range(world_size)
    drawn = [
        list(pipeline(source, shard(rank, world_size, drop_last=drop_last), apply(draw_one, seed=0))) for rank in ranks
    ]
    numbers = [number for one in drawn for number in one]
    assert len(set(numbers)) == len(numbers)
