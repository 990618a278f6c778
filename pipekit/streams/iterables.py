"""Streams of what users pass as a source: sequences, iterables, iterators, and functions that return them."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from operator import itemgetter
from typing import Any

from toolz import curry

from ..describing.descriptions import Description, FactoryCall
from ..describing.display import code
from ..errors import NotResumable
from .context import Context
from .cursors import START, Cursor, Out_co, Pairs, T, checked_index, enumerate_from
from .index_stream import IndexStream, NumberedIndices, numbered
from .stream import Source, Stream, StreamIterator


def source_of(iterable: Any) -> Stream[Any]:
    """The stream of an iterable, or of a function without arguments that returns one.

    Examples
    --------
    >>> list(source_of('abc')), list(source_of(lambda: iter('abc')))
    (['a', 'b', 'c'], ['a', 'b', 'c'])
    """
    if isinstance(iterable, Stream):
        return iterable
    if isinstance(iterable, StreamIterator) and iterable.stream.reopens:
        return _resumed(iterable.stream, iterable.cursor)
    if isinstance(iterable, Description) and not is_sequence(iterable):
        raise TypeError(f'expected a source, got {iterable!r}; did you mean pipeline(source, {iterable!r})?')
    source = _new_source(iterable)
    if isinstance(iterable, StreamIterator):  # of a stream that opens only once: read as any iterator, but has seeds
        source.seeds = iterable.stream.seeds
    source._call = FactoryCall(source_of, (iterable,), {})
    return source


def is_sequence(value: object) -> bool:
    """Whether a value has ``len`` and ``[]`` and is not a mapping."""
    if isinstance(value, type) or hasattr(value, 'keys') or not hasattr(value, '__getitem__'):
        return False
    try:
        len(value)  # type: ignore[arg-type]
    except TypeError:  # a 0-dimensional array has the method, which raises
        return False
    except OverflowError as error:
        raise ValueError(f'a sequence as a source has at most {sys.maxsize} elements, got {code(value)}') from error
    return True


def needs_no_arguments(func: Callable[..., Any], unknown: bool) -> bool:
    """Whether a function can be called without arguments; ``unknown`` if it is a builtin without a signature."""
    if isinstance(func, curry):  # waits for an argument, even if all of its parameters have defaults
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


def single_use_message(name: str) -> str:
    """The end of an error message on an iterator that would have to be opened a second time."""
    return (
        f'{name} is an iterator and can be opened only once; '
        'pass a sequence, or a function without arguments that makes a new iterator'
    )


def _new_source(iterable: Any) -> Source[Any]:
    if isinstance(iterable, Iterator):
        return _single_use(iterable)
    if is_sequence(iterable):
        indices = numbered(iterable, partial(_all_indices, iterable))
        return _GivenSource(partial(_open_elements, indices), indices=indices)
    if isinstance(iterable, Iterable) and getattr(iterable, 'ndim', 1) != 0:
        is_set = isinstance(iterable, set | frozenset)
        return _GivenSource(partial(_open_returned, lambda: iterable, iterable), replays=True, is_ordered=not is_set)
    if callable(iterable) and (not isinstance(iterable, type) or _makes_values(iterable)):
        _check_not_async(iterable)
        if not needs_no_arguments(iterable, unknown=not isinstance(iterable, type)):
            name = code(iterable)
            remedy = f'{name}(...)' if isinstance(iterable, type) else f'apply({name})'
            raise TypeError(f'expected a source, got {name}, which takes arguments; did you mean {remedy}?')
        source = _GivenSource[Any](partial(_open_returned, iterable, iterable), replays=True)
        source.hides_stages = True
        return source
    raise TypeError(
        f'expected a source, got {code(iterable)}; a source is a sequence, an iterable, an iterator, '
        'or a function without arguments that returns one'
    )


def _makes_values(kind: type) -> bool:
    """Whether the objects of a class can be iterated over, and may have values though made without arguments."""
    return kind.__module__ != 'builtins' and (issubclass(kind, Iterable) or hasattr(kind, '__getitem__'))


def _check_not_async(func: Callable[..., Any]) -> None:
    if inspect.iscoroutinefunction(func) or inspect.isasyncgenfunction(func):
        raise TypeError(
            f'expected a source, got {code(func)}, which is async; pass a function that returns an iterable'
        )


class _GivenSource(Source[Out_co]):
    @property
    def length(self) -> float | None:  # type: ignore[override]
        return None if self.indices is None else len(self.indices.sequence)

    def __repr__(self) -> str:
        return code(self._call.args[0])


def _open_elements(indices: IndexStream, cursor: Cursor, context: Context) -> Pairs[Any]:
    sequence = indices.sequence
    return ((sequence[index], number) for index, number in indices.open_at(cursor, context))


def _all_indices(sequence: Any, cursor: Cursor, context: Context) -> NumberedIndices:
    checked_index(cursor, sequence, len(sequence))
    return NumberedIndices(range, len(sequence))


def _open_returned(make: Callable[[], Iterable[T]], owner: object, cursor: Cursor, context: Context) -> Pairs[T]:
    def values() -> Iterable[T]:
        returned = make()
        if isinstance(returned, Stream):  # opened in this context, so that each pass draws its own random numbers
            return map(itemgetter(0), returned.open(START, context))
        return returned

    return enumerate_from(values, checked_index(cursor, owner))


def _single_use(iterator: Iterator[T]) -> Source[T]:
    unopened = [iterator]
    name = code(iterator)

    def open_at(cursor: Cursor, context: Context) -> Pairs[T]:
        if cursor != START or not unopened:
            raise NotResumable(f'the source {single_use_message(name)}')
        values = unopened.pop()
        return enumerate_from(lambda: values, 0)

    return _GivenSource(open_at, reopens=False)


def _resumed(stream: Stream[T], start: Cursor) -> Stream[T]:
    if start == START:
        return stream
    if isinstance(stream.source, _ResumedSource) and not stream.stages:  # its cursors are those of the resumed stream
        stream = stream.source._call.args[0]

    def open_at(cursor: Cursor, context: Context) -> Pairs[T]:
        # Later passes are whole.
        in_first_pass = not any(isinstance(part, tuple) for part in context.key)
        return stream.open(start if cursor == START and in_first_pass else cursor, context)

    source: Source[T] = _ResumedSource(open_at, seeds=stream.seeds, reopens=stream.reopens)
    source._call = FactoryCall(_resumed, (stream, start), {})
    return source


class _ResumedSource(Source[Out_co]):
    hides_stages = True

    def __repr__(self) -> str:
        stream, start = self._call.args
        return f'{stream!r}.resume({start!r})'

    def fingerprint(self) -> list[str]:
        stream, start = self._call.args
        return [*stream.fingerprint(), f'resumed at {start!r}']
