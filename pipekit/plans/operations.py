"""Map, chunk and custom: the operations that stages consist of. They say what is done to a stream, not how."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from math import inf
from typing import Any, NamedTuple, TypeAlias

from more_itertools import ilen

from ..streams.calls import Call, Crashed, Located
from ..streams.context import Context, Upstream
from ..streams.cursors import Cursor, In, Out, Pair, Pairs
from ..streams.error_notes import StageLocation
from ..streams.on_error import OnError, Skip, may_skip
from ..streams.randomness import Ordinal
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
    share: Share | None = None  # if it leaves a share of the samples to one rank
    splits = False  # whether it leaves to each rank other samples than to the other ranks
    length_depends_on_values = False  # whether how many values it yields depends on what they are

    def length_of(self, n: float) -> float | None:
        """The number of values that it makes of ``n``, which may be infinite; ``None`` if it is not known."""
        return None


class Share(NamedTuple):
    """Which samples of a batch one rank combines: as many as the other ranks, or one more."""

    rank: int
    world_size: int

    def bounds(self, n: int) -> tuple[int, int]:
        """The number of its first sample in a batch of ``n``, and of the one after its last."""
        return self.rank * n // self.world_size, (self.rank + 1) * n // self.world_size


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

    @property
    def length_depends_on_values(self) -> bool:  # type: ignore[override]
        return any(isinstance(each, Skip) and each.substitute is None for each in self.on_error)

    def length_of(self, n: float) -> float | None:
        return None if self.length_depends_on_values else n


@dataclass(frozen=True)
class Chunk(Operation):
    """Collects values into lists of ``size``, or the share of one rank of as many, without looking at them."""

    size: int
    drop_last: bool
    share: Share | None = None

    @property
    def keeps_cursors(self) -> bool:  # type: ignore[override]
        return self.share is None  # opened at a cursor within a batch, it would share out other batches

    @property
    def splits(self) -> bool:  # type: ignore[override]
        return self.share is not None

    def length_of(self, n: float) -> float | None:
        if n == inf:
            return n
        n_full, rest = divmod(int(n), self.size)
        return n_full + bool(rest and self.makes_batch(rest))

    def makes_batch(self, n: int) -> bool:
        """Whether ``n`` samples make a batch: as many as ``size``, or the last ones."""
        is_enough = self.share is None or n >= self.share.world_size
        return n == self.size or (is_enough and not self.drop_last)

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
    splits, length_depends_on_values
        As for ``Operation``.
    length
        The function behind ``length_of``, if the number of values is known.
    """

    open: OpenStage[Any, Any]
    seed: int | None = None
    reopens_upstream: bool = False
    replays: bool = False
    keeps_structure: bool = False
    keeps_cursors: bool = False
    reorders: bool = False
    opens_at_cursor: bool = False
    splits: bool = False
    length_depends_on_values: bool = False
    length: Callable[[float], float] | None = None

    def length_of(self, n: float) -> float | None:
        return None if self.length is None else self.length(n)


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
    of_all_ranks
        If these are the samples of one rank: the cursors before the first and after the last one of all ranks.
    """

    pairs: list[Pair[Any]]
    before: Cursor
    makes_batch: bool
    crash: Crashed | None = None
    of_all_ranks: tuple[Cursor, Cursor] | None = None

    @property
    def cursors(self) -> tuple[Cursor, Cursor]:
        """The cursors before the batch and of the batch."""
        return self.of_all_ranks or (self.before, self.pairs[-1][1])

    @property
    def as_pair(self) -> Pair[list[Any]]:
        """The list of the samples, with the cursor of the batch."""
        return [value for value, _ in self.pairs], self.cursors[1]

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
        How many earlier operations share its seed. For what differs between the ranks, a pair with the rank.
    place
        The stage that it belongs to.
    is_of_one_rank
        Whether it sees the samples of one rank only.
    """

    operation: Any
    ordinal: Ordinal
    place: StageLocation
    is_of_one_rank: bool = False

    @property
    def call(self) -> Call:
        """The call that a map makes for each value."""
        operation = self.operation
        return Call(operation.function, operation.seed, self.ordinal, self.place, operation.on_error)


def place_operations(
    operations: Sequence[tuple[Operation, StageLocation]],
    source_seeds: Sequence[int],
    source_share: Share | None = None,
) -> list[PlacedOperation]:
    """The operations of a pipeline, in order, each with its ordinal; the seeds of the source count as earlier ones."""
    uses: Counter[int | None] = Counter(source_seeds)
    share, where = _share_in([operation for operation, _ in operations], source_share)
    maps_before = ilen(takewhile(lambda each: isinstance(each[0], Map), reversed(operations[: max(where, 0)])))
    placed = []
    for number, (operation, place) in enumerate(operations):
        earlier = 0 if operation.seed is None else uses[operation.seed]
        ordinal: Ordinal = earlier
        uses[operation.seed] += 1
        # What only reorders does the same on all ranks: their shares go on being those of one batch.
        if number > where and share is not None and share.rank and not operation.keeps_structure:
            ordinal = (earlier, share.rank)
        placed.append(PlacedOperation(operation, ordinal, place, share is not None and number >= where - maps_before))
    return placed


def _share_in(operations: Sequence[Operation], source_share: Share | None) -> tuple[Share | None, int]:
    """The share that is left to one rank, and the number of the operation that leaves it; -1 stands for the source."""
    if source_share is not None:
        return source_share, -1
    shares = ((each.share, number) for number, each in enumerate(operations) if each.share is not None)
    return next(shares, (None, len(operations)))
