from collections import Counter, namedtuple
from dataclasses import dataclass
from itertools import count, islice

import numpy as np
import pytest
from more_itertools import take as first_of

from pipekit import (
    apply,
    apply_at,
    combine_batches,
    expiration_pool,
    flatten,
    keep,
    pipeline,
    random_apply,
    repeat,
    sample,
    shard,
    shuffle,
    take,
    unpack,
)

Point = namedtuple('Point', 'x y')


@dataclass
class Record:
    x: int
    y: int


def subtract(x, y):
    return x - y


def draw(value, rng):
    return rng.random()


def optional_draw(value, rng=None):
    return rng.random()


def any_keywords(value, **kwargs):
    return kwargs['rng'].random()


def test_apply_gives_one_value_for_each():
    assert list(apply(lambda x: x + 1)([1, 2])) == [2, 3]


@pytest.mark.parametrize('value', [(5, 3), [5, 3], Point(5, 3), Record(5, 3), {'x': 5, 'y': 3}, {'y': 3, 'x': 5}])
def test_unpack_passes_the_fields(value):
    assert list(unpack(subtract)([value])) == [2]


def test_unpack_of_what_has_no_fields_shows_it():
    with pytest.raises(TypeError, match='a tuple, a mapping or a dataclass to unpack for subtract, got int'):
        list(unpack(subtract)([5]))


@pytest.mark.parametrize('func', [draw, optional_draw, any_keywords, random_apply(1, draw), apply_at(0, draw)])
def test_a_random_function_draws_the_same_for_a_seed(func):
    stage = apply(func, seed=3)
    values = [((), 1), ((), 2)]
    assert list(stage(values)) == list(stage(values)) == list(apply(func, seed=3)(values))


def test_a_random_function_draws_anew_for_each_sample_stage_and_seed():
    draws = [list(pipeline('ab', apply(draw, seed=seed))) for seed in (0, 1)]
    draws.append(list(pipeline('ab', apply(str, seed=None), apply(draw, seed=1), apply(draw, seed=1))))
    draws.append(list(pipeline('ab', apply(draw, seed=1), apply(draw, seed=1), apply(draw, seed=1))))
    assert len(set(np.ravel(draws))) == 8


def test_what_a_sample_draws_does_not_depend_on_the_others():
    def draw_often(value, rng):
        return [rng.random() for _ in range(value)][-1]

    few, many = (list(apply(draw_often, seed=0)(values)) for values in ([1, 2], [9, 2]))
    assert few[1] == many[1]


def test_inserting_a_stage_with_another_seed_changes_no_randomness():
    before = list(pipeline('ab', apply(draw, seed=0)))
    assert list(pipeline('ab', take(2), shuffle(1, seed=5), take(2), apply(draw, seed=0))) != before
    assert list(pipeline('ab', apply(ord), apply(draw, seed=0))) == before


def test_without_a_seed_a_random_function_draws_anew_in_each_description_only():
    stage = apply(draw)
    assert list(stage('ab')) == list(stage('ab'))
    assert list(stage('ab')) != list(apply(draw)('ab'))


def test_a_generator_that_is_kept_is_not_used_for_other_samples():
    lazy = pipeline([1, 2, 3], apply(lambda value, rng: rng, seed=0))
    eager = pipeline([1, 2, 3], apply(draw, seed=0))
    assert [rng.random() for rng in list(lazy)] == list(eager)


def test_keep_drops_the_others():
    assert list(keep(lambda x: x % 2)(range(6))) == [1, 3, 5]


def test_keep_takes_the_truth_of_anything():
    assert list(keep(len)(['a', '', 'b'])) == ['a', 'b']


def test_flatten_takes_anything_to_iterate_over():
    assert list(flatten()([[1], (2, 3), {4: 5}, 'ab', iter([6]), np.array([7])])) == [1, 2, 3, 4, 'a', 'b', 6, 7]


def test_flatten_says_what_it_cannot_iterate_over():
    with pytest.raises(TypeError, match='flatten needs samples to iterate over, got int'):
        list(flatten()([[1], 2]))


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


