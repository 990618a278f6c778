import functools
import operator
import pickle
from collections import namedtuple
from dataclasses import dataclass, is_dataclass, replace

import numpy as np
import pytest
import toolz
from hypothesis import given
from hypothesis import strategies as st

from pipekit import apply, apply_at, multiply, random_apply, sample_args, take, unpack_args, zip_apply
from pipekit.stages.functions import may_take_rng, takes_rng

Pair = namedtuple('Pair', 'image label')


@dataclass(frozen=True, slots=True)
class Sample:
    image: object
    label: object


def tagged(value, rng):
    return value, rng


def keyword_only(value, *, rng=None):
    return value, rng


def plain(value):
    return value


def with_options(value, **options):
    return value, options


class Augment:
    def __call__(self, value, rng):
        return value, rng

    def method(self, value, *, rng):
        return value, rng


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ('path', 'sample', 'expected'),
    [
        (1, (1, -2), (1, 2)),
        (-1, (1, -2), (1, 2)),
        (np.int64(1), (1, -2), (1, 2)),
        (np.uint8(1), [1, -2], [1, 2]),
        (-2, [-1, 2], [1, 2]),
        ('label', Pair(1, -2), Pair(1, 2)),
        (1, Pair(1, -2), Pair(1, 2)),
        (-1, Pair(1, -2), Pair(1, 2)),
        ('label', {'image': 1, 'label': -2}, {'image': 1, 'label': 2}),
        (0, {0: -1}, {0: 1}),
        ((0, 'a'), {(0, 'a'): -1}, {(0, 'a'): 1}),
        ('label', Sample(1, -2), Sample(1, 2)),
    ],
)
def test_apply_at_changes_one_field(path, sample, expected):
    changed = apply_at(path, abs)(sample)
    assert (changed, type(changed)) == (expected, type(expected))


@pytest.mark.parametrize(
    ('path', 'sample', 'expected'),
    [
        (('meta', 'age'), {'meta': {'age': -1}, 'image': 2}, {'meta': {'age': 1}, 'image': 2}),
        ((1, 0), (5, (-1, 2)), (5, (1, 2))),
        ((0, -1, 'label'), [({}, Pair(1, -2))], [({}, Pair(1, 2))]),
        (('image', 1, 'label'), Sample([0, Sample(1, -2)], 3), Sample([0, Sample(1, 2)], 3)),
        (('label', 'a', 0, 'b', -1), Pair(0, {'a': ({'b': [1, -2]},)}), Pair(0, {'a': ({'b': [1, 2]},)})),
        ((0,), (-1, 2), (1, 2)),
        ((0, 'a'), {(0, 'a'): -1, 0: {'a': -1}}, {(0, 'a'): 1, 0: {'a': -1}}),
        ((0, 'a'), {0: {'a': -1}}, {0: {'a': 1}}),
        (('meta', (0, 'a')), {'meta': {(0, 'a'): -1}}, {'meta': {(0, 'a'): 1}}),
    ],
)
def test_apply_at_a_path_changes_one_nested_field(path, sample, expected):
    before = pickle.dumps(sample)
    assert apply_at(path, abs)(sample) == expected
    assert pickle.dumps(sample) == before


nested = st.recursive(
    st.integers(),
    lambda part: st.one_of(
        st.lists(part, min_size=1, max_size=3),
        st.lists(part, min_size=1, max_size=3).map(tuple),
        st.dictionaries(st.sampled_from(['a', 'b', 0, 1, -1]), part, min_size=1, max_size=3),
        st.builds(Pair, part, part),
        st.builds(Sample, part, part),
    ),
    max_leaves=12,
).filter(lambda sample: not isinstance(sample, int))


def names_in(value):
    if isinstance(value, dict):
        return list(value)
    names = ['image', 'label'] if isinstance(value, Pair | Sample) else []
    return names if isinstance(value, Sample) else [*names, *range(-len(value), len(value))]


def replaced(value, path, func):
    if not path:
        return func(value)
    name, *rest = path
    if isinstance(value, dict):
        return value | {name: replaced(value[name], rest, func)}
    if is_dataclass(value) or isinstance(name, str):
        part = replaced(getattr(value, name), rest, func)
        return replace(value, **{name: part}) if is_dataclass(value) else value._replace(**{name: part})
    parts = list(value)
    parts[name] = replaced(parts[name], rest, func)
    return value._make(parts) if isinstance(value, Pair) else type(value)(parts)


@given(nested, st.data())
def test_apply_at_any_path_is_what_the_plain_recursion_gives(sample, data):
    path, value = [], sample
    while not path or (not isinstance(value, int) and data.draw(st.booleans())):
        path.append(data.draw(st.sampled_from(names_in(value))))
        value = (
            getattr(value, path[-1]) if isinstance(path[-1], str) and not isinstance(value, dict) else value[path[-1]]
        )
    assert repr(apply_at(tuple(path), repr)(sample)) == repr(replaced(sample, path, repr))


