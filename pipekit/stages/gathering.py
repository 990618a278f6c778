"""Batches gathered of a sequence at once, by the indices of their samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple

from ..memory.blocks import allocating_from
from ..streams.cursors import Cursor, Pair, Pairs
from ..streams.error_notes import StageLocation
from ..streams.metering import OFF
from ..streams.stream import Context, Upstream
from .indices import Gather
from .tasks import PendingBatch


class IndexChunk(NamedTuple):
    """What a batch is to be gathered of: indices, the cursors before and after them, and whether they make one."""

    indices: list[int]
    before: Cursor
    after: Cursor
    is_whole: bool


def index_chunk(chunk: PendingBatch) -> IndexChunk:
    """A chunk of indices with a cursor each, as one.

    Examples
    --------
    >>> index_chunk(PendingBatch([(7, 1), (3, 2)], before=0, is_whole=True))
    IndexChunk(indices=[7, 3], before=0, after=2, is_whole=True)
    """
    return IndexChunk([index for index, _ in chunk.pairs], chunk.before, chunk.pairs[-1][1], chunk.is_whole)


def counted_chunks(indices: Iterator[int], start: int, size: int, *, drop_last: bool) -> Iterator[IndexChunk]:
    """Indices in chunks, where the cursors count them.

    Examples
    --------
    >>> list(counted_chunks(iter([7, 3, 5]), 4, 2, drop_last=True))[1]
    IndexChunk(indices=[5], before=6, after=7, is_whole=False)
    """
    after = start
    while chunk := list(islice(indices, size)):
        before, after = after, after + len(chunk)
        yield IndexChunk(chunk, before, after, len(chunk) == size or not drop_last)


def open_gathered(
    chunks_at: Callable[[Cursor, Context], Iterator[IndexChunk]],
    plain: Upstream[Any],
    gather: Gather,
    place: StageLocation,
    cursor: Cursor,
    context: Context,
) -> Pairs[Any]:
    """The batches after a cursor, gathered chunk by chunk; ``plain`` makes those that cannot be, sample by sample.

    Examples
    --------
    >>> def chunks_at(cursor, context):
    ...     return counted_chunks(iter([7, 3, 5]), cursor, 2, drop_last=False)
    >>> list(open_gathered(chunks_at, None, sum, StageLocation('sum', 2), 0, Context()))
    [(10, 2), (5, 3)]
    """
    recorder = context.meter or OFF
    if context.memory is not None:
        gather = allocating_from(context.memory, gather)
    path = place.at(context.key).path

    def gathered(chunk: IndexChunk) -> Pair[Any] | None:
        indices, before, after, is_whole = chunk
        if is_whole:
            with suppress(Exception):
                return (recorder.call(path, gather, indices) if recorder.on else gather(indices)), after
        # Whatever is wrong is said as it is without this.
        return next(plain(before, context), None)

    return filter(None, map(gathered, chunks_at(cursor, context)))
