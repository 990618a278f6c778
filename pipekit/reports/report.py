"""Where the time goes: what a meter has measured, as a table and one sentence on what to change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from time import perf_counter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..describing.display import duration
from ..describing.tables import Table
from ..streams.metering import Meter
from ..streams.stream import Stream
from .timeline import plot
from .timings import Timings
from .verdicts import verdict_on

if TYPE_CHECKING:
    from .figures import Picture

T = TypeVar('T')


class Report:
    """What ``batches.report()`` returns; prints as a table and a verdict.

    Attributes
    ----------
    stages
        What each stage takes, as ``StageTimes``.
    waiting
        The share of the time in which training waited for batches.
    step, making
        Seconds that training takes for a batch, and that making one takes in the prefetch thread.
    bottleneck
        What the training waits for: a stage, ``'source'``, ``'buffer'``; ``None`` if it does not wait.
    verdict
        One sentence, with what to change.
    """

    def __init__(self, measured: Timings, bottleneck: str | None, verdict: str):
        self.stages = measured.stages
        self.waiting = measured.waiting
        self.step = measured.step
        self.making = measured.making
        self.n_batches = len(measured.waits)
        self.bottleneck = bottleneck
        self.verdict = verdict
        self._measured = measured

    def to_dict(self) -> dict[str, Any]:
        """All of it but the single measurements, as what JSON can hold."""
        names = ('waiting', 'step', 'making', 'n_batches', 'bottleneck', 'verdict')
        stages = [times._asdict() for times in self.stages]
        return {**{name: getattr(self, name) for name in names}, 'stages': stages}

    def plot(self) -> Picture:
        """A timeline of the last epoch, a lane for each stage and worker, and the time that each stage takes.

        Returns
        -------
        matplotlib.figure.Figure
            Which a notebook shows; ``figure.savefig(path)`` writes it to a file.

        Raises
        ------
        ModuleNotFoundError
            If the extra ``plot`` is not installed.
        """
        return plot(self._measured, self.verdict)

    def table(self) -> Table:
        """The stages, a line each, and the verdict below."""
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
        return Table(header, rows, notes=[summary, self.verdict])

    def __repr__(self) -> str:
        return repr(self.table())

    def _repr_html_(self) -> str:
        table = self.table()
        longest = max((times.for_batch for times in self.stages), default=1.0)
        bars = [times.for_batch / longest for times in self.stages]
        return Table(table.header, table.rows, table.notes, bars=bars)._repr_html_()


class Headroom(Generic[T]):
    """What ``batches.headroom()`` returns: a loop over batches that cost nothing; prints what it took.

    Attributes
    ----------
    n_batches
        How many batches the loop has had.
    step
        The seconds that the body of the loop took for one, on average.
    """

    def __init__(self, cached: Sequence[T], times: int, report: Report):
        self._cached = cached
        self._times = times
        self._report = report
        self.n_batches = 0
        self.step = 0.0

    def __len__(self) -> int:
        return self._times

    def __iter__(self) -> Iterator[T]:
        begin = perf_counter()
        self.n_batches = 0
        for batch in islice(cycle(self._cached), self._times):
            yield batch
            self.n_batches += 1
            self.step = (perf_counter() - begin) / self.n_batches

    @property
    def verdict(self) -> str:
        """What training takes by itself, and how much faster it could be."""
        if not self.n_batches:
            return 'Loop over it first, training on each batch.'
        alone = f'Training takes {duration(self.step)} a batch if batches cost nothing'
        report = self._report
        if not report.step:  # nothing can be said of it yet
            return f'{alone}.'
        now = report.step / (1 - report.waiting)
        return (
            f'{alone}, and {duration(now)} with the pipeline: it could be {max(now / self.step, 1):.2g} times as fast.'
        )

    def __repr__(self) -> str:
        return self.verdict


def report_on(meter: Meter, pipeline: Stream[Any], buffer_size: int) -> Report:
    """What a meter has measured of a pipeline, in words.

    Examples
    --------
    >>> from pipekit import pipeline
    >>> report_on(Meter(), pipeline('abc'), buffer_size=3).verdict
    'Too few batches yet to say where the time goes: 0.'
    """
    measured = Timings(meter, pipeline)
    return Report(measured, *verdict_on(measured, pipeline, buffer_size))
