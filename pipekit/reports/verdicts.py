"""What training waits for, and what to change, in one sentence."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from math import ceil
from operator import attrgetter
from statistics import fmean, median
from typing import Any, NamedTuple

from more_itertools import first

from ..describing.display import code, duration
from ..streams.metering import StageRow
from ..workers.kinds import Processes, Threads
from .timings import MIN_BATCHES, StageTimes, Timings, durations

NEGLIGIBLE_WAITING = 0.05  # the share of its time that training may wait without a complaint
SPEED_MARGIN = 1.15  # how many times faster than training the pipeline should be, to absorb fluctuations
COMPUTING_SHARE = 0.25  # a function that computes for more of its time than this may have to wait for a core
GIL_DELAY_SECONDS = 0.002  # CPython hands the GIL over after 5 ms of computing, or earlier when a call ends
BUFFER_SIZES = (4, 8, 16, 32, 64, 128)


class _Cost(NamedTuple):
    """The seconds per batch that a part of the pipeline takes, and what the verdict says about it."""

    seconds: float
    subject: str
    advice: str
    holds_gil: bool = False


def verdict_on(timings: Timings, rows: Sequence[StageRow], buffer_size: int) -> tuple[str | None, str]:
    """What training waits for, if anything, and a sentence about it."""
    if not timings.is_sufficient:
        return None, f'Too few batches yet to say where the time goes: {len(timings.waits)}.'
    complaint = f'Training waits {timings.waiting:.0%} of the time: '
    costs = list(_worker_costs(timings))
    for cost in costs:
        if cost.holds_gil:  # this slows down training itself, which needs the GIL too, even if it never waits
            return cost.subject, complaint + cost.advice
    if timings.waiting < NEGLIGIBLE_WAITING:
        times = timings.step / max(timings.making, 1e-9)
        is_faster = f'is {times:.1f} times faster than' if times >= 1.1 else 'keeps up with'
        return None, f'The pipeline {is_faster} training; nothing to change.'
    if timings.making * 1.05 < timings.step:
        size = _smoothing_buffer(timings, buffer_size)
        return 'buffer', f'{complaint}batches come in bursts; prefetch(buffer_size={size}) would smooth them.'
    costs += [*_inline_costs(timings), _cost_of_the_rest(timings, rows)]
    worst = max(costs, key=attrgetter('seconds'))
    return worst.subject, complaint + worst.advice


def _worker_costs(timings: Timings) -> Iterator[_Cost]:
    total = sum(timings.waited_for.values()) or 1.0
    waiting = fmean(batch.waiting for batch in timings.warm_batches)
    for workers, waited in timings.waited_for.items():
        stages = [times for times in timings.stages if times.workers == code(workers)]
        if not stages:
            continue
        slowest = max(stages, key=attrgetter('for_batch'))
        work = sum(times.for_batch for times in stages)
        computing = sum(times.for_batch * times.computing for times in stages)
        holds_gil = _hold_gil(workers, work, computing, timings)
        if holds_gil:
            n = max(2, _n_workers(computing, timings.step))
            advice = f'the threads hold the GIL, one computing at a time; {_use_processes(n)}'
        else:
            advice = _advice(workers, work, computing, timings)
        yield _Cost(waiting * waited / total, slowest.stage, f'{_takes(slowest, code(workers))}; {advice}', holds_gil)


def _hold_gil(workers: Any, work: float, computing: float, timings: Timings) -> bool:
    batches = timings.warm_batches
    elapsed = (batches[-1].end - batches[0].begin) / len(batches)
    is_one_core = 0.7 < computing / max(elapsed, 1e-12) < 1.25
    if not isinstance(workers, Threads) or workers.n == 1 or not is_one_core:
        return False
    # Several threads together keep only one core busy. If that is because of the GIL, the prefetch thread, which needs
    # the GIL too, receives their results late.
    delays = timings.delays.get(workers, ())
    return median(delays) > GIL_DELAY_SECONDS if len(delays) >= MIN_BATCHES else 0.1 < computing / work < 0.6


def _advice(workers: Any, work: float, computing: float, timings: Timings) -> str:
    n = _n_workers(work, timings.step)
    if isinstance(workers, Processes):
        busy = work / (timings.making * workers.n)
        if busy < 0.6:
            sending = f'the processes are busy {busy:.0%} of the time, and sending their results takes the rest'
            return f'{sending}; have them return less, or put combine_batches right after them.'
        return _use_processes(n)
    if isinstance(workers, Threads):
        computes = computing > COMPUTING_SHARE * work
        if computes and workers.n == 1:
            return _use_processes(max(2, _n_workers(computing, timings.step)))
        return f'threads({n}) would keep up{_cores(n) if computes else ""}.'
    return f'{n} workers would keep up.'


def _inline_costs(timings: Timings) -> Iterator[_Cost]:
    for times in timings.stages:
        if times.workers is not None:
            continue
        cost = times.for_batch
        # How much time is left for this stage once the others have had theirs.
        left = max(timings.step - (timings.making - cost), timings.step / 10)
        computes = times.computing > COMPUTING_SHARE
        n = max(1, _n_workers(cost * times.computing if computes else cost, left))
        takes = _takes(times, 'the prefetch thread')
        if times.path.rpartition('.')[2] == '1':
            advice = f'{takes}; apply a function to ids, with workers=threads({n}), to load in parallel.'
            yield _Cost(cost, 'source', advice)
        elif computes:
            yield _Cost(cost, times.stage, f'{takes}; workers={_use_processes(n)}')
        else:
            yield _Cost(cost, times.stage, f'{takes}; workers=threads({n}) would keep up.')


def _cost_of_the_rest(timings: Timings, rows: Sequence[StageRow]) -> _Cost:
    """The time that was spent neither in calls nor waiting for workers."""
    batches = [batch for batch in timings.warm_batches if batch.is_sampled] or timings.warm_batches
    rest = fmean(batch.end - batch.begin - batch.waiting - batch.calling for batch in batches)
    source, *stages = (row for row in rows if '.' not in row.path)
    others = [stage.name for stage in stages if not stage.calls_function]
    between = f' and {", ".join(others)}' if others else ''
    reading = f'reading from {source.name}{between} takes {duration(rest)} a batch in the prefetch thread'
    hint = '; prefetch(profile=True) tells them apart' if others else ''
    return _Cost(rest, 'source', f'{reading}{hint}; read only ids there, and load in an apply with workers=.')


def _takes(times: StageTimes, where: str) -> str:
    unit = 'sample' if times.per_batch > 1.5 else 'batch'
    return f'{times.stage} takes {duration(times.mean)} a {unit} in {where}'


def _n_workers(work: float, time: float) -> int:
    """How many workers do an amount of work in a time."""
    return ceil(SPEED_MARGIN * work / time)


def _use_processes(n: int) -> str:
    return f'processes({n}) would keep up{_cores(n)}.'


def _cores(n: int) -> str:
    available = os.cpu_count() or 1
    return f', on a machine with {n} cores (this one has {available})' if n > available else ''


def _smoothing_buffer(timings: Timings, buffer_size: int) -> int:
    """The smallest buffer with which training would hardly have waited."""
    pairs = list(zip(durations(timings.warm_batches), timings.steps, strict=False))
    sizes = (size for size in BUFFER_SIZES if size > buffer_size)
    return first((size for size in sizes if _waiting_with(size, pairs) < NEGLIGIBLE_WAITING / 2), BUFFER_SIZES[-1])


def _waiting_with(buffer_size: int, pairs: Sequence[tuple[float, float]]) -> float:
    """The share of waiting, simulated from the seconds of making and of training on each batch."""
    taken: list[float] = []  # when training took each batch
    ready = asked = waited = 0.0
    for number, (making, step) in enumerate(pairs):
        has_room = taken[number - buffer_size] if number >= buffer_size else 0.0
        ready = max(ready, has_room) + making
        waited += max(0.0, ready - asked) if number else 0.0
        taken.append(max(ready, asked))
        asked = taken[-1] + step
    return waited / max(asked, 1e-12)
