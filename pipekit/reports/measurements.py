"""What ``python -m pipekit bench`` has measured: as a table, and as what JSON can hold."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import distributions
from typing import Any, NamedTuple

import numpy as np

from ..describing.display import duration
from ..describing.tables import Table
from .report import Report

VERSION = next((found.version for found in distributions(name='pipekit-batches')), 'not installed')
UNITS = ('bytes', 'KiB', 'MiB', 'GiB', 'TiB')
NO_PREFETCH = 'In the calling thread, without prefetch; --prefetch measures it behind a thread, with a report.'


class Measurements(NamedTuple):
    """How the batches of a pipeline came; prints as the pipeline, a table, and the report.

    Attributes
    ----------
    target, pipeline
        What was asked for, and the code of what that is.
    first_batch
        The seconds until there was a batch.
    waits
        The seconds that were waited for each of the others.
    seconds, n_bytes
        How long all that took, and what was in the arrays.
    step
        The seconds slept after each batch, in place of training on it.
    peaks
        The most bytes that each process has had, if the system tells.
    ended
        What has ended it early.
    report
        Where the time went, if a thread has made the batches.
    """

    target: str
    pipeline: str
    first_batch: float
    waits: Sequence[float]
    seconds: float
    n_bytes: int
    step: float
    peaks: Sequence[int]
    ended: str | None
    report: Report | None

    @property
    def rate(self) -> float:
        """Batches per second."""
        return len(self.waits) / self.seconds

    @property
    def percentiles(self) -> list[float]:
        """The seconds within which half of the batches came, and 99 in a hundred."""
        percentiles: list[float] = np.percentile(self.waits, [50, 99]).tolist()
        return percentiles

    def to_dict(self) -> dict[str, Any]:
        """All of it, and on what it was measured, as what JSON can hold."""
        return {
            'target': self.target,
            'pipeline': self.pipeline,
            'first_batch': self.first_batch,
            'batches': len(self.waits),
            'seconds': self.seconds,
            'batches_per_second': self.rate,
            'bytes_per_second': self.n_bytes / self.seconds,
            'wait': dict(zip(('p50', 'p99'), self.percentiles, strict=True)),
            'step': self.step,
            'peak_memory': sum(self.peaks) or None,
            'processes': len(self.peaks),
            'ended': self.ended,
            'report': None if self.report is None else self.report.to_dict(),
            'versions': {'pipekit': VERSION, 'numpy': np.__version__, 'python': platform.python_version()},
            'platform': platform.platform(),
            'cores': os.cpu_count(),
        }

    def __repr__(self) -> str:
        median, p99 = map(duration, self.percentiles)
        rows = [
            ['first batch', f'after {duration(self.first_batch)}'],
            ['batches per second', f'{self.rate:,.0f}' if self.rate >= 100 else f'{self.rate:.3g}'],
            ['bytes per second', _in_bytes(self.n_bytes / self.seconds)],
            ['wait for a batch', f'{median} (median), {p99} (99%)'],
        ]
        if self.peaks:
            processes = 'processes' if len(self.peaks) > 1 else 'process'
            rows.append(['peak memory', f'{_in_bytes(sum(self.peaks))} in {len(self.peaks)} {processes}'])
        header = ['measured', f'{len(self.waits):,} batches in {duration(self.seconds)}']
        table = Table(header, rows, notes=[f'Ended early: {self.ended}'] if self.ended else [])
        return f'{self.pipeline.rstrip()}\n\n{table}\n\n{self.report or NO_PREFETCH}'


def _in_bytes(amount: float, units: Sequence[str] = UNITS) -> str:
    return f'{amount:.3g} {units[0]}' if amount < 999.5 else _in_bytes(amount / 1024, units[1:])
