"""The plan of a pipeline: which operations are run together. Values and cursors are those of running each alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any, NamedTuple, TypeAlias

from more_itertools import flatten, ilen

from ..streams.index_stream import Gather
from ..workers.kinds import Workers, makes_whole_batches
from .operations import Chunk, Custom, Map, PlacedOperation

Operations: TypeAlias = Sequence[PlacedOperation]
GatherFor: TypeAlias = Callable[[Callable[..., Any]], Gather | None]


class SingleStep(NamedTuple):
    """A chunk or a custom operation, run by itself."""

    operation: PlacedOperation


class MapStep(NamedTuple):
    """Neighbouring maps with the same workers, run as one function."""

    maps: Operations


class BatchStep(NamedTuple):
    """Maps of samples, a chunk and maps of batches, run as one task of a worker for each batch."""

    sample_maps: Operations
    chunk: Chunk
    batch_maps: Operations


class GatherStep(NamedTuple):
    """A chunk and its combiner, run as one gather of elements of a sequence, by the indices of the samples.

    ``fallback`` is the plan for the batches that cannot be gathered.
    """

    reordering: Operations
    chunk: Chunk
    combining: PlacedOperation
    gather: Gather
    fallback: Plan


class ElementStep(NamedTuple):
    """Operations that only reorder, run on the indices of the elements of a sequence, which are then looked up."""

    reordering: Operations


class ShareStep(NamedTuple):
    """Maps of samples and a chunk, run on the share of one rank. ``batch_step`` is the last of them, if there is one.

    If ``reordering`` is not ``None``, the samples are elements of a sequence, and only those of the share are looked
    up: everything before the maps works on their indices.
    """

    reordering: Operations | None
    map_steps: Sequence[MapStep]
    chunk: PlacedOperation
    batch_step: BatchStep | None


Step: TypeAlias = SingleStep | MapStep | BatchStep | GatherStep | ElementStep | ShareStep
Plan: TypeAlias = list[Step]


def plan(
    operations: Operations, *, fuses: bool = True, has_workers: bool = False, gather_for: GatherFor | None = None
) -> Plan:
    """The steps in which operations are run.

    Parameters
    ----------
    fuses
        Whether operations are run together at all.
    has_workers
        Whether there are workers to run maps in.
    gather_for
        If the values are elements of a sequence: finds the function that gathers a combiner's batches, if there is one.
    """
    if not fuses:
        return [MapStep([each]) if isinstance(each.operation, Map) else SingleStep(each) for each in operations]
    steps: Plan = []
    if gather_for is not None:
        steps, operations = _index_steps(operations, gather_for, has_workers)
    while operations:
        step, operations = _share_step(operations, has_workers) or _next_step(operations, has_workers)
        steps.append(step)
    return steps


def map_groups(step: Step) -> list[Operations]:
    """The maps that a step runs, in groups that run in the workers of their first."""
    match step:
        case MapStep(maps):
            return [maps]
        case BatchStep(sample_maps, _, batch_maps):
            return [[*sample_maps, *batch_maps]]
        case ShareStep(_, map_steps, _, batch_step):
            return [*flatten(map(map_groups, map_steps)), *(map_groups(batch_step) if batch_step else [])]
    return []


def _index_steps(operations: Operations, gather_for: GatherFor, has_workers: bool) -> tuple[Plan, Operations]:
    gathering = _gather_step(operations, gather_for, has_workers)
    if gathering is not None:
        return [gathering], operations[len(gathering.reordering) + 2 :]
    # Not what reorders by replay: its samples are costly to load, and it yields them repeatedly.
    reordering = list(takewhile(lambda each: _reorders(each) and not each.operation.replays, operations))
    rest = operations[len(reordering) :]
    if (sharing := _share_step(rest, has_workers, reordering)) is not None:
        return [sharing[0]], sharing[1]
    return [ElementStep(reordering)] if reordering else [], rest


def _share_step(
    operations: Operations, has_workers: bool, reordering: Operations | None = None
) -> tuple[ShareStep, Operations] | None:
    n_maps = ilen(takewhile(lambda each: isinstance(each.operation, Map), operations))
    if n_maps == len(operations) or operations[n_maps].operation.share is None:
        return None
    chunk = operations[n_maps]
    map_steps: list[MapStep] = []
    while operations[0] is not chunk:
        step, operations = _next_step(operations, has_workers)
        if isinstance(step, BatchStep):
            return ShareStep(reordering, map_steps, chunk, step), operations
        assert isinstance(step, MapStep)
        map_steps.append(step)
    return ShareStep(reordering, map_steps, chunk, None), operations[1:]


def _gather_step(operations: Operations, gather_for: GatherFor, has_workers: bool) -> GatherStep | None:
    reordering = list(takewhile(_reorders, operations))
    n = len(reordering)
    if len(operations) < n + 2 or not isinstance(operations[n].operation, Chunk):
        return None
    chunk, combining = operations[n].operation, operations[n + 1]
    gather = gather_for(combining.operation.function) if combining.operation.workers is None else None
    if gather is None:
        return None
    return GatherStep(reordering, chunk, combining, gather, plan(operations[: n + 2], has_workers=has_workers))


def _reorders(placed: PlacedOperation) -> bool:
    return isinstance(placed.operation, Custom) and placed.operation.reorders


def _next_step(operations: Operations, has_workers: bool) -> tuple[Step, Operations]:
    maps, rest = _leading_maps(operations)
    if not maps:
        return SingleStep(operations[0]), operations[1:]
    workers = maps[0].operation.workers
    # Which samples are in a batch is not known beforehand if some may be skipped.
    skips = any(each.operation.skips for each in maps)
    if has_workers and makes_whole_batches(workers) and not skips and rest and isinstance(rest[0].operation, Chunk):
        batch_maps, others = _leading_batch_maps(rest[1:], workers)
        if batch_maps:
            return BatchStep(maps, rest[0].operation, batch_maps), others
    return MapStep(maps), rest


def _leading_batch_maps(operations: Operations, workers: Workers) -> tuple[Operations, Operations]:
    maps, _ = _leading_maps(operations)
    if maps and maps[0].operation.workers is None:  # a combiner goes where its samples are, the maps after it do not
        maps = maps[:1]
    elif maps and maps[0].operation.workers != workers:
        maps = []
    n = ilen(takewhile(lambda each: not each.operation.skips, maps))  # a batch that may be skipped is counted elsewhere
    return operations[:n], operations[n:]


def _leading_maps(operations: Operations) -> tuple[Operations, Operations]:
    """The maps at the beginning that have the same workers, and the operations after them."""
    if not operations or not isinstance(operations[0].operation, Map):
        return [], operations
    workers = operations[0].operation.workers
    n = ilen(takewhile(lambda each: isinstance(each.operation, Map) and each.operation.workers == workers, operations))
    return operations[:n], operations[n:]
