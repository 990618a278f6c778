from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pytest

from pipekit import apply, apply_at, flatten, keep, pipeline, random_apply, take, unpack

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


def test_what_a_sample_draws_does_not_depend_on_the_others():
    def draw_often(value, rng):
        return [rng.random() for _ in range(value)][-1]

    few, many = (list(apply(draw_often, seed=0)(values)) for values in ([1, 2], [9, 2]))
    assert few[1] == many[1]


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
    with pytest.raises(TypeError, match='flatten needs iterable samples, got int'):
        list(flatten()([[1], 2]))


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
    ],
)
def test_a_bad_argument_is_an_error_when_the_stage_is_made(make, error, message):
    with pytest.raises(error, match=message):
        make()
