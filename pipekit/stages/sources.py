"""Random sources: elements of a sequence, loaded samples, a mix of other sources."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import count
from math import inf
from typing import Any, Protocol, TypeAlias, TypeVar, overload
from warnings import warn

from more_itertools import all_equal

from ..describing.arguments import boolean, function, seed_or_fresh, weights_of
from ..describing.descriptions import described
from ..describing.display import code
from ..describing.tracebacks import own_depth
from ..streams.calls import Call, function_of_calls
from ..streams.context import Context, Upstream
from ..streams.cursors import START, Cursor, Pair, Pairs, checked_index, split_cursor
from ..streams.error_notes import UNKNOWN
from ..streams.index_stream import IndexStream, NumberedIndices, numbered
from ..streams.iterables import is_sequence, source_of
from ..streams.metering import OFF
from ..streams.stream import Source, Stream, StreamIterator
from .draws import cumulative_shares, with_replacement, without_replacement

A = TypeVar('A')
B = TypeVar('B')
C = TypeVar('C')
T = TypeVar('T')
T_co = TypeVar('T_co', covariant=True)
Iterates: TypeAlias = Iterable[T] | Callable[[], Iterable[T]]


class Indexable(Protocol[T_co]):
    """Anything with ``len`` and ``[]``: a list, an array, a map-style data set.

    Examples
    --------
    >>> ids: Indexable[str] = ['a', 'b']
    """

    def __len__(self) -> int: ...
    def __getitem__(self, index: Any, /) -> T_co: ...


@described
def sample(
    sequence: Indexable[T], weights: Iterable[float] | None = None, *, replace: bool = True, seed: int | None = None
) -> Source[T]:
    """Endless random elements of a sequence.

    Any draw is computed directly: resuming after ``10**12`` draws takes no longer than starting.

    Parameters
    ----------
    sequence
        Anything with ``len`` and ``[]``.
    weights
        One non-negative number per element, not all zero: relative probabilities.
    replace
        If false, the elements come in passes: each once per pass, every pass in a new order, in memory that does not
        grow with ``len(sequence)``. With weights, likelier elements tend to come earlier in a pass, elements of weight
        zero never come, and memory grows with the number of weights. [1]_
    seed
        A non-negative int. By default, fresh entropy, drawn once when ``sample`` is called.

    Raises
    ------
    TypeError, ValueError
        If ``sequence`` is empty or not a sequence, or the weights or the seed are not as above.

    References
    ----------
    .. [1] P. Efraimidis and P. Spirakis, "Weighted random sampling with a reservoir", 2006.

    Examples
    --------
    >>> from more_itertools import take
    >>> take(8, sample('abc', seed=0))
    ['a', 'a', 'b', 'a', 'b', 'c', 'a', 'c']
    >>> take(8, sample('abcd', replace=False, seed=0))
    ['a', 'b', 'd', 'c', 'a', 'd', 'b', 'c']
    >>> take(6, sample('abc', [1, 0, 0], seed=0))
    ['a', 'a', 'a', 'a', 'a', 'a']
    """
    if not is_sequence(sequence):
        raise TypeError(f'sample needs a sequence, something with len and [], got {code(sequence)}')
    n = len(sequence)
    if n == 0:
        raise ValueError(f'sample needs a sequence with at least one element, got {code(sequence)}')
    checked = None if weights is None else weights_of(weights, n, 'elements')
    seed = seed_or_fresh(seed)
    if boolean('replace', replace):
        draws = partial(with_replacement, n, cumulative_shares(checked))
    else:
        draws = partial(without_replacement, n, checked)

    def open_numbered(cursor: Cursor, context: Context) -> NumberedIndices:
        _check_length(sequence, n)
        checked_index(cursor, sample)
        return NumberedIndices(draws(context.generators(seed)), None)

    drawn = numbered(sequence, open_numbered)

    def open_at(cursor: Cursor, context: Context) -> Pairs[T]:
        return ((sequence[index], number) for index, number in drawn.open_at(cursor, context))

    return Source(open_at, seed=seed, indices=drawn, n_values=inf)


@overload
def load_by_random_id(
    loader: Callable[[T], A], /, *, ids: Indexable[T], weights: Iterable[float] | None = ..., seed: int | None = ...
) -> StreamIterator[A]: ...
@overload
def load_by_random_id(
    first: Callable[[T], A],
    second: Callable[[T], B],
    /,
    *,
    ids: Indexable[T],
    weights: Iterable[float] | None = ...,
    seed: int | None = ...,
) -> StreamIterator[tuple[A, B]]: ...
@overload
def load_by_random_id(
    first: Callable[[T], A],
    second: Callable[[T], B],
    third: Callable[[T], C],
    /,
    *,
    ids: Indexable[T],
    weights: Iterable[float] | None = ...,
    seed: int | None = ...,
) -> StreamIterator[tuple[A, B, C]]: ...
@overload
def load_by_random_id(
    *loaders: Callable[[T], Any], ids: Indexable[T], weights: Iterable[float] | None = ..., seed: int | None = ...
) -> StreamIterator[Any]: ...
def load_by_random_id(
    *loaders: Callable[[Any], Any],
    ids: Indexable[Any],
    weights: Iterable[float] | None = None,
    seed: int | None = None,
) -> StreamIterator[Any]:
    """Endless samples, loaded by random ids: tuples of the loaders' results, or the result of a single loader.

    Parameters
    ----------
    *loaders
        Functions of an id.
    ids, weights, seed
        As for ``sample``.

    Returns
    -------
    StreamIterator
        An iterator; as the source of a pipeline, it stands for the samples that it has not yet yielded.

    Raises
    ------
    TypeError, ValueError
        If there are no loaders, or one is not a function, or as for ``sample``.

    Examples
    --------
    >>> samples = load_by_random_id(str.upper, ord, ids='abc', seed=0)
    >>> next(samples), next(samples)
    (('A', 97), ('A', 97))
    """
    if not loaders:
        raise TypeError('load_by_random_id needs at least one loader, a function of an id')
    for loader in loaders:
        function('each loader', loader, 'a function of an id', 1)
    if not is_sequence(ids) or len(ids) == 0:
        raise TypeError(f'ids must be a sequence with at least one element, got {code(ids)}')
    options = {} if weights is None else {'weights': weights}
    return iter(_loaded_by_random_id(*loaders, ids=ids, **options, seed=seed))


class _LoadedByRandomId(Source[T]):
    def __repr__(self) -> str:
        return self._call.as_call_of('load_by_random_id')


@described
def _loaded_by_random_id(*loaders: Callable[[Any], Any], ids: Any, weights: Any = None, seed: Any) -> Source[Any]:
    seed = seed_or_fresh(seed)
    drawn = sample(ids, weights, seed=seed)
    load = _combined_loader(loaders)

    def open_at(cursor: Cursor, context: Context) -> Pairs[Any]:
        calls = [Call(load, location=context.place or UNKNOWN)]
        function = function_of_calls(calls, context.key, cursor, context.run.meter or OFF)
        return map(function, drawn.open(cursor, context))

    return _LoadedByRandomId(open_at, seed=seed, n_values=inf)


def _combined_loader(loaders: tuple[Callable[[Any], Any], ...]) -> Callable[[Any], Any]:
    # For two loaders, the usual case, this takes a quarter of the time of toolz.juxt.
    if len(loaders) == 1:
        return loaders[0]
    if len(loaders) == 2:
        first, second = loaders
        return lambda key: (first(key), second(key))
    return lambda key: tuple([load(key) for load in loaders])


@described
def mix(*sources: Iterates[T], weights: Iterable[float] | None = None, seed: int | None = None) -> Source[T]:
    """Samples from several sources, each from one chosen at random. Ends when the chosen source has ended.

    Sources with equal seeds draw different random numbers.

    Parameters
    ----------
    *sources
        Pipelines, or anything else that a pipeline takes as its source.
    weights
        One non-negative number per source, not all zero: relative probabilities.
    seed
        As for ``sample``.

    Raises
    ------
    TypeError, ValueError
        If there are no sources, one is not a source, or the weights or the seed are not as above.

    Examples
    --------
    >>> from more_itertools import take
    >>> from pipekit import pipeline, repeat
    >>> take(8, mix(pipeline('ab', repeat()), sample('xyz', seed=0), weights=[3, 1], seed=0))
    ['a', 'b', 'a', 'b', 'a', 'z', 'b', 'y']
    """
    if not sources:
        raise TypeError('mix needs at least one source')
    streams: list[Stream[T]] = [source_of(source) for source in sources]
    shares = cumulative_shares(None if weights is None else weights_of(weights, len(streams), 'sources'))
    seed = seed_or_fresh(seed)

    def open_at(cursor: Cursor, context: Context) -> Pairs[T]:
        return open_branches([stream.open for stream in streams], cursor, context)

    def open_branches(branches: Sequence[Upstream[Any]], cursor: Cursor, context: Context) -> Pairs[Any]:
        draws, cursors = split_cursor(cursor, [int, tuple], mix)
        cursors = list(cursors or [START] * len(streams))
        if len(cursors) != len(streams):
            raise ValueError(f'the cursor {cursor!r} is not one of mix, which has {len(streams)} sources')
        opened = [open_branch(cursors[k], context.in_branch(k)) for k, open_branch in enumerate(branches)]

        def draw(number: int, branch: int) -> Pair[Any]:
            value, cursors[branch] = next(opened[branch])  # its StopIteration ends the map below
            return value, (number, tuple(cursors))

        between = with_replacement(len(streams), shares, context.generators(seed))
        choices = NumberedIndices(between, None).after(draws)
        return _ended_for_good(map(draw, count(draws + 1), choices))

    return Source(
        open_at,
        seed=seed,
        branches=streams,
        reopens=all(stream.reopens for stream in streams),
        indices=_common_indices(streams, open_branches),
        share=_common_share(streams),
        n_values=inf if all(stream.length == inf for stream in streams) else None,
    )


def _common_indices(streams: Sequence[Stream[Any]], open_branches: Callable[..., Pairs[int]]) -> IndexStream | None:
    found = [stream.indices for stream in streams if stream.indices is not None]
    if len(found) < len(streams) or not all_equal(found, key=lambda each: id(each.sequence)):
        return None
    return IndexStream(found[0].sequence, partial(open_branches, [each.open_at for each in found]))


def _common_share(streams: Sequence[Stream[Any]]) -> Any:
    first = streams[0]
    for other in streams[1:]:
        if other.share != first.share:
            raise ValueError(
                f'the ranks share the batches of all sources of a mix or of none, and alike, got {code(first)} and '
                f'{code(other)}; give each the same rank and world_size'
            )
    return first.share


def _check_length(sequence: Any, n: int) -> None:
    now = len(sequence)
    changed = f'{code(sequence)} had {n} elements when sample was called, and has {now} now'
    if now < n:
        raise IndexError(f'{changed}; call it again')
    if now > n:
        warn(f'{changed}; only the first {n} are drawn', RuntimeWarning, stacklevel=own_depth())


def _ended_for_good(iterator: Iterator[T]) -> Iterator[T]:
    yield from iterator  # unlike this generator, a map ended by its function would call it again at the next next()