def test_apply_at_a_path_hands_on_the_generator(rng):
    assert apply_at(('meta', 0), tagged)({'meta': [1, 2]}, rng=rng) == {'meta': [(1, rng), 2]}


def test_apply_at_an_empty_path_is_an_error():
    with pytest.raises(ValueError, match=r'path must lead to a field, got \(\); to apply .* leave out apply_at'):
        apply_at((), abs)


@pytest.mark.parametrize(
    ('path', 'sample', 'error', 'message'),
    [
        (2, (1, 2), IndexError, 'apply_at(2, ...) finds no 2 in the sample, which is (int, int)'),
        (-3, [1, 2], IndexError, 'apply_at(-3, ...) finds no -3 in the sample, which is '),
        ('label', (1, 2), KeyError, "apply_at('label', ...) finds no 'label' in the sample, which is (int, int)"),
        ('other', Pair(1, 2), KeyError, 'in the sample, which is Pair(image=int, label=int)'),
        ('other', {'image': 1}, KeyError, "in the sample, which is {'image': int}"),
        (-1, {0: 1}, KeyError, 'finds no -1 in the sample, which is {0: int}'),
        (0, Sample(1, 2), KeyError, 'in the sample, which is Sample(image=int, label=int)'),
        (
            ('meta', 'age'),
            {'meta': {'name': 'Ada'}},
            KeyError,
            "apply_at(('meta', 'age'), ...) finds no 'age' in sample['meta'], which is {'name': str}",
        ),
        (('meta', 1, 5), {'meta': [0, (1, 2)]}, IndexError, "finds no 5 in sample['meta'][1], which is (int, int)"),
        (('meta', (0, 'a')), {'meta': {0: {'a': 1}}}, KeyError, "finds no (0, 'a') in sample['meta']"),
        ((0, 'a'), {1: 2}, KeyError, 'finds no 0 in the sample, which is {1: int}'),
        (
            ('image', 'age'),
            {'image': np.zeros(2)},
            TypeError,
            "'age'), ...) needs a tuple, a mapping or a dataclass as sample['image'], got float64[2]",
        ),
    ],
)
def test_apply_at_names_the_field_that_is_missing(path, sample, error, message):
    with pytest.raises(error) as caught:
        apply_at(path, abs)(sample)
    assert message in caught.value.args[0]


@pytest.mark.parametrize(
    ('sample', 'expected'),
    [
        ((-1, 2), (1, 2)),
        ([-1, 2], [1, 2]),
        (Pair(-1, 2), Pair(1, 2)),
        ({'a': -1, 'b': 2}, {'a': 1, 'b': 2}),
        (Sample(-1, 2), Sample(1, 2)),
    ],
)
def test_multiply_and_zip_apply_change_every_field(sample, expected):
    assert multiply(abs)(sample) == zip_apply(abs, plain)(sample) == expected


@pytest.mark.parametrize('sample', [(1, 2), [1, 2], Pair(1, 2), {'image': 1, 'label': 2}, Sample(1, 2)])
def test_unpack_args_passes_the_fields(sample):
    assert unpack_args(lambda image, label: (image, label))(sample) == (1, 2)


@pytest.mark.parametrize('make', [unpack_args, multiply, zip_apply, functools.partial(apply_at, 0)])
@pytest.mark.parametrize('sample', [3, 'text', None, np.zeros(2)])
def test_a_sample_without_fields_is_an_error(make, sample):
    with pytest.raises(TypeError, match=r'a tuple, a mapping.*dataclass'):
        make(abs)(sample)


def test_zip_apply_counts_the_fields():
    with pytest.raises(
        ValueError, match=r'zip_apply needs one function per field, got 1 for the 2 fields of \(int, str\)'
    ):
        zip_apply(abs)((1, 'a'))


def test_random_apply_applies_with_its_probability(rng):
    flip = random_apply(0.25, operator.neg)
    assert sum(flip(-1, rng=rng) for _ in range(4000)) == pytest.approx(-2000, abs=150)
    assert {random_apply(0, operator.neg)(1, rng=rng) for _ in range(20)} == {1}
    assert {random_apply(1, operator.neg)(1, rng=rng) for _ in range(20)} == {-1}


def test_sample_args_draws_the_arguments(rng):
    def scaled(value, factor, *, shift):
        return value * factor + shift

    draws = np.random.default_rng(0).random(2)
    drawn = sample_args(scaled, lambda rng: rng.random(), shift=lambda rng: rng.random())(10, rng=rng)
    assert drawn == 10 * draws[0] + draws[1]


def test_the_order_of_keywords_makes_no_other_samples():
    def both(value, a, b):
        return a, b

    first, second = operator.methodcaller('random'), operator.methodcaller('normal')
    one, other = sample_args(both, a=first, b=second), sample_args(both, b=second, a=first)
    assert one == other
    assert one(0, rng=np.random.default_rng(0)) == other(0, rng=np.random.default_rng(0))


