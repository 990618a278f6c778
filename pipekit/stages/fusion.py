"""The plan: which operations are run together. Values and cursors are those of running them one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any, NamedTuple, TypeAlias

from more_itertools import ilen

from ..streams.stream import Gather
from ..workers.kinds import Processes
from .operations import Chunk, Custom, Map, PlacedOperation

Placed: TypeAlias = Sequence[PlacedOperation]


class Single(NamedTuple):
    """A chunk or a custom operation, by itself."""

    operation: PlacedOperation


class Mapped(NamedTuple):
    """Neighbouring maps with the same workers: one call of all their functions."""

    maps: Placed


class Batched(NamedTuple):
    """Maps, a chunk, and the maps of its lists: one task of a worker process for each batch."""

    maps: Placed
    chunk: Chunk
    combining: Placed


class Gathered(NamedTuple):
    """Batches of elements of a sequence that no operation looks at: made of their indices, all at once.

    ``apart`` makes those that cannot be gathered.
    """

    reordering: Placed
    chunk: Chunk
    combining: PlacedOperation
    gather: Gather
    apart: Plan


Step: TypeAlias = Single | Mapped | Batched | Gathered
Plan: TypeAlias = list[Step]


def plan(
    operations: Placed,
    *,
    fuses: bool = True,
    in_pools: bool = False,
    gather_with: Callable[[Callable[..., Any]], Gather | None] | None = None,
) -> Plan:
    """The steps in which operations are run.

    Parameters
    ----------
    fuses
        Whether operations are run together at all.
    in_pools
        Whether there are workers.
    gather_with
        Where the values are elements of a sequence: how a combiner's batches are gathered, if they can be.
    """
    if not fuses:
        return [Mapped([each]) if isinstance(each.operation, Map) else Single(each) for each in operations]
    steps: Plan = []
    if gather_with is not None:
        gathered, operations = _gathered_first(operations, gather_with, in_pools)
        steps += gathered
    while operations:
        step, operations = _first_step(operations, in_pools)
        steps.append(step)
    return steps


def _gathered_first(
    operations: Placed, gather_with: Callable[[Callable[..., Any]], Gather | None], in_pools: bool
) -> tuple[list[Gathered], Placed]:
    reordering = list(takewhile(_reorders, operations))
    n = len(reordering)
    rest = [each.operation for each in operations[n : n + 2]]
    if len(rest) < 2 or not isinstance(rest[0], Chunk) or rest[1].workers is not None:
        return [], operations
    gather = gather_with(rest[1].function)
    if gather is None:
        return [], operations
    apart = plan(operations[: n + 2], in_pools=in_pools)
    return [Gathered(reordering, rest[0], operations[n + 1], gather, apart)], operations[n + 2 :]


def _first_step(operations: Placed, in_pools: bool) -> tuple[Step, Placed]:
    maps, rest = _neighbours(operations)
    if not maps:
        return Single(operations[0]), operations[1:]
    workers = maps[0].operation.workers
    # Where samples are skipped, which ones make a batch is not known beforehand.
    skips = any(each.operation.skips for each in maps)
    if in_pools and isinstance(workers, Processes) and not skips and rest and isinstance(rest[0].operation, Chunk):
        combining, others = _neighbours(rest[1:])
        if combining and combining[0].operation.workers is None:
            combining, others = combining[:1], rest[2:]  # what follows it has not asked for processes
        if combining and combining[0].operation.workers in (None, workers):
            return Batched(maps, rest[0].operation, combining), others
    return Mapped(maps), rest


def _neighbours(operations: Placed) -> tuple[Placed, Placed]:
    """The maps at the beginning that have the same workers, and what follows them."""
    if not operations or not isinstance(operations[0].operation, Map):
        return [], operations
    workers = operations[0].operation.workers
    n = ilen(takewhile(lambda each: isinstance(each.operation, Map) and each.operation.workers == workers, operations))
    return operations[:n], operations[n:]


def _reorders(each: PlacedOperation) -> bool:
    return isinstance(each.operation, Custom) and each.operation.reorders
