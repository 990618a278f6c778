"""The jobs. Each is a function that returns tables to fill; ``JOBS`` lists them by name.

To add one, write a function that returns a list of ``Job`` and list it below; to add a library, or another way to use
one, list it in ``peers.PEERS``.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from time import perf_counter, sleep
from typing import Any

import clocks
import limits
import numpy as np
from clocks import SECONDS, Unit
from measure import FIGURE, Job, Measure, Target
from peers import (
    LOOP,
    MANY_AHEAD,
    PEERS,
    PIPEKIT,
    PIPEKIT_ARRAYS,
    PIPEKIT_ARRAYS_PREFETCH,
    PIPEKIT_HAND_OVER,
    PIPEKIT_ONE_BY_ONE,
    PIPEKIT_PREFETCH,
    PIPEKIT_PROCESSES,
    PIPEKIT_THREADS,
    PROCESSES,
    QUEUE,
    STAGES,
    THREADS,
    Contender,
    Kind,
    collates,
    contenders,
)
from tasks import CHECKED, Ids, InMemory, Made, Numbers, Task, same, spin

import pipekit

MEMORY_BATCHES = 20_000
FAR = 10**12
LATENCY, WORK, LITTLE_WORK = 5e-3, 2e-3, 20e-6  # seconds per sample
BARE = f'{PROCESSES} bare processes, no hand-over'
BARE_FRESH = f'{PROCESSES} bare processes, fresh memory for samples'


def tutorial() -> list[Job]:
    peers, skipped = contenders('inline', 'ahead')
    of_arrays = [PIPEKIT_ARRAYS, PIPEKIT_ARRAYS_PREFETCH]
    goals = {30: (0.85, 4), 256: (0.95, 6)}
    return [
        Job(
            f"the tutorial's job, batches of {batch_size}",
            'samples/s',
            _throughputs([*peers, *of_arrays], InMemory(batch_size), _samples(batch_size)),
            baseline=LOOP.name,
            targets=[
                Target(PIPEKIT.name, 1.0),
                Target(PIPEKIT_PREFETCH.name, ahead),
                Target(PIPEKIT_ARRAYS.name, gathered),
            ],
            more_is_better=True,
            notes=[
                'Draw an index, load an image (1, 28, 28) and a label from memory, and stack them. The first '
                f'{CHECKED} batches are checked. The loop calls `rng.integers(n)` for each sample; `sample` and '
                "torch's sampler draw many indices at once, like the second loop. grain shuffles whole passes. "
                'With `arrays`, the images of a batch are gathered at once.',
                *skipped,
            ],
        )
        for batch_size, (ahead, gathered) in goals.items()
    ]


def overhead() -> list[Job]:
    ids = range(5000)
    three = [pipekit.apply(same)] * 3
    plain = pipekit.pipeline(pipekit.sample(ids, seed=0), *three)
    apart = pipekit.pipeline(pipekit.sample(ids, seed=0), three[0], pipekit.keep(_is_any), three[0])
    random = pipekit.pipeline(pipekit.sample(ids, seed=0), *three[:2], pipekit.apply(_same_at_random, seed=0))
    task = Ids(batch_size=32)
    peers, skipped = contenders('stages')
    handing_over, also_skipped = contenders('hand-over')
    return [
        Job(
            'sample and three trivial stages',
            'ns per sample',
            {
                'hand-written loop, rng.integers': partial(clocks.per_sample, _calls_of_drawn),
                'pipekit, apply × 3': partial(clocks.per_sample, lambda: iter(plain)),
                'pipekit, apply, keep, apply': partial(clocks.per_sample, lambda: iter(apart)),
                'hand-written loop, a generator per sample': partial(clocks.per_sample, _calls_with_generators),
                'pipekit, apply × 2, apply with a seed': partial(clocks.per_sample, lambda: iter(random)),
            },
            baseline='hand-written loop, rng.integers',
            targets=[Target('pipekit, apply × 3', 450, of=FIGURE)],
            notes=['The functions return their argument. Every figure includes three calls of them.'],
        ),
        Job(
            f'three trivial stages, in lists of {task.batch_size}',
            'ns per sample',
            _throughputs(peers, task, lambda rate: 1e9 / (rate * task.batch_size)),
            baseline=STAGES.name,
            notes=[
                'The same samples combined into lists, without a thread and with a thread that makes them ahead.',
                *skipped,
            ],
        ),
        Job(
            f'handing over batches that cost nothing, {MANY_AHEAD} ahead',
            'µs per batch',
            _throughputs(handing_over, Numbers(), lambda rate: 1e6 / rate),
            baseline=QUEUE.name,
            targets=[Target(PIPEKIT_HAND_OVER.name, 0.5)],
            notes=['A thread that counts hands the numbers to a loop that does nothing.', *also_skipped],
            digits=2,
        ),
    ]


def latency() -> list[Job]:
    task = Made(batch_size=32, work=partial(sleep, LATENCY))
    peers, skipped = contenders('threads')
    return [
        Job(
            f'{LATENCY * 1e3:g} ms of latency, {THREADS} threads',
            'of the ideal',
            _throughputs(peers, task, lambda rate: rate * task.batch_size * LATENCY / THREADS, seconds=1.0),
            targets=[Target(PIPEKIT_THREADS.name, 0.95, of=FIGURE)],
            more_is_better=True,
            notes=[
                f'Every sample waits {LATENCY * 1e3:g} ms, as for a disk or a network; batches of {task.batch_size}. '
                f'DataLoader has no threads, so it uses {THREADS} processes.',
                *skipped,
            ],
            digits=3,
        )
    ]


def python() -> list[Job]:
    task = Made(batch_size=32, work=_python(WORK))
    little = Made(batch_size=32, work=_python(LITTLE_WORK))
    peers, skipped = contenders('processes')
    note = f'Pure Python that holds the GIL, in batches of {task.batch_size} small arrays.'
    return [
        Job(
            f'{WORK * 1e3:g} ms of Python, {PROCESSES} processes',
            'samples/s',
            _beside_bare(peers, task, _samples(task.batch_size), seconds=2.0),
            baseline=BARE,
            targets=[Target(PIPEKIT_PROCESSES.name, 0.95)],
            more_is_better=True,
            notes=[f'{note} The bare processes do the same work without sending results.', *skipped],
        ),
        Job(
            f'{LITTLE_WORK * 1e6:g} µs of Python, {PROCESSES} processes',
            'samples/s',
            {
                **_throughputs([PIPEKIT, PIPEKIT_PREFETCH], little, _samples(little.batch_size), seconds=0.5),
                **_beside_bare(peers, little, _samples(little.batch_size), seconds=0.5),
            },
            baseline=PIPEKIT.name,
            targets=[Target(contender.name, 1.0) for contender in (PIPEKIT_PROCESSES, PIPEKIT_ONE_BY_ONE)],
            more_is_better=True,
            notes=[f'{note} The first two run it without worker processes.', *skipped],
        ),
    ]


def volumes() -> list[Job]:
    peers, skipped = contenders('processes')
    tasks = {'8 MiB': Made(2, shape=(128, 128, 128)), '0.5 MiB': Made(32, shape=(128, 1024))}
    others = {4.5: ['DataLoader, 2 workers', 'grain, 2 processes'], 2: ['SPDL, 2 subprocesses, segment pools']}
    return [
        Job(
            f'samples of {size} from {PROCESSES} processes',
            'GB/s',
            {
                BARE_FRESH: partial(_bare_fresh, task),
                **_beside_bare(peers, task, _gigabytes(task), seconds=0.5),
            },
            baseline=BARE,
            targets=[
                Target(PIPEKIT_PROCESSES.name, 0.85),
                *(Target(PIPEKIT_PROCESSES.name, goal, of=name) for goal, names in others.items() for name in names),
            ],
            more_is_better=True,
            notes=[
                f'Samples of `numpy.full`, in batches of {task.batch_size}. The bare processes make and stack the same '
                'batches, and reuse memory for samples and batches; those with fresh memory for samples leave it to '
                'malloc, as libraries do. A forked process inherits the settings of malloc. DataLoader and '
                'torchdata.nodes make tensors, which are sent through shared memory.',
                *skipped,
            ],
            digits=2,
        )
        for size, task in tasks.items()
    ]


def stacking() -> list[Job]:
    task = InMemory(256, (3, 224, 224), np.uint8, n=256)
    images = [image.copy() for image in task.images]
    used = task.images.copy()
    unit = _gigabytes(task)
    ways: dict[str, Callable[[], Any]] = {
        'memcpy': lambda: np.copyto(used, task.images),
        'numpy.stack': lambda: np.stack(images),
        'numpy.stack into used memory': lambda: np.stack(images, out=used),
        'pipekit, combine_to_arrays': lambda: pipekit.combine_to_arrays(images),
        **{name: partial(collate, images) for name, collate in collates().items()},
    }
    assert all(np.array_equal(way(), task.images) for name, way in ways.items() if name != 'memcpy')
    return [
        Job(
            'stacking 256 images (3, 224, 224) of uint8',
            'GB/s',
            {
                **{name: partial(clocks.calls, way, unit) for name, way in ways.items()},
                **_throughputs([PIPEKIT, PIPEKIT_PREFETCH], task, unit),
            },
            baseline='memcpy',
            targets=[Target(PIPEKIT.name, 0.75)],
            more_is_better=True,
            notes=['Copies from memory to memory. Each batch is kept until the next one is made.'],
            digits=2,
        )
    ]


def gather() -> list[Job]:
    task = InMemory(256, (3, 32, 32), np.uint8, n=50_000)
    unit = _gigabytes(task)
    elsewhere = np.empty_like(task.images)
    peers, skipped = contenders('memory')
    return [
        Job(
            'random batches of 256 from memory',
            'GB/s',
            {
                'memcpy': partial(
                    clocks.calls, partial(np.copyto, elsewhere, task.images), lambda rate: rate * elsewhere.nbytes / 1e9
                ),
                'memcpy of neighbouring images, into the cache': lambda: unit(limits.copied(task, SECONDS)),
                **_throughputs(peers, task, unit),
            },
            baseline='memcpy',
            targets=[Target(PIPEKIT_ARRAYS.name, 0.58), Target(PIPEKIT_ARRAYS_PREFETCH.name, 0.45)],
            more_is_better=True,
            notes=[
                'Images drawn from an array (50000, 3, 32, 32) of uint8, and their labels. memcpy copies the whole '
                'array, from memory to memory. The second row copies batches of neighbouring images to memory that '
                'stays in the cache: an upper bound that random batches cannot reach.',
                *skipped,
            ],
            digits=2,
        )
    ]


def importing() -> list[Job]:
    modules = ['numpy', 'pipekit', *dict.fromkeys(str(peer.module) for peer in PEERS)]
    present = [module for module in modules if importlib.util.find_spec(module.partition('.')[0])]
    for module in present:
        clocks.import_once(module)  # writes the bytecode
    return [
        Job(
            'import',
            'ms',
            {module: partial(clocks.importing, module) for module in present},
            baseline='numpy',
            targets=[Target('pipekit', 1.4)],
            notes=[
                'Each import runs in a new process, whose start is not counted, with the bytecode on disk; the fastest '
                f'of {clocks.STARTS} in each round.',
                *(f'{module}: skipped, not installed' for module in modules if module not in present),
            ],
            digits=1,
        )
    ]


def start() -> list[Job]:
    note = 'From making the pipeline to receiving its first batch of 30, not for the first time in a process.'
    loky = "loky's own start"
    of_processes = _times('the first batch, with 2 processes', clocks.first_batch, Made(30), 'processes', note)
    return [
        _times(
            'the first batch, with a thread',
            clocks.first_batch,
            InMemory(30),
            'ahead',
            note,
            [Target(PIPEKIT_PREFETCH.name, 3, of=FIGURE)],
        ),
        replace(
            of_processes,
            contenders={loky: partial(limits.start_of_loky, PROCESSES), **of_processes.contenders},
            baseline=loky,
            targets=[Target(PIPEKIT_PROCESSES.name, 1.2)],
            notes=[
                *of_processes.notes,
                f'{loky} is the time until each of its processes has run a function of numpy. DataLoader, '
                'torchdata.nodes, SPDL and streamable start processes with the default method of this Python, '
                f'{multiprocessing.get_start_method()}.',
            ],
        ),
    ]


def close() -> list[Job]:
    note = (
        'Until the threads and processes that were started have ended, with a garbage collection if closing alone does '
        f'not end them. A time of {clocks.CLOSE_TIMEOUT_SECONDS * 1000:,.0f} ms means that some had not ended by then.'
    )
    return [
        _times('closing, with a thread', clocks.closing, InMemory(30), 'ahead', note),
        _times('closing, with 2 processes', clocks.closing, Made(30), 'processes', note),
    ]


def resume() -> list[Job]:
    task = InMemory(30)
    stages = [pipekit.apply(task.load), pipekit.combine_batches(task.batch_size)]
    draws = pipekit.pipeline(pipekit.sample(task.ids, seed=0), *stages)
    passes = pipekit.pipeline(pipekit.sample(task.ids, replace=False, seed=0), *stages)
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
            targets=[Target('sample, at draw 10^12', 1.25)],
            notes=['From `resume(cursor)` to the first batch of 30; the mean of 100 repetitions.'],
        )
    ]


def memory() -> list[Job]:
    entrants = [LOOP, PIPEKIT, PIPEKIT_PREFETCH, PIPEKIT_PROCESSES]
    return [
        Job(
            f'memory over {MEMORY_BATCHES:,} batches of 30',
            'KiB more',
            {entrant.name: partial(clocks.growth, entrant, InMemory(30), 1000, MEMORY_BATCHES) for entrant in entrants},
            targets=[Target(entrant.name, 1024, of=FIGURE) for entrant in (PIPEKIT, PIPEKIT_PREFETCH)],
            notes=[
                'The memory of all processes at the end, minus that after the first 1,000 batches. Worker processes '
                'share memory for later batches with the main process, and it counts in both.'
            ],
        )
    ]


JOBS: Mapping[str, Callable[[], list[Job]]] = {
    'tutorial': tutorial,
    'overhead': overhead,
    'latency': latency,
    'python': python,
    'volumes': volumes,
    'stacking': stacking,
    'gather': gather,
    'import': importing,
    'start': start,
    'close': close,
    'resume': resume,
    'memory': memory,
}


def _throughputs(entrants: Sequence[Contender], task: Task, unit: Unit, seconds: float = SECONDS) -> dict[str, Measure]:
    return {entrant.name: partial(clocks.throughput, entrant, task, unit, seconds) for entrant in entrants}


def _beside_bare(entrants: Sequence[Contender], task: Task, unit: Unit, seconds: float) -> dict[str, Measure]:
    return {
        BARE: lambda: unit(limits.in_bare_processes(task, PROCESSES, seconds, keeps_memory=True)),
        **_throughputs(entrants, task, unit, seconds),
    }


def _bare_fresh(task: Task) -> float:
    return _gigabytes(task)(limits.in_bare_processes(task, PROCESSES, 0.5, keeps_memory=False))


def _samples(batch_size: int) -> Unit:
    return lambda rate: rate * batch_size


def _gigabytes(task: Task) -> Unit:
    return lambda rate: rate * task.batch_size * task.bytes_per_sample / 1e9


def _python(seconds: float) -> Callable[[], object]:
    """Pure Python that takes so many seconds at present; it takes longer when the machine is busy."""
    loops = 1000
    fastest = min(_seconds(partial(spin, loops)) for _ in range(500))
    return partial(spin, round(loops * seconds / fastest))


def _seconds(function: Callable[[], object]) -> float:
    start = perf_counter()
    function()
    return perf_counter() - start


def _times(
    title: str,
    measure: Callable[[Contender, Task], float],
    task: Task,
    kind: Kind,
    note: str,
    targets: Sequence[Target] = (),
) -> Job:
    entrants, skipped = contenders(kind)
    measures: dict[str, Measure] = {entrant.name: partial(measure, entrant, task) for entrant in entrants}
    return Job(title, 'ms', measures, targets=targets, notes=[note, *skipped], digits=2, warm_up=True)


def _calls_of_drawn() -> Iterator[Any]:
    rng = np.random.default_rng(0)
    ids = range(5000)
    while True:
        yield same(same(same(ids[rng.integers(5000)])))


def _calls_with_generators() -> Iterator[Any]:
    rng = np.random.default_rng(0)
    ids = range(5000)
    number = 0
    while True:
        value = same(same(ids[rng.integers(5000)]))
        yield _same_at_random(value, rng=np.random.default_rng([0, number]))
        number += 1


def _same_at_random(value: Any, rng: np.random.Generator) -> Any:
    return value


def _is_any(value: Any) -> bool:
    return True


def _resumed(pipeline: pipekit.Pipeline[Any], cursor: int) -> float:
    repetitions = 100
    start = perf_counter()
    for _ in range(repetitions):
        next(pipeline.resume(cursor))
    return (perf_counter() - start) / repetitions * 1e6
