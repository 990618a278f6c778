import pickle
import time
import tracemalloc
from collections import Counter
from itertools import count, islice

import numpy as np
import pytest
from more_itertools import chunked, take

from pipekit import apply, load_by_random_id, mix, pipeline, repeat, sample


class MapStyle:
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return 'abc'[index]


@pytest.mark.parametrize('sequence', ['abc', ['a', 'b', 'c'], ('a', 'b', 'c'), np.array(['a', 'b', 'c']), MapStyle()])
def test_any_sequence_is_sampled_alike(sequence):
    assert take(5, sample(sequence, seed=0)) == take(5, sample('abc', seed=0))


def test_every_element_is_drawn_about_equally_often():
    counts = Counter(islice(sample(range(10), seed=0), 10000))
    assert min(counts.values()) > 900
    assert max(counts.values()) < 1100


def test_weights_are_relative_and_zero_is_never():
    counts = Counter(islice(sample('abcd', [0, 1, 3, 0], seed=0), 10000))
    assert set(counts) == {'b', 'c'}
    assert 2.7 < counts['c'] / counts['b'] < 3.3


def test_without_replacement_each_pass_has_each_element_once_in_a_new_order():
    first, second, third = islice(chunked(sample(range(100), replace=False, seed=0), 100), 3)
    assert sorted(first) == sorted(second) == sorted(third) == list(range(100))
    assert first != second != third


def test_weighted_passes_have_the_likely_first_and_the_impossible_never():
    passes = list(islice(chunked(sample('abc', [0, 1, 99], replace=False, seed=0), 2), 200))
    assert all(sorted(letters) == ['b', 'c'] for letters in passes)
    assert sum(letters[0] == 'c' for letters in passes) > 190


def test_every_order_of_few_elements_is_about_equally_likely():
    orders = Counter(tuple(order) for order in islice(chunked(sample('abc', replace=False, seed=0), 3), 6000))
    assert len(orders) == 6
    assert min(orders.values()) > 850


def test_a_billion_ids_are_shuffled_in_constant_memory():
    tracemalloc.start()
    drawn = take(5000, sample(range(10**9), replace=False, seed=0))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(set(drawn)) == 5000
    assert peak < 5e6


@pytest.mark.parametrize('replace', [True, False])
def test_a_far_draw_is_reached_at_once(replace):
    elements = sample(range(10**9), replace=replace, seed=0)
    start = time.perf_counter()
    values = elements.resume(10**12)
    assert len(take(3, values)) == 3
    assert values.cursor == 10**12 + 3
    assert time.perf_counter() - start < 1  # a step per draw would take hours


def test_equal_seeds_in_one_pipeline_draw_differently():
    first = take(50, pipeline(sample(range(1000), seed=0)))
    mixed = mix(sample(range(1000), seed=0), sample(range(1000), seed=0), weights=[1, 1], seed=0)
    assert len(set(take(50, mixed))) > 40
    assert first != take(50, mixed)


def test_a_mix_takes_each_source_in_its_order_and_at_its_weight():
    values = take(4000, mix(pipeline('ab', repeat()), pipeline('xy', repeat()), weights=[3, 1], seed=0))
    letters = [value for value in values if value in 'ab']
    assert letters[:4] == ['a', 'b', 'a', 'b']
    assert 2850 < len(letters) < 3150


def test_a_mix_ends_with_the_first_source_that_ends():
    values = list(mix([1, 2, 3], pipeline('x', repeat()), seed=0))
    assert [value for value in values if value != 'x'] == [1, 2, 3]


def test_a_mix_that_has_ended_stays_ended():
    values = iter(mix([1], pipeline('x', repeat()), seed=0))
    list(values)
    assert list(values) == []


def test_a_source_of_a_mix_may_be_a_function_or_an_iterator():
    assert sorted(mix(lambda: iter([1]), iter([1]), seed=0)) in ([1], [1, 1])


def test_load_by_random_id_gives_tuples_or_the_bare_value_of_one_loader():
    assert next(load_by_random_id(str.upper, ids='a')) == 'A'
    assert next(load_by_random_id(str.upper, ord, len, ids='a')) == ('A', 97, 1)


def test_a_pipeline_goes_on_where_a_loading_iterator_is():
    samples = load_by_random_id(str.upper, ids='abc', seed=0)
    all_of_them = take(6, load_by_random_id(str.upper, ids='abc', seed=0))
    assert take(2, samples) == all_of_them[:2]
    rest = pipeline(samples, apply(str.lower))
    assert take(4, rest) == [letter.lower() for letter in all_of_them[2:]]
    assert take(4, rest) == [letter.lower() for letter in all_of_them[2:]]


