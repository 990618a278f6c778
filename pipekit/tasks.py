"""What is done to each value, as one function of a value and its cursor that may be called in any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .cursors import Cursor, Pair
from .randomness import Key
from .streams import Context

STRAY_STOP = 'a function raised StopIteration, which would end the data silently'


class Part(NamedTuple):
    """What is to be done to a value: a function, and what its generators are keyed by if it is random."""

    function: Callable[..., Any]
    seed: int | None
    ordinal: int


class Task:
    """A function of a pair that may be called in any thread, and be pickled where its parts may.

    Examples
    --------
    >>> Task([Part(abs, None, 0)], key=())((-3, 1))
    (3, 1)
    """

    def __init__(self, parts: Sequence[Part], key: Key):
        self._parts = parts
        self._key = key
        self._local = threading.local()  # a generator serves one thread

    def __call__(self, pair: Pair[Any]) -> Pair[Any]:
        if not hasattr(self._local, 'function'):
            self._local.function = function_of_pairs(self._parts, self._key)
        result: Pair[Any] = self._local.function(pair)
        return result

    def __reduce__(self) -> tuple[Any, ...]:
        return Task, (self._parts, self._key)


def function_of_pairs(parts: Sequence[Part], key: Key) -> Callable[[Pair[Any]], Pair[Any]]:
    """The parts as one function, for one thread.

    Examples
    --------
    >>> function_of_pairs([Part(abs, None, 0), Part(float, None, 0)], key=())((-3, 1))
    (3.0, 1)
    """
    if any(part.seed is not None for part in parts):
        functions = [_with_cursor(part, Context(key, part.ordinal)) for part in parts]

        def random(pair: Pair[Any]) -> Pair[Any]:
            value, cursor = pair
            try:
                for function in functions:
                    value = function(value, cursor)
            except StopIteration as error:
                raise RuntimeError(STRAY_STOP) from error
            return value, cursor

        return random

    first, *others = [part.function for part in parts]

    def plain(pair: Pair[Any]) -> Pair[Any]:
        value, cursor = pair
        try:
            value = first(value)
            for function in others:
                value = function(value)
        except StopIteration as error:
            raise RuntimeError(STRAY_STOP) from error
        return value, cursor

    return plain


def _with_cursor(part: Part, context: Context) -> Callable[[Any, Cursor], Any]:
    function = part.function
    if part.seed is None:
        return lambda value, cursor: function(value)
    generators = context.generators(part.seed)
    return lambda value, cursor: function(value, rng=generators.at(cursor))
