"""Measures contenders at their tasks, functions and imports."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from time import perf_counter, sleep
from typing import Any

import psutil
from peers import Contender
from tasks import Task

SECONDS = 0.25  # of taking batches in each round
CLOSE_TIMEOUT_SECONDS, SHORT_CLOSE_TIMEOUT_SECONDS = 3.0, 0.5  # for threads and processes to end
STARTS = 3  # the fastest counts, because other programs on the machine can only slow them down
SAMPLES = 50_000

Unit = Callable[[float], float]


def throughput(contender: Contender, task: Task, unit: Unit, seconds: float = SECONDS) -> float:
    """Batches per second, converted to a unit. The first batches are checked and not counted."""
    before = _running()
    batches, close = contender.open(task)
    task.check(batches)
    _taken_in(batches, seconds / 5)  # do not count batches made ahead during the check
    figure = unit(_taken_in(batches, seconds))
    close()
    del batches, close
    _gone_at(before, SHORT_CLOSE_TIMEOUT_SECONDS)
    return figure


def first_batch(contender: Contender, task: Task) -> float:
    """Milliseconds from nothing to the first batch."""
    before = _running()
    start = perf_counter()
    batches, close = contender.open(task)
    batch = next(batches)
    milliseconds = (perf_counter() - start) * 1e3
    task.checked(batch)
    close()
    del batches, batch, close
    _gone_at(before, CLOSE_TIMEOUT_SECONDS)
    return milliseconds


def closing(contender: Contender, task: Task) -> float:
    """Milliseconds until the threads and processes that were started have ended."""
    before = _running()
    batches, close = contender.open(task)
    task.check(batches)
    start = perf_counter()
    close()
    del batches, close
    return (_gone_at(before, CLOSE_TIMEOUT_SECONDS) - start) * 1e3


def growth(contender: Contender, task: Task, batches_first: int, batches_then: int) -> float:
    """KiB that this process and those that it has started hold after so many batches and did not hold before."""
    batches, close = contender.open(task)
    deque(islice(batches, batches_first), maxlen=0)
    gc.collect()
    before = _resident()
    deque(islice(batches, batches_then), maxlen=0)
    gc.collect()
    grown = _resident() - before
    close()
    return grown / 1024


def per_sample(make: Callable[[], Iterator[Any]]) -> float:
    """Nanoseconds per value of an iterator."""
    values = make()
    deque(islice(values, 2000), maxlen=0)
    start = perf_counter()
    deque(islice(values, SAMPLES), maxlen=0)
    return (perf_counter() - start) / SAMPLES * 1e9


def calls(function: Callable[[], Any], unit: Unit) -> float:
    """Calls a second, in a unit, the last result being kept as a training script keeps its batch."""
    kept = function()
    start = perf_counter()
    number = 0
    while perf_counter() < start + SECONDS:
        kept = function()
        number += 1
    del kept
    return unit(number / (perf_counter() - start))


def importing(module: str) -> float:
    """Milliseconds that an import takes, at its fastest."""
    return min(import_once(module) for _ in range(STARTS))


def import_once(module: str) -> float:
    """Milliseconds that an import takes in a fresh process, whose own start is not counted."""
    code = f'from time import perf_counter; start = perf_counter(); import {module}; print(perf_counter() - start)'
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONDONTWRITEBYTECODE'}
    done = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f'import {module} failed in a fresh process: {done.stderr}')
    return float(done.stdout.split()[-1]) * 1e3


def _taken_in(batches: Iterator[Any], seconds: float) -> float:
    start = perf_counter()
    for number, _ in enumerate(batches, 1):
        passed = perf_counter() - start
        if passed >= seconds:
            return number / passed
    raise AssertionError('the batches came to an end')


def _running() -> int:
    return threading.active_count() + len(psutil.Process().children())


def _gone_at(before: int, patience: float) -> float:
    # A garbage collection comes first where closing alone ends nothing.
    closed = perf_counter()
    if _running() > before:
        gc.collect()
    else:
        return closed
    while True:
        now = perf_counter()
        if _running() <= before or now > closed + patience:
            return now
        sleep(0.0002)


def _resident() -> int:
    here = psutil.Process()
    return sum(process.memory_info().rss for process in [here, *here.children()])
