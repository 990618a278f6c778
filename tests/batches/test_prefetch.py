"""What is said where an epoch has no batches: what to change, and nothing that is there already."""

import itertools

import pytest

from pipekit import Exhausted, combine_batches, keep, pipeline, prefetch, repeat, shard, take


def never(value):
    return False


FULL = combine_batches(8, list, drop_last=True)


@pytest.mark.parametrize(
    ('stages', 'end', 'epochs', 'said'),
    [
        ([], prefetch(5), 1, 'after 5 batches; add repeat() to start it again'),
        ([repeat(2)], prefetch(10), 1, 'after 10 batches; repeat(2), or a stage after it, has ended'),
        ([repeat(), take(5)], prefetch(5), 1, 'after 5 batches; repeat(), or a stage after it, has ended'),
        ([FULL, repeat()], prefetch(5), 0, 'drop_last=True) drops the samples of a pass, which are too few for it'),
        ([FULL], prefetch(5), 0, 'drop_last=True) drops the samples of a pass, which are too few for it; pass drop_'),
        ([FULL], prefetch(), 0, 'after 0 batches; combine_batches(8, list, drop_last=True) drops the samples'),
        ([shard(0, 9, drop_last=True)], prefetch(), 0, 'shard(0, 9, drop_last=True) drops the samples of a pass'),
        ([keep(never)], prefetch(), 0, 'after 0 batches; a pass over it yields none'),
        ([keep(never), repeat()], prefetch(3), 0, 'after 0 batches; a pass over it yields none'),
    ],
)
def test_an_empty_epoch_says_what_to_change(stages, end, epochs, said):
    with pipeline(range(5), *stages, end) as batches:
        for _ in range(epochs):
            list(batches)
        with pytest.raises(Exhausted) as caught:
            list(batches)
    assert said in str(caught.value)
    assert not (any('repeat()' in repr(stage) for stage in stages) and 'add repeat()' in str(caught.value))


def test_a_class_without_arguments_is_a_source():
    with pipeline(itertools.count, take(7), combine_batches(3, list), prefetch()) as batches:
        assert list(batches) == list(batches) == [[0, 1, 2], [3, 4, 5], [6]]
