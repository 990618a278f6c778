"""Arrays as a sequence of samples."""

import numpy as np
import pytest
from more_itertools import take

from pipekit import apply, arrays, combine_batches, pipeline, sample
from pipekit.describing.descriptions import same

IMAGES = np.random.default_rng(0).integers(0, 256, (50, 2, 3), dtype=np.uint8)
LABELS = np.arange(50) % 10


def data():
    return arrays(images=IMAGES, labels=LABELS)


def test_arrays_are_a_sequence():
    columns = data()
    assert len(columns) == 50
    assert columns[3]['labels'] == 3
    assert same(columns[-1]['images'], IMAGES[-1])
    assert len(columns[10:20]) == 10
    assert columns[10:20][0]['labels'] == 0
    assert [one['labels'] for one in columns[:3]] == [0, 1, 2]
    assert len(list(columns)) == 50
    with pytest.raises(IndexError):
        columns[50]


@pytest.mark.parametrize('indices', [[3, 1, 1], np.array([49, 0]), [-1, 2], [], np.arange(50) > 45])
def test_several_indices_give_a_batch(indices):
    batch = data()[indices]
    assert same(batch['images'], IMAGES[np.asarray(indices, bool if np.asarray(indices).dtype == bool else int)])
    assert batch['labels'].shape == batch['images'].shape[:1]


@pytest.mark.parametrize('indices', [[50], [-51], [0.5], ['a']])
def test_wrong_indices_are_errors(indices):
    with pytest.raises(IndexError):
        data()[indices]


def test_arrays_by_position_are_tuples():
    image, label = arrays(IMAGES, LABELS)[7]
    assert same(image, IMAGES[7])
    assert label == 7


COLUMNS = {
    'bool': np.arange(50) % 2 == 0,
    'float16': np.arange(50, dtype=np.float16),
    'complex': np.arange(50) * 1j,
    'big-endian': np.arange(50, dtype='>f4'),
    'strings': np.array(['a' * (number % 5) for number in range(50)]),
    'dates': np.arange(50).astype('datetime64[D]'),
    'structured': np.zeros(50, [('a', 'i1'), ('b', 'f8')]),
    'with gaps': np.arange(200).reshape(50, 4)[:, ::2],
    'transposed': np.arange(200).reshape(4, 50).T,
    'read-only': np.broadcast_to(np.arange(4), (50, 4)),
    'misaligned': np.arange(401, dtype=np.uint8)[1:].view(np.int64),
    'empty': np.zeros((50, 0)),
}


@pytest.mark.parametrize('column', COLUMNS.values(), ids=COLUMNS)
def test_any_column_gives_what_its_samples_give(column):
    both = arrays(column, LABELS)
    gathering = pipeline(sample(both, seed=0), combine_batches(4))
    expected = pipeline(sample(range(50), seed=0), apply(lambda n: (column[n], LABELS[n])), combine_batches(4))
    for (values, labels), (other_values, other_labels) in zip(take(3, gathering), take(3, expected), strict=True):
        assert values.dtype == other_values.dtype
        assert type(values) is type(other_values)
        assert np.array_equal(values, other_values)
        assert same(labels, other_labels)


def test_a_memory_map_is_gathered_as_plain_arrays(tmp_path):
    np.save(tmp_path / 'x.npy', IMAGES)
    mapped = np.load(tmp_path / 'x.npy', mmap_mode='r')
    (batch,) = next(iter(pipeline(arrays(mapped), combine_batches(5))))
    assert type(batch) is np.ndarray
    assert same(batch, IMAGES[:5])
    assert batch.flags.writeable


class OnDisk:
    """Takes lists of indices in order and each once, as h5py does."""

    shape = (50,)
    dtype = np.dtype('i8')

    def __getitem__(self, index):
        if isinstance(index, list):
            assert index == sorted(set(index))
            return np.array(index) * 2
        return np.int64(index * 2)


