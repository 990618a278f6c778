"""Measure pipekit on up to 1,000 ranks, compare libraries that go on with fewer ranks, and write the tables.

They are a section of ``docs/benchmarks.md``. Libraries that are not installed are named as missing.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import psutil
from rank_peers import GLOBAL_BATCH
from report import MANY_RANKS, setting

import pipekit

PAGE = Path(__file__).parents[2] / 'docs' / 'benchmarks.md'
PACKAGES = ['numpy', 'torch', 'mosaicml-streaming', 'litdata', 'grain']

# Many ranks of pipekit, one at a time

WORLD_SIZES = [1, 10, 100, 1000]
PER_RANK = 32
IDS = list(range(10**6))
STEPS_CHECKED = 2
STEPS_MEASURED = 25
FEW = 20  # ranks checked, where a step of each rank costs as much as a step of all

# Four ranks, and then three

N_BATCHES = 400
N, N_SHORT_BATCH = N_BATCHES * GLOBAL_BATCH, N_BATCHES * GLOBAL_BATCH + 100
N_AT_START = 10**7
STEPS = 100
TIMEOUT_SECONDS = 120
PEER = Path(__file__).with_name('rank_peers.py')
TITLES = {
    'pipekit': 'pipekit, `combine_batches(240, rank=, world_size=)`',
    'distributed_sampler': '`DistributedSampler`, the epoch begun again',
    'distributed_sampler_skipping': '`DistributedSampler`, batches skipped',
    'streaming': 'mosaicml-streaming',
    'litdata': 'litdata',
    'grain': 'grain, `ElasticIterator`',
}
OF_INDICES = ['pipekit', 'distributed_sampler', 'grain']

INTRODUCTION = """\
Written by `tests/benchmarks/ranks.py`, which `tox -e bench-ranks` runs.
"""

NOTES_ON_STEPS = f"""\
### A step of one rank

Microseconds for one rank's share of {PER_RANK} ids in a list, of a global batch of {PER_RANK} × ranks. One process \
plays the first, a middle and the last rank in turn; the figure is the median. The first {STEPS_CHECKED} batches of \
all ranks are compared with those of a single rank, so that no sample is missing and none is there twice; of \
`shuffle` and `keep`, which are computed on every rank, {FEW} ranks are compared. The state is that of `state_dict()` \
as JSON.
"""

NOTES_ON_CHANGE = f"""\
### From four ranks to three

