"""Stages that select, repeat and reorder samples, without looking at them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from math import inf
from typing import Any

import numpy as np
from more_itertools import chunked

from ..describing.arguments import boolean, checked_rank, natural_number, optional, positive_int, seed_or_fresh
from ..describing.descriptions import described
from ..plans.operations import Custom
from ..plans.pipeline import SameType
from ..streams.context import Context, Upstream, passes
from ..streams.cursors import START, Cursor, Pair, Pairs, checked_index, enumerate_from, split_cursor, with_prefix
from ..streams.randomness import Generators, random_order


@described
def shuffle(window: int, *, seed: int | None = None) -> SameType:
    """Shuffle within windows: read ``window`` samples, yield them in a random order, read the next ones.

    At most one window is in memory. Resuming reads one window again, and nothing before it.

    Examples
    --------
    >>> list(shuffle(4, seed=0)(range(8)))
    [0, 1, 3, 2, 7, 5, 6, 4]
    """
    window = positive_int('window', window)
    seed = seed_or_fresh(seed)

    def open_on(upstream: Upstream[Any], cursor: Cursor, context: Context) -> Pairs[Any]:
        start, done = split_cursor(cursor, [None, int], stage)
        checked_index(done, stage, window)
        return shuffled(upstream(start, context), start, done, context.generators(seed))

    def shuffled(pairs: Pairs[Any], start: Cursor, done: int, generators: Generators) -> Pairs[Any]:
        while read := list(islice(pairs, window)):
            n, end = len(read), read[-1][1]
            order = random_order(n, generators.at(start))
            values = [read[k][0] for k in order[done:][::-1]]
            read.clear()
            for number in range(done + 1, n + 1):
                yield values.pop(), (start, number) if number < n else (end, 0)
            start, done = end, 0

    stage = SameType.from_operations(Custom(open_on, seed=seed, keeps_structure=True, reorders=True, length=_same))
    return stage


@described
def take(n: int) -> SameType:
    """Yield the first ``n`` samples.

    Examples
    --------
    >>> list(take(2)('abc'))
    ['a', 'b']
    """
    n = natural_number('n', n)

    def open_on(upstream: Upstream[Any], cursor: Cursor, context: Context) -> Pairs[Any]:
        taken, before = split_cursor(cursor, [int, None], stage)
        checked_index(taken, stage, n)
        return map(with_prefix, range(taken + 1, n + 1), upstream(before, context))

    stage = SameType.from_operations(
        Custom(open_on, keeps_structure=True, reorders=True, length=lambda length: min(length, n))
    )
    return stage


@described
def repeat(times: int | None = None) -> SameType:
    """Iterate over the stream ``times`` times; by default, for ever.

    Earlier random stages draw new random numbers in each pass. A pass without samples ends the stream.

    Raises
    ------
    NotResumable
        By ``pipeline``, if the source is an iterator, which can be opened only once.

    Examples
    --------
    >>> list(repeat(2)('ab'))
    ['a', 'b', 'a', 'b']
    """
    times = optional(positive_int, 'times', times, 'a positive int')

    def open_on(upstream: Upstream[Any], cursor: Cursor, context: Context) -> Pairs[Any]:
        number, before = split_cursor(cursor, [int, None], stage)
        left = None if times is None else times - checked_index(number, stage, times)
        return chain.from_iterable(islice(passes(upstream, number, before, context), left))

    stage = SameType.from_operations(
        Custom(
            open_on,
            reopens_upstream=True,
            keeps_structure=True,
            reorders=True,
            length=lambda n: n * (inf if times is None else times) if n else 0,
        )
    )
    return stage


@described
def shard(rank: int, world_size: int, *, drop_last: bool = False) -> SameType:
    """Yield every ``world_size``-th sample, starting with number ``rank``: for streams that differ by rank.

    A state fits the same rank of as many only. For batches that belong together, and states that fit any number of
    ranks, pass ``rank`` and ``world_size`` to ``combine_batches`` instead. Put it before expensive stages: unless it
    comes right after a sequence, it reads and drops the samples of the other ranks.

    Parameters
    ----------
    rank
        From 0 to ``world_size - 1``.
    world_size
        The number of ranks.
    drop_last
        Whether to drop the samples at the end that are too few for one per rank, so that all ranks get equally many.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> list(shard(0, 2)('abcde')), list(shard(1, 2)('abcde')), list(shard(0, 2, drop_last=True)('abcde'))
    (['a', 'c', 'e'], ['b', 'd'], ['a', 'c'])
    """
    rank, world_size = checked_rank(rank, world_size)
    drop_last = boolean('drop_last', drop_last)

    def length(n: float) -> float:
        return n if n == inf else n // world_size if drop_last else (n + world_size - 1 - rank) // world_size

    def is_full(chunk: list[Pair[Any]]) -> bool:
        return len(chunk) == world_size

    def own_share(chunk: list[Pair[Any]]) -> Pair[Any]:
        # The rank is in the cursor, so that random stages after this one draw differently on each rank.
        return chunk[rank][0], (chunk[-1][1], rank, world_size)

    def open_on(upstream: Upstream[Any], cursor: Cursor, context: Context) -> Pairs[Any]:
        if not drop_last:
            return islice(upstream(cursor, context), rank if cursor == START else world_size - 1, None, world_size)
        if isinstance(cursor, tuple) and cursor[1:] == (rank, world_size):  # states of version 0.1 have no rank
            cursor = cursor[0]
        return map(own_share, filter(is_full, chunked(upstream(cursor, context), world_size)))

    return SameType.from_operations(Custom(open_on, keeps_structure=True, reorders=True, length=length, splits=True))


@described
def expiration_pool(pool_size: int, repetitions: int, iterations: int = 1, *, seed: int | None = None) -> SameType:
    """Yield each sample ``repetitions`` times, at random from a pool of ``pool_size``: for samples costly to load.

    After each sample read, ``iterations`` samples are drawn from the pool; once it is full, as many as it takes for one
    to be used up. When the upstream has ended, the rest of the pool is drawn.

    Resumes by replay.

    Parameters
    ----------
    pool_size
        The largest number of samples in the pool.
    repetitions
        How often each sample is yielded.
    iterations
        How many samples are drawn per sample read while the pool fills, at most ``repetitions``. With more, the first
        batches come sooner, and have fewer different samples.

    Examples
    --------
    >>> list(expiration_pool(2, repetitions=2, seed=0)('abcd'))
    ['a', 'a', 'c', 'b', 'b', 'd', 'c', 'd']
    """
    pool_size = positive_int('pool_size', pool_size)
    repetitions = positive_int('repetitions', repetitions)
    iterations = positive_int('iterations', iterations)
    if iterations > repetitions:
        raise ValueError(f'iterations must be at most repetitions, got {iterations} of {repetitions}')
    seed = seed_or_fresh(seed)

    def drawn(pairs: Pairs[Any], generator: np.random.Generator) -> Iterator[Any]:
        pool: list[list[Any]] = []

        def draw() -> Any:
            number = int(generator.random() * len(pool))
            entry = pool[number]
            entry[1] -= 1
            if not entry[1]:
                pool[number] = pool[-1]
                pool.pop()
            return entry[0]

        for value, _ in pairs:
            pool.append([value, repetitions])
            del value
            draws = 0
            while pool and (draws < iterations or len(pool) == pool_size):
                draws += 1
                yield draw()
        while pool:
            yield draw()

    def open_on(upstream: Upstream[Any], cursor: Cursor, context: Context) -> Pairs[Any]:
        generator = context.generators(seed).at(START)
        pairs = upstream(START, context)
        return enumerate_from(lambda: drawn(pairs, generator), checked_index(cursor, stage))

    stage = SameType.from_operations(
        Custom(open_on, seed=seed, replays=True, keeps_structure=True, reorders=True, length=lambda n: n * repetitions)
    )
    return stage


def _same(n: float) -> float:
    return n
