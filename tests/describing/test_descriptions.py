import copy
import functools
import io
import math
import operator
import pickle
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from unittest.mock import Mock

import numpy as np
import pytest
import toolz

from pipekit import apply, combine_batches, combine_pad, pipeline, sample, shuffle, skip, threads
from pipekit.describing.descriptions import (
    Description,
    FactoryCall,
    UnseededEntropy,
    described,
    fresh_seed,
    is_described,
    same,
)

Pair = namedtuple('Pair', 'image label')
Other = namedtuple('Other', 'image label')
nan = math.nan


@dataclass
class Load:
    images: np.ndarray
    scale: float = 1.0

    def __call__(self, id):
        return self.images[id] * self.scale


class Ambiguous:
    def __eq__(self, other):
        return np.zeros(2) == 0

    __hash__ = None


class Unequal:
    def __eq__(self, other):
        raise RuntimeError

    __hash__ = None


def keep_sample(sample):
    return sample


def jitter(image, rng):
    return image + rng.random()


@described
def described_with(*args, **kwargs):
    return Description()


VALUES = [
    lambda: 1,
    lambda: True,
    lambda: 1.0,
    lambda: 'a',
    lambda: None,
    lambda: float('nan'),
    lambda: [1, float('nan')],
    lambda: (1, 2),
    lambda: Pair(1, 2),
    lambda: Other(1, 2),
    lambda: {'a': 1, 'b': np.zeros(2)},
    lambda: OrderedDict(a=1),
    lambda: {1, 2},
    lambda: np.zeros(2),
    lambda: np.zeros(2, np.float32),
    lambda: np.zeros((2, 1)),
    lambda: np.array([1, nan]),
    lambda: np.array(None),
    lambda: np.array([None, 'a']),
    lambda: np.array([1], object),
    lambda: np.float64(1),
    lambda: functools.partial(np.add, np.zeros(2), out=None),
    lambda: functools.partial(np.add, np.ones(2), out=None),
    lambda: functools.partial(max, key=abs, default=0),
    lambda: toolz.curry(np.add)(np.zeros(2)),
    lambda: toolz.curry(np.add)(np.ones(2)),
    lambda: operator.methodcaller('normal', scale=np.zeros(1)),
    lambda: operator.methodcaller('normal', scale=np.ones(1)),
    lambda: operator.attrgetter('a.b'),
    lambda: operator.itemgetter(1),
    lambda: Load(np.zeros(2)),
    lambda: Load(np.ones(2)),
    lambda: keep_sample,
    lambda: np.mean,
    lambda: Load,
    lambda: apply(Load(np.zeros(2))),
    lambda: pipeline([1, 2], apply(abs)),
]


@pytest.mark.parametrize('first', range(len(VALUES)))
def test_values_are_the_same_exactly_if_they_are_made_alike(first):
    for second, make in enumerate(VALUES):
        assert same(VALUES[first](), make()) == (first == second), (first, second)


@pytest.mark.parametrize('make', VALUES)
def test_descriptions_of_the_same_are_equal_and_hash_alike(make):
    one, other = described_with(make(), a=make()), described_with(make(), a=make())
    assert one == other
    assert hash(one) == hash(other)
    assert one != described_with(make(), a=[make()])


@pytest.mark.parametrize('make', VALUES)
def test_descriptions_survive_pickle_and_copies(make):
    made = described_with(make(), a=make())
    assert pickle.loads(pickle.dumps(made)) == copy.deepcopy(made) == copy.copy(made) == made


def test_the_order_of_keys_makes_no_difference():
    assert same({'a': 1, 'b': 2}, {'b': 2, 'a': 1})
    assert same(functools.partial(max, key=abs, default=0), functools.partial(max, default=0, key=abs))
    assert described_with(a=1, b=2) == described_with(b=2, a=1)


def test_keys_and_lengths_make_one():
    assert not same({'a': None}, {'b': None})
    assert not same({'a': 1}, {'a': 1, 'b': 2})
    assert not same([1], [1, 1])
    assert not same((), (1,))


def test_lambdas_are_the_same_only_by_identity():
    one = lambda x: x  # noqa: E731
    assert apply(one) == apply(one)
    assert apply(one) != apply(lambda x: x)


@pytest.mark.parametrize('make', [Ambiguous, Unequal])
def test_what_cannot_be_compared_is_the_same_only_by_identity(make):
    value = make()
    assert same([value], [value])
    assert not same(make(), make())


def test_defaults_and_names_of_arguments_make_no_difference():
    assert combine_batches(3) == combine_batches(batch_size=3) == combine_batches(3, drop_last=False)
    assert combine_batches(3) != combine_batches(3, drop_last=True)
    assert combine_batches(3, functools.partial(combine_pad, ratio=0)) != combine_batches(3, combine_pad)


