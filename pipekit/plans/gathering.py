"""Batches that are gathered from a sequence at once, by the indices of their samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

from ..describing.display import code, structure
from ..memory.blocks import allocating_from
from ..streams.activities import Activity, activity_from
from ..streams.context import Context, Upstream
from ..streams.cursors import Cursor, Pair, Pairs
from ..streams.error_notes import StageLocation, raise_with_note
from ..streams.index_stream import Gather, NumberedIndices
from ..streams.metering import OFF
from .operations import Chunk, PendingBatch

NOT_GATHERED = object()


class IndexChunk(NamedTuple):
    """The indices of a batch, with the cursors before and after it; ``makes_batch`` as in ``PendingBatch``."""

    indices: list[int]
    before: Cursor
    after: Cursor
    makes_batch: bool


def gather_function(sequence: Any, combine: Callable[..., Any]) -> Gather | None:
    """A function that makes a batch of the elements at a list of indices, faster than one by one; ``None`` if none."""
    if callable(getattr(type(sequence), 'gathers_for', None)):  # our own arrays
        return partial(_gather, sequence) if sequence.gathers_for(combine) else None
    if callable(getattr(sequence, '__getitems__', None)):  # a data set for torch's DataLoader
        return lambda indices: combine(_get_items(sequence, indices))
    return None


def _gather(sequence: Any, indices: list[int]) -> Any:
    with suppress(Exception):  # the error is raised again by the same batch made without gathering
        return sequence.gather(indices)
    return NOT_GATHERED


def _get_items(sequence: Any, indices: list[int]) -> Any:
    samples = sequence.__getitems__(indices)
    if not isinstance(samples, list | tuple) or len(samples) != len(indices):
        given = f'{len(samples)} samples' if isinstance(samples, list | tuple) else structure(samples)
        expected = f'a list of {len(indices)} samples, one for each index'
        raise ValueError(f'__getitems__ of {code(sequence)} must return {expected}, got {given}')
    return samples


def index_chunks(pending: Iterator[PendingBatch]) -> Iterator[IndexChunk]:
    """Batches of indices, from those of pairs of an index and a cursor."""
    for each in pending:
        yield IndexChunk([index for index, _ in each.pairs], *each.cursors, each.makes_batch)


def numbered_index_chunks(chunk: Chunk, indices: NumberedIndices, after: Any) -> Iterator[IndexChunk]:
    """Batches of indices, where the cursors count them."""
    rest = indices.after(after)
    while some := list(islice(rest, chunk.size)):
        before, after = after, after + len(some)
        yield IndexChunk(some, before, after, chunk.makes_batch(len(some)))


def gather_batches(
    chunks: Iterator[IndexChunk], gather: Gather, location: StageLocation, fallback: Upstream[Any], context: Context
) -> Pairs[Any]:
    """A batch for each chunk, gathered at once; ``fallback`` makes those that cannot be, sample by sample."""
    recorder, memory = context.run.meter or OFF, context.run.memory
    if memory is not None:
        gather = allocating_from(memory, gather)

    @activity_from(lambda local: Activity(local['location'], local['indices'], local['after'], local['before']))
    def batch_of(chunk: IndexChunk) -> Pair[Any] | None:
        indices, before, after, makes_batch = chunk
        failure: list[Exception] = []
        if makes_batch:
            try:
                batch = recorder.call(location.path, gather, indices) if recorder.is_recording else gather(indices)
                if batch is not NOT_GATHERED:
                    return batch, after
            except Exception as error:
                failure.append(error)
        pair = next(fallback(before, context), None)  # raises the same error with the sample, if one is at fault
        if failure:
            raise_with_note(failure.pop(), location, indices, after, before)
        return pair

    return filter(None, map(batch_of, chunks))
