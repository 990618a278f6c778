"""Batches that are gathered from a sequence at once, by the indices of their samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple

from ..memory.blocks import allocating_from
from ..streams.activities import Activity, read_by
from ..streams.context import Context, Upstream
from ..streams.cursors import Cursor, Pair, Pairs
from ..streams.error_notes import StageLocation
from ..streams.metering import OFF
from ..streams.stream import Gather
from .arrays import Arrays
from .combiners import combine_to_arrays
from .operations import Chunk


class IndexChunk(NamedTuple):
    """The indices of a batch, with the cursors before and after it; ``makes_batch`` as in ``PendingBatch``."""

    indices: list[int]
    before: Cursor
    after: Cursor
    makes_batch: bool


def gather_function(sequence: Any, combine: Callable[..., Any]) -> Gather | None:
    """A function that makes a batch of the elements at a list of indices, faster than one by one; ``None`` if none."""
    if isinstance(sequence, Arrays):
        return sequence.gather if sequence.is_numeric and combine is combine_to_arrays else None
    if callable(getattr(sequence, '__getitems__', None)):  # a data set for torch's DataLoader
        return lambda indices: combine(sequence.__getitems__(indices))
    return None


def index_chunks(chunk: Chunk, pairs: Pairs[int], start: Cursor) -> Iterator[IndexChunk]:
    """Indices in chunks, from pairs of an index and a cursor."""
    for pending in chunk.pending(pairs, start):
        indices = [index for index, _ in pending.pairs]
        yield IndexChunk(indices, pending.before, pending.pairs[-1][1], pending.makes_batch)


def counted_index_chunks(chunk: Chunk, indices: Iterator[int], after: Any) -> Iterator[IndexChunk]:
    """Indices in chunks, where the cursors count them."""
    while some := list(islice(indices, chunk.size)):
        before, after = after, after + len(some)
        yield IndexChunk(some, before, after, len(some) == chunk.size or not chunk.drop_last)


def gather_batches(
    chunks: Iterator[IndexChunk], gather: Gather, location: StageLocation, fallback: Upstream[Any], context: Context
) -> Pairs[Any]:
    """A batch for each chunk, gathered at once; ``fallback`` makes those that cannot be, sample by sample."""
    recorder, memory = context.run.meter or OFF, context.run.memory
    if memory is not None:
        gather = allocating_from(memory, gather)

    @read_by(lambda names: Activity(names['location'], names['indices'], names['after'], names['before']))
    def batch_of(chunk: IndexChunk) -> Pair[Any] | None:
        indices, before, after, makes_batch = chunk
        if makes_batch:
            with suppress(Exception):
                return (recorder.call(location.path, gather, indices) if recorder.on else gather(indices)), after
        # An error is raised again here, as the same error as without gathering.
        return next(fallback(before, context), None)

    return filter(None, map(batch_of, chunks))
