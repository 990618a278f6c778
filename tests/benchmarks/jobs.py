"""The jobs. Each is a function that returns tables to fill; ``JOBS`` lists them by name.

To add one, write a function that returns a list of ``Job`` and list it below; to add a library to those that run the
tutorial's job, list it in ``peers.PEERS``.
"""

from __future__ import annotations

import gc
import importlib.util
import multiprocessing
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from time import perf_counter, sleep
from typing import Any

import numpy as np
from measure import Job, Measure, Target
from peers import (
    LOOP,
    OWN,
    PIPEKIT,
    PIPEKIT_PREFETCH,
    PIPEKIT_TUTORIAL,
    Contender,
    Digits,
    Task,
    installed,
)

import pipekit

CHECKED = 6  # batches looked at before the clock starts; more than anyone makes ahead
SECONDS = 0.25  # of taking batches, in each round
PATIENCE = 3.0  # seconds that threads and processes are given to end
PROCESSES = 3  # of which the fastest counts: whatever else runs on the machine only ever slows them
SAMPLES = 50_000
MEMORY_BATCHES = 20_000
FAR = 10**12


def tutorial() -> list[Job]:
    peers, skipped = installed()
    goals = {30: 0.85, 256: 0.95}
    return [
        Job(
            f"the tutorial's job, batches of {batch_size}",
            'samples/s',
            {
                contender.name: partial(_throughput, contender, Task(Digits(), batch_size))
                for contender in [*OWN, *peers]
            },
            baseline=LOOP.name,
            targets={PIPEKIT.name: Target(1.0), PIPEKIT_PREFETCH.name: Target(goal)},
            more_is_better=True,
            notes=[
                'Draw an index, load an image (1, 28, 28) and a label from memory, stack. Every batch of the first '
                f'{CHECKED} is checked. The loop draws with `rng.integers(n)` for each sample; `sample` and '
                "torch's sampler draw many at once, as the second loop does. grain draws shuffled passes.",
                *skipped,
            ],
        )
        for batch_size, goal in goals.items()
    ]


def overhead() -> list[Job]:
    ids = range(5000)
    three = [pipekit.apply(_same)] * 3
    plain = pipekit.pipeline(pipekit.sample(ids, seed=0), *three)
    apart = pipekit.pipeline(
        pipekit.sample(ids, seed=0), pipekit.apply(_same), pipekit.keep(_is_any), pipekit.apply(_same)
    )
    random = pipekit.pipeline(
        pipekit.sample(ids, seed=0), pipekit.apply(_same), pipekit.apply(_same), pipekit.apply(_same_at_random, seed=0)
    )
    return [
        Job(
            'sample and three trivial stages',
            'ns per sample',
            {
                'hand-written loop, rng.integers': partial(_per_sample, _calls_of_drawn),
                'pipekit, apply × 3': partial(_per_sample, lambda: iter(plain)),
                'pipekit, apply, keep, apply': partial(_per_sample, lambda: iter(apart)),
                'hand-written loop, a generator per sample': partial(_per_sample, _calls_with_generators),
                'pipekit, apply × 2, apply with a seed': partial(_per_sample, lambda: iter(random)),
            },
            baseline='hand-written loop, rng.integers',
            targets={'pipekit, apply × 3': Target(450, of='figure')},
            notes=['The functions return what they are given; their three calls are part of every figure.'],
        )
    ]


def importing() -> list[Job]:
    modules = ['numpy', 'pipekit', 'streamable', 'grain', 'torchdata.nodes', 'dpipe.batch_iter', 'torch']
    present = [module for module in modules if importlib.util.find_spec(module.partition('.')[0])]
    for module in present:
        _import_time(module)  # writes the bytecode
    return [
        Job(
            'import',
            'ms',
            {module: partial(_fastest_import, module) for module in present},
            baseline='numpy',
            targets={'pipekit': Target(1.4)},
            notes=[
                'Each in fresh processes, whose own start is not counted, with the bytecode on disk; the fastest of '
                f'{PROCESSES} in each round.',
                *(f'{module}: skipped, not installed' for module in modules if module not in present),
            ],
            digits=1,
        )
    ]


def start() -> list[Job]:
    return [
        _job_of_contenders(
            'the first batch',
            _first_batch,
            {PIPEKIT_PREFETCH.name: Target(3, of='figure'), PIPEKIT_TUTORIAL.name: Target(3, of='figure')},
            'From writing the pipeline down to the first batch of 30 in hand.',
        )
    ]


def close() -> list[Job]:
    return [
        _job_of_contenders(
            'closing',
            _closing,
            {},
            'Until the threads and processes that were started are gone, with a garbage collection if closing alone '
            f'does not end them. After {PATIENCE * 1000:,.0f} ms some are still there.',
        )
    ]


def resume() -> list[Job]:
    digits = Digits()
    stages = [pipekit.apply(digits.load), pipekit.combine_batches(30)]
    draws = pipekit.pipeline(pipekit.sample(digits.ids, seed=0), *stages)
    passes = pipekit.pipeline(pipekit.sample(digits.ids, replace=False, seed=0), *stages)
    return [
        Job(
            'resuming',
            'µs',
            {
                'sample, at draw 0': partial(_resumed, draws, 0),
                'sample, at draw 10^12': partial(_resumed, draws, FAR),
                'sample(replace=False), at draw 0': partial(_resumed, passes, 0),
                'sample(replace=False), at draw 10^12': partial(_resumed, passes, FAR),
            },
            baseline='sample, at draw 0',
            targets={'sample, at draw 10^12': Target(1.25)},
            notes=['From `resume(cursor)` to the first batch of 30; the mean of 100.'],
        )
    ]


