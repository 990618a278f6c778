"""Stages that work on one sample at a time: apply, unpack, keep, flatten."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, count
from itertools import repeat as repeated
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from ..describing.arguments import function, seed_or_fresh
from ..describing.descriptions import described
from ..describing.display import code, structure
from ..describing.structures import SEQUENCES
from ..plans.operations import Custom, Map
from ..plans.pipeline import SameType, Stage
from ..streams.activities import Activity, activity_from
from ..streams.context import Context, Upstream
from ..streams.cursors import Cursor, In, Out, Pair, Pairs, T, drop_first, split_cursor
from ..streams.error_notes import UNKNOWN, raise_with_note
from ..streams.metering import OFF
from ..streams.on_error import OnErrors, checked_on_error
from ..workers.kinds import Workers, checked_workers
from .functions import Unpacking, may_take_rng, takes_rng

if TYPE_CHECKING:
    import numpy as np

Sample_contra = TypeVar('Sample_contra', contravariant=True)
Out_co = TypeVar('Out_co', covariant=True)


class RandomFunction(Protocol[Sample_contra, Out_co]):
    """A function of a sample and a random generator ``rng``.

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
        A function of a sample. If it takes the keyword ``rng``, it is passed a new numpy ``Generator`` for each sample,
        which depends only on the seed and the sample's position in the stream.
    seed
        A non-negative int, for a random function. By default, fresh entropy, drawn once when ``apply`` is called.
    workers
        Where the function runs under ``prefetch``: ``threads(n)``, ``processes(n)``, or a borrowed executor, of which
        only ``submit`` is called and which is never shut down. Values, order and cursors do not depend on it.
    on_error
        What to do when the function fails: ``skip(...)``, ``replace(...)``, ``retry(...)``, or a list of them, of which
        the first that matches the error applies. By default, the error ends the epoch.

    Raises
    ------
    TypeError
        If ``func`` is not a function, a seed is given for one that does not take ``rng``, or ``workers`` or
        ``on_error`` is something else.

    Examples
    --------
    >>> list(apply(str.upper)(['a', 'b']))
    ['A', 'B']
    >>> def jitter(x, rng):
    ...     return x + int(rng.integers(10))
    >>> list(apply(jitter, seed=0)([100, 200]))
    [104, 203]
    """
    seed = _seed_for('apply', func, seed, 1)
    return Stage.from_operations(Map(func, seed, checked_workers(workers), checked_on_error(on_error)))


@described
def unpack(
    func: Callable[..., Out], *, seed: int | None = None, workers: Workers | None = None, on_error: OnErrors = None
) -> Stage[Any, Out]:
    """Apply a function to the fields of each sample.

    The fields of a tuple are passed by position, those of a mapping or a dataclass by name. The other arguments are as
    for ``apply``.

    Examples
    --------
    >>> list(unpack(lambda image, label: label)([('a', 0), ('b', 1)]))
    [0, 1]
    >>> list(unpack(lambda image, label: label)([{'image': 'a', 'label': 0}]))
    [0]
    """
    seed = _seed_for('unpack', func, seed)
    return Stage.from_operations(Map(Unpacking(func), seed, checked_workers(workers), checked_on_error(on_error)))


@described
def keep(predicate: Callable[[Any], object]) -> SameType:
    """Keep the samples for which the predicate is true.

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
    function('predicate', predicate, 'a function of a sample', 1)

    def open_on(upstream: Upstream[Any], cursor: Cursor, context: Context) -> Pairs[Any]:
        last = cursor
        recorder, place = context.run.meter or OFF, context.place or UNKNOWN
        path = place.path

        @activity_from(lambda local: Activity(local['place'], local['value'], local['pair'][1], local['last']))
        def is_kept(pair: Pair[Any]) -> bool:
            nonlocal last
            try:
                value = pair[0]
                kept = bool(recorder.call(path, predicate, value) if recorder.is_recording else predicate(value))
            except BaseException as error:
                raise_with_note(error, place, *pair, last)
            last = pair[1]
            return kept

        return filter(is_kept, upstream(cursor, context))

    kept = Custom(open_on, keeps_cursors=True, opens_at_cursor=True, length_depends_on_values=True)
    return SameType.from_operations(kept)


if TYPE_CHECKING:

    class Flattening(Stage[Any, Any]):
        """A stage from iterables to their items."""

        def __call__(self, iterable: Iterable[Iterable[T]]) -> Iterator[T]: ...

else:
    Flattening = Stage


@described
def flatten() -> Flattening:
    """Yield the items of each sample one by one, in order.

    Resuming in the middle of a sample makes that sample again and skips its earlier items.

    Raises
    ------
    TypeError
        When iterated, if a sample is not iterable.

    Examples
    --------
    >>> list(flatten()([[1, 2], [], [3]]))
    [1, 2, 3]
    """

    def open_on(upstream: Upstream[Any], cursor: Cursor, context: Context) -> Pairs[Any]:
        before, done = split_cursor(cursor, [None, int], stage)
        return chain.from_iterable(items_of_samples(upstream(before, context), before, done))

    def items_of_samples(pairs: Pairs[Any], before: Cursor, done: int) -> Iterator[Pairs[Any]]:
        for value, cursor in pairs:
            remaining = drop_first(done, _items_of(value))
            del value
            yield map(partial(_numbered, before), remaining, count(done + 1))
            before, done = cursor, 0

    stage = Flattening.from_operations(Custom(open_on, length_depends_on_values=True))
    return stage


def _seed_for(owner: str, func: Callable[..., Any], seed: int | None, arity: int | None = None) -> int | None:
    function('func', func, 'a function of a sample')
    if seed is not None and not may_take_rng(func):
        raise TypeError(f'{owner} was given seed={code(seed)} for {code(func)}, which takes no argument rng')
    function('func', func, 'a function of a sample', arity, 'rng')
    return seed_or_fresh(seed) if seed is not None or takes_rng(func) else None


def _items_of(value: Any) -> Iterator[Any]:
    if isinstance(value, SEQUENCES):  # an iterator over it would keep the items that have been yielded
        items = list(reversed(value))
        return map(items.pop, repeated(-1, len(items)))
    if not isinstance(value, Iterable) and not hasattr(value, '__getitem__'):
        raise TypeError(f'flatten needs iterable samples, got {structure(value)}')
    return iter(value)


def _numbered(before: Cursor, item: Any, number: int) -> Pair[Any]:
    return item, (before, number)