def test_a_file_is_read_in_the_order_of_its_rows():
    (batch,) = next(iter(pipeline(sample(arrays(OnDisk()), seed=0), combine_batches(30))))
    (expected,) = next(iter(pipeline(sample(arrays(np.arange(50) * 2), seed=0), combine_batches(30))))
    assert same(batch, expected)


def test_arrays_print_compare_and_are_described():
    columns = data()
    assert repr(columns) == 'arrays(images=<uint8[50, 2, 3]>, labels=<int64[50]>)'
    assert columns == data()
    assert 'uint8[4, 2, 3]' in repr(pipeline(columns, combine_batches(4)).describe())


@pytest.mark.parametrize(
    ('make', 'error', 'message'),
    [
        (arrays, TypeError, 'at least one and not both'),
        (lambda: arrays(IMAGES, labels=LABELS), TypeError, 'at least one and not both'),
        (
            lambda: arrays([1, 2]),
            TypeError,
            r'arrays needs arrays, or other objects with a shape and \[\], got \[1, 2\]',
        ),
        (lambda: arrays(np.zeros(3), np.zeros(4)), ValueError, r'equally long, got the shapes \(3,\), \(4,\)'),
        (lambda: arrays(np.float64(3)), ValueError, r'equally long, got the shapes \(\)'),
    ],
)
def test_a_bad_argument_is_an_error_when_the_sequence_is_made(make, error, message):
    with pytest.raises(error, match=message):
        make()


class Matrix(np.ndarray):
    """Like ``np.matrix``: its rows have another shape than those of an array."""


class Labelled:
    """Like a series of pandas, polars or pyarrow: it says how to get positions."""

    shape = (3,)

    def __len__(self):
        return 3

    def __getitem__(self, label):
        raise KeyError(label)

    def to_numpy(self):
        return np.arange(3)


@pytest.mark.parametrize(
    ('column', 'remedy'),
    [
        (Labelled(), 'to_numpy()'),
        (np.ma.masked_array([1, 2, 3], [True, False, False]), 'array.filled(value)'),
        (np.zeros((2, 2)).view(Matrix), 'np.asarray(array)'),
        (np.zeros((3, 2)).view(np.matrix), 'np.asarray(array)'),
        (np.array([(1,)], [('x', int)]).view(np.recarray), 'np.asarray(array)'),
        ([1, 2, 3], 'np.array(column)'),
        ((1, 2, 3), 'np.array(column)'),
        ({'a': 1}, 'a shape and []'),
        (iter('abc'), 'a shape and []'),
        (3, 'a shape and []'),
        (None, 'a shape and []'),
    ],
)
def test_columns_that_are_not_plain_positions_are_refused_with_a_remedy(column, remedy):
    with pytest.raises(TypeError) as error:
        arrays(images=np.zeros(3), labels=column)
    assert remedy in str(error.value)


@pytest.mark.parametrize('library', ['pandas', 'polars', 'pyarrow'])
def test_columns_of_data_frames_go_by_to_numpy(library):
    make = {'pandas': 'Series', 'polars': 'Series', 'pyarrow': 'array'}[library]
    column = getattr(pytest.importorskip(library), make)([3, 1, 2])
    with pytest.raises(TypeError, match=r'pass its \.to_numpy\(\)'):
        arrays(labels=column)
    assert arrays(labels=column.to_numpy())[1]['labels'] == 1


def test_tensors_stay_tensors():
    torch = pytest.importorskip('torch')
    images, labels = torch.arange(24.0).reshape(6, 2, 2), torch.arange(6)
    data = arrays(images=images, labels=labels)
    assert isinstance(data[1]['images'], torch.Tensor)
    assert torch.equal(data[[4, 1]]['images'], images[[4, 1]])
    batch = next(iter(pipeline(sample(data, seed=0), combine_batches(3))))
    assert torch.equal(batch['images'], images[batch['labels']])
