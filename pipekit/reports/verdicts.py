"""What training waits for, and what to change, in one sentence."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from math import ceil
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from ..describing.display import code, duration
from ..stages.pipeline import Map
from ..streams.metering import Batch
from ..streams.stream import Stream
from ..workers.kinds import Processes, Threads
from .timings import ENOUGH, StageTimes, Timings, mean, name_of

KEEPS_UP = 0.05  # of the time, that training may wait
ROOM = 1.15  # how much faster than needed, so that chance does not make it wait
COMPUTES = 0.25  # of its time, from which on a function computes rather than waits: it may have to wait for a core
LATE = 0.002  # seconds: a thread that wants the GIL from one that computes gets it after 5 ms, or at the end of a call
BUFFERS = (4, 8, 16, 32, 64, 128)


class _Cost(NamedTuple):
    """What a part of the pipeline takes of the making of a batch, and what to say of it."""

    seconds: float
    subject: str
    advice: str
    holds_gil: bool = False


def verdict_on(measured: Timings, pipeline: Stream[Any], buffer_size: int) -> tuple[str | None, str]:
    """What the training waits for, if it does, and a sentence on that.

    Examples
    --------
    >>> from pipekit import pipeline
    >>> from pipekit.streams.metering import Meter
    >>> verdict_on(Timings(Meter(), pipeline('abc')), pipeline('abc'), buffer_size=3)
    (None, 'Too few batches yet to say where the time goes: 0.')
    """
    if not measured.is_enough:
        return None, f'Too few batches yet to say where the time goes: {len(measured.waits)}.'
    complaint = f'Training waits {measured.waiting:.0%} of the time: '
    costs = list(_worker_costs(measured))
    for cost in costs:
        if cost.holds_gil:  # which the training needs as well: it is slower than it could be, whether it waits or not
            return cost.subject, complaint + cost.advice
    if measured.waiting < KEEPS_UP:
        times = measured.step / max(measured.making, 1e-9)
        is_faster = f'is {times:.1f} times faster than' if times >= 1.1 else 'keeps up with'
        return None, f'The pipeline {is_faster} training; nothing to change.'
    if measured.making * 1.05 < measured.step:
        size = _smoothing_buffer(measured.made, measured.steps, buffer_size)
        return 'buffer', f'{complaint}batches come in bursts; prefetch(buffer_size={size}) would smooth them.'
    costs += [*_inline_costs(measured), _cost_of_the_rest(measured, pipeline)]
    worst = max(costs, key=attrgetter('seconds'))
    return worst.subject, complaint + worst.advice


def _worker_costs(measured: Timings) -> Iterator[_Cost]:
    total = sum(measured.waited_for.values()) or 1.0
    waiting = mean(batch.waiting for batch in measured.made)
    for workers, waited in measured.waited_for.items():
        own = [times for times in measured.stages if times.workers == code(workers)]
        if not own:
            continue
        slowest = max(own, key=attrgetter('for_batch'))
        work = sum(times.for_batch for times in own)
        computing = sum(times.for_batch * times.computing for times in own)
        holds_gil = _hold_gil(workers, work, computing, measured)
        if holds_gil:
            n = max(2, _needed(computing, measured.step))
            advice = f'the threads hold the GIL, one computing at a time; {_processes(n)}'
        else:
            advice = _advice(workers, work, computing, measured)
        advice = f'{_takes(slowest, code(workers))}; {advice}'
        yield _Cost(waiting * waited / total, slowest.stage, advice, holds_gil)


def _hold_gil(workers: Any, work: float, computing: float, measured: Timings) -> bool:
    elapsed = (measured.made[-1].end - measured.made[0].begin) / len(measured.made)
    is_one_core = 0.7 < computing / max(elapsed, 1e-12) < 1.25
    if not isinstance(workers, Threads) or workers.n == 1 or not is_one_core:
        return False
    # One core is busy, although there are several threads. If they keep each other from it, they keep the prefetch
    # thread from it as well.
    delays = measured.delays.get(workers, ())
    return bool(np.median(delays) > LATE) if len(delays) >= ENOUGH else 0.1 < computing / work < 0.6


def _advice(workers: Any, work: float, computing: float, measured: Timings) -> str:
    n = _needed(work, measured.step)
    if isinstance(workers, Processes):
        busy = work / (measured.making * workers.n)
        if busy < 0.6:
            way = f'the processes are busy {busy:.0%} of the time, and what they return is on its way the rest'
            return f'{way}; have them return less, or put combine_batches next to it.'
        return _processes(n)
    if isinstance(workers, Threads):
        computes = computing > COMPUTES * work
        if computes and workers.n == 1:
            return _processes(max(2, _needed(computing, measured.step)))
        return f'threads({n}) would keep up{_cores(n) if computes else ""}.'
    return f'{n} workers would keep up.'


def _inline_costs(measured: Timings) -> Iterator[_Cost]:
    for times in measured.stages:
        if times.workers is not None:
            continue
        cost = times.for_batch
        # The time for this stage, once the others have had theirs.
        left = max(measured.step - (measured.making - cost), measured.step / 10)
        computes = times.computing > COMPUTES
        n = max(1, _needed(cost * times.computing if computes else cost, left))
        takes = _takes(times, 'the prefetch thread')
        if times.path.rpartition('.')[2] == '1':
            advice = f'{takes}; apply a function to ids, with workers=threads({n}), to load in parallel.'
            yield _Cost(cost, 'source', advice)
        elif computes:
            yield _Cost(cost, times.stage, f'{takes}; workers={_processes(n)}')
        else:
            yield _Cost(cost, times.stage, f'{takes}; workers=threads({n}) would keep up.')


def _cost_of_the_rest(measured: Timings, pipeline: Stream[Any]) -> _Cost:
    sampled = [batch for batch in measured.made if batch.is_sampled] or measured.made
    rest = mean(batch.end - batch.begin - batch.waiting - batch.calling for batch in sampled)
    others = [name_of(stage) for stage in pipeline.stages if not any(isinstance(step, Map) for step in stage.steps)]
    between = f' and {", ".join(others)}' if others else ''
    reading = f'reading from {name_of(pipeline.source)}{between} takes {duration(rest)} a batch in the prefetch thread'
    hint = '; prefetch(profile=True) tells them apart' if others else ''
    return _Cost(rest, 'source', f'{reading}{hint}; read only ids there, and load in an apply with workers=.')


def _takes(times: StageTimes, where: str) -> str:
    unit = 'sample' if times.per_batch > 1.5 else 'batch'
    return f'{times.stage} takes {duration(times.mean)} a {unit} in {where}'


def _needed(work: float, time: float) -> int:
    return ceil(ROOM * work / time)


def _processes(n: int) -> str:
    return f'processes({n}) would keep up{_cores(n)}.'


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
