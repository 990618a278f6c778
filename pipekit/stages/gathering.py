"""Batches gathered of a sequence at once, by the indices of their samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

from ..memory.blocks import allocating_from
from ..streams.activities import Activity, activity_from
from ..streams.context import Context, Upstream
from ..streams.cursors import Cursor, Pair, Pairs
from ..streams.error_notes import StageLocation
from ..streams.metering import OFF
from ..streams.stream import Gather, IndexStream
from .arrays import Arrays
from .combiners import combine_to_arrays
from .operations import Chunk


class IndexChunk(NamedTuple):
    """What a batch is to be gathered of: indices, the cursors before and after them, and whether they make one."""

    indices: list[int]
    before: Cursor
    after: Cursor
    is_whole: bool


def gather_of(sequence: Any, combine: Callable[..., Any]) -> Gather | None:
    """How to make a batch of elements of a sequence at once, if there is a way."""
    if isinstance(sequence, Arrays):
        return sequence.gathered if sequence.gathers and combine is combine_to_arrays else None
    if callable(getattr(sequence, '__getitems__', None)):  # of a data set of torch
        return lambda indices: combine(sequence.__getitems__(indices))
    return None


def chunks_of_pairs(chunk: Chunk, indices: Upstream[int], cursor: Cursor, context: Context) -> Iterator[IndexChunk]:
    """Indices with a cursor each, in chunks."""
    for pending in chunk.pending(indices(cursor, context), cursor):
        yield IndexChunk([index for index, _ in pending.pairs], pending.before, pending.pairs[-1][1], pending.is_whole)


def chunks_of_counted(chunk: Chunk, stream: IndexStream, cursor: Any, context: Context) -> Iterator[IndexChunk]:
    """Indices that their cursors count, in chunks."""
    assert stream.indices_after is not None
    return _counted_chunks(chunk, stream.indices_after(cursor, context), cursor)


def _counted_chunks(chunk: Chunk, indices: Iterator[int], after: int) -> Iterator[IndexChunk]:
    while some := list(islice(indices, chunk.size)):
        before, after = after, after + len(some)
        yield IndexChunk(some, before, after, len(some) == chunk.size or not chunk.drop_last)


def gathered(
    chunks: Iterator[IndexChunk], gather: Gather, location: StageLocation, apart: Upstream[Any], context: Context
) -> Pairs[Any]:
    """The batches of the chunks, each gathered at once; ``apart`` makes those that cannot be, sample by sample."""
    recorder, memory = context.run.meter or OFF, context.run.memory
    if memory is not None:
        gather = allocating_from(memory, gather)

    @activity_from(lambda local: Activity(local['location'], local['indices'], local['after'], local['before']))
    def batch_of(chunk: IndexChunk) -> Pair[Any] | None:
        indices, before, after, is_whole = chunk
        if is_whole:
            with suppress(Exception):
                call = partial(recorder.call, location.path, gather) if recorder.is_recording else gather
                return call(indices), after
        # Whatever is wrong is said as it is without this.
        return next(apart(before, context), None)

    return filter(None, map(batch_of, chunks))
