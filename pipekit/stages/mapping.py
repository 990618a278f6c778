"""Stages that make values of values: apply, unpack, keep, flatten."""

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
from ..streams.activities import Activity, activity_from
from ..streams.context import Context, Upstream
from ..streams.cursors import Cursor, In, Out, Pair, Pairs, T, drop_first, split_cursor
from ..streams.error_notes import UNKNOWN, raise_with_note
from ..streams.metering import OFF
from ..streams.on_error import OnErrors, checked_on_error
from ..workers.kinds import Workers, checked_workers
from .functions import Unpacking, may_take_rng, takes_rng
from .operations import Custom, Map
from .pipeline import SameType, Stage

if TYPE_CHECKING:
    import numpy as np

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
    return Stage.of(Map(func, seed, checked_workers(workers), checked_on_error(on_error)))


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
    return Stage.of(Map(Unpacking(func), seed, checked_workers(workers), checked_on_error(on_error)))


@described
def keep(predicate: Callable[[Any], object]) -> SameType:
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

    return SameType.of(Custom(open_on, keeps_cursors=True))


if TYPE_CHECKING:

    class Flattening(Stage[Any, Any]):
        """A stage from iterables to what they hold."""

        def __call__(self, iterable: Iterable[Iterable[T]]) -> Iterator[T]: ...

else:
    Flattening = Stage


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
        before, done = split_cursor(cursor, [None, int], stage)
        return chain.from_iterable(parts(upstream(before, context), before, done))

    def parts(pairs: Pairs[Any], before: Cursor, done: int) -> Iterator[Pairs[Any]]:
        for value, cursor in pairs:
            remaining = drop_first(done, _parts_of(value))
            del value
            yield map(partial(_located, before), remaining, count(done + 1))
            before, done = cursor, 0

    stage = Flattening.of(Custom(open_on))
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
