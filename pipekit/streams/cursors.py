"""Cursors, which say where a value is in its stream, and the pairs of a value and its cursor.

A cursor is an int or nested tuples of ints. It lies after its value: a stream opened there goes on with the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count, islice
from typing import TYPE_CHECKING, Any, TypeAlias

from more_itertools import ilen

from ..describing.display import code
from ..describing.progress import with_progress

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T = TypeVar('T', default=Any)
    In = TypeVar('In', default=Any)
    Out = TypeVar('Out', default=Any)
    In_contra = TypeVar('In_contra', contravariant=True, default=Any)
    Out_co = TypeVar('Out_co', covariant=True, default=Any)
else:
    from typing import TypeVar

    T = TypeVar('T')
    In = TypeVar('In')
    Out = TypeVar('Out')
    In_contra = TypeVar('In_contra', contravariant=True)
    Out_co = TypeVar('Out_co', covariant=True)

Cursor: TypeAlias = int | tuple['Cursor', ...]
Pair: TypeAlias = tuple[T, Cursor]
Pairs: TypeAlias = Iterator[Pair[T]]

START: Cursor = 0  # the beginning of every stream, whatever its cursors look like


def cursor_of(value: Any) -> Cursor:
    """A cursor as it was before a trip through JSON, which makes lists of tuples.

    Examples
    --------
    >>> cursor_of([3, [1, 2]])
    (3, (1, 2))
    """
    if isinstance(value, list | tuple):
        return tuple(cursor_of(part) for part in value)
    if type(value) is not int or value < 0:
        raise ValueError(f'a cursor is a non-negative int or nested tuples of them, got {code(value)}')
    return value


def as_lists(cursor: Cursor) -> Any:
    """A cursor as JSON gives it back.

    Examples
    --------
    >>> as_lists((3, (1, 2)))
    [3, [1, 2]]
    """
    return [as_lists(part) for part in cursor] if isinstance(cursor, tuple) else cursor


def index_of(cursor: Cursor, owner: object, length: int | None = None) -> int:
    """A cursor that counts values, checked."""
    if not isinstance(cursor, int):
        raise ValueError(f'the cursor {cursor!r} is not one of {code(owner)}, whose cursors are ints')
    if length is not None and cursor > length:
        raise ValueError(f'the cursor {cursor!r} is not one of {code(owner)}, which has {length} values')
    return cursor


def parts_of(cursor: Cursor, kinds: Sequence[type | None], owner: object) -> tuple[Any, ...]:
    """The parts of a cursor that is a tuple, checked: an ``int``, a ``tuple`` or ``None`` for any. Zeros at the start.

    Examples
    --------
    >>> parts_of((3, (1, 2)), [int, None], owner='take(9)'), parts_of(START, [int, None], owner='take(9)')
    ((3, (1, 2)), (0, 0))
    """
    if cursor == START and isinstance(cursor, int):
        return tuple(() if kind is tuple else START for kind in kinds)
    if isinstance(cursor, tuple) and len(cursor) == len(kinds):
        fits = [kind is None or isinstance(part, kind) for part, kind in zip(cursor, kinds, strict=True)]
        if all(fits):
            return cursor
    raise ValueError(f'the cursor {cursor!r} is not one of {code(owner)}, whose cursors are tuples of {len(kinds)}')


def enumerate_from(make: Callable[[], Iterable[T]], done: int) -> Pairs[T]:
    """The values of an iterable after the first ``done``, each with its number.

    Examples
    --------
    >>> list(enumerate_from(lambda: 'abc', 1))
    [('b', 2), ('c', 3)]
    """
    yield from map(lambda value, number: (value, number), after(done, iter(make())), count(done + 1))


def after(done: int, values: Iterator[T]) -> Iterator[T]:
    """The values after the first ``done``, which are made and dropped."""
    skipped = ilen(with_progress(islice(values, done), 'resuming by replay', done)) if done else 0
    if skipped < done:
        raise ValueError(f'the cursor {done} lies behind the end, after {skipped} values')
    return values


def tagged(number: int, pair: Pair[T]) -> Pair[T]:
    """A pair whose cursor has a number before it.

    Examples
    --------
    >>> tagged(3, ('a', 7))
    ('a', (3, 7))
    """
    return pair[0], (number, pair[1])
