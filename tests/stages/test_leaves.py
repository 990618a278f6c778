"""Law 12, faithful: a batch holds the values that went in, or an error names the field, the sample and the remedy."""

import collections
import datetime
import decimal
import fractions
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipekit import combine_batches, combine_pad, combine_to_arrays, combine_to_tuples, pipeline

STACKING = [combine_to_arrays, combine_pad]
BIG = 2**63 + 1


class OwnBytes(bytes):
    pass


@pytest.mark.parametrize('combine', STACKING)
@pytest.mark.parametrize(
    ('samples', 'what', 'remedy'),
    [
        ([BIG, 5], 'sample[0] is 9223372036854775809, too large for int64, in sample 0', 'np.uint64'),
        ([5, -BIG], 'sample[0] is -9223372036854775809, too large for int64, in sample 1', 'np.uint64'),
        ([[BIG, 5]], 'sample[0] is a list with an int too large for int64, in sample 0', 'np.uint64'),
        ([1, 2.5], 'sample[0] is int in sample 0 of the batch and float in sample 1', 'convert them to one type'),
        ([1, True], 'sample[0] is int in sample 0 of the batch and bool in sample 1', 'convert them to one type'),
        ([1.5, 2j], 'sample[0] is float in sample 0 of the batch and complex in sample 1', 'convert them to one type'),
        ([np.float32(1), 2.0], 'sample[0] is float32 in sample 0 of the batch and float in sample 1', 'one type'),
        ([np.zeros(2), np.zeros(2, 'f4')], 'is float64[2] in sample 0 of the batch and float32[2]', 'one type'),
        ([np.zeros(2, 'u1'), np.zeros(2, 'i1')], 'is uint8[2] in sample 0 of the batch and int8[2]', 'one type'),
        ([np.array(['a']), np.array(['abc'])], 'is <U1[1] in sample 0 of the batch and <U3[1] in sample 1', 'one type'),
        ([np.datetime64('2020'), np.datetime64('2020-01')], 'and datetime64[M] in sample 1', 'one type'),
        ([['a.png', 0]], 'sample[0] is a list of str and int64, in sample 0', 'combine_to_tuples'),
        ([[1, 2.5]], 'sample[0] is a list of int64 and float64, in sample 0', 'convert its elements to one type'),
        ([[1, 2], [1.5, 2.5]], 'sample[0] is [int] of 2 in sample 0 of the batch and [float] of 2', 'one type'),
        ([[[1], [2.5]]], 'sample[0] is a list of int64 and float64, in sample 0', 'convert its elements to one type'),
        ([[b'a\0', b'b']], 'sample[0] is a list of bytes, in sample 0', 'combine_to_tuples'),
        ([[[1, 2], [3]]], 'sample[0] is ragged, [[int] of 2 | [int] of 1] of 2, in sample 0', 'make it one array'),
        ([[None]], 'sample[0] is a list of NoneType, in sample 0', 'combine_to_tuples'),
        ([[{'x': 1}], []], 'sample[0] is a list of dict, in sample 0', 'combine_to_tuples'),
        ([None, None], 'sample[0] is None, in sample 0', 'combine_to_tuples'),
        ([{1}, {2}], 'sample[0] is set, in sample 0', 'combine_to_tuples'),
        ([decimal.Decimal(1)], 'sample[0] is Decimal, in sample 0', 'combine_to_tuples'),
        ([fractions.Fraction(1, 3)], 'sample[0] is Fraction, in sample 0', 'combine_to_tuples'),
        ([datetime.datetime(2020, 1, 1)], 'sample[0] is datetime, in sample 0', 'combine_to_tuples'),
        ([collections.deque([1, 2.5])], 'sample[0] is deque, in sample 0', 'make it a list'),
        ([collections.UserList(['a', 'bc'])], 'sample[0] is UserList, in sample 0', 'make it a list'),
        ([b'ab', np.array(b'ab')], 'sample[0] is bytes in sample 0 of the batch and |S2 in sample 1', 'one type'),
        ([OwnBytes(b'a\0')], 'sample[0] is OwnBytes, in sample 0', 'combine_to_tuples'),
        ([b'ab', 'ab'], 'sample[0] is bytes in sample 0 of the batch and str in sample 1', 'one type'),
        ([range(BIG, BIG + 2)], 'too large for int64, in sample 0', 'np.uint64'),
        ([object()], 'sample[0] is object, in sample 0', 'combine_to_tuples'),
        ([[], []], 'sample[0] is an empty list, as in all samples', 'make it an array with a type'),
        ([np.ma.masked_array([1], [1])] * 2, 'sample[0] is a masked array and would lose its mask', 'fill it'),
        ([BIG**9], 'too large for int64', 'np.uint64'),
    ],
)
def test_what_no_batch_of_arrays_can_hold_is_an_error_with_a_remedy(combine, samples, what, remedy):
    with pytest.raises(ValueError, match=r'sample\[0\]') as error:
        combine([(value, 0) for value in samples])
    assert what in str(error.value)
    assert remedy in str(error.value)


