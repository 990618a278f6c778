"""What a stream is opened with besides a cursor: what decides its randomness, and what belongs to this run of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, TypeAlias

from ..memory.blocks import BlockPool
from ..workers.kinds import Workers
from .cursors import Cursor, Pairs, T
from .error_notes import StageLocation
from .failures import Failures
from .metering import Meter
from .randomness import Generators, Key


class RunsWork(Protocol):
    """What the workers of the stages run in, while batches are open."""

    def map(self, workers: Workers, work: Any, values: Iterator[Any]) -> Iterator[Any]:
        """The results, in the order of the values."""

    def pause(self, seconds: float) -> None:
        """Wait, unless the work is given up meanwhile."""


class Run(NamedTuple):
    """Everything about one run of a stream. Nothing in it changes a value or a cursor.

    Attributes
    ----------
    pools
        What the workers of the stages run in. Without it, everything runs in the calling thread.
    meter
        Measures what the stages take.
    memory
        What large batches are written into.
    failures
        Counts what is skipped and replaced, and holds it to its budget.
    fuses
        Whether neighbouring operations are run together.
    """

    pools: RunsWork | None = None
    meter: Meter | None = None
    memory: BlockPool | None = None
    failures: Failures | None = None
    fuses: bool = True


class Context(NamedTuple):
    """What a stream is opened with besides a cursor.

    Attributes
    ----------
    key
        Tells apart what would otherwise draw alike: the pass of a repeated stream and the branch of a mix.
    ordinal
        How many earlier stages share the stage's seed.
    place
        The stage that is opened, for the notes on errors.
    run
        Everything about this run.
    """

    key: Key = ()
    ordinal: int = 0
    place: StageLocation | None = None
    run: Run = Run()

    def in_pass(self, number: int) -> Context:
        """The context of a pass; the first one is that of a stream that is not repeated."""
        # Only leading zeros are left out, as of a numeral: of nested passes, (1, 0) and (0, 1) must not share a key.
        in_later_pass = bool(self.key) and isinstance(self.key[-1], tuple)
        return self._replace(key=(*self.key, (number,))) if number or in_later_pass else self

    def in_branch(self, number: int) -> Context:
        """The context of one of several sources."""
        return self._replace(key=(*self.key, number))

    def generators(self, seed: int | None) -> Generators:
        """The generators of a stage with this seed, one per cursor."""
        if seed is None:
            raise TypeError('a stage that draws random numbers needs a seed; give Stage the one that it draws with')
        return Generators(seed, (self.ordinal, *self.key))


Upstream: TypeAlias = Callable[[Cursor, Context], Pairs[T]]
