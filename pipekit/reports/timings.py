"""How long everything takes, from what a meter has noted: each stage, the making of a batch, training on it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ..describing.descriptions import Description
from ..describing.display import code
from ..stages.pipeline import Map
from ..streams.metering import Batch, CallRecord, Meter, Wait
from ..streams.stream import Stream
from ..workers.kinds import Workers

ENOUGH = 5  # batches that anything can be said of


class StageTimes(NamedTuple):
    """What a stage takes.

    Attributes
    ----------
    stage
        The stage, without its workers.
    path
        The branches of ``mix`` that it is in, and the how-manieth it is.
    workers
        Where it runs; ``None`` in the prefetch thread.
    samples
        How many samples, or batches, it was seen to be called with.
    per_batch
        How many of them make a batch.
    median, p95, mean
        Seconds for one of them, in the function itself; the mean has, in an exact profile, what else the stage does.
    computing
        The share of that in which it computed, rather than waited.
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
        """Seconds for a batch, of all workers together."""
        return self.mean * self.per_batch


class Timings:
    """What a meter has noted up to now, and what follows from it.

    Attributes
    ----------
    batches, waits
        What it has noted: how batches were made, and how they were got.
    beside, calls_of
        What each stage does beside calls of a user's function, in an exact profile; the calls, or that where none are.
    waited_for
        The seconds that were waited for each kind of workers.
    delays
        The seconds until the prefetch thread had a result that it waited for, for each kind of workers.
    stages
        What each stage takes.
    made
        How the batches were made that did not wait for everything to start.
    steps
        The seconds that training took, each time between two batches of an epoch.
    is_enough
        Whether anything can be said of it. If not, the rest is 0.
    waiting
        The share of the time in which training waited for batches.
    step, making
        Seconds that training takes for a batch, and that making one takes in the prefetch thread.

    Examples
    --------
    >>> from pipekit import pipeline
    >>> measured = Timings(Meter(), pipeline('abc'))
    >>> measured.is_enough, measured.step
    (False, 0.0)
    """

    def __init__(self, meter: Meter, pipeline: Stream[Any]):
        # Copied before anything else is done with it: another thread goes on with the meter.
        self.batches = list(map(Batch._make, meter.batches.copy()))
        self.waits = list(map(Wait._make, meter.waits.copy()))
        self.beside = _noted(meter.beside)
        self.calls_of = self.beside | _noted(meter.calls_of)
        self.waited_for = meter.waited_for.copy()
        self.delays = {workers: list(delays.copy()) for workers, delays in meter.delays.copy().items()}
        self.stages = list(_times_of_stages(self, meter, pipeline))
        self.made = self.batches[1:]
        within = [(wait, after) for wait, after in pairwise(self.waits) if not after.is_first]
        self.steps = [after.begin - wait.end for wait, after in within]
        self.is_enough = min(len(self.steps), len(self.made)) >= ENOUGH
        self.waiting = self.step = self.making = 0.0
        if self.is_enough:
            idle = sum(after.end - after.begin for _, after in within)
            self.waiting = idle / max(idle + sum(self.steps), 1e-12)
            self.step = mean(self.steps)
            self.making = mean(batch.end - batch.begin for batch in self.made)


def mean(amounts: Iterable[float]) -> float:
    """Their mean.

    Examples
    --------
    >>> mean([1, 2, 6])
    3.0
    """
    return float(np.mean(list(amounts)))


def name_of(part: Any) -> str:
    """The code of a source or stage, without what says where and how it is run.

    Examples
    --------
    >>> from pipekit import apply, skip, threads
    >>> name_of(apply(abs, workers=threads(2), on_error=skip()))
    'apply(abs)'
    """
    options = {'workers', 'on_error', 'seed'}
    given = part._call.kwargs.keys() & options if isinstance(part, Description) else ()
    return repr(part._call.without(*given)) if given else code(part)


def _noted(calls_of: Mapping[str, deque[tuple[Any, ...]]]) -> dict[str, list[CallRecord]]:
    return {path: list(map(CallRecord._make, calls.copy())) for path, calls in dict(calls_of).items()}


def _times_of_stages(
    measured: Timings, meter: Meter, stream: Stream[Any], branches: tuple[int, ...] = ()
) -> Iterator[StageTimes]:
    for number, branch in enumerate(stream.source._branches):
        yield from _times_of_stages(measured, meter, branch, (*branches, number))
    parts: list[Any] = [stream.source, *stream.stages]
    workers = None
    for number, part in enumerate(parts, 1):
        path = '.'.join(map(str, (*branches, number)))
        workers = _workers_of(part) or workers  # where it has none, it may have run with one before it
        if measured.calls_of.get(path):
            yield _times(part, path, workers, measured, meter)


def _times(part: Any, path: str, workers: Workers | None, measured: Timings, meter: Meter) -> StageTimes:
    calls = measured.calls_of[path]
    taken, computing = _durations(calls), mean(call.computing for call in calls)
    samples, each = meter.n_calls[path], mean(taken)
    if not samples:
        samples = meter.n_beside[path]
    elif path in measured.beside:
        beside, times = measured.beside[path], meter.n_beside[path] / samples
        each += mean(_durations(beside)) * times
        computing += mean(call.computing for call in beside) * times
    is_inline = calls[-1].lane == meter.lane
    per_batch = samples / max(meter.n_sampled if is_inline else meter.n_batches, 1)
    median, p95 = map(float, np.percentile(taken, [50, 95]))
    where, share = None if is_inline else code(workers), min(computing / max(each, 1e-12), 1.0)
    return StageTimes(name_of(part), path, where, samples, per_batch, median, p95, each, share)


def _durations(calls: Iterable[CallRecord]) -> list[float]:
    return [call.end - call.begin for call in calls]


def _workers_of(part: Any) -> Workers | None:
    steps = getattr(part, 'steps', ())
    return next((step.workers for step in reversed(steps) if isinstance(step, Map)), None)
