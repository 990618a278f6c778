"""Where the time goes: what a meter has measured, as a table and one sentence on what to change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from time import perf_counter
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from ..describing.display import duration
from ..describing.tables import Table
from ..streams.metering import Meter, StageRow
from .timeline import plot
from .timings import Timings
from .verdicts import verdict_on

if TYPE_CHECKING:
    from ..streams.stacking import Batches, Stacked
    from .figures import Picture

S = TypeVar('S')
T = TypeVar('T')


class Report:
    """What ``batches.report()`` returns; prints as a table and a verdict.

    Attributes
    ----------
    stages
        The measured time of each stage, as ``StageTimes``.
    waiting
        The share of the time that training spent waiting for batches.
    step, making
        The mean seconds of training on a batch, and of making one in the prefetch thread.
    n_batches
        How many batches were measured.
    bottleneck
        What training waits for: a stage, ``'source'``, ``'buffer'``; ``None`` if it does not wait.
    verdict
        One sentence on what to change.
    """

    def __init__(self, timings: Timings, bottleneck: str | None, verdict: str):
        self.stages = timings.stages
        self.waiting = timings.waiting
        self.step = timings.step
        self.making = timings.making
        self.n_batches = len(timings.waits)
        self.bottleneck = bottleneck
        self.verdict = verdict
        self._timings = timings

    def to_dict(self) -> dict[str, Any]:
        """Everything but the individual measurements, as JSON-compatible values."""
        names = ('waiting', 'step', 'making', 'n_batches', 'bottleneck', 'verdict')
        stages = [times._asdict() for times in self.stages]
        return {**{name: getattr(self, name) for name in names}, 'stages': stages}

    def plot(self) -> Picture:
        """A timeline of the last epoch with a lane for each stage and worker, and the time of each stage per batch.

        Returns
        -------
        matplotlib.figure.Figure
            A notebook displays it; ``figure.savefig(path)`` writes it to a file.

        Raises
        ------
        ModuleNotFoundError
            If the extra ``plot`` is not installed.
        """
        return plot(self._timings, self.verdict)

    def table(self) -> Table:
        """A row for each stage, and the verdict below."""
        header = ['stage', 'in', 'seen', 'per batch', 'median', '95%', 'computing']
        rows = [
            [
                times.stage,
                times.workers or 'prefetch thread',
                f'{times.samples:,}',
                f'{times.per_batch:.4g}',
                duration(times.median),
                duration(times.p95),
                f'{times.computing:.0%}',
            ]
            for times in self.stages
        ]
        summary = (
            f'{self.n_batches:,} batches: {duration(self.making)} to make one, {duration(self.step)} to train on it, '
            f'{self.waiting:.0%} of the time waiting'
        )
        longest = max((times.for_batch for times in self.stages), default=1.0) or 1.0
        bars = [times.for_batch / longest for times in self.stages]
        return Table(header, rows, [summary, self.verdict], bars)

    def __repr__(self) -> str:
        return repr(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


class Headroom(Generic[T]):
    """What ``batches.headroom()`` returns: a loop over ready-made batches; prints how fast training could be.

    Attributes
    ----------
    n_batches
        The number of batches the loop has yielded.
    step
        The mean seconds that the body of the loop took per batch.
    """

    def __init__(self, cached: Sequence[T], times: int, report: Report):
        self._cached = cached
        self._times = times
        self._report = report
        self.n_batches = 0
        self.step = 0.0

    def __len__(self) -> int:
        return self._times

    @overload
    def __iter__(self: Headroom[Stacked[S]]) -> Batches[S]: ...
    @overload
    def __iter__(self) -> Iterator[T]: ...
    def __iter__(self) -> Iterator[Any]:
        begin = perf_counter()
        self.n_batches = 0
        for batch in islice(cycle(self._cached), self._times):
            yield batch
            self.n_batches += 1
            self.step = (perf_counter() - begin) / self.n_batches

    @property
    def verdict(self) -> str:
        """How long training takes by itself, and how much faster it could be."""
        if not self.n_batches:
            return 'Loop over it first, training on each batch.'
        alone = f'Training takes {duration(self.step)} a batch if batches cost nothing'
        report = self._report
        if not report.step:  # too few batches were measured to compare with
            return f'{alone}.'
        now = report.step / (1 - report.waiting)
        speedup = max(now / self.step, 1)
        return f'{alone}, and {duration(now)} with the pipeline: it could be {speedup:.2g} times as fast.'

    def __repr__(self) -> str:
        return self.verdict


def report_on(meter: Meter, rows: Sequence[StageRow], buffer_size: int) -> Report:
    """The report on what a meter has measured of a pipeline with these stages."""
    timings = Timings(meter, rows)
    return Report(timings, *verdict_on(timings, rows, buffer_size))
