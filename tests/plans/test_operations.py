import gc
import weakref

import pytest

from pipekit import apply, pipeline, shuffle
from pipekit.plans.operations import Chunk, Custom, Map, PendingBatch, place_operations
from pipekit.streams.error_notes import UNKNOWN
from pipekit.streams.iterables import source_of

PAIRS = [('a', 1), ('b', 2), ('c', 3)]


class Sample:
    pass


def failing_after(pairs):
    yield from pairs
    raise ValueError('broken')


def pending(size, pairs, drop_last=False, start=0):
    return list(Chunk(size, drop_last).pending(iter(pairs), start))


def test_pending_batches_have_the_pairs_and_the_cursor_before_them():
    assert pending(2, PAIRS[:2], start=(0, 0)) == [PendingBatch(PAIRS[:2], (0, 0), makes_batch=True)]
    assert [each.before for each in pending(1, PAIRS)] == [0, 1, 2]


@pytest.mark.parametrize('drop_last', [False, True])
def test_a_short_pending_batch_is_there_and_makes_a_batch_unless_it_is_dropped(drop_last):
    assert pending(2, PAIRS, drop_last) == [
        PendingBatch(PAIRS[:2], 0, makes_batch=True),
        PendingBatch(PAIRS[2:], 2, makes_batch=not drop_last),
    ]


@pytest.mark.parametrize('drop_last', [False, True])
@pytest.mark.parametrize('size', [1, 2, 3, 4])
def test_an_error_comes_after_the_samples_before_it_and_they_make_no_batch(size, drop_last):
    batches = Chunk(size, drop_last).pending(failing_after(PAIRS), 0)
    seen = []
    with pytest.raises(ValueError, match='broken'):
        seen.extend(batches)
    assert [pair for each in seen for pair in each.pairs] == PAIRS
    assert [each.makes_batch for each in seen] == [len(each.pairs) == size for each in seen]


def test_nothing_makes_no_pending_batch():
    assert pending(2, []) == []


def test_pending_batches_are_read_one_at_a_time():
    pairs = iter(PAIRS)
    next(Chunk(2, drop_last=False).pending(pairs, 0))
    assert list(pairs) == PAIRS[2:]


def test_an_error_is_not_kept_by_its_own_traceback():
    gc.collect()
    gc.disable()
    try:
        sample = Sample()
        sample_ref = weakref.ref(sample)
        with pytest.raises(ValueError, match='broken') as caught:
            list(Chunk(2, drop_last=False).pending(failing_after([(sample, 1)]), 0))
        del sample, caught
        assert sample_ref() is None
    finally:
        gc.enable()


def test_a_sample_of_a_pending_batch_has_its_cursor_and_the_one_before():
    assert PendingBatch(PAIRS, 0, makes_batch=True).with_previous_cursors == [('a', 1, 0), ('b', 2, 1), ('c', 3, 2)]


def test_an_ordinal_counts_the_earlier_operations_with_the_same_seed():
    operations = [Map(abs, seed=seed) for seed in (0, None, 1, 0, None, 0)]
    placed = place_operations([(each, UNKNOWN) for each in operations], source_seeds=(1, 5))
    assert [each.ordinal for each in placed] == [0, 0, 1, 1, 0, 2]
    assert [each.operation for each in placed] == operations


def test_a_stage_made_by_a_factory_is_a_description_of_operations():
    assert apply(abs).operations == (Map(abs),)
    (operation,) = shuffle(3, seed=7).operations
    assert isinstance(operation, Custom)
    assert (operation.seed, operation.reorders, operation.keeps_structure) == (7, True, True)
    assert pipeline(source_of('abc'), shuffle(3, seed=7)).seeds == (7,)
