"""Cursors, the positions of values in their streams, and pairs of a value and its cursor.

A cursor is an int or nested tuples of ints. A stream opened at a cursor continues with the value after it.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count, islice
from typing import TYPE_CHECKING, Any, TypeAlias

from more_itertools import ilen

from ..describing.display import code
from ..describing.progress import with_progress

if TYPE_CHECKING:
    from typing_extensions import TypeVar
else:

    def TypeVar(name, *, default, **options):  # noqa: N802  # for Python before 3.13, which has no defaults
        return typing.TypeVar(name, **options)


T = TypeVar('T', default=Any)
In = TypeVar('In', default=Any)
Out = TypeVar('Out', default=Any)
In_contra = TypeVar('In_contra', contravariant=True, default=Any)
Out_co = TypeVar('Out_co', covariant=True, default=Any)

Cursor: TypeAlias = int | tuple['Cursor', ...]
Pair: TypeAlias = tuple[T, Cursor]
Pairs: TypeAlias = Iterator[Pair[T]]

START: Cursor = 0  # the beginning of every stream, whatever its cursors look like


def cursor_of(value: Any) -> Cursor:
    """The cursor from its JSON form, in which tuples are lists; checked.

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
    """A cursor in the form that JSON has for it: the inverse of ``cursor_of``.

    Examples
    --------
    >>> as_lists((3, (1, 2)))
    [3, [1, 2]]
    """
    return [as_lists(part) for part in cursor] if isinstance(cursor, tuple) else cursor


def checked_index(cursor: Cursor, owner: object, length: int | None = None) -> int:
    """A cursor that is a number of values, checked: an int, at most ``length``."""
    if not isinstance(cursor, int):
        raise ValueError(f'the cursor {cursor!r} is not one of {code(owner)}, whose cursors are ints')
    if length is not None and cursor > length:
        raise ValueError(f'the cursor {cursor!r} is not one of {code(owner)}, which has {length} values')
    return cursor


def split_cursor(cursor: Cursor, kinds: Sequence[type | None], owner: object) -> tuple[Any, ...]:
    """The parts of a cursor that is a tuple, checked: each of the type in ``kinds``, or any where that is ``None``.

    ``START`` splits into the starts of the parts.

    Examples
    --------
    >>> split_cursor((3, (1, 2)), [int, None], owner='take(9)'), split_cursor(START, [int, None], owner='take(9)')
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
    """The values of an iterable after the first ``done``, each with its number, counted from 1, as its cursor."""
    # Unlike zip, which keeps its last tuple for reuse, and so the value in it, map holds nothing.
    yield from map(lambda value, number: (value, number), drop_first(done, iter(make())), count(done + 1))


def drop_first(done: int, values: Iterator[T]) -> Iterator[T]:
    """The values after the first ``done``, which are computed and dropped; shows the progress."""
    skipped = ilen(with_progress(islice(values, done), 'resuming by replay', done)) if done else 0
    if skipped < done:
        raise ValueError(f'the cursor {done} is past the end, after {skipped} values')
    return values


def with_prefix(number: int, pair: Pair[T]) -> Pair[T]:
    """The pair with the cursor ``(number, cursor)``."""
    return pair[0], (number, pair[1])
