"""Batches gathered from arrays at once are those made sample by sample."""

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


def test_gathering_obeys_the_laws():
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


def test_an_error_at_a_sample_is_that_of_the_plain_run():
    class Broken(OfTorch):
        def __getitems__(self, indices):
            return [self[index] for index in indices]

        def __getitem__(self, index):
            if index == 7:
                raise KeyError(index)
            return super().__getitem__(index)

    batches = iter(pipeline(Broken(), combine_batches(3)))
    assert [len(next(batches)[0]) for _ in range(2)] == [3, 3]
    with pytest.raises(KeyError) as caught:
        next(batches)
    assert caught.value.__notes__ == ['after the cursor 6\nto run it again: pipeline.replay(6)']


@pytest.mark.parametrize(
    ('given', 'what'),
    [
        (lambda samples: samples[1:], 'got 2 samples'),
        (lambda samples: [*samples, samples[0]], 'got 4 samples'),
        (lambda samples: [], 'got 0 samples'),
        (combine_to_arrays, 'got 2 samples'),
        (lambda samples: {'image': samples}, "got {'image': "),
        (iter, 'got list_iterator'),
        (lambda samples: None, 'got NoneType'),
    ],
)
def test_getitems_must_return_a_sample_for_each_index(given, what):
    class Odd(OfTorch):
        def __getitems__(self, indices):
            return given([self[index] for index in indices])

    with pytest.raises(ValueError, match='must return a list of 3 samples, one for each index') as error:
        next(iter(pipeline(Odd(), combine_batches(3))))
    assert what in str(error.value)
    assert 'in combine_batches(3), the 2nd of 2 stages, on batch [0, 1, 2]' in error.value.__notes__[0]


def test_an_error_of_getitems_alone_is_raised():
    class Broken(OfTorch):
        def __getitems__(self, indices):
            raise OSError('all of them')

    with pytest.raises(OSError, match='all of them') as error:
        next(iter(pipeline(Broken(), combine_batches(3))))
    assert 'in combine_batches(3)' in error.value.__notes__[0]


def test_a_wrong_cursor_is_an_error_before_iteration():
    batches = pipeline(arrays(IMAGES, LABELS), combine_batches(4))
    with pytest.raises(ValueError, match='the cursor 51 is not one of'):
        batches.resume(51)
    with pytest.raises(ValueError, match='whose cursors are ints'):
        batches.resume((1, 2))


def test_gathered_batches_resume_from_a_state():
    def make():
        return pipeline(sample(data(), seed=0), shuffle(8, seed=0), combine_batches(4), prefetch(6))

    with make() as batches:
        list(batches)
        state = batches.state_dict()
        expected = list(batches)
    with make() as batches:
        batches.load_state_dict(state)
        assert same(list(batches), expected)


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
