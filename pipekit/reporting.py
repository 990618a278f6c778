"""Where the time goes: what a meter has measured, as a table and one sentence on what to change."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle, islice, pairwise
from math import ceil
from time import perf_counter
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np

from .descriptions import Description
from .display import Table, code
from .metering import Batch, Call, Meter, Wait
from .pipelines import Each
from .streams import Stream
from .timeline import plot
from .words import seconds
from .workers.kinds import Processes, Threads, Workers

if TYPE_CHECKING:
    from .pictures import Picture

T = TypeVar('T')

ENOUGH = 5  # batches that anything can be said of
KEEPS_UP = 0.05  # of the time, that training may wait
ROOM = 1.15  # how much faster than needed, so that chance does not make it wait
COMPUTES = 0.25  # of its time, from which on a function computes rather than waits: it may have to wait for a core
LOAD_IN_PARALLEL = 'read only ids there, and load in an apply with workers=.'
BUFFERS = (4, 8, 16, 32, 64, 128)


class StageTimes(NamedTuple):
    """What a stage takes.

    Attributes
    ----------
    stage
        The stage, without its workers.
    path
        The branches of ``mix`` that it is in, and the how-manieth it is.
    workers
        Where its function runs; ``None`` in the prefetch thread.
    samples
        How many samples, or batches, it was seen to be called with.
    per_batch
        How many of them make a batch.
    median, p95, mean
        Seconds for one of them, in the function itself.
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

    def __init__(
        self,
        stages: Sequence[StageTimes],
        waiting: float,
        step: float,
        making: float,
        n_batches: int,
        bottleneck: str | None,
        verdict: str,
    ):
        self.stages = list(stages)
        self.waiting = waiting
        self.step = step
        self.making = making
        self.n_batches = n_batches
        self.bottleneck = bottleneck
        self.verdict = verdict
        self.batches: list[Batch] = []  # what was measured, for a picture
        self.waits: list[Wait] = []
        self.calls_of: dict[str, list[Call]] = {}

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
        return plot(self)

    def table(self) -> Table:
        """The stages, a line each, and the verdict below."""
        header = ['stage', 'in', 'seen', 'per batch', 'median', '95%', 'computing']
        rows = [
            [
                times.stage,
                times.workers or 'prefetch thread',
                f'{times.samples:,}',
                f'{times.per_batch:.4g}',
                seconds(times.median),
                seconds(times.p95),
                f'{times.computing:.0%}',
            ]
            for times in self.stages
        ]
        summary = (
            f'{self.n_batches:,} batches: {seconds(self.making)} to make one, {seconds(self.step)} to train on it, '
            f'{self.waiting:.0%} of the time waiting'
        )
        return Table(header, rows, notes=[summary, self.verdict])

    def __repr__(self) -> str:
        return repr(self.table())

    def _repr_html_(self) -> str:
        table = self.table()
        longest = max((times.mean * times.per_batch for times in self.stages), default=1.0)
        bars = [times.mean * times.per_batch / longest for times in self.stages]
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
        alone = f'Training takes {seconds(self.step)} a batch if batches cost nothing'
        report = self._report
        if report.n_batches < ENOUGH or not report.step:
            return f'{alone}.'
        now = report.step / (1 - report.waiting)
        return (
            f'{alone}, and {seconds(now)} with the pipeline: it could be {max(now / self.step, 1):.2g} times as fast.'
        )

    def __repr__(self) -> str:
        return self.verdict


class _Cost(NamedTuple):
    """What a part of the pipeline takes of the making of a batch, and what to say of it."""

    seconds: float
    subject: str
    advice: str
    holds_gil: bool = False


def report_on(meter: Meter, pipeline: Stream[Any], buffer_size: int) -> Report:
    """What a meter has measured of a pipeline, in words.

    Examples
    --------
    >>> from pipekit import pipeline
    >>> report_on(Meter(), pipeline('abc'), buffer_size=3).verdict
    'Too few batches yet to say where the time goes: 0.'
    """
    report = _report(meter, pipeline, buffer_size)
    report.batches, report.waits = list(map(Batch._make, meter.batches)), list(map(Wait._make, meter.waits))
    report.calls_of = {path: list(map(Call._make, calls)) for path, calls in meter.calls_of.copy().items()}
    return report


