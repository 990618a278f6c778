"""The context in which a stream is opened: what its randomness depends on, and the resources of this run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice
from typing import Any, NamedTuple, Protocol, TypeAlias

from more_itertools import repeatfunc

from ..memory.blocks import BlockPool
from ..workers.kinds import Workers
from .cursors import START, Cursor, Pairs, T, with_prefix
from .error_notes import StageLocation
from .failures import Failures
from .metering import Meter
from .randomness import Generators, Key, Ordinal


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
        How many earlier stages share the stage's seed. For what differs between the ranks, a pair with the rank.
    place
        The stage that is opened, for notes on errors.
    run
        The resources and settings of this run.
    """

    key: Key = ()
    ordinal: Ordinal = 0
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


def passes(upstream: Upstream[T], number: int, before: Cursor, context: Context) -> Iterator[Pairs[T]]:
    """The pairs of pass ``number`` after a cursor, then those of the next passes, until a pass has no values.

    Examples
    --------
    >>> from itertools import islice
    >>> from pipekit.streams.iterables import source_of
    >>> [list(pairs) for pairs in islice(passes(source_of('ab').open, 3, 1, Context()), 2)]
    [[('b', (3, 2))], [('a', (4, 1)), ('b', (4, 2))]]
    """
    # The first pass is opened here, not in the generator, so that a wrong cursor is an error at once.
    return _passes(upstream, number, before, context, upstream(before, context.in_pass(number)))


def _passes(
    upstream: Upstream[T], number: int, before: Cursor, context: Context, pairs: Pairs[T]
) -> Iterator[Pairs[T]]:
    while True:
        numbered = map(partial(with_prefix, number), pairs)
        first = list(islice(numbered, 1))
        if not first and before == START:
            return
        yield chain(repeatfunc(first.pop, len(first)), numbered)  # popped, so that it is not held
        number, before = number + 1, START
        pairs = upstream(START, context.in_pass(number))
