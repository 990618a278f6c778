"""What ``python -m pipekit bench`` has measured, as a table and as JSON; and the peak memory of processes."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from more_itertools import first

from ..describing.display import duration
from ..describing.tables import Table
from .report import Report

VERSION = first((found.version for found in distributions(name='pipekit-batches')), 'not installed')
UNITS = ('bytes', 'KiB', 'MiB', 'GiB', 'TiB')
NO_REPORT = 'Measured in the calling thread, without a report; --prefetch adds a prefetch thread and a report.'


class Measurements(NamedTuple):
    """How fast a pipeline gave batches; prints as the pipeline, a table, and the report.

    Attributes
    ----------
    target, pipeline
        The target as given on the command line, and the code of its pipeline.
    first_batch
        The seconds until the first batch.
    waits
        The seconds waited for each measured batch.
    seconds, n_bytes
        The seconds that the measured batches took altogether, and the bytes of the arrays in them.
    step
        The seconds slept after each batch, in place of a training step.
    peaks
        The peak memory of each process in bytes; empty if the system does not report it.
    ended
        Why the measurement ended early; ``None`` if it did not.
    report
        The report on where the time goes; ``None`` without ``prefetch``.
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
        """The median and the 99th percentile of the waits, in seconds."""
        percentiles: list[float] = np.percentile(self.waits, [50, 99]).tolist()
        return percentiles

    def to_dict(self) -> dict[str, Any]:
        """The measurements and the system they were made on, as JSON-compatible values."""
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
        return f'{self.pipeline.rstrip()}\n\n{table}\n\n{self.report or NO_REPORT}'


def _in_bytes(amount: float, units: Sequence[str] = UNITS) -> str:
    return f'{amount:.3g} {units[0]}' if amount < 999.5 else _in_bytes(amount / 1024, units[1:])


def peak_memory() -> list[int]:
    """The peak memory of this process and, on Linux, of each of its descendants, in bytes; empty on Windows.

    Memory shared by several processes counts once.
    """
    peaks = list(_peaks_of(os.getpid()))
    if not peaks and sys.platform != 'win32':
        import resource  # not available on Windows

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peaks.append(peak if sys.platform == 'darwin' else peak << 10)
    return peaks


def _peaks_of(pid: int | str) -> Iterator[int]:
    # The kernel's peaks count shared memory in full for every process. So take the proportional size of what a process
    # has now, and add how much more it had at its peak.
    with suppress(OSError, KeyError):  # the process has ended, or the system has no such files
        text = b''.join(Path(f'/proc/{pid}/{name}').read_bytes() for name in ('status', 'smaps_rollup'))
        kib = {name: int(amount) for name, amount in re.findall(rb'(\w+):\s+(\d+) kB', text)}
        yield 1024 * (kib[b'Pss'] + kib[b'VmHWM'] - kib[b'VmRSS'])
        for children in Path(f'/proc/{pid}/task').glob('*/children'):
            for child in children.read_text(encoding='ascii').split():
                yield from _peaks_of(child)