def _report(meter: Meter, pipeline: Stream[Any], buffer_size: int) -> Report:
    batches, waits = (
        list(map(Batch._make, meter.batches))[1:],
        list(map(Wait._make, meter.waits)),
    )  # the first one waits for everything to start
    within = [(wait, after) for wait, after in pairwise(waits) if not after.is_first]
    steps = [after.begin - wait.end for wait, after in within]
    idle = [after.end - after.begin for _, after in within]
    stages = list(_stages(meter, pipeline))
    if len(steps) < ENOUGH or len(batches) < ENOUGH:
        verdict = f'Too few batches yet to say where the time goes: {len(waits)}.'
        return Report(stages, 0.0, 0.0, 0.0, len(waits), None, verdict)
    step, making = mean(steps), mean(batch.end - batch.begin for batch in batches)
    waiting = sum(idle) / max(sum(idle) + sum(steps), 1e-12)
    bottleneck, verdict = _verdict(meter, pipeline, stages, batches, steps, waiting, making, buffer_size)
    return Report(stages, waiting, step, making, len(waits), bottleneck, verdict)


def mean(amounts: Iterable[float]) -> float:
    """Their mean.

    Examples
    --------
    >>> mean([1, 2, 6])
    3.0
    """
    return float(np.mean(list(amounts)))


def _stages(meter: Meter, stream: Stream[Any], branches: tuple[Any, ...] = ()) -> Iterator[StageTimes]:
    for number, branch in enumerate(stream.source._branches):
        yield from _stages(meter, branch, (*branches, number))
    parts: list[Any] = [stream.source, *stream.stages]
    for number, part in enumerate(parts, 1):
        path = '.'.join(map(str, (*branches, number)))
        calls = list(map(Call._make, meter.calls_of.get(path, ())))
        if calls:
            yield _times(part, path, calls, meter)


def _times(part: Any, path: str, calls: list[Call], meter: Meter) -> StageTimes:
    taken = [call.end - call.begin for call in calls]
    is_inline = calls[-1].lane == meter.lane
    per_batch = meter.n_calls[path] / max(meter.n_sampled if is_inline else meter.n_batches, 1)
    median, p95 = map(float, np.percentile(taken, [50, 95]))
    computing = sum(call.computing for call in calls) / max(sum(taken), 1e-12)
    workers = None if is_inline else code(_workers_of(part))
    return StageTimes(
        _name(part), path, workers, meter.n_calls[path], per_batch, median, p95, mean(taken), min(computing, 1.0)
    )


def _name(part: Any) -> str:
    options = {'workers', 'on_error', 'seed'}
    given = part._call.kwargs.keys() & options if isinstance(part, Description) else ()
    return repr(part._call.without(*given)) if given else code(part)


def _workers_of(part: Any) -> Workers | None:
    steps = getattr(part, 'steps', ())
    return next((step.workers for step in reversed(steps) if isinstance(step, Each)), None)


def _verdict(
    meter: Meter,
    pipeline: Stream[Any],
    stages: Sequence[StageTimes],
    batches: Sequence[Batch],
    steps: Sequence[float],
    waiting: float,
    making: float,
    buffer_size: int,
) -> tuple[str | None, str]:
    step = mean(steps)
    elapsed = (batches[-1].end - batches[0].begin) / len(batches)
    costs = list(_worker_costs(meter, batches, stages, step, making, elapsed))
    for cost in costs:
        if cost.holds_gil:  # which the training needs as well: it is slower than it could be, whether it waits or not
            return cost.subject, f'Training waits {waiting:.0%} of the time: {cost.advice}'
    if waiting < KEEPS_UP:
        times = step / max(making, 1e-9)
        is_faster = f'is {times:.1f} times faster than' if times >= 1.1 else 'keeps up with'
        return None, f'The pipeline {is_faster} training; nothing to change.'
    wait = f'Training waits {waiting:.0%} of the time: '
    if making * 1.05 < step:
        size = _smoothing_buffer(batches, steps, buffer_size)
        return 'buffer', f'{wait}batches come in bursts; prefetch(buffer_size={size}) would smooth them.'
    costs += _inline_costs(stages, step, making)
    sampled = [batch for batch in batches if batch.is_sampled] or batches
    rest = mean(batch.end - batch.begin - batch.waiting - batch.calling for batch in sampled)
    costs.append(_cost_of_the_rest(pipeline, rest))
    worst = max(costs, key=lambda cost: cost.seconds)
    return worst.subject, wait + worst.advice


def _inline_costs(stages: Sequence[StageTimes], step: float, making: float) -> Iterator[_Cost]:
    for times in stages:
        if times.workers is not None:
            continue
        cost = times.mean * times.per_batch
        left = max(step - (making - cost), step / 10)  # for this stage, once the others have had theirs
        computes = times.computing > COMPUTES
        n = max(1, ceil(ROOM * cost * (times.computing if computes else 1) / left))
        unit = 'sample' if times.per_batch > 1.5 else 'batch'
        takes = f'{times.stage} takes {seconds(times.mean)} a {unit} in the prefetch thread'
        if times.path.endswith('1') and times.path.rpartition('.')[2] == '1':
            yield _Cost(
                cost, 'source', f'{takes}; apply a function to ids, with workers=threads({n}), to load in parallel.'
            )
        elif computes:
            yield _Cost(cost, times.stage, f'{takes}; workers=processes({n}) would keep up{_cores(n)}.')
        else:
            yield _Cost(cost, times.stage, f'{takes}; workers=threads({n}) would keep up.')