def test_combine_to_tuples_keeps_everything():
    values = [BIG, None, 'x\0', b'x\0', [1, 'a'], {1}]
    assert combine_to_tuples([(value,) for value in values])[0] == tuple(values)


@pytest.mark.parametrize('combine', STACKING)
def test_strings_are_as_wide_as_they_are(combine):
    batch = combine(['x' * 10**6, 'y', '', 'z\0'])
    assert batch.tolist() == ['x' * 10**6, 'y', '', 'z\0']
    assert batch.dtype == np.dtypes.StringDType()
    assert batch.nbytes < 1000
    assert combine([['a', 'bc'], ['d', 'e']]).tolist() == [['a', 'bc'], ['d', 'e']]


@pytest.mark.parametrize('combine', STACKING)
def test_bytes_stay_a_list(combine):
    assert combine([b'a\0', b'']) == [b'a\0', b'']
    assert combine([np.bytes_(b'a'), b'bc']) == [b'a', b'bc']


SCALARS = {bool: 'bool', int: 'i8', float: 'f8', complex: 'c16'}
SCALARS |= {kind: kind for kind in (np.int8, np.uint64, np.float16, np.float32, np.longdouble, np.complex64, np.bool)}


@pytest.mark.parametrize('combine', STACKING)
@pytest.mark.parametrize('kind', SCALARS)
def test_scalars_become_an_array_of_their_type(combine, kind):
    for n in (1, 2):
        batch = combine([kind(1)] * n)
        assert (batch.dtype, batch.tolist()) == (np.dtype(SCALARS[kind]), [1] * n)


@pytest.mark.parametrize('combine', STACKING)
@pytest.mark.parametrize('n', [0, 3])
def test_ranges_are_arrays_of_ints(combine, n):
    batch = combine([range(n), range(n)])
    assert (batch.dtype, batch.tolist()) == (np.int64, [list(range(n))] * 2)


class Tensor(np.ndarray):
    device = 'cpu'


@pytest.fixture
def tensors(monkeypatch):
    """What the combiners use of torch."""
    monkeypatch.setitem(
        sys.modules, 'torch', SimpleNamespace(Tensor=Tensor, stack=lambda arrays: np.stack(arrays).view(Tensor))
    )
    return [np.full(2, number, 'f4').view(Tensor) for number in range(3)]


def test_tensors_become_a_tensor(tensors):
    batch = combine_to_arrays(tensors)
    assert type(batch) is Tensor
    assert (batch.tolist(), batch.dtype) == ([[0, 0], [1, 1], [2, 2]], 'f4')


def test_tensors_that_differ_are_an_error(tensors):
    with pytest.raises(ValueError, match='convert them to one type'):
        combine_to_arrays([*tensors, tensors[0].astype('f8')])
    with pytest.raises(ValueError, match='in sample 3'):
        combine_to_arrays([*tensors, tensors[0][:1]])


@pytest.mark.parametrize('combine', STACKING)
@pytest.mark.parametrize('order', [1, -1])
def test_tensors_among_arrays_are_an_error(combine, order, tensors):
    with pytest.raises(ValueError, match='convert them to one type'):
        combine([tensors[0], np.zeros(2, 'f4')][::order])


def test_tensors_are_not_padded(tensors):
    with pytest.raises(ValueError, match=r'is a tensor; use tensor\.numpy\(\)'):
        combine_pad(tensors)


def test_lists_of_unequal_length_are_padded_or_an_error():
    assert combine_pad([[1, 2], [3]], ratio=0).tolist() == [[1, 2], [3, 0]]
    for samples in ([[1, 2], [3]], [[1, 2], []]):
        with pytest.raises(ValueError, match='use combine_pad'):
            combine_to_arrays(samples)