RANDOM = [tagged, keyword_only, Augment(), Augment().method, functools.partial(tagged), toolz.curry(tagged)]
NOT_RANDOM = [
    plain,
    abs,
    int,
    np.add,
    str.upper,
    'a'.join,
    functools.partial(plain),
    lambda *rng: rng,
    lambda rng, /: rng,
]


@pytest.mark.parametrize('func', RANDOM)
def test_functions_with_a_parameter_rng_are_random(func):
    assert takes_rng(func)
    assert may_take_rng(func)


@pytest.mark.parametrize('func', [*NOT_RANDOM, with_options])
def test_functions_without_are_not(func):
    assert not takes_rng(func)


def test_a_function_of_any_keywords_may_take_rng_if_asked():
    assert may_take_rng(with_options)
    assert not may_take_rng(plain)


@pytest.mark.parametrize('func', RANDOM)
@pytest.mark.parametrize(
    ('make', 'sample'),
    [
        (lambda f: apply_at(0, f), (1, 2)),
        (lambda f: zip_apply(f, plain), (1, 2)),
        (lambda f: multiply(multiply(f)), ((1, 2), (1, 2))),
        (unpack_args, (1,)),
        (unpack_args, {'value': 1}),
        (lambda f: random_apply(1, f), 1),
        (sample_args, 1),
        (lambda f: multiply(zip_apply(random_apply(1, apply_at('a', f)), abs)), [({'a': 1}, -2)]),
    ],
)
def test_the_generator_is_handed_on_through_any_nesting(func, make, sample, rng):
    found = make(func)(sample, rng=rng)
    while not isinstance(found, np.random.Generator):
        found = found['a'] if isinstance(found, dict) else found[0] if isinstance(found[0], tuple | dict) else found[-1]
    assert found is rng


@pytest.mark.parametrize('func', [plain, functools.partial(plain), with_options])
def test_the_generator_is_handed_to_no_others(func, rng):
    make = random_apply(1, zip_apply(func, multiply(func), tagged))
    first, second, third = make((1, (2,), 3), rng=rng)
    assert (first, second) == (func(1), (func(2),))
    assert third == (3, rng)


def test_a_random_function_asks_for_its_generator():
    with pytest.raises(TypeError, match=r'multiply\(random_apply\(0.5, abs\)\) is random: call it with rng='):
        multiply(random_apply(0.5, abs))((1, 2))


NAMES = {'partial': functools.partial, 'mean': np.mean, 'fliplr': np.fliplr, 'add': np.add, 'operator': operator}


@pytest.mark.parametrize(
    'make',
    [
        lambda: unpack_args(max),
        lambda: apply_at('image', functools.partial(np.mean, axis=0)),
        lambda: apply_at(('meta', 0), abs),
        lambda: multiply(random_apply(0.5, np.fliplr)),
        lambda: zip_apply(abs, str),
        lambda: sample_args(np.add, operator.methodcaller('normal', scale=0.1)),
    ],
)
def test_sample_functions_print_compare_and_pickle_as_the_call_that_made_them(make):
    made = make()
    assert eval(repr(made), globals() | NAMES) == make() == pickle.loads(pickle.dumps(made)) == made
    assert hash(made) == hash(make())
    assert made != multiply(plain)


@pytest.mark.parametrize(
    'make',
    [unpack_args, multiply, zip_apply, sample_args, *(functools.partial(f, 0) for f in (apply_at, random_apply))],
)
@pytest.mark.parametrize(
    ('func', 'shown'), [(3, '3'), (None, 'None'), ('abs', "'abs'"), (take(3), r'the stage take\(3\)')]
)
def test_a_function_is_checked_when_the_description_is_made(make, func, shown):
    with pytest.raises(TypeError, match=f'must be a function of a sample, got {shown}'):
        make(func)


@pytest.mark.parametrize('p', [-0.1, 1.5, float('nan'), True, '0.5', None])
def test_a_probability_is_checked_when_the_description_is_made(p):
    with pytest.raises((TypeError, ValueError), match='p must be a number from 0 to 1, got'):
        random_apply(p, abs)


@pytest.mark.parametrize(('args', 'kwargs', 'name'), [([3], {}, '0'), ([], {'scale': 3}, 'scale')])
def test_samplers_are_checked_when_the_description_is_made(args, kwargs, name):
    with pytest.raises(TypeError, match=f'sampler {name} must be a function of a numpy Generator, got 3'):
        sample_args(abs, *args, **kwargs)


def test_zip_apply_needs_a_function():
    with pytest.raises(TypeError, match='zip_apply needs at least one function'):
        zip_apply()


def test_a_user_function_may_be_called_rng_by_name_of_a_sampler(rng):
    assert sample_args(tagged, rng=lambda rng: 'drawn')(1, rng=rng) == (1, 'drawn')


def test_the_stage_in_an_error_is_shown_as_code():
    with pytest.raises(TypeError, match=r'got the stage apply\(abs\); put it into the pipeline'):
        random_apply(0.5, apply(abs))
