"""What a meter has measured, evaluated: the time of each stage, of making a batch, and of training on it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from ..describing.display import code
from ..streams.metering import BatchRecord, CallRecord, Meter, StageRow, WaitRecord

MIN_BATCHES = 5


class StageTimes(NamedTuple):
    """The measured time of one stage.

    Attributes
    ----------
    stage
        The code of the stage, without its workers.
    path
        Its position among the stages, 1 for the source; in a ``mix``, the branch comes first: ``'0.2'``.
    workers
        Where it runs; ``None`` for the prefetch thread.
    samples
        How many samples or batches it has processed, as far as they were measured.
    per_batch
        How many of these go into one batch.
    median, p95, mean
        Seconds per sample, or per batch, in the function itself. With ``profile=True``, the mean also includes the
        stage's own overhead.
    computing
        The share of that time spent computing rather than waiting.
    """

    stage: str
    path: str
    workers: str | None
    samples: int
    per_batch: float
    median: float
    p95: float
    mean: float
    computing: float

    @property
    def for_batch(self) -> float:
        """Seconds per batch, summed over all workers."""
        return self.mean * self.per_batch


class Timings:
    """A copy of a meter's records, and the quantities computed from them.

    Attributes
    ----------
    batches, waits
        The records of how each batch was made, and of how long the consumer waited for it.
    overhead
        In an exact profile: the time each stage spends outside the user's function, by path.
    calls_of
        The calls of the user's function, by path; for stages without a function, their overhead.
    waited_for
        The seconds the prefetch thread waited for workers, by kind of workers.
    delays
        The seconds between the end of a call in a worker and the prefetch thread's receiving its result, by kind of
        workers.
    stages
        The times of each stage.
    warm_batches
        The records of all batches but the first, which includes the start of the workers.
    steps
        The seconds of training between two batches of an epoch.
    is_sufficient
        Whether there are enough batches for a verdict. If not, ``waiting``, ``step`` and ``making`` are 0.
    waiting
        The share of the time that training spent waiting for batches.
    step, making
        The mean seconds of training on a batch, and of making one in the prefetch thread.
    """

    def __init__(self, meter: Meter, rows: Sequence[StageRow]):
        # Copied first: the prefetch thread goes on appending to the meter.
        self.batches = list(map(BatchRecord._make, meter.batches.copy()))
        self.waits = list(map(WaitRecord._make, meter.waits.copy()))
        self.overhead = _records(meter.overhead_of)
        self.calls_of = self.overhead | _records(meter.calls_of)
        self.waited_for = meter.waited_for.copy()
        self.delays = {workers: list(delays.copy()) for workers, delays in meter.delays.copy().items()}
        self.stages = [_stage_times(self, meter, row) for row in rows if self.calls_of.get(row.path)]
        self.warm_batches = self.batches[1:]
        within_epochs = [(wait, after) for wait, after in pairwise(self.waits) if not after.is_first]
        self.steps = [after.begin - wait.end for wait, after in within_epochs]
        self.is_sufficient = min(len(self.steps), len(self.warm_batches)) >= MIN_BATCHES
        self.waiting = self.step = self.making = 0.0
        if self.is_sufficient:
            idle = sum(durations(after for _, after in within_epochs))
            self.waiting = idle / max(idle + sum(self.steps), 1e-12)
            self.step = fmean(self.steps)
            self.making = fmean(durations(self.warm_batches))


def durations(records: Iterable[BatchRecord | CallRecord | WaitRecord]) -> Iterator[float]:
    """The seconds that each record lasted."""
    return (record.end - record.begin for record in records)


def _records(calls_of: Mapping[str, deque[tuple[Any, ...]]]) -> dict[str, list[CallRecord]]:
    return {path: list(map(CallRecord._make, calls.copy())) for path, calls in dict(calls_of).items()}


def _stage_times(timings: Timings, meter: Meter, row: StageRow) -> StageTimes:
    calls, overhead = timings.calls_of[row.path], timings.overhead.get(row.path)
    seconds = list(durations(calls))
    mean, computing = fmean(seconds), fmean(call.computing for call in calls)
    samples = meter.n_calls[row.path]
    if not samples:
        samples = meter.n_pulls[row.path]
    elif overhead:
        times = meter.n_pulls[row.path] / samples
        mean += fmean(durations(overhead)) * times
        computing += fmean(record.computing for record in overhead) * times
    is_inline = calls[-1].lane == meter.lane
    per_batch = samples / max(meter.n_sampled if is_inline else meter.n_batches, 1)
    median, p95 = np.percentile(seconds, [50, 95]).tolist()
    workers, share = None if is_inline else code(row.workers), min(computing / max(mean, 1e-12), 1.0)
    return StageTimes(row.name, row.path, workers, samples, per_batch, median, p95, mean, share)