def test_a_description_equals_nothing_else():
    assert combine_batches(3) != 'combine_batches(3)'
    assert combine_batches(3) != shuffle(3, seed=0)
    assert FactoryCall(max, (1,), {}) != 1


def test_a_call_of_a_builtin_without_a_signature_is_compared_as_written():
    assert FactoryCall(dict, ([],), {}) == FactoryCall(dict, ([],), {})
    assert FactoryCall(dict, (), {'a': 1}) != FactoryCall(dict, ([('a', 1)],), {})


@pytest.mark.parametrize(
    ('made', 'expected'),
    [
        (combine_batches(batch_size=3), 'combine_batches(batch_size=3)'),
        (shuffle(5, seed=17), 'shuffle(5, seed=17)'),
        (shuffle(window=5), 'shuffle(window=5)'),
        (apply(jitter), 'apply(jitter)'),
        (sample('abc', replace=False), "sample('abc', replace=False)"),
    ],
)
def test_what_prints_is_what_was_typed(made, expected):
    assert repr(made) == expected


@pytest.mark.parametrize('make', [lambda: apply(jitter), lambda: shuffle(5), lambda: sample('abc')])
def test_a_copy_keeps_the_seed_that_nobody_gave(make):
    made = make()
    for copied in (pickle.loads(pickle.dumps(made)), copy.copy(made), copy.deepcopy(made)):
        assert isinstance(copied.seed, UnseededEntropy)
        assert copied.seed == made.seed
        assert copied == made
        assert repr(copied) == repr(made)
        assert copied.fingerprint() == made.fingerprint()
    assert make() != made


def test_a_fresh_seed_is_part_of_the_fingerprint_and_a_given_one_of_the_code():
    assert shuffle(5).fingerprint() != shuffle(5).fingerprint()
    assert shuffle(5, seed=0).fingerprint() == ['shuffle(5, seed=0)']


def test_fresh_seeds_are_ints_of_128_bits():
    seeds = [fresh_seed() for _ in range(100)]
    assert len(set(seeds)) == 100
    assert all(isinstance(seed, UnseededEntropy) and 0 <= seed < 2**128 for seed in seeds)
    assert type(pickle.loads(pickle.dumps(seeds[0]))) is UnseededEntropy


@pytest.mark.parametrize(
    ('made', 'names'),
    [
        (combine_batches(3), {combine_batches}),
        (
            combine_batches(3, combine_pad, drop_last=True),
            {combine_batches, combine_pad, operator.call, functools.partial},
        ),
    ],
)
def test_a_pickle_names_the_factory_and_what_it_was_given(made, names):
    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            found.add(super().find_class(module, name))
            return super().find_class(module, name)

    found = set()
    assert Unpickler(io.BytesIO(pickle.dumps(made))).load() == made
    assert found == names


def test_a_deep_copy_shares_nothing():
    made = described_with([1], a=[2])
    copied = copy.deepcopy(made)
    assert copied._call.args[0] is not made._call.args[0]
    assert copied._call.kwargs['a'] is not made._call.kwargs['a']


@pytest.mark.parametrize(
    ('made', 'expected'),
    [
        (apply(jitter, workers=threads(2), on_error=skip(), seed=0), 'apply(jitter)'),
        (shuffle(5, seed=17), 'shuffle(5)'),
        (combine_batches(3, drop_last=True), 'combine_batches(3, drop_last=True)'),
        (pipeline('abc').source, "'abc'"),
    ],
)
def test_the_short_code_leaves_out_where_and_how_it_runs(made, expected):
    assert made.short_code() == expected


def test_a_factory_is_distinguished_from_other_functions():
    assert all(map(is_described, [apply, shuffle, described_with]))
    assert not any(map(is_described, [jitter, apply(jitter), apply(jitter, seed=0), Mock(), None]))


def test_what_a_described_factory_returns_must_be_a_description():
    with pytest.raises(TypeError, match='abs, marked with described, must return a stage or a source, got 3'):
        described(abs)(-3)


@pytest.mark.parametrize('left_out', [(), ('b',), ('a', 'c'), ('a', 'b', 'c', 'd'), ('x', 'y')])
def test_a_call_without_some_arguments_keeps_the_order_of_the_others(left_out):
    # It is in saved states, which other processes read: it must not be that of a set.
    call = FactoryCall(dict, (), {'d': 1, 'c': 2, 'b': 3, 'a': 4})
    assert list(call.without(*left_out).kwargs) == [name for name in 'dcba' if name not in left_out]
