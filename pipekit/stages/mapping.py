"""Stages: stream -> stream, each a short function of its upstream that keeps no state but its cursor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, count, islice
from itertools import repeat as repeated
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from more_itertools import chunked

from ..describing.arguments import boolean, function, natural_number, optional, positive_int, seed_or_fresh
from ..describing.descriptions import described
from ..describing.display import code, structure
from ..describing.structures import SEQUENCES
from ..streams.cursors import START, Cursor, Pair, Pairs, after, enumerate_from, index_of, parts_of, tagged
from ..streams.error_notes import raise_noted
from ..streams.metering import OFF
from ..streams.on_error import OnErrors, checked_on_error
from ..streams.randomness import Generators, random_order
from ..streams.stream import Context, Upstream, passes
from ..workers.kinds import Workers, checked_workers
from .functions import Unpacking, may_take_rng, takes_rng
from .pipeline import Blind, Map, Passing, Stage

if TYPE_CHECKING:
    import numpy as np

    from ..streams.stream import In, Out, T

Sample_contra = TypeVar('Sample_contra', contravariant=True)
Out_co = TypeVar('Out_co', covariant=True)


class RandomFunction(Protocol[Sample_contra, Out_co]):
    """A function of a sample and of the generator ``rng``.

    Examples
    --------
    >>> def jitter(x: float, rng: np.random.Generator) -> float:
    ...     return x + rng.normal()
    """

    def __call__(self, sample: Sample_contra, /, *, rng: np.random.Generator) -> Out_co: ...


@overload
def apply(
    func: Callable[[In], Out], *, seed: int | None = ..., workers: Workers | None = ..., on_error: OnErrors = ...
) -> Stage[In, Out]: ...
@overload
def apply(
    func: RandomFunction[In, Out], *, seed: int | None = ..., workers: Workers | None = ..., on_error: OnErrors = ...
) -> Stage[In, Out]: ...
@described
def apply(
    func: Callable[..., Any], *, seed: int | None = None, workers: Workers | None = None, on_error: OnErrors = None
) -> Stage[Any, Any]:
    """Apply a function to each sample.

    Parameters
    ----------
    func
        A function of a sample. If it takes the keyword ``rng``, it is handed a numpy ``Generator`` of its own for each
        sample, which depends on nothing but the seed and the sample's place in the stream.
    seed
        A non-negative int, for a random function. Without one, fresh entropy is drawn once, here.
    workers
        Where ``prefetch`` has the function run: ``threads(n)``, ``processes(n)``, or any executor, which is used
        through ``submit`` alone and left running. It changes no value, no order and no cursor.
    on_error
        What to do when the function fails: ``skip(...)``, ``replace(...)``, ``retry(...)``, or a list of them, of which
        the first that is for the error is followed. By default, the error ends the epoch.

    Raises
    ------
    TypeError
        If ``func`` is no function, or a seed is given for one that does not take ``rng``, or ``workers`` or
        ``on_error`` are none.

    Examples
    --------
    >>> list(apply(str.upper)(['a', 'b']))
    ['A', 'B']
    >>> def jitter(x, rng):
    ...     return x + int(rng.integers(10))
    >>> list(apply(jitter, seed=0)([100, 200]))
    [104, 203]
    """
    seed = _seed_for('apply', func, seed)
    return Map(func, seed=seed, workers=checked_workers(workers), on_error=checked_on_error(on_error))


@described
def unpack(
    func: Callable[..., Out], *, seed: int | None = None, workers: Workers | None = None, on_error: OnErrors = None
) -> Stage[Any, Out]:
    """Apply a function to the fields of each sample.

    Those of a tuple are passed by position, those of a mapping or a dataclass by name. Otherwise as ``apply``.

    Examples
    --------
    >>> list(unpack(lambda image, label: label)([('a', 0), ('b', 1)]))
    [0, 1]
    >>> list(unpack(lambda image, label: label)([{'image': 'a', 'label': 0}]))
    [0]
    """
    seed = _seed_for('unpack', func, seed)
    return Map(Unpacking(func), seed=seed, workers=checked_workers(workers), on_error=checked_on_error(on_error))


@described
def keep(predicate: Callable[[Any], object]) -> Passing:
    """Keep the samples that the predicate is true of.

    Examples
    --------
    >>> list(keep(str.isupper)('aBcD'))
    ['B', 'D']
    """
    function('predicate', predicate, 'a function of a sample')
    if takes_rng(predicate):
        raise TypeError(
            f'predicate cannot be random, got {code(predicate)}, which takes rng; draw in an apply before it'
        )

    def open_on(upstream: Upstream[Any], cursor: Cursor, context: Context) -> Pairs[Any]:
        last = cursor
        recorder = context.meter or OFF
        path = context.place.path if context.place else ''

        def is_kept(pair: Pair[Any]) -> bool:
            nonlocal last
            try:
                value = pair[0]
                kept = bool(recorder.call(path, predicate, value) if recorder.on else predicate(value))
            except BaseException as error:
                raise_noted(error, context.place, *pair, last)
            last = pair[1]
            return kept

        return filter(is_kept, upstream(cursor, context))

    return Passing(open_on, keeps_cursors=True)


class Flattening(Stage[Any, Any]):
    """The type of ``flatten()``: a stage from iterables to what they hold."""

    if TYPE_CHECKING:

        def __call__(self, iterable: Iterable[Iterable[T]]) -> Iterator[T]: ...


@described
def flatten() -> Flattening:
    """Hand on the parts of each sample one by one, in order.

    Resuming makes the sample again that the part belongs to, and skips its earlier parts.

    Examples
    --------
    >>> list(flatten()([[1, 2], [], [3]]))
    [1, 2, 3]
    """

    def open_on(upstream: Upstream[Any], cursor: Cursor, context: Context) -> Pairs[Any]:
        before, done = parts_of(cursor, [None, int], stage)
        return chain.from_iterable(parts(upstream(before, context), before, done))

    def parts(pairs: Pairs[Any], before: Cursor, done: int) -> Iterator[Pairs[Any]]:
        for value, cursor in pairs:
            remaining = after(done, _parts_of(value))
            del value
            yield map(partial(_located, before), remaining, count(done + 1))
            before, done = cursor, 0

    stage = Flattening(open_on)
    return stage


@described
def shuffle(window: int, *, seed: int | None = None) -> Passing:
    """Shuffle within windows: read ``window`` samples, hand them on in a random order, read the next.

    Holds at most one window in memory. Resuming reads one window again, and nothing before it.

    Examples
    --------
    >>> list(shuffle(4, seed=0)(range(8)))
    [0, 1, 3, 2, 7, 5, 6, 4]
    """
    window = positive_int('window', window)
    seed = seed_or_fresh(seed)

    def open_on(upstream: Upstream[Any], cursor: Cursor, context: Context) -> Pairs[Any]:
        start, done = parts_of(cursor, [None, int], stage)
        index_of(done, stage, window)
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

    stage = Blind(open_on, seed=seed, keeps_structure=True)
    return stage


@described
def take(n: int) -> Passing:
    """Hand on the first ``n`` samples.

    Examples
    --------
    >>> list(take(2)('abc'))
    ['a', 'b']
    """
    n = natural_number('n', n)

    def open_on(upstream: Upstream[Any], cursor: Cursor, context: Context) -> Pairs[Any]:
        taken, before = parts_of(cursor, [int, None], stage)
        index_of(taken, stage, n)
        return map(tagged, range(taken + 1, n + 1), upstream(before, context))

    stage = Blind(open_on, keeps_structure=True)
    return stage


@described
def repeat(times: int | None = None) -> Passing:
    """Open the stream again whenever it ends, ``times`` times in all or, by default, for ever.

    Random stages before it draw anew in every pass. A pass without samples ends the stream.

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
        number, before = parts_of(cursor, [int, None], stage)
        left = None if times is None else times - index_of(number, stage, times)
        return chain.from_iterable(islice(passes(upstream, number, before, context), left))

    stage = Blind(open_on, reopens_upstream=True, keeps_structure=True)
    return stage