def _worker_costs(
    meter: Meter, batches: Sequence[Batch], stages: Sequence[StageTimes], step: float, making: float, elapsed: float
) -> Iterator[_Cost]:
    total = sum(meter.waited_for.values()) or 1.0
    per_batch = mean(batch.waiting for batch in batches)
    for workers, waited in meter.waited_for.items():
        own = [times for times in stages if times.workers == code(workers)]
        if not own:
            continue
        slowest = max(own, key=lambda times: times.mean * times.per_batch)
        unit = 'sample' if slowest.per_batch > 1.5 else 'batch'
        takes = f'{slowest.stage} takes {seconds(slowest.mean)} a {unit} in {code(workers)}'
        work = sum(times.mean * times.per_batch for times in own)  # seconds for a batch, in all workers together
        computing = sum(times.mean * times.per_batch * times.computing for times in own)
        holds_gil = _hold_gil(workers, work, computing, elapsed)
        if holds_gil:
            n = max(2, ceil(ROOM * computing / step))
            advice = f'the threads hold the GIL, one computing at a time; processes({n}) would keep up{_cores(n)}.'
        else:
            advice = _advice(workers, work, computing, step, making)
        yield _Cost(per_batch * waited / total, slowest.stage, f'{takes}; {advice}', holds_gil)


def _hold_gil(workers: Any, work: float, computing: float, elapsed: float) -> bool:
    # One core is busy, although there are several threads, and each waits for most of its time.
    is_one_core = 0.7 < computing / max(elapsed, 1e-12) < 1.25
    return isinstance(workers, Threads) and workers.n > 1 and is_one_core and 0.1 < computing / work < 0.6


def _advice(workers: Any, work: float, computing: float, step: float, making: float) -> str:
    n = ceil(ROOM * work / step)
    if isinstance(workers, Processes):
        busy = work / (making * workers.n)
        if busy < 0.6:
            way = f'the processes are busy {busy:.0%} of the time, and what they return is on its way the rest'
            return f'{way}; have them return less, or put combine_batches next to it.'
        return f'processes({n}) would keep up{_cores(n)}.'
    if isinstance(workers, Threads):
        if workers.n == 1 and computing > COMPUTES * work:
            n = max(2, ceil(ROOM * computing / step))
            return f'processes({n}) would keep up{_cores(n)}.'
        return f'threads({n}) would keep up{_cores(n) if computing > COMPUTES * work else ""}.'
    return f'{n} workers would keep up.'


def _cost_of_the_rest(pipeline: Stream[Any], rest: float) -> _Cost:
    others = [_name(stage) for stage in pipeline.stages if not any(isinstance(step, Each) for step in stage.steps)]
    between = f' and {", ".join(others)}' if others else ''
    reading = f'reading from {_name(pipeline.source)}{between} takes {seconds(rest)} a batch in the prefetch thread'
    hint = '; prefetch(profile=True) tells them apart' if others else ''
    return _Cost(rest, 'source', f'{reading}{hint}; {LOAD_IN_PARALLEL}')


def _cores(n: int) -> str:
    available = os.cpu_count() or 1
    return f', on a machine with {n} cores (this one has {available})' if n > available else ''


def _smoothing_buffer(batches: Sequence[Batch], steps: Sequence[float], buffer_size: int) -> int:
    """The smallest buffer with which training would hardly have waited, from how long each batch and step took."""
    made = [batch.end - batch.begin for batch in batches]
    n = min(len(made), len(steps))
    for size in (size for size in BUFFERS if size > buffer_size):
        if _waits(made[:n], steps[:n], size) < KEEPS_UP / 2:
            return size
    return BUFFERS[-1]


def _waits(made: Sequence[float], steps: Sequence[float], size: int) -> float:
    taken: list[float] = []  # when each batch was taken
    ready = asked = waited = 0.0
    for number, (making, step) in enumerate(zip(made, steps, strict=True)):
        room = taken[number - size] if number >= size else 0.0
        ready = max(ready, room) + making
        waited += max(0.0, ready - asked) if number else 0.0
        taken.append(max(ready, asked))
        asked = taken[-1] + step
    return waited / max(asked, 1e-12)
