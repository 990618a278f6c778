"""The stage that combines samples into batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, overload

from ..describing.arguments import boolean, checked_rank, function, positive_int
from ..describing.descriptions import described
from ..describing.display import code
from ..plans.operations import Chunk, Custom, Map, Operation, Share
from ..plans.pipeline import Stage
from ..streams.activities import Activity, activity_from
from ..streams.context import Context, Upstream
from ..streams.cursors import Cursor, In, Out, Pairs, T
from ..streams.error_notes import UNKNOWN, raise_with_note
from ..workers.kinds import Workers, checked_workers
from .combiners import combine_to_arrays
from .functions import takes_rng

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..streams.stacking import Stacking


BatchSize: TypeAlias = int | Callable[[list[Any], Any], object]


class Listing(Protocol):
    """The type of ``combine_batches(n, list)``: a stage from samples to lists of samples."""

    def __call__(self, iterable: Iterable[T]) -> Iterator[list[T]]: ...


@overload
def combine_batches(
    batch_size: BatchSize,
    *,
    drop_last: bool = ...,
    rank: int | None = ...,
    world_size: int | None = ...,
    uneven: bool = ...,
    workers: Workers | None = ...,
) -> Stacking: ...
@overload
def combine_batches(  # type: ignore[overload-overlap]
    batch_size: BatchSize,
    combine: type[list[Any]],
    *,
    drop_last: bool = ...,
    rank: int | None = ...,
    world_size: int | None = ...,
    uneven: bool = ...,
    workers: Workers | None = ...,
) -> Listing: ...
@overload
def combine_batches(
    batch_size: BatchSize,
    combine: Callable[[list[In]], Out],
    *,
    drop_last: bool = ...,
    rank: int | None = ...,
    world_size: int | None = ...,
    uneven: bool = ...,
    workers: Workers | None = ...,
) -> Stage[In, Out]: ...
@described
def combine_batches(
    batch_size: BatchSize,
    combine: Callable[[list[Any]], Any] = combine_to_arrays,
    *,
    drop_last: bool = False,
    rank: int | None = None,
    world_size: int | None = None,
    uneven: bool = False,
    workers: Workers | None = None,
) -> Any:
    """Combine samples into batches, or one rank's share of the samples of each into a batch of its own.

    With ``rank`` and ``world_size``, the stream of samples is that of all ranks, the same on each, and of the next
    ``batch_size`` samples this rank combines those from number ``rank * batch_size // world_size`` up to the next
    rank's first. The shares of all ranks, joined, are the batches of one rank; cursors, states and lengths are equal on
    all ranks and for any number of ranks. Functions of samples directly before are called on the share alone. Random
    stages after it draw other numbers on each rank.

    Parameters
    ----------
    batch_size
        The number of samples in a batch; or a function ``should_add(chunk, sample) -> bool`` of the samples so far, a
        non-empty list, and the next one. Where it returns false, the next sample begins a new batch.
    combine
        A combiner: a function of the list of samples that returns the batch.
    drop_last
        Whether to drop a last batch that is not full; if ``batch_size`` is a function, the last one in any case.
    rank, world_size
        The number of this rank, from 0, and the number of ranks: both or none. A last batch that is not full is shared
        too; if it has fewer samples than there are ranks, it is dropped on all ranks.
    uneven
        Whether ``batch_size`` may be no multiple of ``world_size``: then some ranks get one sample more than others.
    workers
        Where ``combine`` runs, as for ``apply``.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above. Also by ``pipeline``, if another stage makes the share of a rank inexact.

    Examples
    --------
    >>> list(combine_batches(2, list)('abc'))
    [['a', 'b'], ['c']]
    >>> list(combine_batches(2, list, drop_last=True)('abc'))
    [['a', 'b']]
    >>> def within_five(chunk, sample):
    ...     return sum(chunk) + sample <= 5
    >>> list(combine_batches(within_five, list)([1, 2, 2, 4, 9, 1]))
    [[1, 2, 2], [4], [9], [1]]
    >>> [list(combine_batches(4, list, rank=rank, world_size=2)('abcdefgh')) for rank in range(2)]
    [[['a', 'b'], ['e', 'f']], [['c', 'd'], ['g', 'h']]]
    """
    function('combine', combine, 'a function of a list of samples')
    if takes_rng(combine):
        raise TypeError(f'combine cannot be random, got {code(combine)}, which takes rng; draw in an apply after it')
    function('combine', combine, 'a function of a list of samples', 1)
    drop_last = boolean('drop_last', drop_last)
    share = _share(batch_size, rank, world_size, uneven=boolean('uneven', uneven))
    if callable(batch_size):
        function('batch_size', batch_size, 'a positive int or a function should_add(chunk, sample)', 2)
        chunks: Operation = _adaptive(batch_size, drop_last)
    else:
        chunks = Chunk(positive_int('batch_size', batch_size, 'a positive int or a function'), drop_last, share)
    stage = Stage.from_operations(chunks, Map(combine, workers=checked_workers(workers), combines=True))
    stage.unsaved = (*stage.unsaved, 'rank', 'world_size', 'uneven')  # a state fits any rank of any number of ranks
    return stage


def _share(batch_size: Any, rank: Any, world_size: Any, *, uneven: bool) -> Share | None:
    if rank is None and world_size is None:
        if uneven:
            raise ValueError('uneven=True is about the shares of ranks; pass rank and world_size too')
        return None
    if rank is None or world_size is None:
        given, missing = ('rank', 'world_size') if world_size is None else ('world_size', 'rank')
        raise TypeError(f'{given} was given without {missing}; a share needs both')
    rank, world_size = checked_rank(rank, world_size)
    if callable(batch_size):
        raise ValueError(
            f'batch_size must be an int where ranks share the batches, got the function {code(batch_size)}: each rank '
            'would have to call it on all samples'
        )
    n = positive_int('batch_size', batch_size)
    if n < world_size:
        raise ValueError(
            f'batch_size is that of all ranks together, and must be at least world_size {world_size}, got {n}'
        )
    if n % world_size and not uneven:
        raise ValueError(
            f'batch_size {n} cannot be shared evenly by {world_size} ranks; take {n // world_size * world_size}, or '
            'pass uneven=True, with which some ranks get one sample more than others'
        )
    return Share(rank, world_size)


def _adaptive(should_add: Callable[[list[Any], Any], object], drop_last: bool) -> Custom:
    def open_on(upstream: Upstream[Any], cursor: Cursor, context: Context) -> Pairs[list[Any]]:
        place = context.place or UNKNOWN

        @activity_from(lambda local: Activity(local['place'], local['value'], local['after'], local['before']))
        def adds_value(chunk: list[Any], value: Any, after: Cursor, before: Cursor) -> bool:
            try:
                return bool(should_add(chunk, value))
            except BaseException as error:
                raise_with_note(error, place, value, after, before)

        return _adaptive_chunks(upstream(cursor, context), cursor, adds_value, drop_last)

    return Custom(open_on, keeps_cursors=True, opens_at_cursor=True, length_depends_on_values=True)


def _adaptive_chunks(
    pairs: Pairs[Any], last: Cursor, adds_value: Callable[[list[Any], Any, Cursor, Cursor], bool], drop_last: bool
) -> Pairs[list[Any]]:
    chunk: list[Any] = []
    for value, cursor in pairs:
        if chunk and not adds_value(chunk, value, cursor, last):
            full, chunk = [chunk], []
            yield full.pop(), last
        chunk.append(value)
        del value
        last = cursor
    if chunk and not drop_last:
        full, chunk = [chunk], []
        yield full.pop(), last
