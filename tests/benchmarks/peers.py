"""The tasks as each library writes them: draw ids, load their samples, combine them into batches.

To add a library, write how it does a kind of work, and list that in ``PEERS``.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, count, cycle
from queue import Queue
from threading import Event, Thread
from typing import Any, Literal

import numpy as np
from tasks import CHECKED, ByTheBatch, Task, same, stacked

import pipekit

Opened = tuple[Iterator[Any], Callable[[], object]]

# What a contender measures: work in the calling thread; batches made ahead in a thread or a process; 16 threads; 2
# processes; samples in memory, one by one or by the batch; only trivial stages and lists; only the hand-over from a
# thread.
Kind = Literal['inline', 'ahead', 'threads', 'processes', 'memory', 'stages', 'hand-over']

AHEAD = 3  # batches made ahead, if a library has such an option
MANY_AHEAD = 16  # where only the hand-over is measured
THREADS, PROCESSES = 16, 2
LARGE = 1 << 20  # bytes; larger batches are sent faster from a process as tensors than as arrays
ENDLESS = 10**9


@dataclass(frozen=True)
class Contender:
    """A way to do a task.

    ``open(task)`` returns an iterator of batches and a function that closes it, if there is one; otherwise deleting the
    iterator closes it. ``module`` is the module to import, from ``package``.
    """

    name: str
    kind: Kind
    open: Callable[[Any], Opened]
    module: str | None = None
    package: str | None = None


def _nothing() -> None:
    pass


def made(task: Task, ids: Sequence[int]) -> tuple[Any, Any]:
    """Load the ids, and combine the samples into a batch."""
    return stacked([task.load(id) for id in ids])


def _made_as_tensors(task: Task, ids: Sequence[int]) -> Any:
    from torch.utils.data import default_collate

    return default_collate([task.load(id) for id in ids])


def _drawn(task: Task, seed: int = 0) -> Iterator[list[int]]:
    rng = np.random.default_rng(seed)
    while True:
        yield rng.integers(task.n, size=task.batch_size).tolist()


# By hand


def _loop(task: Any) -> Opened:
    def batches() -> Iterator[Any]:
        rng = np.random.default_rng(0)
        n, load_image, load_label = task.n, task.load_image, task.load_label
        while True:
            images, labels = [], []
            for _ in range(task.batch_size):
                id = rng.integers(n)
                images.append(load_image(id))
                labels.append(load_label(id))
            yield np.stack(images), np.array(labels)

    return batches(), _nothing


def _loop_over_drawn(task: Task) -> Opened:
    return map(partial(made, task), _drawn(task)), _nothing


def _loop_of_takes(task: Any) -> Opened:
    return map(task.load_batch, _drawn(task)), _nothing


def _loop_of_stages(task: Task) -> Opened:
    return ([same(same(same(id))) for id in ids] for ids in _drawn(task)), _nothing


# pipekit


def _queue(task: Task) -> Opened:
    numbers: Queue[int] = Queue(MANY_AHEAD)
    ends = Event()

    def fill() -> None:
        for number in count():
            numbers.put(number)
            if ends.is_set():
                return

    def close() -> None:
        ends.set()
        while not numbers.empty():  # the thread may wait because the queue is full
            numbers.get()

    Thread(target=fill, daemon=True).start()
    return iter(numbers.get, None), close


def _opened(batches: Any) -> Opened:
    return iter(batches), getattr(batches, 'close', _nothing)


def _pipekit(task: Task, *end: Any, **workers: Any) -> Opened:
    ids = pipekit.sample(task.ids, seed=0)
    load = pipekit.apply(task.load, **workers)
    return _opened(pipekit.pipeline(ids, load, pipekit.combine_batches(task.batch_size), *end))


def _pipekit_prefetch(task: Task) -> Opened:
    return _pipekit(task, _ahead())


def _pipekit_threads(task: Task) -> Opened:
    return _pipekit(task, _ahead(), workers=pipekit.threads(THREADS))


def _pipekit_processes(task: Task) -> Opened:
    return _pipekit(task, _ahead(), workers=pipekit.processes(PROCESSES))


def _pipekit_one_by_one(task: Task) -> Opened:
    ids = pipekit.sample(task.ids, seed=0)
    samples = [pipekit.apply(task.load, workers=pipekit.processes(PROCESSES)), pipekit.keep(_is_any)]
    return _opened(pipekit.pipeline(ids, *samples, pipekit.combine_batches(task.batch_size), _ahead()))


def _is_any(sample: Any) -> bool:
    return True


def _pipekit_takes(task: Any, *end: Any) -> Opened:
    ids = pipekit.sample(task.ids, seed=0)
    return _opened(pipekit.pipeline(ids, pipekit.combine_batches(task.batch_size, task.load_batch), *end))


def _pipekit_arrays(task: Any, *end: Any) -> Opened:
    columns = pipekit.arrays(task.images, task.labels)
    return _opened(pipekit.pipeline(pipekit.sample(columns, seed=0), pipekit.combine_batches(task.batch_size), *end))


def _pipekit_hand_over(task: Task) -> Opened:
    return _opened(pipekit.pipeline(range(sys.maxsize), pipekit.prefetch(ENDLESS, buffer_size=MANY_AHEAD)))


def _pipekit_tutorial(task: Any) -> Opened:
    batches = pipekit.make_infinite_batch_iter(
        pipekit.load_by_random_id(task.load_image, task.load_label, ids=task.ids, seed=0),
        batch_size=task.batch_size,
        n_iters_per_epoch=ENDLESS,
        buffer_size=AHEAD,
    )
    return _opened(batches)


def _pipekit_stages(task: Task, *end: Any) -> Opened:
    stages = [pipekit.apply(same)] * 3
    ids = pipekit.sample(task.ids, seed=0)
    return _opened(pipekit.pipeline(ids, *stages, pipekit.combine_batches(task.batch_size, list), *end))


def _ahead() -> Any:
    return pipekit.prefetch(ENDLESS, buffer_size=AHEAD)


# torch's DataLoader


def _random_sampler(task: Task) -> Any:
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.utils.data.RandomSampler(task, replacement=True, num_samples=ENDLESS, generator=generator)


def _data_loader(task: Task, workers: int = 0) -> Opened:
    from torch.utils.data import DataLoader

    loader = DataLoader(
        task,
        batch_size=task.batch_size,
        sampler=_random_sampler(task),
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        collate_fn=_collate(task),
    )
    return iter(loader), _nothing


def _data_loader_takes(task: Any) -> Opened:
    from torch.utils.data import DataLoader

    sampler = _random_sampler(task)
    return iter(DataLoader(ByTheBatch(task), task.batch_size, sampler=sampler, collate_fn=_whole)), _nothing


def _collate(task: Task) -> Any:
    return None if task.batch_size * task.bytes_per_sample >= LARGE else stacked  # None: into tensors in shared memory


def _whole(batch: Any) -> Any:
    return batch


# torchdata.nodes


def _nodes(task: Task) -> Opened:
    from torchdata import nodes

    ids = nodes.SamplerWrapper(_random_sampler(task))
    samples = nodes.Mapper(ids, task.load)
    return _nodes_opened(nodes.Prefetcher(nodes.Mapper(nodes.Batcher(samples, task.batch_size), stacked), AHEAD))


def _nodes_threads(task: Task) -> Opened:
    from torchdata import nodes

    samples = nodes.ParallelMapper(nodes.SamplerWrapper(_random_sampler(task)), task.load, THREADS, method='thread')
    return _nodes_opened(nodes.Prefetcher(nodes.Mapper(nodes.Batcher(samples, task.batch_size), stacked), AHEAD))


def _nodes_processes(task: Task) -> Opened:
    from torchdata import nodes

    ids = nodes.Batcher(nodes.SamplerWrapper(_random_sampler(task)), task.batch_size)
    make = partial(made if _collate(task) else _made_as_tensors, task)
    return _nodes_opened(nodes.Prefetcher(nodes.ParallelMapper(ids, make, PROCESSES, method='process'), AHEAD))


def _nodes_takes(task: Any) -> Opened:
    from torchdata import nodes

    ids = nodes.Batcher(nodes.SamplerWrapper(_random_sampler(task)), task.batch_size)
    return _nodes_opened(nodes.Prefetcher(nodes.Mapper(ids, task.load_batch), AHEAD))


def _nodes_stages(task: Task, ahead: bool = True) -> Opened:
    from torchdata import nodes

    node = nodes.SamplerWrapper(_random_sampler(task))
    for _ in range(3):
        node = nodes.Mapper(node, same)
    batches = nodes.Batcher(node, task.batch_size)
    return _nodes_opened(nodes.Prefetcher(batches, AHEAD) if ahead else batches)


def _nodes_hand_over(task: Task) -> Opened:
    from torchdata import nodes

    return _nodes_opened(nodes.Prefetcher(nodes.IterableWrapper(range(sys.maxsize)), MANY_AHEAD))


def _nodes_opened(node: Any) -> Opened:
    from torchdata import nodes

    return iter(nodes.Loader(node)), _nothing


# grain


def _grain_samples(task: Task) -> Any:
    import grain

    return grain.MapDataset.source(task).shuffle(seed=0).repeat()


def _grain_threads(task: Task) -> Opened:
    samples = _grain_samples(task).to_iter_dataset()
    return iter(samples.batch(task.batch_size, batch_fn=stacked)), _nothing


def _grain_one_thread(task: Task) -> Opened:
    samples = _grain_samples(task).batch(task.batch_size, batch_fn=stacked)
    return iter(samples.to_iter_dataset(_one_thread())), _nothing


def _grain_processes(task: Task) -> Opened:
    import grain

    # grain's own batching, which stacks into shared memory.
    batches = _grain_samples(task).batch(task.batch_size).to_iter_dataset(_one_thread())
    options = grain.MultiprocessingOptions(num_workers=PROCESSES, per_worker_buffer_size=AHEAD)
    iterator = iter(batches.mp_prefetch(options))
    return iterator, iterator.close


def _grain_stages(task: Task) -> Opened:
    import grain

    ids = grain.MapDataset.source(task.ids).shuffle(seed=0).repeat()
    batches = ids.map(same).map(same).map(same).batch(task.batch_size, batch_fn=list)
    return iter(batches.to_iter_dataset(_one_thread())), _nothing


def _one_thread() -> Any:
    import grain

    return grain.ReadOptions(num_threads=1, prefetch_buffer_size=AHEAD)


# SPDL


def _spdl(task: Task) -> Opened:
    return _spdl_opened(lambda builder: builder.add_source(_drawn(task)).pipe(partial(made, task)))


def _spdl_threads(task: Task) -> Opened:
    def samples(builder: Any) -> Any:
        ids = builder.add_source(chain.from_iterable(_drawn(task)))
        return ids.pipe(task.load, concurrency=THREADS).aggregate(task.batch_size).pipe(stacked)

    return _spdl_opened(samples, THREADS)


def _spdl_processes(task: Task) -> Opened:
    executor = ProcessPoolExecutor(PROCESSES)
    make = partial(made, task)
    batches, close = _spdl_opened(
        lambda builder: builder.add_source(_drawn(task)).pipe(make, executor=executor, concurrency=AHEAD + 1)
    )
    return batches, lambda: (close(), executor.shutdown(cancel_futures=True))


def _spdl_segments(task: Task) -> Opened:
    from spdl.pipeline import SharedMemorySegmentPool, iterate_in_subprocess

    size = task.batch_size * (task.bytes_per_sample + 1024)
    parts = [
        iterate_in_subprocess(
            partial(_made_forever, task, seed), buffer_size=AHEAD, arena=SharedMemorySegmentPool(size, CHECKED)
        )
        for seed in range(PROCESSES)
    ]
    return _in_turn(list(map(iter, parts))), _nothing


def _spdl_takes(task: Any) -> Opened:
    return _spdl_opened(lambda builder: builder.add_source(_drawn(task)).pipe(task.load_batch))


def _spdl_stages(task: Task) -> Opened:
    def stages(builder: Any) -> Any:
        ids = builder.add_source(chain.from_iterable(_drawn(task)))
        return ids.pipe(same).pipe(same).pipe(same).aggregate(task.batch_size)

    return _spdl_opened(stages)


def _spdl_opened(build: Callable[[Any], Any], threads: int = 1) -> Opened:
    from spdl.pipeline import PipelineBuilder

    pipeline = build(PipelineBuilder()).add_sink(AHEAD).build(num_threads=threads)
    with ExitStack() as stack:
        stack.enter_context(pipeline.auto_stop())
        return iter(pipeline), stack.pop_all().close


def _made_forever(task: Task, seed: int) -> Iterator[Any]:
    return map(partial(made, task), _drawn(task, seed))


def _in_turn(iterators: Sequence[Iterator[Any]]) -> Iterator[Any]:
    return map(next, cycle(iterators))


# streamable


def _streamable(task: Task) -> Opened:
    from streamable import stream

    draw = partial(np.random.default_rng(0).integers, task.n)
    return iter(stream(draw).map(task.load).group(task.batch_size).map(stacked).buffer(AHEAD)), _nothing


def _streamable_threads(task: Task) -> Opened:
    from streamable import stream

    ids = stream(chain.from_iterable(_drawn(task)))
    samples = ids.map(task.load, concurrency=THREADS)
    return iter(samples.group(task.batch_size).map(stacked).buffer(AHEAD)), _nothing


def _streamable_processes(task: Task) -> Opened:
    from streamable import stream

    executor = ProcessPoolExecutor(PROCESSES)
    batches = stream(_drawn(task)).map(partial(made, task), concurrency=executor).buffer(AHEAD)
    return iter(batches), partial(executor.shutdown, cancel_futures=True)


def _streamable_hand_over(task: Task) -> Opened:
    from streamable import stream

    return iter(stream(range(sys.maxsize)).buffer(MANY_AHEAD)), _nothing


def _streamable_takes(task: Any) -> Opened:
    from streamable import stream

    return iter(stream(_drawn(task)).map(task.load_batch).buffer(AHEAD)), _nothing


def _streamable_stages(task: Task, ahead: bool = True) -> Opened:
    from streamable import stream

    batches = stream(chain.from_iterable(_drawn(task))).map(same).map(same).map(same).group(task.batch_size)
    return iter(batches.buffer(AHEAD) if ahead else batches), _nothing


# deep_pipe


def _deep_pipe(task: Any) -> Opened:
    from dpipe.batch_iter import load_by_random_id

    return _deep_pipe_opened(
        load_by_random_id(task.load_image, task.load_label, ids=task.ids, random_state=0), task=task
    )


def _deep_pipe_threads(task: Task) -> Opened:
    from dpipe.batch_iter import Threads, sample

    return _deep_pipe_opened(sample(task.ids, random_state=0), Threads(task.load, n_workers=THREADS), task=task)


def _deep_pipe_processes(task: Task) -> Opened:
    from dpipe.batch_iter import Loky, sample

    return _deep_pipe_opened(sample(task.ids, random_state=0), Loky(task.load, n_workers=PROCESSES), task=task)


def _deep_pipe_stages(task: Task) -> Opened:
    from dpipe.batch_iter import sample

    return _deep_pipe_opened(sample(task.ids, random_state=0), same, same, same, task=task, combiner=list)


def _deep_pipe_opened(*stages: Any, task: Task, **options: Any) -> Opened:
    from dpipe.batch_iter import Infinite

    batches = Infinite(*stages, batch_size=task.batch_size, batches_per_epoch=sys.maxsize, buffer_size=AHEAD, **options)
    return iter(batches), batches.close


LOOP = Contender('hand-written loop', 'inline', _loop)
STAGES = Contender('hand-written loop', 'stages', _loop_of_stages)
PIPEKIT = Contender('pipekit, no thread', 'inline', _pipekit)
PIPEKIT_PREFETCH = Contender('pipekit, prefetch', 'ahead', _pipekit_prefetch)
PIPEKIT_THREADS = Contender('pipekit, threads(16)', 'threads', _pipekit_threads)
PIPEKIT_PROCESSES = Contender('pipekit, processes(2)', 'processes', _pipekit_processes)
PIPEKIT_ONE_BY_ONE = Contender('pipekit, processes(2), sample by sample', 'processes', _pipekit_one_by_one)
PIPEKIT_HAND_OVER = Contender('pipekit, prefetch', 'hand-over', _pipekit_hand_over)
QUEUE = Contender('queue.Queue', 'hand-over', _queue)
PIPEKIT_ARRAYS = Contender('pipekit, arrays', 'memory', _pipekit_arrays)
PIPEKIT_ARRAYS_PREFETCH = Contender('pipekit, arrays, prefetch', 'memory', lambda task: _pipekit_arrays(task, _ahead()))

OWN = [
    LOOP,
    Contender('the loop, drawing a batch of indices at once', 'inline', _loop_over_drawn),
    PIPEKIT,
    PIPEKIT_PREFETCH,
    Contender('pipekit, make_infinite_batch_iter', 'ahead', _pipekit_tutorial),
    PIPEKIT_THREADS,
    PIPEKIT_PROCESSES,
    PIPEKIT_ONE_BY_ONE,
    Contender('hand-written loop of numpy.take', 'memory', _loop_of_takes),
    Contender('pipekit, sample by sample', 'memory', _pipekit),
    Contender('pipekit, sample by sample, prefetch', 'memory', _pipekit_prefetch),
    Contender('pipekit, a take as combine', 'memory', _pipekit_takes),
    Contender('pipekit, a take as combine, prefetch', 'memory', lambda task: _pipekit_takes(task, _ahead())),
    PIPEKIT_ARRAYS,
    PIPEKIT_ARRAYS_PREFETCH,
    QUEUE,
    PIPEKIT_HAND_OVER,
    STAGES,
    Contender('pipekit', 'stages', _pipekit_stages),
    Contender('pipekit, prefetch', 'stages', lambda task: _pipekit_stages(task, _ahead())),
]

TORCH = {'module': 'torch', 'package': 'torch'}
NODES = {'module': 'torchdata.nodes', 'package': 'torchdata'}
GRAIN = {'module': 'grain', 'package': 'grain'}
SPDL = {'module': 'spdl.pipeline', 'package': 'spdl'}
STREAMABLE = {'module': 'streamable', 'package': 'streamable'}
DEEP_PIPE = {'module': 'dpipe.batch_iter', 'package': 'deep_pipe'}

PEERS = [
    Contender('DataLoader, no worker', 'inline', _data_loader, **TORCH),
    Contender('DataLoader, 1 worker', 'ahead', partial(_data_loader, workers=1), **TORCH),
    Contender('DataLoader, 16 workers', 'threads', partial(_data_loader, workers=THREADS), **TORCH),
    Contender('DataLoader, 2 workers', 'processes', partial(_data_loader, workers=PROCESSES), **TORCH),
    Contender('DataLoader, sample by sample', 'memory', _data_loader, **TORCH),
    Contender('DataLoader, __getitems__', 'memory', _data_loader_takes, **TORCH),
    Contender('torchdata.nodes, Prefetcher', 'ahead', _nodes, **NODES),
    Contender('torchdata.nodes, 16 threads', 'threads', _nodes_threads, **NODES),
    Contender('torchdata.nodes, 2 processes', 'processes', _nodes_processes, **NODES),
    Contender('torchdata.nodes, sample by sample', 'memory', _nodes, **NODES),
    Contender('torchdata.nodes, a batch at a time', 'memory', _nodes_takes, **NODES),
    Contender('torchdata.nodes, Prefetcher', 'hand-over', _nodes_hand_over, **NODES),
    Contender('torchdata.nodes', 'stages', partial(_nodes_stages, ahead=False), **NODES),
    Contender('torchdata.nodes, Prefetcher', 'stages', _nodes_stages, **NODES),
    Contender('grain, its default threads', 'ahead', _grain_threads, **GRAIN),
    Contender('grain, 1 thread, batches', 'ahead', _grain_one_thread, **GRAIN),
    Contender('grain, 16 threads', 'threads', _grain_threads, **GRAIN),
    Contender('grain, 2 processes', 'processes', _grain_processes, **GRAIN),
    Contender('grain, 1 thread, batches', 'memory', _grain_one_thread, **GRAIN),
    Contender('grain, 1 thread', 'stages', _grain_stages, **GRAIN),
    Contender('SPDL, 1 thread, batches', 'ahead', _spdl, **SPDL),
    Contender('SPDL, 16 threads', 'threads', _spdl_threads, **SPDL),
    Contender('SPDL, a pool of 2 processes', 'processes', _spdl_processes, **SPDL),
    Contender('SPDL, 2 subprocesses, segment pools', 'processes', _spdl_segments, **SPDL),
    Contender('SPDL, a batch at a time', 'memory', _spdl_takes, **SPDL),
    Contender('SPDL', 'stages', _spdl_stages, **SPDL),
    Contender('streamable, buffer', 'ahead', _streamable, **STREAMABLE),
    Contender('streamable, 16 threads', 'threads', _streamable_threads, **STREAMABLE),
    Contender('streamable, 2 processes', 'processes', _streamable_processes, **STREAMABLE),
    Contender('streamable, a batch at a time', 'memory', _streamable_takes, **STREAMABLE),
    Contender('streamable, buffer', 'hand-over', _streamable_hand_over, **STREAMABLE),
    Contender('streamable', 'stages', partial(_streamable_stages, ahead=False), **STREAMABLE),
    Contender('streamable, buffer', 'stages', _streamable_stages, **STREAMABLE),
    Contender('deep_pipe', 'ahead', _deep_pipe, **DEEP_PIPE),
    Contender('deep_pipe, Threads(16)', 'threads', _deep_pipe_threads, **DEEP_PIPE),
    Contender('deep_pipe, Loky(2)', 'processes', _deep_pipe_processes, **DEEP_PIPE),
    Contender('deep_pipe, sample by sample', 'memory', _deep_pipe, **DEEP_PIPE),
    Contender('deep_pipe', 'stages', _deep_pipe_stages, **DEEP_PIPE),
]


def contenders(*kinds: Kind) -> tuple[list[Contender], list[str]]:
    """The contenders of some kinds that can be imported, and a line for each package that cannot."""
    logging.disable(logging.ERROR)  # grain logs that there is no jax, deep_pipe that it was closed
    found, missing = [], {}
    for contender in [*OWN, *PEERS]:
        if contender.kind not in kinds:
            continue
        try:
            importlib.import_module(contender.module or 'pipekit')
        except Exception as error:  # an incompatible installation may raise anything
            missing[contender.package] = f'{contender.package} is skipped: {error}'
        else:
            found.append(contender)
    return found, list(missing.values())


def collates() -> dict[str, Callable[[list[Any]], Any]]:
    """The functions with which the installed libraries stack a list of arrays."""
    ways: dict[str, Callable[[list[Any]], Any]] = {}
    with suppress(ImportError):
        from torch.utils.data import default_collate

        ways['DataLoader, default_collate'] = default_collate
    with suppress(ImportError):
        import grain

        ways['grain, batch'] = lambda arrays: grain.MapDataset.source(arrays).batch(len(arrays))[0]
    with suppress(ImportError):
        from dpipe.batch_iter import combine_to_arrays

        ways['deep_pipe, combine_to_arrays'] = lambda arrays: combine_to_arrays([(array,) for array in arrays])[0]
    return ways
