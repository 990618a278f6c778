"""Upper bounds that no library can beat: the same work without a library."""

from __future__ import annotations

import ctypes
import os
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from time import perf_counter
from typing import Any

import numpy as np
from tasks import Task

SECONDS_BEFORE_START = 0.05  # until both processes have received their task
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def in_bare_processes(task: Task, processes: int, seconds: float, keeps_memory: bool) -> float:
    """Batches per second, made and stacked into reused memory, and not sent anywhere.

    The samples' own memory is fresh each time, unless the processes keep what is freed: by itself, glibc returns large
    pieces to the system, and gets them back page by page.
    """
    initializer = _keep_freed_memory if keeps_memory else None
    with ProcessPoolExecutor(processes, get_context('spawn'), initializer) as executor:
        list(executor.map(_warmed_up, [task] * processes))
        start = time.time() + SECONDS_BEFORE_START
        each = [executor.submit(_batches_per_second, task, start, seconds) for _ in range(processes)]
        return sum(future.result() for future in each)


def _keep_freed_memory() -> None:
    with suppress(AttributeError):  # there is no such function in other libraries than glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 32 << 20)
        mallopt(M_TRIM_THRESHOLD, 1 << 30)


def _warmed_up(task: Task) -> None:
    task.load(0)
    time.sleep(SECONDS_BEFORE_START)  # so that no process takes the call of another one


def _batches_per_second(task: Task, start: float, seconds: float) -> float:
    batch = np.zeros((task.batch_size, *task.shape), task.dtype)
    time.sleep(max(0.0, start - time.time()))
    begin = perf_counter()
    made = 0
    while perf_counter() < begin + seconds:
        images, labels = zip(*[task.load(id) for id in range(task.batch_size)], strict=True)
        np.stack(images, out=batch)
        np.array(labels)
        del images
        made += 1
    return made / (perf_counter() - begin)


def copied(task: Any, seconds: float) -> float:
    """Batches per second, each a contiguous part of the images, copied into reused memory."""
    n = task.batch_size
    batch = task.images[:n].copy()
    starts = np.random.default_rng(0).integers(task.n - n, size=997).tolist()
    begin = perf_counter()
    made = 0
    while perf_counter() < begin + seconds:
        start = starts[made % len(starts)]
        np.copyto(batch, task.images[start : start + n])
        made += 1
    return made / (perf_counter() - begin)


def start_of_loky(processes: int) -> float:
    """Milliseconds until each of loky's processes has run a function of numpy."""
    import loky

    def where(numbers: Any) -> int:  # defined here, it travels by value, and the process imports nothing else for it
        numbers.sum()
        return os.getpid()

    begin = perf_counter()
    executor = loky.ProcessPoolExecutor(processes)
    seen: set[int] = set()
    while len(seen) < processes:
        seen.update(executor.map(where, [np.ones(3)] * processes))
    milliseconds = (perf_counter() - begin) * 1e3
    executor.shutdown(kill_workers=True)
    return milliseconds