Four processes read {STEPS} of the {N_BATCHES} global batches of {GLOBAL_BATCH} ids that an epoch over {N:,} \
shuffled ids has, and the first saves the state as the library documents it. Three new processes load it, and read the \
rest of the epoch. Each library gives a rank {GLOBAL_BATCH // 4} ids a step before and {GLOBAL_BATCH // 3} after; \
none uses worker processes. *Lost* are ids that nobody has read in the epoch, *repeated* are those read again. Then \
the same with 100 ids more, which are a last short batch: whether to pad, drop or share it is each library's choice, \
by its own defaults. *Same batches*: each global batch has the ids that it has when four ranks read the whole epoch.

Time and memory are from making the data set, imported before, to the first batch after the state is loaded; the \
largest of the three ranks, median of {{rounds}} rounds that take the libraries in turn.

- pipekit: `sample(range(n), replace=False, seed=0)`, `take(n)`, the share, `prefetch()`.
- `DistributedSampler` with `DataLoader` has no state of its own. Either the epoch begins again, or `islice` skips \
the batches that were read, which loads them.
- mosaicml-streaming: `StreamingDataset(shuffle=True)` on local MDS files with the default `num_canonical_nodes`, \
which is in the state, and `state_dict()` and `load_state_dict()` of `StreamingDataLoader`.
- litdata: `StreamingDataset(shuffle=True)` on local files of `optimize`, and `state_dict()` and `load_state_dict()` \
of `StreamingDataLoader`, with its elastic resume.
- grain: `MapDataset.range(n).shuffle(seed=0)` in `grain.experimental.ElasticIterator`, with `get_state()` and \
`set_state()`.
"""

NOTES_ON_START = f"""\
### The start with {N_AT_START:,} ids

Until the first batch of each of four ranks, for those that read any sequence; the slowest and the largest rank, \
median of {{rounds}} rounds.
"""

Parts = Sequence[Any]


def is_even(id: int) -> bool:
    return id % 2 == 0


SOURCES: dict[str, Callable[[], Parts]] = {
    '`sample(ids)`': lambda: [pipekit.sample(range(10**6), seed=0)],
    '`sample(range(10**9), replace=False)`': lambda: [pipekit.sample(range(10**9), replace=False, seed=0)],
    'a list of 10^6 ids': lambda: [IDS],
    '`shuffle(1000)` of that list': lambda: [IDS, pipekit.shuffle(1000, seed=0)],
    '`sample(ids)`, `keep(is_even)`': lambda: [pipekit.sample(range(10**6), seed=0), pipekit.keep(is_even)],
}
ON_EVERY_RANK = list(SOURCES)[-2:]


def shares(parts: Parts, rank: int, world_size: int) -> Any:
    batch = pipekit.combine_batches(PER_RANK * world_size, list, rank=rank, world_size=world_size)
    return pipekit.pipeline(*parts, batch)


def microseconds(parts: Parts, rank: int, world_size: int) -> float:
    """The time of one step of one rank, without that of the first."""
    batches = iter(shares(parts, rank, world_size))
    next(batches)
    start = perf_counter()
    for _ in islice(batches, STEPS_MEASURED):
        pass
    return (perf_counter() - start) / STEPS_MEASURED * 1e6


def check_shares(parts: Parts, world_size: int, ranks: Iterable[int]) -> None:
    whole = list(islice(pipekit.pipeline(*parts, pipekit.combine_batches(PER_RANK * world_size, list)), STEPS_CHECKED))
    for rank in ranks:
        own = list(islice(shares(parts, rank, world_size), STEPS_CHECKED))
        expected = [batch[rank * PER_RANK : (rank + 1) * PER_RANK] for batch in whole]
        if own != expected:
            raise AssertionError(f'the share of rank {rank} of {world_size} is wrong')


def state_size(parts: Parts, world_size: int) -> int:
    """The bytes of the state, which is equal on the first and the last rank."""
    states = []
    for rank in {0, world_size - 1}:
        with pipekit.pipeline(shares(parts, rank, world_size), pipekit.prefetch(100)) as batches:
            next(iter(batches))
            states.append(json.dumps(batches.state_dict()))
    (state,) = set(states)
    return len(state)


def rows_of_steps() -> Iterator[list[str]]:
    yield ['', *(f'{world_size:,} rank{"s" * (world_size > 1)}' for world_size in WORLD_SIZES), 'state, bytes']
    for name, make in SOURCES.items():
        figures = []
        for world_size in WORLD_SIZES:
            step = world_size // FEW if name in ON_EVERY_RANK and world_size > FEW else 1
            check_shares(make(), world_size, range(0, world_size, step))
            some = sorted({0, world_size // 2, world_size - 1})
            figures.append(statistics.median(microseconds(make(), rank, world_size) for rank in some))
        sizes = sorted({state_size(make(), world_size) for world_size in WORLD_SIZES})
        state = ' to '.join(map(str, dict.fromkeys([sizes[0], sizes[-1]])))
        yield [name, *(f'{figure:,.0f}' for figure in figures), state]


@dataclass(frozen=True)
class Launch:
    """What the ranks of one launch did: the ids of each global batch, and the worst time and memory until the first."""

    batches: Sequence[Sequence[int]]
    milliseconds: float
    mib: float

    @classmethod
    def of(cls, results: Sequence[Any]) -> Launch:
        steps = zip(*(result['ids'] for result in results), strict=True)
        batches = [sorted(chain.from_iterable(shares)) for shares in steps]
        return cls(batches, *(max(result[key] for result in results) for key in ('milliseconds', 'mib')))


def launch(peer: str, data: Path, n_ranks: int, n: int, steps: int, output: Path) -> Launch:
    """Run so many ranks of a peer at once; ``output`` may have a state to go on from."""
    with socket.socket() as bound:
        bound.bind(('localhost', 0))
        port = bound.getsockname()[1]
    command = [sys.executable, PEER, peer, data, output, n, steps]
    common = {'WORLD_SIZE': n_ranks, 'LOCAL_WORLD_SIZE': n_ranks, 'MASTER_ADDR': 'localhost', 'MASTER_PORT': port}
    with ExitStack() as stack:
        processes = []
        for rank in range(n_ranks):
            own = {'RANK': rank, 'LOCAL_RANK': rank, 'GLOBAL_RANK': rank, 'NNODES': 1, 'OMP_NUM_THREADS': 1}
            environment = os.environ | {name: str(value) for name, value in (common | own).items()}
            errors = stack.enter_context((output / f'{rank}.errors').open('w'))
            process = subprocess.Popen(
                list(map(str, command)), env=environment, stdout=subprocess.DEVNULL, stderr=errors
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        for rank, process in enumerate(processes):
            if process.wait(TIMEOUT_SECONDS):
                raise RuntimeError((output / f'{rank}.errors').read_text().strip().splitlines()[-1])
    return Launch.of([json.loads((output / f'{rank}.json').read_text()) for rank in range(n_ranks)])


def write_data(peer: str, path: Path, n: int) -> None:
    """Write the files that a library reads, if it reads files."""
    if peer == 'streaming':
        from streaming import MDSWriter

        with MDSWriter(out=str(path), columns={'id': 'int'}) as writer:
            for id in range(n):
                writer.write({'id': id})
    if peer == 'litdata':
        from litdata import optimize

        optimize(int, list(range(n)), str(path), chunk_size=10_000, num_workers=1)


@dataclass
class Change:
    """A library that goes on with three ranks instead of four, from the state in ``output``."""

    peer: str
    data: Path
    output: Path

    def read(self, n_ranks: int, n: int, steps: int = 0) -> Launch:
        return launch(self.peer, self.data, n_ranks, n, steps, self.output)

    def lost_and_repeated(self, n: int) -> list[str]:
        whole = self.read(4, n).batches
        batches = [*self.read(4, n, STEPS).batches, *self.read(3, n).batches]
        counts = Counter(chain.from_iterable(batches))
        same = 'yes' if batches == whole else 'no'
        return [f'{n - len(counts):,}', f'{counts.total() - len(counts):,}', same]

    @property
    def state_size(self) -> int:
        return Path(self.output, 'state').stat().st_size


def attempts(peers: Sequence[str], folder: Path, n: int) -> dict[str, tuple[Change, list[str]]]:
    """What each library lost and repeated, or how it failed."""
    results = {}
    for peer in peers:
        output = folder / f'{peer}-{n}-output'
        output.mkdir()
        change = Change(peer, folder / f'{peer}-{n}', output)
        try:
            write_data(peer, change.data, n)
            results[peer] = change, change.lost_and_repeated(n)
        except (RuntimeError, ImportError, subprocess.TimeoutExpired) as error:
            results[peer] = change, [f'failed: {type(error).__name__}: {str(error)[:80]}', '', '']
        print(peer, n, *results[peer][1], flush=True)
    return results


def rows_of_change(peers: Sequence[str], folder: Path, rounds: int) -> Iterator[list[str]]:
    columns = ['lost', 'repeated', 'same batches', 'ms to resume', 'MiB', 'state, bytes']
    yield ['', *columns, 'short batch: lost', 'repeated', 'same batches']
    changes = attempts(peers, folder, N)
    going_on = {peer: change for peer, (change, _) in changes.items() if Path(change.output, 'state').exists()}
    launches = [{peer: change.read(3, N, 1) for peer, change in going_on.items()} for _ in range(rounds)]
    with_short_batch = attempts(peers, folder, N_SHORT_BATCH)
    for peer, (change, counts) in changes.items():
        figures = ['', '', '']
        if peer in going_on:
            figures = [*medians(each[peer] for each in launches), f'{change.state_size:,}']
        yield [TITLES[peer], *counts, *figures, *with_short_batch[peer][1]]


def medians(launches: Iterable[Launch]) -> list[str]:
    milliseconds, mib = zip(*((each.milliseconds, each.mib) for each in launches), strict=True)
    return [f'{statistics.median(figures):,.0f}' for figures in (milliseconds, mib)]


def rows_of_start(peers: Sequence[str], folder: Path, rounds: int) -> Iterator[list[str]]:
    yield ['', 'ms', 'MiB']
    for peer in [each for each in OF_INDICES if each in peers]:
        yield [TITLES[peer].partition(',')[0], *medians([start(peer, folder) for _ in range(rounds)])]


def start(peer: str, folder: Path) -> Launch:
    with TemporaryDirectory() as name:
        return launch(peer, folder, 4, N_AT_START, 1, Path(name))


def table(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for number, row in enumerate(rows):
        line = f'| {" | ".join(row)} |'
        print(line, flush=True)
        yield line
        if number == 0:
            yield f'| --- |{" ---: |" * (len(row) - 1)}'
    yield ''


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('peers', nargs='*', metavar='peer', help=f'{", ".join(TITLES)}; all of them by default')
    parser.add_argument('--rounds', type=int, default=3, help='rounds of time and memory, 3 by default')
    parser.add_argument('--no-write', action='store_true', help='leave docs/benchmarks.md as it is')
    options = parser.parse_args()
    unknown = [name for name in options.peers if name not in TITLES]
    if unknown:
        parser.error(f'there is no peer {unknown[0]!r}; there are {", ".join(TITLES)}')

    peers, rounds = options.peers or list(TITLES), options.rounds
    lines = [MANY_RANKS, INTRODUCTION, *setting(psutil.getloadavg()[0], PACKAGES)]
    lines += [NOTES_ON_STEPS, *table(rows_of_steps())]
    with TemporaryDirectory() as name:
        lines += [NOTES_ON_CHANGE.format(rounds=rounds), *table(rows_of_change(peers, Path(name), rounds))]
        lines += [NOTES_ON_START.format(rounds=rounds), *table(rows_of_start(peers, Path(name), rounds))]
    if not options.peers and not options.no_write:
        before, _, _ = PAGE.read_text(encoding='utf-8').partition(MANY_RANKS)
        PAGE.write_text(f'{before.rstrip()}\n\n' + '\n'.join(lines).rstrip() + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