@pytest.mark.parametrize(
    ('make', 'error', 'message'),
    [
        (lambda: sample([]), ValueError, r'sample needs a sequence with at least one element, got \[\]'),
        (lambda: sample(5), TypeError, 'sample needs a sequence, something with len and .*, got 5'),
        (lambda: sample({'a': 1}), TypeError, "sample needs a sequence, something with len and .*, got {'a': 1}"),
        (lambda: sample(iter('abc')), TypeError, 'sample needs a sequence'),
        (
            lambda: sample('abc', [1, 2]),
            ValueError,
            r'weights must have one number for each of 3 elements, got \[1, 2\]',
        ),
        (lambda: sample('abc', [1, -2, 1]), ValueError, 'finite and non-negative, got -2.0 at 1'),
        (lambda: sample('abc', [1, float('nan'), 1]), ValueError, 'finite and non-negative, got nan at 1'),
        (lambda: sample('abc', [1, float('inf'), 1]), ValueError, 'finite and non-negative, got inf at 1'),
        (lambda: sample('abc', [0, 0, 0]), ValueError, r'must not all be zero, got \[0, 0, 0\]'),
        (lambda: sample('abc', ['a', 'b', 'c']), TypeError, 'weights must be numbers'),
        (lambda: sample('abc', 3), TypeError, 'weights must be numbers, one for each of 3 elements, got 3'),
        (lambda: sample('abc', replace='no'), TypeError, "replace must be True or False, got 'no'"),
        (lambda: sample('abc', seed=-1), ValueError, 'seed must be a non-negative int or None, got -1'),
        (lambda: sample('abc', seed=1.5), ValueError, 'seed must be a non-negative int or None, got 1.5'),
        (mix, TypeError, 'mix needs at least one source'),
        (lambda: mix([1], 5), TypeError, 'expected a source, got 5'),
        (lambda: mix([1], [2], weights=[1]), ValueError, 'weights must have one number for each of 2 sources'),
        (lambda: load_by_random_id(ids='abc'), TypeError, 'at least one loader'),
        (
            lambda: load_by_random_id(abs, ids=[]),
            TypeError,
            r'ids must be a sequence .*, got \[\]',
        ),
        (
            lambda: mix(len, [1]),
            TypeError,
            r'got len, which takes arguments; did you mean apply\(len\)',
        ),
        (
            lambda: load_by_random_id('load', ids='abc'),
            TypeError,
            "each loader must be a function of an id, got 'l",
        ),
    ],
)
def test_bad_input_is_told_at_once(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_the_draws_of_a_seed_stay_what_they_are():
    assert take(8, sample(range(100), seed=0)) == [12, 28, 61, 28, 44, 77, 0, 95]


@pytest.mark.parametrize(
    'weights',
    [
        {'a': 1, 'b': 2, 'c': 3},
        {'a': 1, 'b': 2, 'c': 3}.keys(),
        {1, 2, 3},
        frozenset([1, 2, 3]),
        np.ma.masked_array([1, 2, 3], [False, True, False]),
    ],
)
def test_weights_without_an_order_or_with_a_mask_are_refused(weights):
    with pytest.raises(TypeError, match='weights must be a list or an array, in the order of the elements'):
        sample('abc', weights)
    with pytest.raises(TypeError, match='weights must be a list or an array, in the order of the sources'):
        mix('a', 'b', 'c', weights=weights)


def test_weights_that_never_end_are_refused():
    with pytest.raises(ValueError, match='weights must have one number for each of 3 elements'):
        sample('abc', count())


@pytest.mark.parametrize('make', [list, np.array])
@pytest.mark.parametrize('by_name', [True, False])
def test_weights_that_are_changed_later_change_nothing(make, by_name):
    weights = make([1, 0, 0])
    drawn = sample('abc', weights=weights, seed=0) if by_name else sample('abc', weights, seed=0)
    text = repr(drawn)
    weights[2] = 1
    assert repr(drawn) == text
    assert set(take(20, drawn)) == set(take(20, pickle.loads(pickle.dumps(drawn)))) == {'a'}
    mixed = mix('a' * 9, 'b' * 9, weights=(shares := make([1, 0])), seed=0)
    shares[1] = 9
    assert ''.join(pickle.loads(pickle.dumps(mixed))) == 'a' * 9


@pytest.mark.parametrize('replace', [True, False])
def test_a_sequence_that_has_grown_is_drawn_from_as_it_was(replace):
    letters = list('abc')
    drawn = sample(letters, replace=replace, seed=0)
    letters.append('d')
    with pytest.warns(RuntimeWarning, match='had 3 elements when sample was called, and has 4 now; only the first 3'):
        assert set(take(99, drawn)) == set('abc')


@pytest.mark.parametrize('replace', [True, False])
def test_a_sequence_that_has_shrunk_says_so(replace):
    letters = list('abc')
    drawn = sample(letters, replace=replace, seed=0)
    letters.pop()
    with pytest.raises(IndexError, match='had 3 elements when sample was called, and has 2 now; call it again'):
        take(1, drawn)
