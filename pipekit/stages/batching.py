"""The stage that combines samples into batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, overload

from ..describing.arguments import boolean, function, positive_int
from ..describing.descriptions import described
from ..describing.display import code
from ..plans.operations import Chunk, Custom, Map, Operation
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
def combine_batches(batch_size: BatchSize, *, drop_last: bool = ..., workers: Workers | None = ...) -> Stacking: ...
@overload
def combine_batches(  # type: ignore[overload-overlap]
    batch_size: BatchSize, combine: type[list[Any]], *, drop_last: bool = ..., workers: Workers | None = ...
) -> Listing: ...
@overload
def combine_batches(
    batch_size: BatchSize,
    combine: Callable[[list[In]], Out],
    *,
    drop_last: bool = ...,
    workers: Workers | None = ...,
) -> Stage[In, Out]: ...
@described
def combine_batches(
    batch_size: BatchSize,
    combine: Callable[[list[Any]], Any] = combine_to_arrays,
    *,
    drop_last: bool = False,
    workers: Workers | None = None,
) -> Any:
    """Combine samples into batches.

    Parameters
    ----------
    batch_size
        The number of samples in a batch; or a function ``should_add(chunk, sample) -> bool`` of the samples so far, a
        non-empty list, and the next one. Where it returns false, the next sample begins a new batch.
    combine
        A combiner: a function of the list of samples that returns the batch.
    drop_last
        Whether to drop a last batch that is not full; if ``batch_size`` is a function, the last one in any case.
    workers
        Where ``combine`` runs, as for ``apply``.

    Raises
    ------
    TypeError, ValueError
        If ``batch_size`` is neither a positive int nor a function, or ``combine`` is not a function.

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
    """
    function('combine', combine, 'a function of a list of samples')
    if takes_rng(combine):
        raise TypeError(f'combine cannot be random, got {code(combine)}, which takes rng; draw in an apply after it')
    function('combine', combine, 'a function of a list of samples', 1)
    drop_last = boolean('drop_last', drop_last)
    if callable(batch_size):
        function('batch_size', batch_size, 'a positive int or a function should_add(chunk, sample)', 2)
        chunks: Operation = _adaptive(batch_size, drop_last)
    else:
        chunks = Chunk(positive_int('batch_size', batch_size, 'a positive int or a function'), drop_last)
    return Stage.from_operations(chunks, Map(combine, workers=checked_workers(workers), combines=True))


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

    return Custom(open_on, keeps_cursors=True, opens_at_cursor=True)


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
