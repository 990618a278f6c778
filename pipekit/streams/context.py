"""The context in which a stream is opened: what its randomness depends on, and the resources of this run."""

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
    """Runs the work of stages in their workers, while batches are open."""

    def map(self, workers: Workers, work: Any, values: Iterator[Any]) -> Iterator[Any]:
        """The results of ``work`` on the values, in the order of the values."""

    def pause(self, seconds: float) -> None:
        """Sleep; returns early if the work is cancelled."""


class Run(NamedTuple):
    """The resources and settings of one run of a stream. Nothing in it changes a value or a cursor.

    Attributes
    ----------
    pools
        Runs the work of stages with workers. Without it, everything runs in the calling thread.
    meter
        Measures the times of the stages.
    memory
        Blocks of memory into which large batches are written.
    failures
        Counts skipped and replaced samples, and checks the counts against the budgets.
    fuses
        Whether neighbouring operations are run together, for speed.
    """

    pools: RunsWork | None = None
    meter: Meter | None = None
    memory: BlockPool | None = None
    failures: Failures | None = None
    fuses: bool = True


class Context(NamedTuple):
    """What a stream or stage is opened with, apart from a cursor.

    Attributes
    ----------
    key
        The pass of a repeated stream and the branch of a mix, for every nesting: each draws its own random numbers.
    ordinal
        How many earlier stages share the stage's seed.
    place
        The stage that is opened, for notes on errors.
    run
        The resources and settings of this run.
    """

    key: Key = ()
    ordinal: int = 0
    place: StageLocation | None = None
    run: Run = Run()

    def in_pass(self, number: int) -> Context:
        """The context of a pass; in pass 0, a stream draws the same random numbers as without ``repeat``."""
        # Zeros are left out only at the beginning, as in a numeral: the nested passes (1, 0) and (0, 1) have two keys.
        in_later_pass = bool(self.key) and isinstance(self.key[-1], tuple)
        return self._replace(key=(*self.key, (number,))) if number or in_later_pass else self

    def in_branch(self, number: int) -> Context:
        """The context of one of several sources."""
        return self._replace(key=(*self.key, number))

    def generators(self, seed: int | None) -> Generators:
        """The random generators of a stage with this seed, one per cursor."""
        if seed is None:
            raise TypeError('context.generators needs a seed, got None; pass it to Stage(..., seed=...) too')
        return Generators(seed, (self.ordinal, *self.key))


Upstream: TypeAlias = Callable[[Cursor, Context], Pairs[T]]


ALONE = Context()
