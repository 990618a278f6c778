"""Map, chunk and custom: the operations that stages consist of. They say what is done to a stream, not how."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

from ..streams.calls import Call, Crashed, Located
from ..streams.context import Context, Upstream
from ..streams.cursors import Cursor, In, Out, Pair, Pairs
from ..streams.error_notes import StageLocation
from ..streams.on_error import OnError, may_skip
from ..workers.kinds import Workers

OpenStage: TypeAlias = Callable[[Upstream[In], Cursor, Context], Pairs[Out]]


class Operation:
    """The properties of an operation, with their defaults; ``Stage`` and ``Custom`` explain them."""

    seed: int | None = None
    reopens_upstream = False
    replays = False
    keeps_structure = False
    keeps_cursors = False
    reorders = False
    skips = False  # whether it skips or replaces samples that its function fails on


@dataclass(frozen=True)
class Map(Operation):
    """Calls a function on each value.

    Attributes
    ----------
    function
        A function of a value, and of ``rng`` if there is a seed.
    combines
        Whether the results are batches: large ones are written into pooled memory.
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
    """Collects values into lists of ``size``, without looking at them."""

    size: int
    drop_last: bool

    keeps_cursors = True

    def pending(self, pairs: Pairs[Any], start: Cursor) -> Iterator[PendingBatch]:
        """The pairs in chunks of ``size``, with the short one at the end whether or not it makes a batch."""
        errors: list[BaseException] = []
        is_full = True
        while is_full:
            chunk: list[Pair[Any]] = []
            try:
                chunk.extend(islice(pairs, self.size))
            except BaseException as error:  # raised below, after the errors that the earlier samples may raise
                errors.append(error)
            is_full = len(chunk) == self.size
            if chunk:
                before, start = start, chunk[-1][1]
                yield PendingBatch(chunk, before, makes_batch=is_full or not (errors or self.drop_last))
        if errors:
            raise errors.pop()  # popped, so that its traceback does not refer to it


@dataclass(frozen=True)
class Custom(Operation):
    """Any other operation: ``open(upstream, cursor, context)`` returns its pairs.

    Attributes
    ----------
    seed, reopens_upstream, replays, keeps_structure, keeps_cursors
        As for ``Stage``.
    reorders
        Whether it only selects and reorders values, without looking at them, so that it works on their indices as well.
    opens_at_cursor
        Whether it opens its upstream once, at its own cursor: neighbours that do are not opened within one another.
    """

    open: OpenStage[Any, Any]
    seed: int | None = None
    reopens_upstream: bool = False
    replays: bool = False
    keeps_structure: bool = False
    keeps_cursors: bool = False
    reorders: bool = False
    opens_at_cursor: bool = False


class PendingBatch(NamedTuple):
    """The samples of a batch that is still to be made.

    Attributes
    ----------
    pairs
        The samples, each with its cursor.
    before
        The cursor before the first of them.
    makes_batch
        False for an incomplete chunk, of which no batch is made: its samples are processed for the errors they raise.
    crash
        Set if processes died while the samples were combined.
    """

    pairs: list[Pair[Any]]
    before: Cursor
    makes_batch: bool
    crash: Crashed | None = None

    @property
    def with_previous_cursors(self) -> list[Located]:
        """The samples, each with its cursor and the one before it."""
        before = [self.before, *(cursor for _, cursor in self.pairs)]
        return [(value, cursor, last) for (value, cursor), last in zip(self.pairs, before, strict=False)]


class PlacedOperation(NamedTuple):
    """An operation of a pipeline.

    Attributes
    ----------
    ordinal
        How many earlier operations share its seed.
    place
        The stage that it belongs to.
    """

    operation: Any
    ordinal: int
    place: StageLocation

    @property
    def call(self) -> Call:
        """The call that a map makes for each value."""
        operation = self.operation
        return Call(operation.function, operation.seed, self.ordinal, self.place, operation.on_error)


def place_operations(
    operations: Iterable[tuple[Operation, StageLocation]], source_seeds: Sequence[int]
) -> list[PlacedOperation]:
    """The operations of a pipeline, in order, each with its ordinal; the seeds of the source count as earlier ones."""
    uses: Counter[int | None] = Counter(source_seeds)
    placed = []
    for operation, place in operations:
        ordinal = 0 if operation.seed is None else uses[operation.seed]
        uses[operation.seed] += 1
        placed.append(PlacedOperation(operation, ordinal, place))
    return placed