@described
def shard(rank: int, world_size: int, *, drop_last: bool = False) -> Passing:
    """Hand on every ``world_size``-th sample, from number ``rank`` on: the share of one of several machines.

    Put it before what is expensive: the samples of the other ranks are read and dropped.

    Parameters
    ----------
    rank
        From 0 to ``world_size - 1``.
    world_size
        The number of shares.
    drop_last
        Whether to drop samples at the end that are too few for all ranks, so that all get equally many.

    Examples
    --------
    >>> list(shard(0, 2)('abcde')), list(shard(1, 2)('abcde')), list(shard(0, 2, drop_last=True)('abcde'))
    (['a', 'c', 'e'], ['b', 'd'], ['a', 'c'])
    """
    world_size = positive_int('world_size', world_size)
    rank = natural_number('rank', rank)
    if rank >= world_size:
        raise ValueError(f'rank must be less than world_size, got rank {rank} of {world_size}')
    drop_last = boolean('drop_last', drop_last)

    def is_full(chunk: list[Pair[Any]]) -> bool:
        return len(chunk) == world_size

    def own_share(chunk: list[Pair[Any]]) -> Pair[Any]:
        return chunk[rank][0], chunk[-1][1]

    def open_on(upstream: Upstream[Any], cursor: Cursor, context: Context) -> Pairs[Any]:
        pairs = upstream(cursor, context)
        if drop_last:
            return map(own_share, filter(is_full, chunked(pairs, world_size)))
        return islice(pairs, rank if cursor == START else world_size - 1, None, world_size)

    return Blind(open_on, keeps_structure=True)


@described
def expiration_pool(pool_size: int, repetitions: int, iterations: int = 1, *, seed: int | None = None) -> Passing:
    """Hand on each sample ``repetitions`` times, from a pool of at most ``pool_size``: for samples costly to load.

    After each sample read, ``iterations`` are drawn from the pool; once it is full, as many as it takes for one to
    expire. When the upstream has ended, what is left in the pool is handed on.

    Resumes by replay.

    Parameters
    ----------
    pool_size
        The largest number of samples held.
    repetitions
        How often each sample is handed on.
    iterations
        How many samples are drawn for each one read while the pool fills: more of them give the first batches sooner,
        from fewer different samples. At most ``repetitions``.

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
        return enumerate_from(lambda: drawn(pairs, generator), index_of(cursor, stage))

    stage = Blind(open_on, seed=seed, replays=True, keeps_structure=True)
    return stage


def _seed_for(owner: str, func: Callable[..., Any], seed: int | None) -> int | None:
    function('func', func, 'a function of a sample')
    if seed is not None and not may_take_rng(func):
        raise TypeError(f'{owner} was given seed={code(seed)} for {code(func)}, which takes no argument rng')
    return seed_or_fresh(seed) if seed is not None or takes_rng(func) else None


def _parts_of(value: Any) -> Iterator[Any]:
    if isinstance(value, SEQUENCES):  # whose iterator would keep the parts that have been handed on
        parts = list(reversed(value))
        return map(parts.pop, repeated(-1, len(parts)))
    if not isinstance(value, Iterable) and not hasattr(value, '__getitem__'):
        raise TypeError(f'flatten needs samples to iterate over, got {structure(value)}')
    return iter(value)


def _located(before: Cursor, part: Any, number: int) -> Pair[Any]:
    return part, (before, number)
