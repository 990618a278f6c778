"""Operations: what stages are made of. What they do to a stream is said here, and not how they are run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

from ..streams.calls import Call, Located
from ..streams.context import Context, Upstream
from ..streams.cursors import Cursor, In, Out, Pair, Pairs
from ..streams.error_notes import StageLocation
from ..streams.on_error import OnError, may_skip
from ..workers.kinds import Workers

OpenStage: TypeAlias = Callable[[Upstream[In], Cursor, Context], Pairs[Out]]


class Operation:
    """What all operations are asked."""

    seed: int | None = None
    reopens_upstream = False
    replays = False
    keeps_structure = False
    keeps_cursors = False
    reorders = False
    skips = False  # or replaces values that its function fails on


@dataclass(frozen=True)
class Map(Operation):
    """One value of each value.

    Attributes
    ----------
    function
        A function of a value, and of ``rng`` where there is a seed.
    combines
        Whether it makes batches, which may be large: they go into memory that was used before.
    """

    function: Callable[..., Any]
    seed: int | None = None
    workers: Workers | None = None
    on_error: tuple[OnError, ...] = ()
    combines: bool = False

    keeps_cursors = True

    @property
    def skips(self) -> bool:  # type: ignore[override]
        return may_skip(self.on_error)


@dataclass(frozen=True)
class Chunk(Operation):
    """Lists of so many values, made without a look at them."""

    size: int
    drop_last: bool

    keeps_cursors = True

    def pending(self, pairs: Pairs[Any], start: Cursor) -> Iterator[PendingBatch]:
        """The pairs themselves in chunks. The one that is dropped, or that an error ends, is among them."""
        ends: list[BaseException] = []
        while not ends:
            chunk: list[Pair[Any]] = []
            try:
                chunk.extend(islice(pairs, self.size))
            except BaseException as error:  # what comes before an error may raise another one, which comes first
                ends.append(error)
            if len(chunk) < self.size:
                ends.append(StopIteration())
            if chunk:
                is_whole = len(chunk) == self.size or (len(ends) == 1 and not self.drop_last)
                before, start = start, chunk[-1][1]
                yield PendingBatch(chunk, before, is_whole)
        if not isinstance(ends[0], StopIteration):
            raise ends.pop(0)


@dataclass(frozen=True)
class Custom(Operation):
    """Anything else: ``open(upstream, cursor, context)`` gives its pairs.

    Attributes
    ----------
    seed, reopens_upstream, replays, keeps_structure, keeps_cursors
        As for ``Stage``.
    reorders
        Whether it hands on values without a look at them: it does the same to their indices.
    """

    open: OpenStage[Any, Any]
    seed: int | None = None
    reopens_upstream: bool = False
    replays: bool = False
    keeps_structure: bool = False
    keeps_cursors: bool = False
    reorders: bool = False


class PendingBatch(NamedTuple):
    """What a batch is to be made of."""

    pairs: list[Pair[Any]]
    before: Cursor  # before the first of them
    is_whole: bool  # whether a batch is to be made of them at all, or they are to be tried only

    @property
    def located(self) -> list[Located]:
        """The values of the pairs, each with its cursor and the one before it."""
        before = [self.before, *(cursor for _, cursor in self.pairs)]
        return [(value, cursor, last) for (value, cursor), last in zip(self.pairs, before, strict=False)]


class PlacedOperation(NamedTuple):
    """An operation in a pipeline: how many earlier ones share its seed, and the stage that it belongs to."""

    operation: Any
    ordinal: int
    place: StageLocation

    @property
    def call(self) -> Call:
        """What a map does to a value."""
        operation = self.operation
        return Call(operation.function, operation.seed, self.ordinal, self.place, operation.on_error)


def placed(operations: Sequence[tuple[Operation, StageLocation]], seeds: Sequence[int]) -> list[PlacedOperation]:
    """Operations with their places, and the number of earlier ones with the same seed; ``seeds`` are the source's."""
    met = Counter(seeds)
    found = []
    for operation, place in operations:
        ordinal = 0 if operation.seed is None else met[operation.seed]
        met.update([] if operation.seed is None else [operation.seed])
        found.append(PlacedOperation(operation, ordinal, place))
    return found
