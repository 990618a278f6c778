import math
from collections import OrderedDict, namedtuple
from dataclasses import InitVar, dataclass, field
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from pipekit import combine_pad, combine_to_arrays, combine_to_tuples

COMBINERS = [combine_to_tuples, combine_to_arrays, combine_pad]
STACKING = [combine_to_arrays, combine_pad]
Pair = namedtuple('Pair', 'image label')


@dataclass(frozen=True, slots=True)
class Frozen:
    image: object
    label: object


@dataclass
class Checked:
    image: object
    label: InitVar[int]
    doubled: object = field(init=False)

    def __post_init__(self, label):
        assert isinstance(label, int)
        self.doubled = self.image * 2


class Tensor:
    def __init__(self, values):
        self.values = np.asarray(values)

    def __array__(self, dtype=None, copy=None):
        return self.values


def assert_alike(found, expected):
    assert type(found) is type(expected)
    if isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name in expected:
            assert_alike(found[name], expected[name])
    elif isinstance(expected, tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_alike(one, other)
    else:
        assert found == expected


@pytest.mark.parametrize('combine', COMBINERS)
@pytest.mark.parametrize(
    ('sample', 'parts'),
    [
        (Pair(1, 2), lambda batch: [batch.image, batch.label]),
        (Frozen(1, 2), lambda batch: [batch.image, batch.label]),
        (Checked(1, 7), lambda batch: [batch.image, batch.doubled]),
        ({'image': 1, 'label': 2}, lambda batch: [batch['image'], batch['label']]),
        ((1, {'label': (2,)}), lambda batch: [batch[0], batch[1]['label'][0]]),
    ],
)
def test_a_batch_has_the_structure_of_a_sample(combine, sample, parts):
    batch = combine([sample, sample])
    assert type(batch) is type(sample)
    assert [list(part) for part in parts(batch)] == [[1, 1], [2, 2]]


def test_a_field_that_a_dataclass_computes_is_combined_too():
    batch = combine_to_tuples([Checked(1, 7), Checked(2, 7)])
    assert (batch.image, batch.doubled) == ((1, 2), (2, 4))


def test_mappings_of_different_types_and_orders_are_combined_by_key():
    batch = combine_to_arrays([{'a': 1, 'b': 2}, OrderedDict(b=3, a=4)])
    assert_alike(batch, {'a': np.array([1, 4]), 'b': np.array([2, 3])})


@pytest.mark.parametrize('combine', STACKING)
@pytest.mark.parametrize(
    'samples',
    [
        [1, 2],
        [True, False],
        [np.float32(1), np.float32(2)],
        [np.bool(True), np.bool(False)],
        [np.array(1), np.array(2)],
        [np.array(1.0), 2.0],
        [[1, 2], [3, 4]],
        [range(3), range(3)],
        [np.zeros((0, 3)), np.zeros((0, 3))],
        [np.zeros((3, 0), np.int8)] * 3,
        [np.asfortranarray(np.arange(6).reshape(2, 3))] * 2,
        [np.arange(12).reshape(3, 4)[:, ::2].T] * 2,
        [np.arange(3)[::-1], np.arange(3)],
        [np.zeros(2, '>f4'), np.ones(2, '>f4')],
        [np.array([None, 1]), np.array([None, 2])],
        [np.array(None), np.array(None)],
        [np.array(['2020'], 'M8[D]')] * 2,
        [np.datetime64('2020-01-01'), np.datetime64('2021-01-01')],
        [np.array(['abc']), np.array(['bcd'])],
        [np.zeros(2, [('x', int), ('y', float)])] * 2,
        [np.zeros((), [('x', int)])[()]] * 2,
        [np.array([1])],
    ],
)
def test_equal_shapes_are_stacked_as_numpy_stacks_them(combine, samples):
    expected = np.stack([np.asarray(sample) for sample in samples])
    assert_alike(combine(samples), expected)
    assert_alike(combine([(sample, 0) for sample in samples])[0], expected)


@pytest.mark.parametrize('combine', STACKING)
def test_what_numpy_can_convert_is_converted(combine):
    assert_alike(combine([Tensor([1, 2]), Tensor([3, 4])]), np.array([[1, 2], [3, 4]]))
    assert_alike(combine([Tensor(1), Tensor(2)]), np.array([1, 2]))
    memmap = np.zeros(2).view(np.memmap)
    assert_alike(combine([memmap, memmap]), np.zeros((2, 2)))


@pytest.mark.parametrize('combine', STACKING)
def test_a_batch_shares_no_memory_with_its_samples(combine):
    image = np.zeros((2, 2))
    assert not np.shares_memory(combine([image]), image)


@pytest.mark.parametrize('combine', COMBINERS)
def test_no_samples_make_no_batch(combine):
    with pytest.raises(ValueError, match='at least one sample'):
        combine([])


@pytest.mark.parametrize('combine', COMBINERS)
@pytest.mark.parametrize(
    ('samples', 'message'),
    [
        ([(1, 2), (1, 2), (1,)], 'sample is (int, int) in sample 0 of the batch and (int,) in sample 2'),
        ([(1, 2), [1, 2]], 'sample is (int, int) in sample 0 of the batch and [int] of 2 in sample 1'),
        ([1, (1, 2)], 'sample is int in sample 0 of the batch and (int, int) in sample 1'),
        ([(1, {'a': 1}), (1, {'b': 1})], "sample[1] is {'a': int} in sample 0 of the batch and {'b': int} in sample 1"),
        ([Pair(1, 2), (1, 2)], 'sample is Pair(image=int, label=int) in sample 0 of the batch and (int, int)'),
        ([Pair(1, 2), namedtuple('Pair', 'image label')(1, 2)], 'label=int) of another type in sample 1'),
        ([(0,) * 9, (0,) * 10], f'and ({", ".join(["int"] * 10)}) in sample 1'),
        (
            [dict.fromkeys(range(10), 0), {**dict.fromkeys(range(9), 0), 'other': 0}],
            "8: int, 'other': int} in sample 1",
        ),
    ],
)
def test_samples_of_different_structure_are_named(combine, samples, message):
    with pytest.raises(ValueError, match='in sample') as error:
        combine(samples)
    assert message in str(error.value)


@pytest.mark.parametrize('combine', STACKING)
@pytest.mark.parametrize(
    ('samples', 'message'),
    [
        ([None, 1], 'sample is None, in sample 0 of the batch; use combine_to_tuples'),
        (['a', 'b', 1], 'sample is str in sample 0 of the batch and int in sample 2'),
        ([b'a', 'a'], 'sample is bytes in sample 0 of the batch and str in sample 1'),
        ([np.array(['a']), np.array([1])], 'sample is <U1[1] in sample 0 of the batch and int64[1] in sample 1'),
        ([np.array(['2020'], 'M8[D]'), np.array([1])], 'is datetime64[D][1] in sample 0 of the batch and int64[1]'),
        ([np.zeros(1, [('x', int)]), np.zeros(1, [('y', int)])], "and [('y', '<i8')][1] in sample 1"),
        (
            [np.zeros(2), np.zeros((2, 2))],
            'sample is float64[2] in sample 0 of the batch and float64[2, 2] in sample 1',
        ),
        ([1, np.array([1])], 'sample is int64 in sample 0 of the batch and int64[1] in sample 1'),
        ([[1, 2], [1, [2]]], 'sample is ragged, [int | [int] of 1] of 2, in sample 1 of the batch; make it one array'),
        ([np.ma.masked_array([1], [1])] * 2, 'sample is a masked array and would lose its mask'),
        ([{'a': ('x', 1)}, {'a': ('x', 'y')}], "sample['a'][1] is int in sample 0 of the batch and str in sample 1"),
    ],
)
def test_leaves_that_do_not_make_one_array_are_named(combine, samples, message):
    with pytest.raises(ValueError, match='sample') as error:
        combine(samples)
    assert message in str(error.value)


@pytest.mark.parametrize('shapes', [[(2,), (3,)], [(1, 3), (3, 1)], [(2, 3), (4, 3)], [(2, 3), (2, 4)], [(0,), (1,)]])
def test_different_shapes_are_sent_to_combine_pad(shapes):
    with pytest.raises(ValueError, match=r'and float64\[.*\] in sample 2; use combine_pad'):
        combine_to_arrays([np.zeros(shapes[0]), np.zeros(shapes[0]), np.zeros(shapes[1])])


def naively_padded(arrays, padding, ratio):
    shape = np.max([array.shape for array in arrays], axis=0)
    rows = []
    for array in arrays:
        missing = shape - array.shape
        widths = [(math.floor(m * ratio), m - math.floor(m * ratio)) for m in missing.tolist()]
        value = padding(array) if callable(padding) and missing.any() else padding
        rows.append(np.pad(array, widths, constant_values=value) if missing.any() else array)
    return np.stack(rows)


DTYPES = st.sampled_from(['uint8', 'int16', 'float32', 'float64', 'bool'])


@given(st.data(), st.integers(0, 3), st.sampled_from([0, 0.25, 0.29, 0.5, 1]), st.sampled_from([0, 1, np.max]))
def test_combine_pad_is_numpy_pad_of_each_array(data, ndim, ratio, padding):
    shapes = st.tuples(*[st.integers(1, 4)] * ndim)
    dtype = data.draw(DTYPES)
    arrays = data.draw(st.lists(npst.arrays(dtype, shapes), min_size=1, max_size=4))
    assert_alike(combine_pad(arrays, padding, ratio), naively_padded(arrays, padding, ratio))


def naively_stacked(samples):
    first = samples[0]
    if isinstance(first, tuple):
        return tuple(naively_stacked([sample[k] for sample in samples]) for k in range(len(first)))
    if isinstance(first, dict):
        return {name: naively_stacked([sample[name] for sample in samples]) for name in first}
    if isinstance(first, str):
        return np.array(samples, np.dtypes.StringDType())
    return np.stack([np.asarray(sample) for sample in samples])


LEAVES = st.one_of(
    st.builds(npst.arrays, DTYPES, npst.array_shapes(min_dims=0, max_dims=2, min_side=0)),
    st.sampled_from([st.integers(-9, 9), st.floats(allow_nan=False), st.booleans(), st.text('ab')]),
)
STRUCTURES = st.recursive(
    LEAVES,
    lambda parts: (
        st.lists(parts, max_size=3).map(lambda some: st.tuples(*some))
        | st.dictionaries(st.text(max_size=2), parts, max_size=3).map(st.fixed_dictionaries)
    ),
    max_leaves=5,
)


@given(st.data(), STRUCTURES)
def test_any_nested_samples_are_stacked_field_by_field(data, structure):
    samples = data.draw(st.lists(structure, min_size=1, max_size=4))
    expected = naively_stacked(samples)
    assert_alike(combine_to_arrays(samples), expected)
    assert_alike(combine_pad(samples), expected)


RAGGED = [([1, 2, 3], {'mask': [1.0]}), ([4], {'mask': [1.0, 1.0]})]


@pytest.mark.parametrize(
    ('padding_values', 'image', 'mask'),
    [
        (9, [4, 9, 9], [1, 9]),
        (np.max, [4, 4, 4], [1, 1]),
        ((9, 8), [4, 9, 9], [1, 8]),
        ([9, np.min], [4, 9, 9], [1, 1]),
        ((9, {'mask': np.nan}), [4, 9, 9], [1, np.nan]),
        ((partial(np.quantile, q=0), {'mask': math.inf}), [4, 4, 4], [1, math.inf]),
    ],
)
def test_padding_is_given_for_all_fields_or_for_each(padding_values, image, mask):
    images, others = combine_pad(RAGGED, padding_values, ratio=0)
    np.testing.assert_array_equal(images[1], image)
    np.testing.assert_array_equal(others['mask'][0], mask)


@pytest.mark.parametrize('sample', [Pair([1], [2]), Frozen([1], [2])])
def test_padding_is_given_by_the_names_of_the_fields(sample):
    other = type(sample)([1, 1], [2, 2])
    batch = combine_pad([sample, other], {'image': 7, 'label': 8}, ratio=0)
    assert (batch.image.tolist(), batch.label.tolist()) == ([[1, 7], [1, 1]], [[2, 8], [2, 2]])


@pytest.mark.parametrize('padding_values', [(1,), (1, 2, 3), {'mask': 1}, (1, {'other': 1}), ((1, 2), 3), (1, (2,), 3)])
def test_padding_of_another_structure_is_an_error(padding_values):
    with pytest.raises(ValueError, match='padding_values must be one for all fields or have the structure'):
        combine_pad(RAGGED, padding_values)


@pytest.mark.parametrize(
    ('value', 'dtype'),
    [
        (-1, 'uint8'),
        (256, 'uint8'),
        (0.5, 'int64'),
        (math.nan, 'int64'),
        (2**70, 'int64'),
        (2, 'bool'),
        (1e39, 'float32'),
        (1j, 'float64'),
        (None, 'float64'),
        ('x', 'float64'),
        (0, 'U1'),
        ('toolong', 'U1'),
        (0, 'M8[D]'),
        (lambda array: math.nan, 'int8'),
    ],
)
def test_padding_that_the_type_cannot_hold_is_an_error(value, dtype):
    with pytest.raises(ValueError, match=r'the padding value .* of sample\[0\] does not fit its type'):
        combine_pad([(np.zeros(1, dtype), 0), (np.zeros(2, dtype), 0)], value)


@pytest.mark.parametrize(
    ('value', 'dtype'),
    [
        (255.0, 'uint8'),
        (0.1, 'float16'),
        (math.nan, 'float32'),
        (-math.inf, 'float16'),
        (True, 'bool'),
        ('x', 'U1'),
        (None, 'object'),
        (np.datetime64('2020-01-01'), 'M8[D]'),
        (np.datetime64('NaT', 'D'), 'M8[D]'),
    ],
)
def test_padding_that_the_type_can_hold_is_kept(value, dtype):
    padded = combine_pad([np.zeros(1, dtype), np.zeros(2, dtype)], value, ratio=0)[0, 1]
    np.testing.assert_array_equal(np.array([padded]), np.array([value], dtype))


@pytest.mark.parametrize(
    ('ratio', 'error'), [(-0.1, ValueError), (1.1, ValueError), (math.nan, ValueError), ('x', TypeError)]
)
def test_a_ratio_outside_0_to_1_is_an_error(ratio, error):
    with pytest.raises(error, match='ratio must be a number from 0 to 1, got'):
        combine_pad([np.zeros(1)], ratio=ratio)


def test_an_error_of_a_padding_function_says_which_sample_it_was():
    with pytest.raises(ValueError, match='zero-size array') as error:
        combine_pad([(np.zeros(2), 0), (np.zeros(0), 1)], np.min)
    assert error.value.__notes__ == ['raised by np.min, the padding of sample[0] in sample 1 of the batch']


def test_empty_arrays_are_padded_with_a_number():
    assert combine_pad([np.zeros(0), np.ones(2)], 7).tolist() == [[7, 7], [1, 1]]
