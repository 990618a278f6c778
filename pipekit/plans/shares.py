"""The share of a rank: which samples of each batch it computes, and the pipelines for which that is exact."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, takewhile
from typing import Any

from more_itertools import rstrip

from ..describing.descriptions import UnseededEntropy
from ..describing.display import brief, code
from ..streams.calls import Located
from ..streams.cursors import Cursor, Pair, Pairs
from ..streams.index_stream import NumberedIndices
from ..streams.nesting import streams_within
from ..streams.stream import Stream
from .operations import Chunk, Custom, Map, Operation, PendingBatch, Share


def walked_shares(chunk: Chunk, pairs: Pairs[Any], start: Cursor) -> Iterator[PendingBatch]:
    """The shares of a rank, from the pairs of all ranks."""
    assert chunk.share is not None
    while batch := list(islice(pairs, chunk.size)):
        n, before, start = len(batch), start, batch[-1][1]
        if not chunk.makes_batch(n):
            return
        first, end = chunk.share.bounds(n)
        before_first = batch[first - 1][1] if first else before
        share = [batch[first:end]]
        batch.clear()  # nothing is held while the consumer works
        yield PendingBatch(share.pop(), before_first, makes_batch=True, of_all_ranks=(before, start))


def found_shares(chunk: Chunk, indices: NumberedIndices, start: int) -> Iterator[PendingBatch]:
    """The shares of a rank, found directly: pairs of an index and a cursor."""
    assert chunk.share is not None
    while True:
        n = chunk.size if indices.length is None else min(chunk.size, indices.length - start)
        if not n or not chunk.makes_batch(n):
            return
        first, end = chunk.share.bounds(n)
        numbers = range(start + first + 1, start + end + 1)
        pairs: list[Pair[int]] = list(zip(indices.between(start + first, start + end), numbers, strict=True))
        yield PendingBatch(pairs, start + first, makes_batch=True, of_all_ranks=(start, start + n))
        start += n


def with_elements(pending: Iterator[PendingBatch], sequence: Any) -> Iterator[PendingBatch]:
    """The batches with the elements of a sequence in place of their indices."""
    return (each._replace(pairs=[(sequence[index], cursor) for index, cursor in each.pairs]) for each in pending)


def mapped_shares(
    pending: Iterator[PendingBatch], mapped: Callable[[Iterator[Located]], Pairs[Any]]
) -> Iterator[PendingBatch]:
    """The batches with the results of a map of their samples; it gives one for each sample, in their order."""
    begun: deque[tuple[int, PendingBatch]] = deque()  # without samples, which are not to be held

    def samples() -> Iterator[Located]:
        for batch in pending:
            located = batch.with_previous_cursors[::-1]
            begun.append((len(located), batch._replace(pairs=[])))
            del batch
            while located:
                yield located.pop()

    results = mapped(samples())
    for first in results:
        n, batch = begun.popleft()
        pairs = [first, *islice(results, n - 1)]
        del first
        filled = [batch._replace(pairs=pairs)]
        del pairs
        yield filled.pop()


def share_of(source: Stream[Any], operations: Sequence[Operation]) -> Share | None:
    """The share that operations or a source leave to one rank."""
    return next((each.share for each in operations if each.share is not None), source.share)


def computed_on_every_rank(source: Stream[Any], stages: Sequence[Any]) -> list[Any]:
    """The source and the stages that compute the samples of all ranks, of a pipeline whose batches ranks share."""
    before = list(takewhile(lambda stage: not _shares(stage), stages))
    alone = list(rstrip(before, lambda stage: all(isinstance(each, Map) for each in stage.operations)))
    if len(before) == len(stages) or (source.indices is not None and all(map(_only_reorders, alone))):
        return []
    return [source, *alone]


def check_shares(source: Stream[Any], stages: Sequence[Any]) -> None:
    """Check that the shares of all ranks, joined, are the batches of one.

    Raises
    ------
    ValueError
        If a stage makes that impossible; says which one, and what to do.
    """
    parts = [(stage, each) for stage in stages for each in stage.operations]
    shared_by: Any = source if source.share is not None else None
    streams = list(streams_within(source))
    before: list[Any] = [stage for stream in streams for stage in stream.stages]
    share = share_of(source, [operation for _, operation in parts])
    if share is not None and share.world_size > 1:
        _check_order([*(stream.source for stream in streams), *before, *stages])
    for stage, operation in parts:
        if shared_by is not None and (operation.splits or operation.length_depends_on_values):
            raise ValueError(_behind(stage, operation, shared_by))
        if operation.share is not None:
            shared_by = stage
            splitting = [each for each in before if any(part.splits for part in each.operations)]
            if splitting:
                raise ValueError(
                    f'{code(splitting[0])} cannot come before {code(stage)}, whose samples the ranks share: they would '
                    'be split twice; leave out one of them'
                )
            skipping = [each for each in before if each.skips and _length_depends_on_values(each)]
            if skipping:
                raise ValueError(
                    f'{code(skipping[0])} cannot come before {code(stage)}, whose samples the ranks share: they would '
                    'not know what other ranks skip; use replace(...) in place of skip, or a keep(...) before it'
                )
        before.append(stage)


def _check_order(parts: Sequence[Any]) -> None:
    for number, part in enumerate(parts):
        if isinstance(part.seed, UnseededEntropy) and _decides_order(part, parts[number + 1 :]):
            raise ValueError(
                f'{code(part)} draws other numbers on each rank, so that the shares would not fit together; pass '
                'seed=, the same on all ranks'
            )
        if not getattr(part, 'is_ordered', True):
            raise ValueError(
                f'the source {brief(part)} is a set, whose order differs between processes, so that the shares would '
                'not fit together; pass sorted(...)'
            )


def _decides_order(part: Any, later: Sequence[Any]) -> bool:
    """Whether the numbers that it draws decide which samples come next, rather than what is made of each."""
    is_map = all(isinstance(each, Map) for each in getattr(part, 'operations', [None]))
    return not is_map or any(map(_length_depends_on_values, later))


def _shares(stage: Any) -> bool:
    return any(each.share is not None for each in stage.operations)


def _only_reorders(stage: Any) -> bool:
    return all(isinstance(each, Custom) and each.reorders and not each.replays for each in stage.operations)


def _length_depends_on_values(stage: Any) -> bool:
    return any(each.length_depends_on_values for each in getattr(stage, 'operations', ()))


def _behind(stage: Any, operation: Operation, shared_by: Any) -> str:
    if operation.splits:
        return (
            f'{code(stage)} cannot come after {code(shared_by)}, which the ranks share already; leave out one of them'
        )
    return (
        f'{code(stage)} cannot come after {code(shared_by)}, which the ranks share: they would go on with different '
        'numbers of batches; put it before that'
    )
