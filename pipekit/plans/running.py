"""How a plan is run: each step is opened on the one before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any

from more_itertools import chunked

from ..memory.blocks import allocating_from
from ..streams.calls import Located, function_of_calls, with_previous_cursor
from ..streams.context import Context, Run, Upstream
from ..streams.cursors import START, Cursor, Pair, Pairs
from ..streams.error_notes import StageLocation
from ..streams.failures import Failures
from ..streams.index_stream import IndexStream
from ..streams.metering import OFF
from ..streams.stream import Stream
from ..workers.kinds import Workers
from .fusion import BatchStep, ElementStep, GatherStep, MapStep, Operations, Plan, ShareStep, SingleStep, Step, plan
from .gathering import gather_batches, gather_function, index_chunks, numbered_index_chunks
from .operations import Chunk, PendingBatch
from .shares import found_shares, mapped_shares, walked_shares, with_elements
from .tasks import BatchTask, Task

AS_PAIR = attrgetter('as_pair')  # mapped, because a generator would hold the samples while its consumer works


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
            return _open_batches(step, step.chunk.pending(upstream(cursor, context), cursor), context)
        case ShareStep():
            return _open_share(step, upstream, indices, cursor, context)
        case ElementStep():
            assert indices is not None
            sequence, pairs = indices.sequence, open_index_pipeline(indices, step.reordering, cursor, context)
            return ((sequence[index], number) for index, number in pairs)
        case GatherStep():
            assert indices is not None
            return _open_gather(step, upstream, indices, cursor, context)


def _open_single(step: SingleStep, upstream: Upstream[Any], cursor: Cursor, context: Context) -> Pairs[Any]:
    operation, ordinal, place, _ = step.operation
    place = place.at(context.key)
    if isinstance(operation, Chunk):
        pairs = _chunks(operation, upstream(cursor, context), cursor)
    else:
        pairs = operation.open(upstream, cursor, context._replace(ordinal=ordinal, place=place))
    return _profiled(pairs, place, context.run)


def _open_maps(step: MapStep, upstream: Upstream[Any], cursor: Cursor, context: Context) -> Pairs[Any]:
    pairs = upstream(cursor, context)
    # A map, unlike a generator with a loop, holds no value while its consumer works.
    if _has_workers(step, context):
        results = _worked(step, with_previous_cursor(pairs, cursor), context)
    else:
        results = map(_function(step, cursor, context), pairs)
    return _counted(step, results, cursor, context)


def _map_located(step: MapStep, samples: Iterator[Located], context: Context) -> Pairs[Any]:
    """As ``_open_maps``, of samples that do not follow one another."""
    if _has_workers(step, context):
        results = _worked(step, samples, context)
    else:
        function = _function(step, START, context)
        # Mapped, because a generator would hold the last sample.
        results = map(partial(_called_on, function), samples)
    return _counted(step, results, START, context)


def _called_on(function: Callable[..., Any], located: Located) -> Any:
    return function(located[:2], located[2])


def _has_workers(step: MapStep, context: Context) -> bool:
    return context.run.pools is not None and step.maps[0].operation.workers is not None


def _worked(step: MapStep, samples: Iterator[Located], context: Context) -> Iterator[Any]:
    run, first = context.run, step.maps[0].operation
    assert run.pools is not None
    memory = run.memory if first.combines else None
    calls = [each.call for each in step.maps]
    task = Task(calls, context.key, is_measured=run.meter is not None, pause=run.pools.pause, memory=memory)
    return _in_workers(first.workers, task, samples, run)


def _function(step: MapStep, cursor: Cursor, context: Context) -> Callable[..., Any]:
    run = context.run
    pause = None if run.pools is None else run.pools.pause
    function = function_of_calls([each.call for each in step.maps], context.key, cursor, run.meter or OFF, pause)
    combines = step.maps[0].operation.combines
    return allocating_from(run.memory, function) if combines and run.memory is not None else function


def _counted(step: MapStep, results: Iterator[Any], cursor: Cursor, context: Context) -> Pairs[Any]:
    """The results without those that were skipped, of which, as of those that were replaced, the failures count."""
    skipping = [each for each in step.maps if each.operation.skips]
    if not skipping:
        return results
    failures = context.run.failures or Failures()
    for each in skipping:
        if not each.is_of_one_rank:  # else what has failed differs between the ranks, and belongs in no state
            failures.note_opened(each.place.at(context.key).path, context.key, cursor)
    return filter(None, map(failures.counted, results))


def _open_batches(step: BatchStep, pending: Iterator[PendingBatch], context: Context) -> Pairs[Any]:
    is_measured = context.run.meter is not None
    of_sample, of_batch = (
        Task([each.call for each in maps], context.key, is_measured=is_measured)
        for maps in (step.sample_maps, step.batch_maps)
    )
    workers = step.sample_maps[0].operation.workers
    return filter(None, _in_workers(workers, BatchTask(of_sample, of_batch), pending, context.run))


def _open_share(
    step: ShareStep, upstream: Upstream[Any], indices: IndexStream | None, cursor: Cursor, context: Context
) -> Pairs[Any]:
    chunk = step.chunk.operation
    if step.reordering is None:
        pending = walked_shares(chunk, upstream(cursor, context), cursor)
    else:
        assert indices is not None
        shares = _index_shares(chunk, step.reordering, indices, cursor, context)
        pending = with_elements(shares, indices.sequence)
    for maps in step.map_steps:
        pending = mapped_shares(pending, partial(_map_located, maps, context=context))
    if step.batch_step is not None:
        return _open_batches(step.batch_step, pending, context)
    return _profiled(map(AS_PAIR, pending), step.chunk.place.at(context.key), context.run)


def _index_shares(
    chunk: Chunk, reordering: Operations, indices: IndexStream, cursor: Cursor, context: Context
) -> Iterator[PendingBatch]:
    if reordering or indices.open_numbered is None:
        return walked_shares(chunk, open_index_pipeline(indices, reordering, cursor, context), cursor)
    found = indices.open_numbered(cursor, context._replace(ordinal=0))
    assert isinstance(cursor, int)
    return found_shares(chunk, found, cursor)


def _open_gather(
    step: GatherStep, upstream: Upstream[Any], indices: IndexStream, cursor: Cursor, context: Context
) -> Pairs[Any]:
    chunk = step.chunk
    if chunk.share is not None:
        chunks = index_chunks(_index_shares(chunk, step.reordering, indices, cursor, context))
    elif step.reordering or indices.open_numbered is None:
        pairs = open_index_pipeline(indices, step.reordering, cursor, context)
        chunks = index_chunks(chunk.pending(pairs, cursor))
    else:
        chunks = numbered_index_chunks(chunk, indices.open_numbered(cursor, context._replace(ordinal=0)), cursor)
    location = step.combining.place.at(context.key)
    return gather_batches(chunks, step.gather, location, _connected(step.fallback, upstream, None), context)


def _in_workers(workers: Workers, task: Task | BatchTask, items: Iterator[Any], run: Run) -> Iterator[Any]:
    assert run.pools is not None
    results = run.pools.map(workers, task, items)
    return results if run.meter is None else map(run.meter.unpacked, results)


def _profiled(pairs: Pairs[Any], place: StageLocation, run: Run) -> Pairs[Any]:
    return run.meter.profiled(pairs, place.path) if run.meter is not None and run.meter.is_exact else pairs


def _chunks(chunk: Chunk, pairs: Pairs[Any], start: Cursor) -> Pairs[list[Any]]:
    if chunk.share is not None:
        return map(AS_PAIR, walked_shares(chunk, pairs, start))
    chunks = map(_pair_of_list, chunked(pairs, chunk.size))
    return filter(lambda pair: len(pair[0]) == chunk.size, chunks) if chunk.drop_last else chunks


def _pair_of_list(pairs: list[Pair[Any]]) -> Pair[list[Any]]:
    return [value for value, _ in pairs], pairs[-1][1]
