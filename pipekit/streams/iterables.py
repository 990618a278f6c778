"""What users give as a source, as streams: sequences, iterables, iterators, functions that make them."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from operator import itemgetter
from typing import Any

from ..describing.descriptions import Description, FactoryCall
from ..describing.display import code
from ..errors import NotResumable
from .context import Context
from .cursors import START, Cursor, Out_co, Pairs, T, enumerate_from, index_of
from .stream import Source, Stream, StreamIterator, counting


def source_of(iterable: Any) -> Stream[Any]:
    """The stream of anything that can be iterated over, or of a function that returns such.

    Examples
    --------
    >>> list(source_of('abc')), list(source_of(lambda: iter('abc')))
    (['a', 'b', 'c'], ['a', 'b', 'c'])
    """
    if isinstance(iterable, Stream):
        return iterable
    if isinstance(iterable, StreamIterator) and iterable.stream.reopens:
        return _continued(iterable.stream, iterable.cursor)
    if isinstance(iterable, Description) and not is_sequence(iterable):
        raise TypeError(f'expected a source, got {iterable!r}; did you mean pipeline(source, {iterable!r})?')
    source = _wrapped(iterable)
    if isinstance(iterable, StreamIterator):  # over an iterator: it is read as it is, but its seeds count
        source.seeds = iterable.stream.seeds
    source._call = FactoryCall(source_of, (iterable,), {})
    return source


def is_sequence(value: object) -> bool:
    """Whether something has ``len`` and ``[]`` and is no mapping.

    Examples
    --------
    >>> is_sequence([1]), is_sequence({1: 2}), is_sequence({1})
    (True, False, False)
    """
    if isinstance(value, type) or hasattr(value, 'keys') or not hasattr(value, '__getitem__'):
        return False
    try:
        len(value)  # type: ignore[arg-type]
    except TypeError:  # an array without axes has the method, and raises
        return False
    return True


def takes_nothing(func: Callable[..., Any], unknown: bool) -> bool:
    """Whether a function can be called without arguments; ``unknown`` of a builtin without a signature.

    Examples
    --------
    >>> takes_nothing(lambda n=3: n, unknown=False), takes_nothing(lambda n: n, unknown=False)
    (True, False)
    """
    toolz = sys.modules.get('toolz')  # whoever has a function of its has loaded it, which takes a while
    if toolz is not None and isinstance(func, toolz.curry):  # waits for an argument, though its signature has defaults
        return False
    try:
        signature = inspect.signature(func)
    except (TypeError, ValueError):
        return unknown
    try:
        signature.bind()
    except TypeError:
        return False
    return True


def opened_once(name: str) -> str:
    """What to say of an iterator, or of a stream over one, that would have to be opened again.

    Examples
    --------
    >>> opened_once('numbers')[:51]
    'numbers is an iterator and can be opened only once;'
    """
    return (
        f'{name} is an iterator and can be opened only once; '
        'pass a sequence, or a function without arguments that makes a new iterator'
    )


def _wrapped(iterable: Any) -> Source[Any]:
    if isinstance(iterable, Iterator):
        return _once_only(iterable)
    if is_sequence(iterable):
        indices = counting(iterable, partial(_indices_after, iterable))
        return _Wrapped(partial(_open_sequence, iterable), indices=indices)
    if isinstance(iterable, Iterable) and getattr(iterable, 'ndim', 1) != 0:
        return _Wrapped(lambda cursor, _: enumerate_from(lambda: iterable, index_of(cursor, iterable)), replays=True)
    if callable(iterable) and not isinstance(iterable, type):
        if not takes_nothing(iterable, unknown=True):
            name = code(iterable)
            raise TypeError(f'expected a source, got {name}, which takes arguments; did you mean apply({name})?')
        return _Wrapped(partial(_open_made, iterable), replays=True)
    raise TypeError(
        f'expected a source, got {code(iterable)}; a source is a sequence, an iterable, an iterator, '
        'or a function without arguments that returns one'
    )


class _Wrapped(Source[Out_co]):
    def __repr__(self) -> str:
        return code(self._call.args[0])


def _open_sequence(sequence: Any, cursor: Cursor, context: Context) -> Pairs[Any]:
    start = index_of(cursor, sequence, len(sequence))
    return ((sequence[index], index + 1) for index in range(start, len(sequence)))


def _indices_after(sequence: Any, cursor: Cursor, context: Context) -> Iterator[int]:
    return iter(range(index_of(cursor, sequence, len(sequence)), len(sequence)))


def _open_made(make: Callable[[], Iterable[T]], cursor: Cursor, context: Context) -> Pairs[T]:
    def made() -> Iterable[T]:
        values = make()
        if isinstance(values, Stream):  # which draws anew in every pass
            return map(itemgetter(0), values.open(START, context))
        return values

    return enumerate_from(made, index_of(cursor, make))


def _once_only(iterator: Iterator[T]) -> Source[T]:
    unopened = [iterator]
    name = code(iterator)

    def open_at(cursor: Cursor, context: Context) -> Pairs[T]:
        if cursor != START or not unopened:
            raise NotResumable(f'the source {opened_once(name)}')
        values = unopened.pop()
        return enumerate_from(lambda: values, 0)

    return _Wrapped(open_at, reopens=False)


def _continued(stream: Stream[T], start: Cursor) -> Stream[T]:
    if start == START:
        return stream
    if isinstance(stream.source, _Continued) and not stream.stages:  # its cursors are those of what it continues
        stream = stream.source._call.args[0]

    def open_at(cursor: Cursor, context: Context) -> Pairs[T]:
        # In a later pass the stream is another one, which has not begun.
        in_first_pass = not any(isinstance(part, tuple) for part in context.key)
        return stream.open(start if cursor == START and in_first_pass else cursor, context)

    source: Source[T] = _Continued(open_at, seeds=stream.seeds, reopens=stream.reopens)
    source._call = FactoryCall(_continued, (stream, start), {})
    return source


class _Continued(Source[Out_co]):
    def __repr__(self) -> str:
        stream, start = self._call.args
        return f'{stream!r}.resume({start!r})'

    def fingerprint(self) -> list[str]:
        stream, start = self._call.args
        return [*stream.fingerprint(), f'resumed at {start!r}']