@pytest.mark.parametrize(
    ('samples', 'shape', 'dtype'),
    [
        ([[3, 1], []], (2, 2), 'int64'),
        ([[], [3, 1]], (2, 2), 'int64'),
        ([[[0, 0, 1, 1]], []], (2, 1, 4), 'int64'),
        ([[], [[0.5, 0.5]], [[1.0, 1.0]] * 3], (3, 3, 2), 'float64'),
        ([['a'], []], (2, 1), None),
        ([[True], [], [False, True]], (3, 2), 'bool'),
        ([np.zeros((2, 4), 'f4'), []], (2, 2, 4), 'float32'),
        ([np.zeros((0, 4), 'f4'), np.ones((1, 4), 'f4')], (2, 1, 4), 'float32'),
    ],
)
def test_lists_without_elements_take_the_type_and_the_axes_of_the_others(samples, shape, dtype):
    padding = '' if dtype is None else 0
    batch = combine_pad(samples, padding)
    assert batch.shape == shape
    assert dtype is None or batch.dtype == dtype


@pytest.mark.parametrize('combine', STACKING)
@pytest.mark.parametrize('dtype', ['>i4', 'f2', 'c8', 'M8[s]', 'm8[D]', 'S3', 'O', [('x', 'i4'), ('y', 'f8', (2,))]])
def test_arrays_keep_their_type_and_values(combine, dtype):
    arrays = [np.zeros(3, dtype), np.ones(3, dtype)]
    batch = combine(arrays)
    assert batch.dtype == (np.dtype('i4') if dtype == '>i4' else np.dtype(dtype))  # in the byte order of the machine
    assert all((part == array).all() for part, array in zip(batch, arrays, strict=True))


def test_bfloat16_stays_exact():
    ml_dtypes = pytest.importorskip('ml_dtypes')
    arrays = [np.array([1.5, 3], ml_dtypes.bfloat16)] * 2
    assert combine_to_arrays(arrays).dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize('order', [(2, 0, 1), (1, 0, 2), (0, 1, 2)])
@pytest.mark.parametrize('n', [1, 3, 40])
def test_a_batch_is_contiguous_however_its_samples_lie_in_memory(order, n):
    images = [np.arange(60).reshape(3, 4, 5).transpose(order) + k for k in range(n)]
    batch = combine_to_arrays(images)
    assert batch.flags.c_contiguous
    assert (batch == np.stack(images)).all()
    mixed = [np.zeros((3, 3)), np.zeros((3, 3)).T[::-1]] * n
    assert combine_to_arrays(mixed).flags.c_contiguous


numbers = st.one_of(
    st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.complex_numbers(), st.just(np.float32(1.5))
)
scalars = st.one_of(numbers, st.text(max_size=3), st.binary(max_size=3), st.none())
leaves = st.one_of(
    scalars,
    st.lists(scalars, max_size=3),
    st.lists(st.lists(st.integers(0, 9), min_size=2, max_size=2), max_size=2),
    hnp.arrays(st.sampled_from(['i1', 'i8', 'f4', 'f8', 'U3', 'M8[s]']), st.sampled_from([(), (2,), (1, 2)])),
)


def holds(made, value):
    if isinstance(made, bytes) or isinstance(value, bytes):
        return type(made) is type(value) and made == value
    if isinstance(value, list):
        return len(made) == len(value) and all(map(holds, made, value))
    kept = np.asarray(made)
    return bool(np.all((kept == value) | ((kept != kept) & (np.asarray(value) != value))))  # noqa: PLR0124 -- NaN


@pytest.mark.parametrize('combine', STACKING)
@given(data=st.data())
@settings(deadline=None)
def test_a_batch_holds_the_values_in_a_type_that_does_not_depend_on_the_others(combine, data):
    one = data.draw(leaves)
    like = st.one_of(leaves, st.just(one), st.from_type(type(one)) if type(one) in (int, float, str, bool) else leaves)
    samples = [one, *data.draw(st.lists(like, max_size=3))]
    try:
        batch = combine([{'field': value} for value in samples])['field']
    except ValueError as error:
        assert "sample['field']" in str(error)  # noqa: PT017 -- whether there is one depends on the samples
        return
    if combine is combine_to_arrays:
        assert len(batch) == len(samples)
        assert all(map(holds, batch, samples))
    for value in samples:
        try:
            alone = combine([{'field': value}])['field']
        except ValueError:
            assert value == []  # which has no type of its own
            continue
        assert type(alone) is type(batch)
        assert getattr(alone, 'dtype', None) == getattr(batch, 'dtype', None)


def test_the_error_reaches_the_user_with_its_place():
    with pytest.raises(ValueError, match='convert them to one type') as error:
        list(pipeline([(1, 0), (2.5, 0)], combine_batches(2)))
    assert 'in combine_batches(2), the 2nd of 2 stages' in error.value.__notes__[0]
