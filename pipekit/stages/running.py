"""How a plan is run: each step of it opened on the one before."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from more_itertools import chunked

from ..memory.blocks import allocating_from
from ..streams.calls import function_of_calls, with_previous_cursor
from ..streams.context import Context, Run, Upstream
from ..streams.cursors import Cursor, Pair, Pairs
from ..streams.error_notes import StageLocation
from ..streams.failures import Failures
from ..streams.metering import OFF
from ..streams.stream import IndexStream, Stream
from ..workers.kinds import Workers
from .fusion import Batched, Gathered, Mapped, Placed, Plan, Single, Step, plan
from .gathering import chunks_of_counted, chunks_of_pairs, gather_of, gathered
from .operations import Chunk
from .tasks import BatchTask, Task


def opened(source: Stream[Any], place: StageLocation, operations: Placed, run: Run) -> Upstream[Any]:
    """A source fed through operations, as one function that opens it."""
    indices = source.indices
    gather_with = None if indices is None else partial(gather_of, indices.sequence)
    steps = plan(operations, fuses=run.fuses, in_pools=run.pools is not None, gather_with=gather_with)
    return _chained(steps, partial(_open_source, source, place), indices)


def opened_indices(indices: IndexStream, operations: Placed, run: Run) -> Upstream[int]:
    """The indices of a source fed through operations that reorder, as one function that opens them."""
    return _chained(plan(operations, fuses=run.fuses), partial(_open_indices, indices), None)


def _chained(steps: Plan, upstream: Upstream[Any], indices: IndexStream | None) -> Upstream[Any]:
    for step in steps:
        upstream = partial(_open_step, step, upstream, indices)
    return upstream


def _open_source(source: Stream[Any], place: StageLocation, cursor: Cursor, context: Context) -> Pairs[Any]:
    place = place.at(context.key)
    return _profiled(source.open(cursor, context._replace(ordinal=0, place=place)), place, context.run)


def _open_indices(indices: IndexStream, cursor: Cursor, context: Context) -> Pairs[int]:
    return indices.open_at(cursor, context._replace(ordinal=0))


def _open_step(
    step: Step, upstream: Upstream[Any], indices: IndexStream | None, cursor: Cursor, context: Context
) -> Pairs[Any]:
    if isinstance(step, Mapped):
        return _open_mapped(step, upstream, cursor, context)
    if isinstance(step, Batched):
        return _open_batched(step, upstream, cursor, context)
    if isinstance(step, Gathered):
        assert indices is not None
        return _open_gathered(step, upstream, indices, cursor, context)
    return _open_single(step, upstream, cursor, context)


def _open_single(step: Single, upstream: Upstream[Any], cursor: Cursor, context: Context) -> Pairs[Any]:
    operation, ordinal, place = step.operation
    place = place.at(context.key)
    if isinstance(operation, Chunk):
        pairs = _chunks(operation, upstream(cursor, context))
    else:
        pairs = operation.open(upstream, cursor, context._replace(ordinal=ordinal, place=place))
    return _profiled(pairs, place, context.run)


def _open_mapped(step: Mapped, upstream: Upstream[Any], cursor: Cursor, context: Context) -> Pairs[Any]:
    pairs = upstream(cursor, context)
    run, first = context.run, step.maps[0].operation
    calls = [each.call for each in step.maps]
    memory = run.memory if first.combines else None
    # A map, unlike a generator's loop, holds no value while its consumer works.
    if first.workers is not None and run.pools is not None:
        task = Task(calls, context.key, is_measured=run.meter is not None)
        task.pause, task.memory = run.pools.pause, memory
        made = _worked(first.workers, task, with_previous_cursor(pairs, cursor), run)
    else:
        pause = None if run.pools is None else run.pools.pause
        function = function_of_calls(calls, context.key, cursor, run.meter or OFF, pause)
        made = map(function if memory is None else allocating_from(memory, function), pairs)
    if any(call.skips for call in calls):
        failures = Failures() if run.failures is None else run.failures
        return filter(None, map(failures.counted, made))
    return made


def _open_batched(step: Batched, upstream: Upstream[Any], cursor: Cursor, context: Context) -> Pairs[Any]:
    is_measured = context.run.meter is not None
    each, whole = (
        Task([one.call for one in maps], context.key, is_measured=is_measured) for maps in (step.maps, step.combining)
    )
    pending = step.chunk.pending(upstream(cursor, context), cursor)
    made = _worked(step.maps[0].operation.workers, BatchTask(each, whole), pending, context.run)
    return filter(None, made)  # a chunk that is not whole makes no batch


def _open_gathered(
    step: Gathered, upstream: Upstream[Any], indices: IndexStream, cursor: Cursor, context: Context
) -> Pairs[Any]:
    if step.reordering or indices.indices_after is None:
        chunks = chunks_of_pairs(step.chunk, opened_indices(indices, step.reordering, context.run), cursor, context)
    else:
        chunks = chunks_of_counted(step.chunk, indices, cursor, context._replace(ordinal=0))
    location = step.combining.place.at(context.key)
    return gathered(chunks, step.gather, location, _chained(step.apart, upstream, None), context)


def _worked(workers: Workers, task: Task | BatchTask, items: Iterator[Any], run: Run) -> Iterator[Any]:
    assert run.pools is not None
    made = run.pools.map(workers, task, items)
    return made if run.meter is None else map(run.meter.unpacked, made)


def _profiled(pairs: Pairs[Any], place: StageLocation, run: Run) -> Pairs[Any]:
    return run.meter.profiled(pairs, place.path) if run.meter is not None and run.meter.is_exact else pairs


def _chunks(chunk: Chunk, pairs: Pairs[Any]) -> Pairs[list[Any]]:
    chunks = map(_turned, chunked(pairs, chunk.size))
    return filter(lambda pair: len(pair[0]) == chunk.size, chunks) if chunk.drop_last else chunks


def _turned(pairs: list[Pair[Any]]) -> Pair[list[Any]]:
    return [value for value, _ in pairs], pairs[-1][1]
