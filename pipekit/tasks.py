"""What is done to each value, as one function of a value and its cursor that may be called in any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .cursors import Cursor, Pair
from .display import code
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
        self.key = key
        self._local = threading.local()  # a generator serves one thread

    def __call__(self, pair: Pair[Any], begin: Callable[[], object] = int) -> Pair[Any]:
        begin()
        if not hasattr(self._local, 'function'):
            self._local.function = function_of_pairs(self._parts, self.key)
        result: Pair[Any] = self._local.function(pair)
        return result

    def keyed(self, key: Key) -> Task:
        """The same with another key."""
        return Task(self._parts, key)

    @property
    def identity(self) -> tuple[Any, ...]:
        """What is equal for tasks that differ in their key alone."""
        return tuple((id(part.function), part.seed, part.ordinal) for part in self._parts)

    @property
    def functions(self) -> list[Callable[..., Any]]:
        """The functions of the parts."""
        return [part.function for part in self._parts]

    def values(self, pair: Pair[Any]) -> Any:
        """The value, without its cursor."""
        return pair[0]

    def doing(self, pair: Pair[Any], step: int) -> str:
        """What is done to a pair, in words.

        Examples
        --------
        >>> Task([Part(abs, None, 0), Part(float, None, 0)], key=()).doing((-3, 1), step=1)
        'abs, float of -3 (cursor 1)'
        """
        value, cursor = pair
        return f'{", ".join(map(code, self.functions))} of {code(value)} (cursor {code(cursor)})'

    def __reduce__(self) -> tuple[Any, ...]:
        return Task, (self._parts, self.key)


class Chunk(NamedTuple):
    """What a batch is to be made of."""

    pairs: list[Pair[Any]]
    is_whole: bool  # whether a batch is to be made of them at all, or they are to be tried only


class BatchTask:
    """One task of several: of each of some pairs, and of the list that these make.

    Examples
    --------
    >>> task = BatchTask(Task([Part(abs, None, 0)], ()), Task([Part(sum, None, 0)], ()))
    >>> task(Chunk([(-3, 1), (4, 2)], is_whole=True))
    (7, 2)
    """

    def __init__(self, each: Task, whole: Task):
        self._each = each
        self._whole = whole
        self.key = each.key

    def __call__(self, chunk: Chunk, begin: Callable[[], object] = int) -> Pair[Any] | None:
        values = [self._each(pair, begin)[0] for pair in chunk.pairs]
        return self._whole((values, chunk.pairs[-1][1]), begin) if chunk.is_whole else None

    def keyed(self, key: Key) -> BatchTask:
        """The same with another key."""
        return BatchTask(self._each.keyed(key), self._whole.keyed(key))

    @property
    def identity(self) -> tuple[Any, ...]:
        """What is equal for tasks that differ in their key alone."""
        return self._each.identity, self._whole.identity

    @property
    def functions(self) -> list[Callable[..., Any]]:
        """The functions of all parts."""
        return self._each.functions + self._whole.functions

    def values(self, chunk: Chunk) -> list[Any]:
        """The values, without their cursors."""
        return [value for value, _ in chunk.pairs]

    def doing(self, chunk: Chunk, step: int) -> str:
        """What is done in a step, in words."""
        if 0 < step <= len(chunk.pairs):
            return self._each.doing(chunk.pairs[step - 1], 1)
        whole = ', '.join(map(code, self._whole.functions))
        return f'{whole} of the batch up to the cursor {code(chunk.pairs[-1][1])}'

    def __reduce__(self) -> tuple[Any, ...]:
        return BatchTask, (self._each, self._whole)


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
