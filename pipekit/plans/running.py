"""How a plan is run: each step is opened on the one before it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import groupby
from typing import Any

from more_itertools import chunked

from ..memory.blocks import allocating_from
from ..streams.calls import function_of_calls, with_previous_cursor
from ..streams.context import Context, Run, Upstream
from ..streams.cursors import Cursor, Pair, Pairs
from ..streams.error_notes import StageLocation
from ..streams.failures import Failures
from ..streams.index_stream import IndexStream
from ..streams.metering import OFF
from ..streams.stream import Stream
from ..workers.kinds import Workers
from .fusion import BatchStep, GatherStep, MapStep, Operations, Plan, SingleStep, Step, plan
from .gathering import counted_index_chunks, gather_batches, gather_function, index_chunks
from .operations import Chunk
from .tasks import BatchTask, Task


def open_pipeline(
    source: Stream[Any], place: StageLocation, operations: Operations, cursor: Cursor, context: Context
) -> Pairs[Any]:
    """The pairs that operations make of a source."""
    run, indices = context.run, source.indices
    gather_for = None if indices is None else partial(gather_function, indices.sequence)
    steps = plan(operations, fuses=run.fuses, has_workers=run.pools is not None, gather_for=gather_for)
    return _connected(steps, partial(_open_source, source, place), indices)(cursor, context)


def open_index_pipeline(indices: IndexStream, operations: Operations, cursor: Cursor, context: Context) -> Pairs[int]:
    """The pairs that operations which only reorder make of the indices of a source."""
    steps = plan(operations, fuses=context.run.fuses)
    return _connected(steps, partial(_open_indices, indices), None)(cursor, context)


def _connected(steps: Plan, upstream: Upstream[Any], indices: IndexStream | None) -> Upstream[Any]:
    for are_in_row, group in groupby(steps, _opens_at_cursor):
        if are_in_row:
            upstream = partial(_open_in_row, list(group), upstream)
        else:
            for step in group:
                upstream = partial(_open_step, step, upstream, indices)
    return upstream


def _opens_at_cursor(step: Step) -> bool:
    """Whether a step opens its upstream once, at the cursor that it is opened at itself."""
    if isinstance(step, SingleStep):
        operation = step.operation.operation
        return isinstance(operation, Chunk) or operation.opens_at_cursor
    return isinstance(step, MapStep)


def _open_in_row(steps: Plan, upstream: Upstream[Any], cursor: Cursor, context: Context) -> Pairs[Any]:
    # One after another: a thousand of them, each opened by the next, would reach the limit of recursion.
    pairs = upstream(cursor, context)
    for step in steps:
        pairs = _open_step(step, partial(_opened, pairs), None, cursor, context)
    return pairs


def _opened(pairs: Pairs[Any], cursor: Cursor, context: Context) -> Pairs[Any]:
    return pairs


def _open_source(source: Stream[Any], place: StageLocation, cursor: Cursor, context: Context) -> Pairs[Any]:
    place = place.at(context.key)
    return _profiled(source.open(cursor, context._replace(ordinal=0, place=place)), place, context.run)


def _open_indices(indices: IndexStream, cursor: Cursor, context: Context) -> Pairs[int]:
    return indices.open_at(cursor, context._replace(ordinal=0))


def _open_step(
    step: Step, upstream: Upstream[Any], indices: IndexStream | None, cursor: Cursor, context: Context
) -> Pairs[Any]:
    match step:
        case SingleStep():
            return _open_single(step, upstream, cursor, context)
        case MapStep():
            return _open_maps(step, upstream, cursor, context)
        case BatchStep():
            return _open_batches(step, upstream, cursor, context)
        case GatherStep():
            assert indices is not None
            return _open_gather(step, upstream, indices, cursor, context)


def _open_single(step: SingleStep, upstream: Upstream[Any], cursor: Cursor, context: Context) -> Pairs[Any]:
    operation, ordinal, place = step.operation
    place = place.at(context.key)
    if isinstance(operation, Chunk):
        pairs = _chunks(operation, upstream(cursor, context))
    else:
        pairs = operation.open(upstream, cursor, context._replace(ordinal=ordinal, place=place))
    return _profiled(pairs, place, context.run)


def _open_maps(step: MapStep, upstream: Upstream[Any], cursor: Cursor, context: Context) -> Pairs[Any]:
    pairs = upstream(cursor, context)
    run, first = context.run, step.maps[0].operation
    pause = None if run.pools is None else run.pools.pause
    memory = run.memory if first.combines else None
    calls = [each.call for each in step.maps]
    # A map, unlike a generator with a loop, holds no value while its consumer works.
    if first.workers is not None and run.pools is not None:
        task = Task(calls, context.key, is_measured=run.meter is not None, pause=pause, memory=memory)
        results = _in_workers(first.workers, task, with_previous_cursor(pairs, cursor), run)
    else:
        function = function_of_calls(calls, context.key, cursor, run.meter or OFF, pause)
        results = map(function if memory is None else allocating_from(memory, function), pairs)
    if any(call.skips for call in calls):
        failures = Failures() if run.failures is None else run.failures
        for call in calls:
            if call.skips:
                failures.note_opened(call.location.at(context.key).path, context.key, cursor)
        return filter(None, map(failures.counted, results))
    return results


def _open_batches(step: BatchStep, upstream: Upstream[Any], cursor: Cursor, context: Context) -> Pairs[Any]:
    is_measured = context.run.meter is not None
    of_sample, of_batch = (
        Task([each.call for each in maps], context.key, is_measured=is_measured)
        for maps in (step.sample_maps, step.batch_maps)
    )
    pending = step.chunk.pending(upstream(cursor, context), cursor)
    workers = step.sample_maps[0].operation.workers
    return filter(None, _in_workers(workers, BatchTask(of_sample, of_batch), pending, context.run))


def _open_gather(
    step: GatherStep, upstream: Upstream[Any], indices: IndexStream, cursor: Cursor, context: Context
) -> Pairs[Any]:
    if step.reordering or indices.indices_after is None:
        chunks = index_chunks(step.chunk, open_index_pipeline(indices, step.reordering, cursor, context), cursor)
    else:
        chunks = counted_index_chunks(step.chunk, indices.indices_after(cursor, context._replace(ordinal=0)), cursor)
    location = step.combining.place.at(context.key)
    return gather_batches(chunks, step.gather, location, _connected(step.fallback, upstream, None), context)


def _in_workers(workers: Workers, task: Task | BatchTask, items: Iterator[Any], run: Run) -> Iterator[Any]:
    assert run.pools is not None
    results = run.pools.map(workers, task, items)
    return results if run.meter is None else map(run.meter.unpacked, results)


def _profiled(pairs: Pairs[Any], place: StageLocation, run: Run) -> Pairs[Any]:
    return run.meter.profiled(pairs, place.path) if run.meter is not None and run.meter.is_exact else pairs


def _chunks(chunk: Chunk, pairs: Pairs[Any]) -> Pairs[list[Any]]:
    chunks = map(_pair_of_list, chunked(pairs, chunk.size))
    return filter(lambda pair: len(pair[0]) == chunk.size, chunks) if chunk.drop_last else chunks


def _pair_of_list(pairs: list[Pair[Any]]) -> Pair[list[Any]]:
    return [value for value, _ in pairs], pairs[-1][1]
