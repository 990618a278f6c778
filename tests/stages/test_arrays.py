"""Columns in memory: indexed like a sequence, gathered at once, and the same as sample by sample."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipekit import (
    apply,
    arrays,
    combine_batches,
    combine_to_arrays,
    expiration_pool,
    keep,
    mix,
    pipeline,
    prefetch,
    repeat,
    sample,
    shard,
    shuffle,
    take,
)
from pipekit.describing.descriptions import same
from pipekit.stages.arrays import Arrays
from pipekit.streams.context import Context, Run
from pipekit.streams.cursors import START
from pipekit.testing import check_stage

IMAGES = np.random.default_rng(0).integers(0, 256, (50, 2, 3), dtype=np.uint8)
LABELS = np.arange(50) % 10


def data():
    return arrays(images=IMAGES, labels=LABELS)


def pairs(stream, n, fused=True, cursor=START):
    values = stream.open(cursor, Context(run=Run(fuses=fused)))
    return [next(values, None) for _ in range(n)]


class Watched(Arrays):
    """Counts how often single samples are looked at."""

    looks = 0

    def __getitem__(self, index):
        self.looks += isinstance(index, int)
        return super().__getitem__(index)


def watched():
    columns = Watched({'images': IMAGES, 'labels': LABELS})
    columns._call = data()._call
    return columns


def test_it_is_a_sequence():
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


STAGES = {
    'nothing': [],
    'shuffle': [shuffle(7, seed=1)],
    'take': [take(40)],
    'repeat': [take(9), repeat()],
    'shard': [shard(1, 3)],
    'expiration_pool': [expiration_pool(5, 2, seed=0)],
    'all': [shuffle(5, seed=0), shard(0, 2), take(11), repeat(3), shuffle(4, seed=0)],
}
SOURCES = {
    'sample': lambda columns: sample(columns, seed=0),
    'passes': lambda columns: sample(columns, replace=False, seed=0),
    'in order': lambda columns: columns,
    'mix': lambda columns: mix(sample(columns, seed=0), pipeline(columns, shuffle(9, seed=0), repeat()), seed=0),
}


@pytest.mark.parametrize('stages', STAGES.values(), ids=STAGES)
@pytest.mark.parametrize('source', SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize('drop_last', [False, True])
def test_gathering_changes_nothing_and_looks_at_no_sample(source, stages, drop_last):
    columns = watched()
    gathering = pipeline(source(columns), *stages, combine_batches(4, drop_last=drop_last))
    gathered = pairs(gathering, 15)
    assert columns.looks == 0 or drop_last  # what is dropped at the end is read all the same, as it would be
    plain = pairs(gathering, 15, fused=False)
    assert columns.looks > 0
    assert same(gathered, plain)
    for pair in [pair for pair in gathered if pair is not None][:3]:
        assert same(pairs(gathering, 3, cursor=pair[1]), pairs(gathering, 3, fused=False, cursor=pair[1]))


@given(
    st.lists(st.sampled_from(sorted(STAGES)), max_size=3),
    st.sampled_from(sorted(SOURCES)),
    st.integers(1, 9),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_gathering_changes_nothing_in_any_composition(names, source, size, drop_last):
    stages = [stage for name in names for stage in STAGES[name]]
    gathering = pipeline(SOURCES[source](data()), *stages, combine_batches(size, drop_last=drop_last))
    assert same(pairs(gathering, 8), pairs(gathering, 8, fused=False))


def test_it_obeys_the_laws():
    check_stage(combine_batches(4), data())
    check_stage(pipeline(shuffle(5, seed=0), combine_batches(4)), data())


@pytest.mark.parametrize(
    'between', [apply(lambda sample: sample), keep(lambda sample: sample['labels'] > 3)], ids=['apply', 'keep']
)
def test_what_looks_at_the_values_gets_them(between):
    looking = pipeline(sample(data(), seed=0), between, combine_batches(4))
    assert same(pairs(looking, 5), pairs(looking, 5, fused=False))


def test_another_combiner_gets_samples():
    batch = next(iter(pipeline(data(), combine_batches(3, list))))
    assert [one['labels'] for one in batch] == [0, 1, 2]


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
    for (values, labels), (other_values, other_labels) in zip(
        (pair[0] for pair in pairs(gathering, 3)), (pair[0] for pair in pairs(expected, 3)), strict=True
    ):
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


def test_what_lies_in_a_file_is_read_in_order():
    (batch,) = next(iter(pipeline(sample(arrays(OnDisk()), seed=0), combine_batches(30))))
    (expected,) = next(iter(pipeline(sample(arrays(np.arange(50) * 2), seed=0), combine_batches(30))))
    assert same(batch, expected)


class OfTorch:
    """A map-style data set that torch's DataLoader would read batch by batch."""

    def __init__(self):
        self.singly = self.together = 0

    def __len__(self):
        return 50

    def __getitem__(self, index):
        self.singly += 1
        return IMAGES[index], LABELS[index]

    def __getitems__(self, indices):
        self.together += 1
        return [(IMAGES[index], LABELS[index]) for index in indices]


@pytest.mark.parametrize('combine', [combine_to_arrays, list], ids=['arrays', 'list'])
def test_a_data_set_with_getitems_is_read_batch_by_batch(combine):
    data_set = OfTorch()
    batches = pipeline(sample(data_set, seed=0), combine_batches(5, combine))
    gathered = pairs(batches, 4)
    assert (data_set.singly, data_set.together) == (0, 4)
    assert same(gathered, pairs(batches, 4, fused=False))


def test_errors_are_those_of_the_plain_run():
    class Broken(OfTorch):
        def __getitems__(self, indices):
            raise OSError('all of them')

        def __getitem__(self, index):
            if index == 7:
                raise KeyError(index)
            return super().__getitem__(index)

    batches = iter(pipeline(Broken(), combine_batches(3)))
    assert [len(next(batches)[0]) for _ in range(2)] == [3, 3]
    with pytest.raises(KeyError) as caught:
        next(batches)
    assert caught.value.__notes__ == ['after the cursor 6\nto run it again: pipeline.replay(6)']


def test_a_wrong_cursor_is_told_at_once():
    batches = pipeline(arrays(IMAGES, LABELS), combine_batches(4))
    with pytest.raises(ValueError, match='the cursor 51 is not one of'):
        batches.resume(51)
    with pytest.raises(ValueError, match='whose cursors are ints'):
        batches.resume((1, 2))


def test_with_prefetch_and_a_state():
    def make():
        return pipeline(sample(data(), seed=0), shuffle(8, seed=0), combine_batches(4), prefetch(6))

    with make() as batches:
        list(batches)
        state = batches.state_dict()
        expected = list(batches)
    with make() as batches:
        batches.load_state_dict(state)
        assert same(list(batches), expected)


def test_it_prints_compares_and_describes():
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
def test_bad_input_is_told_at_once(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_batch_costs_a_fixed_number_of_calls():
    """Whatever its size: a batch of a thousand takes no more calls of Python functions than one of ten."""

    def calls(size):
        values = iter(pipeline(sample(arrays(IMAGES, LABELS), seed=0), combine_batches(size)))
        next(values)
        count = 0

        def profile(frame, event, argument):
            nonlocal count
            count += event == 'call'

        sys.setprofile(profile)
        try:
            next(values)
        finally:
            sys.setprofile(None)
        return count

    assert calls(1000) <= calls(10) + 5