def test_each_pass_draws_anew_and_the_first_one_as_without_repeat():
    once, twice = (pipeline('abc', apply(draw, seed=0), *stages) for stages in ([], [repeat(2)]))
    assert list(twice)[:3] == list(once)
    assert len(set(twice)) == 6


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


def test_a_short_tail_is_kept():
    assert list(combine_batches(2, list)('abc')) == [['a', 'b'], ['c']]


def test_a_short_tail_is_dropped_on_request():
    assert list(combine_batches(2, list, drop_last=True)('abc')) == [['a', 'b']]


def test_batches_are_arrays_in_the_structure_of_a_sample():
    ((images, labels),) = combine_batches(2)([(np.zeros((3, 4)), 1), (np.ones((3, 4)), 2)])
    assert images.shape == (2, 3, 4)
    assert labels.tolist() == [1, 2]


def test_an_adaptive_batch_begins_with_what_did_not_fit():
    stage = combine_batches(lambda chunk, sample: sum(chunk) + sample <= 5, list)
    assert list(stage([1, 2, 2, 4, 9, 1])) == [[1, 2, 2], [4], [9], [1]]


def test_the_last_adaptive_batch_is_dropped_on_request():
    assert list(combine_batches(lambda chunk, sample: len(chunk) < 2, list, drop_last=True)('abc')) == [['a', 'b']]


@pytest.mark.parametrize('stage', [apply(next), keep(next), unpack(next), combine_batches(1, lambda _: next(iter([])))])
def test_a_stray_stop_iteration_does_not_end_the_data_silently(stage):
    with pytest.raises(RuntimeError):
        list(stage([(iter([]),)] if 'unpack' in repr(stage) else [iter([])]))


@pytest.mark.parametrize(
    ('make', 'error', 'message'),
    [
        (lambda: apply(5), TypeError, 'func must be a function of a sample, got 5'),
        (lambda: apply(take(2)), TypeError, r'func must be a function of a sample, got the stage take\(2\)'),
        (
            lambda: apply(subtract, seed=0),
            TypeError,
            'seed=0 for subtract, which takes no argument rng',
        ),
        (lambda: apply(draw, seed='a'), TypeError, "seed must be a non-negative int or None, got 'a'"),
        (lambda: unpack(None), TypeError, 'func must be a function of a sample, got None'),
        (lambda: keep([1]), TypeError, r'predicate must be a function of a sample, got \[1\]'),
        (lambda: keep(take(2)), TypeError, r'predicate must be a function of a sample, got the stage take\(2\)'),
        (lambda: keep(draw), TypeError, 'predicate cannot be random, got draw, which takes rng'),
        (lambda: combine_batches(2, draw), TypeError, 'combine cannot be random, got draw, which takes rng'),
        (
            lambda: combine_batches(2, take(2)),
            TypeError,
            'combine must be a function of a list of samples, got the stage',
        ),
        (lambda: combine_batches(2, drop_last='no'), TypeError, "drop_last must be True or False, got 'no'"),
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
        (lambda: combine_batches(0), ValueError, 'batch_size must be a positive int or a function, got 0'),
        (lambda: combine_batches(2.5), ValueError, 'batch_size must be a positive int or a function, got 2.5'),
        (lambda: combine_batches(True), TypeError, 'batch_size must be a positive int or a function, got True'),
        (lambda: combine_batches('2'), TypeError, "batch_size must be a positive int or a function, got '2'"),
        (lambda: combine_batches(2, 'list'), TypeError, "combine must be a function of a list of samples, got 'list'"),
    ],
)
def test_bad_input_is_told_at_once(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_numpy_integers_are_ints():
    assert list(take(np.int64(2))('abc')) == ['a', 'b']


def test_samples_that_differ_in_a_batch_are_named():
    with pytest.raises(ValueError, match=r'sample\[0\] is float64\[2\] in sample 0 .* float64\[3\] in sample 1'):
        list(combine_batches(2)([(np.zeros(2), 0), (np.zeros(3), 0)]))


def test_an_endless_stream_is_combined_lazily():
    assert next(iter(pipeline(sample('ab', seed=0), combine_batches(3, ''.join)))) == 'aab'