def memory() -> list[Job]:
    contenders = [LOOP, PIPEKIT, PIPEKIT_PREFETCH]
    task = Task(Digits(), 30)
    return [
        Job(
            f'memory over {MEMORY_BATCHES:,} batches of 30',
            'KiB more',
            {contender.name: partial(_growth, contender, task) for contender in contenders},
            targets={contender.name: Target(1024, of='figure') for contender in contenders[1:]},
            notes=['What the process holds after them, less what it held after the first 1,000.'],
        )
    ]


JOBS: Mapping[str, Callable[[], list[Job]]] = {
    'tutorial': tutorial,
    'overhead': overhead,
    'import': importing,
    'start': start,
    'close': close,
    'resume': resume,
    'memory': memory,
}


def _job_of_contenders(
    title: str, measure: Callable[[Contender, Task], float], targets: Mapping[str, Target], note: str
) -> Job:
    peers, skipped = installed()
    task = Task(Digits(), 30)
    threaded = [contender for contender in [*OWN, *peers] if contender.reads_ahead]
    contenders: dict[str, Measure] = {contender.name: partial(measure, contender, task) for contender in threaded}
    return Job(title, 'ms', contenders, targets=targets, notes=[note, *skipped], digits=2)


def _throughput(contender: Contender, task: Task) -> float:
    before = _running()
    batches, close = contender.open(task)
    for batch in islice(batches, CHECKED):
        task.check(batch)
    _taken_in(batches, SECONDS / 5)  # what was made ahead while the others were checked is not to be counted
    samples_per_second = _taken_in(batches, SECONDS) * task.batch_size / SECONDS
    close()
    del batches, close
    _wait_until_gone(before)
    return samples_per_second


def _taken_in(batches: Iterator[Any], seconds: float) -> float:
    start = perf_counter()
    for number, _ in enumerate(batches, 1):
        passed = perf_counter() - start
        if passed >= seconds:
            return number * seconds / passed
    raise AssertionError('the batches came to an end')


def _first_batch(contender: Contender, task: Task) -> float:
    before = _running()
    start = perf_counter()
    batches, close = contender.open(task)
    batch = next(batches)
    milliseconds = (perf_counter() - start) * 1e3
    task.check(batch)
    close()
    del batches, close
    _wait_until_gone(before)
    return milliseconds


def _closing(contender: Contender, task: Task) -> float:
    before = _running()
    batches, close = contender.open(task)
    for batch in islice(batches, CHECKED):
        task.check(batch)
    start = perf_counter()
    close()
    del batches, close
    _wait_until_gone(before)
    return (perf_counter() - start) * 1e3


def _running() -> int:
    return threading.active_count() + len(multiprocessing.active_children())


def _wait_until_gone(before: int) -> None:
    if _running() > before:
        gc.collect()
    deadline = perf_counter() + PATIENCE
    while _running() > before and perf_counter() < deadline:
        sleep(0.0002)


def _per_sample(make: Callable[[], Iterator[Any]]) -> float:
    values = make()
    deque(islice(values, 2000), maxlen=0)
    start = perf_counter()
    deque(islice(values, SAMPLES), maxlen=0)
    return (perf_counter() - start) / SAMPLES * 1e9


def _calls_of_drawn() -> Iterator[Any]:
    rng = np.random.default_rng(0)
    ids = range(5000)
    while True:
        yield _same(_same(_same(ids[rng.integers(5000)])))


def _calls_with_generators() -> Iterator[Any]:
    rng = np.random.default_rng(0)
    ids = range(5000)
    number = 0
    while True:
        value = _same(_same(ids[rng.integers(5000)]))
        yield _same_at_random(value, rng=np.random.default_rng([0, number]))
        number += 1


def _same(value: Any) -> Any:
    return value


def _same_at_random(value: Any, rng: np.random.Generator) -> Any:
    return value


def _is_any(value: Any) -> bool:
    return True


def _fastest_import(module: str) -> float:
    return min(_import_time(module) for _ in range(PROCESSES))


def _import_time(module: str) -> float:
    code = f'from time import perf_counter; start = perf_counter(); import {module}; print(perf_counter() - start)'
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONDONTWRITEBYTECODE'}
    done = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f'import {module} failed in a fresh process: {done.stderr}')
    return float(done.stdout) * 1e3


def _resumed(pipeline: pipekit.Pipeline[Any], cursor: int) -> float:
    repetitions = 100
    start = perf_counter()
    for _ in range(repetitions):
        next(pipeline.resume(cursor))
    return (perf_counter() - start) / repetitions * 1e6


def _growth(contender: Contender, task: Task) -> float:
    batches, close = contender.open(task)
    deque(islice(batches, 1000), maxlen=0)
    gc.collect()
    before = _resident()
    deque(islice(batches, MEMORY_BATCHES), maxlen=0)
    gc.collect()
    grown = _resident() - before
    close()
    return grown / 1024


def _resident() -> int:
    """Bytes of memory that the process holds; elsewhere than on Linux, the most that it ever held."""
    try:
        with open('/proc/self/statm') as file:
            return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')
    except OSError:
        import resource

        most: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most * (1 if sys.platform == 'darwin' else 1024)
