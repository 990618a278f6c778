"""One rank of a library that feeds several: reads ids for some steps, from a saved state if there is one.

Started by ``ranks.py``, with the variables that torchrun sets. The arguments: the library, the folder with the data,
the folder to write to, the number of samples, and the number of steps; with 0, the rest of the epoch.
"""

from __future__ import annotations

import gc
import json
import os
import pickle
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import psutil
import torch.distributed as dist

GLOBAL_BATCH = 240  # samples of all ranks: 60 for each of four, 80 for each of three

State = Any
Opened = tuple[Iterable[Any], Callable[[int], State]]  # the batches, and the state after so many steps


@dataclass(frozen=True)
class Place:
    """Where a rank is, and what it reads."""

    rank: int
    world_size: int
    n: int
    data: Path

    @property
    def batch_size(self) -> int:
        return GLOBAL_BATCH // self.world_size


def pipekit(place: Place, state: State) -> Opened:
    from pipekit import combine_batches, pipeline, prefetch, sample, take

    share = combine_batches(GLOBAL_BATCH, rank=place.rank, world_size=place.world_size)
    batches = pipeline(sample(range(place.n), replace=False, seed=0), take(place.n), share, prefetch())
    if state is not None:
        batches.load_state_dict(state)
    return batches, lambda _: batches.state_dict()


def distributed_sampler(place: Place, state: State) -> Opened:
    from torch.utils.data import DataLoader, DistributedSampler

    ids: Any = range(place.n)
    sampler: Any = DistributedSampler(ids, place.world_size, place.rank, seed=0)
    sampler.set_epoch(0)
    return DataLoader(ids, place.batch_size, sampler=sampler), lambda step: step


def distributed_sampler_skipping(place: Place, state: State) -> Opened:
    loader, save = distributed_sampler(place, state)
    return islice(loader, state or 0, None), save


def streaming(place: Place, state: State) -> Opened:
    from streaming import StreamingDataLoader, StreamingDataset

    dataset = StreamingDataset(local=str(place.data), shuffle=True, shuffle_seed=0, batch_size=place.batch_size)
    loader = StreamingDataLoader(dataset, batch_size=place.batch_size)
    if state is not None:
        loader.load_state_dict(state)
    return map_ids(loader), lambda _: loader.state_dict()


def litdata(place: Place, state: State) -> Opened:
    from litdata import StreamingDataLoader, StreamingDataset

    dataset = StreamingDataset(str(place.data), shuffle=True, seed=0)
    loader = StreamingDataLoader(dataset, batch_size=place.batch_size)
    if state is not None:
        loader.load_state_dict(state)
    return loader, lambda _: loader.state_dict()


def grain(place: Place, state: State) -> Opened:
    from grain import MapDataset
    from grain.experimental import ElasticIterator
    from grain.sharding import ShardOptions

    ids = MapDataset.range(place.n).shuffle(seed=0)
    batches = ElasticIterator(ids, GLOBAL_BATCH, ShardOptions(place.rank, place.world_size))
    if state is not None:
        batches.set_state(state)
    return batches, lambda _: batches.get_state()


def map_ids(batches: Iterable[Any]) -> Iterable[Any]:
    return (batch['id'] for batch in batches)


PEERS: dict[str, Callable[[Place, State], Opened]] = {
    each.__name__: each
    for each in (pipekit, distributed_sampler, distributed_sampler_skipping, streaming, litdata, grain)
}
MODULES = {
    'pipekit': ['pipekit'],
    'distributed_sampler': ['torch.utils.data'],
    'distributed_sampler_skipping': ['torch.utils.data'],
    'streaming': ['streaming'],
    'litdata': ['litdata'],
    'grain': ['grain', 'grain.experimental', 'grain.sharding'],
}  # imported before time is taken


def run(peer: str, place: Place, output: Path, steps: int) -> None:
    saved = output / 'state'
    state = pickle.loads(saved.read_bytes()) if saved.exists() else None
    for module in MODULES[peer]:
        import_module(module)
    gc.collect()
    dist.barrier()

    before, start = psutil.Process().memory_info().rss, perf_counter()
    batches, save = PEERS[peer](place, state)
    ids: list[list[int]] = []
    for step, batch in enumerate(batches, 1):
        if step == 1:
            seconds, grown = perf_counter() - start, psutil.Process().memory_info().rss - before
        ids.append(batch.tolist())
        if step == steps:
            if place.rank == 0 and state is None:
                saved.write_bytes(pickle.dumps(save(step)))
            break
    result = {'milliseconds': seconds * 1e3, 'mib': grown / 2**20, 'ids': ids}
    (output / f'{place.rank}.json').write_text(json.dumps(result))
    dist.barrier()


def main(peer: str, data: str, output: str, n: str, steps: str) -> None:
    warnings.simplefilter('ignore')
    dist.init_process_group('gloo')
    place = Place(int(os.environ['RANK']), int(os.environ['WORLD_SIZE']), int(n), Path(data))
    run(peer, place, Path(output), int(steps))
    dist.destroy_process_group()


if __name__ == '__main__':
    main(*sys.argv[1:])
