"""What is done to each value, as one function that may be called in any thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from ..describing.display import brief, code
from ..memory.blocks import BlockPool, allocating_from
from ..streams.cursors import START, Cursor, Pair, Pairs
from ..streams.error_notes import UNKNOWN, StageLocation, add_note, raise_noted
from ..streams.failures import Attempt, Result
from ..streams.metering import OFF, Recorder
from ..streams.on_error import OnError, Skip, handled, may_skip
from ..streams.randomness import Key
from ..streams.stream import Context


class Call(NamedTuple):
    """What is to be done to a value: a function, what its generators are keyed by if it is random, and its stage."""

    function: Callable[..., Any]
    seed: int | None = None
    ordinal: int = 0
    place: StageLocation = UNKNOWN
    on_error: tuple[OnError, ...] = ()

    @property
    def skips(self) -> bool:
        """Whether samples may be skipped or replaced."""
        return may_skip(self.on_error)


Pause: TypeAlias = Callable[[float], object] | None
Located: TypeAlias = tuple[Any, Cursor, Cursor]  # a value, its cursor, and the cursor before it


class Task:
    """A function of a located value that may be called in any thread, and be pickled where its parts may.

    Examples
    --------
    >>> Task([Call(abs)], key=())((-3, 1, 0))
    (3, 1)
    """

    def __init__(self, parts: Sequence[Call], key: Key, *, is_measured: bool = False):
        self._parts = parts
        self.is_measured = is_measured
        self.key = key
        # These stay in this process: how to wait before a function is called again, and what to write batches into.
        self.pause: Pause = None
        self.memory: BlockPool | None = None
        self._local = threading.local()  # a generator serves one thread

    def __call__(self, located: Located, begin: Callable[[], object] = int) -> Any:
        begin()
        value, cursor, before = located
        local = self._local
        if not hasattr(local, 'function'):
            local.recorder = Recorder(_lane(), on=True) if self.is_measured else OFF
            function = function_of_parts(self._parts, self.key, recorder=local.recorder, pause=self.pause)
            local.function = function if self.memory is None else allocating_from(self.memory, function)
        result = local.function((value, cursor), before)
        if not self.is_measured:
            return result
        calls, local.recorder.calls = local.recorder.calls, []
        return result, calls

    def keyed(self, key: Key) -> Task:
        """The same with another key."""
        return Task(self._parts, key, is_measured=self.is_measured)

    @property
    def identity(self) -> tuple[Any, ...]:
        """What is equal for tasks that differ in their key alone."""
        return tuple((id(part.function), *part[1:]) for part in self._parts)

    @property
    def functions(self) -> list[Callable[..., Any]]:
        """The functions of the parts."""
        return [part.function for part in self._parts]

    def values(self, located: Located) -> Any:
        """The value, without its cursors."""
        return located[0]

    def value_of(self, outcome: Any) -> Any:
        """The value in what it returns."""
        return (outcome[0] if self.is_measured else outcome)[0]

    def doing(self, located: Located, step: int) -> str:
        """What is done to a value, in words.

        Examples
        --------
        >>> Task([Call(abs), Call(float)], key=()).doing((-3, 1, 0), step=1)
        'abs, float of -3 (cursor 1)'
        """
        value, cursor, _ = located
        return f'{", ".join(map(code, self.functions))} of {brief(value)} (cursor {cursor})'

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Task, is_measured=self.is_measured), (self._parts, self.key)


class PendingBatch(NamedTuple):
    """What a batch is to be made of."""

    pairs: list[Pair[Any]]
    before: Cursor  # before the first of them
    is_whole: bool  # whether a batch is to be made of them at all, or they are to be tried only

    @property
    def located(self) -> list[Located]:
        """The values of the pairs."""
        before = [self.before, *(cursor for _, cursor in self.pairs)]
        return [(value, cursor, last) for (value, cursor), last in zip(self.pairs, before, strict=False)]


class BatchTask:
    """One task of several: of each of some pairs, and of the list that these make.

    Examples
    --------
    >>> task = BatchTask(Task([Call(abs)], ()), Task([Call(sum)], ()))
    >>> task(PendingBatch([(-3, 1), (4, 2)], before=0, is_whole=True))
    (7, 2)
    """

    def __init__(self, each: Task, whole: Task):
        self._each = each
        self._whole = whole
        self._is_measured = each.is_measured
        self.key = each.key

    def __call__(self, chunk: PendingBatch, begin: Callable[[], object] = int) -> Any:
        made = [self._each(located, begin) for located in chunk.located]
        calls: list[Any] = []
        if self._is_measured:
            calls = [call for _, some in made for call in some]
            made = [pair for pair, _ in made]
        values = [value for value, _ in made]
        del made
        whole = self._whole((values, chunk.pairs[-1][1], chunk.before), begin) if chunk.is_whole else None
        if not self._is_measured:
            return whole
        return (whole[0], calls + whole[1]) if whole else (None, calls)

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

    def values(self, chunk: PendingBatch) -> list[Any]:
        """The values, without their cursors."""
        return [value for value, _ in chunk.pairs]

    def value_of(self, outcome: Any) -> Any:
        """The batch in what it returns."""
        return self._whole.value_of(outcome)

    def doing(self, chunk: PendingBatch, step: int) -> str:
        """What is done in a step, in words."""
        if 0 < step <= len(chunk.pairs):
            return self._each.doing(chunk.located[step - 1], 1)
        whole = ', '.join(map(code, self._whole.functions))
        return f'{whole} of the batch up to the cursor {chunk.pairs[-1][1]}'

    def __reduce__(self) -> tuple[Any, ...]:
        return BatchTask, (self._each, self._whole)


def function_of_parts(
    parts: Sequence[Call], key: Key, start: Cursor = START, recorder: Recorder = OFF, pause: Pause = None
) -> Callable[..., Any]:
    """The parts as one function of a pair, for one thread: of an outcome, where a sample may be skipped or replaced.

    Unless it is told the cursor before a value, it takes the values for one after the other, from ``start`` on. While
    the recorder is on, it is told of the calls.

    Examples
    --------
    >>> function_of_parts([Call(float), Call(abs)], key=())((-3, 1))
    (3.0, 1)
    """
    if any(part.skips for part in parts):
        return function_of_results(parts, key, start, recorder, pause)
    if any(part.seed is not None or part.on_error for part in parts):
        return function_of_pairs(parts, key, start, recorder, pause)
    return plain_function_of_pairs(parts, key, start, recorder)


def function_of_results(
    parts: Sequence[Call], key: Key, start: Cursor, recorder: Recorder, pause: Pause = None
) -> Callable[..., Result]:
    """The parts as one function of a pair, for one thread, which says what it has skipped or replaced.

    Examples
    --------
    >>> from pipekit import skip
    >>> function_of_results([Call(float, on_error=(skip(ValueError),))], (), START, OFF)(('x', 1)).is_skipped
    True
    """
    last = start
    steps = []
    for part in parts:
        function = _with_cursor(part._replace(on_error=()), Context(key, part.ordinal))
        place = part.place.at(key)
        skip = next((policy for policy in part.on_error if isinstance(policy, Skip)), None)
        steps.append((function, place, part.on_error, None if skip is None else Attempt(place.path, place.label, skip)))

    def outcome(pair: Pair[Any], before: Cursor | None = None) -> Result:
        nonlocal last
        value, cursor = pair
        trials = []
        is_skipped = False
        for function, place, on_error, trial in steps:
            sample = value
            call = partial(recorder.call, place.path, function) if recorder.on else function
            try:
                value, error, is_skipped = handled(on_error, partial(call, sample, cursor), sample, pause)
            except BaseException as unhandled:
                raise_noted(unhandled, place, sample, cursor, last if before is None else before)
            if error is not None:
                add_note(error, place.note(sample, cursor, last if before is None else before))
            if trial is not None:
                trials.append(trial if error is None else trial._replace(sample=sample, exception=error))
            if is_skipped:
                break
        last = cursor
        return Result(value, cursor, trials, is_skipped)

    return outcome


def function_of_pairs(
    parts: Sequence[Call], key: Key, start: Cursor, recorder: Recorder, pause: Pause = None
) -> Callable[..., Pair[Any]]:
    """The parts as one function of a pair, for one thread.

    Examples
    --------
    >>> function_of_pairs([Call(float), Call(abs)], (), START, OFF)((-3, 1))
    (3.0, 1)
    """
    last, first = start, parts[0]
    steps = [(_with_cursor(part, Context(key, part.ordinal), pause), part, part.place.at(key).path) for part in parts]

    def of_pair(pair: Pair[Any], before: Cursor | None = None) -> Pair[Any]:
        nonlocal last
        value, cursor = pair
        part = first
        try:
            for function, part, path in steps:  # noqa: B007  # the note names the last part
                value = recorder.call(path, function, value, cursor) if recorder.on else function(value, cursor)
        except BaseException as error:
            raise_noted(error, part.place.at(key), value, cursor, last if before is None else before)
        last = cursor
        return value, cursor

    return of_pair


def plain_function_of_pairs(
    parts: Sequence[Call], key: Key, start: Cursor, recorder: Recorder
) -> Callable[..., Pair[Any]]:
    """The same, faster, of parts that neither are random nor handle errors.

    Examples
    --------
    >>> plain_function_of_pairs([Call(float), Call(abs)], (), START, OFF)((-3, 1))
    (3.0, 1)
    """
    last, first = start, parts[0]
    first_function = first.function
    others = [(part.function, part) for part in parts[1:]]
    recorded = function_of_pairs(parts, key, start, recorder)

    def of_pair(pair: Pair[Any], before: Cursor | None = None) -> Pair[Any]:
        nonlocal last
        value, cursor = pair
        if recorder.on:
            made = recorded(pair, last if before is None else before)
            last = cursor
            return made
        part = first
        try:
            value = first_function(value)
            for function, part in others:  # noqa: B007  # the note names the last part
                value = function(value)
        except BaseException as error:
            raise_noted(error, part.place.at(key), value, cursor, last if before is None else before)
        last = cursor
        return value, cursor

    return of_pair


def with_previous_cursor(pairs: Pairs[Any], start: Cursor) -> Iterator[Located]:
    """The pairs, each with the cursor before it.

    Examples
    --------
    >>> [before for _, _, before in with_previous_cursor(iter([('a', 1), ('b', 2)]), start=0)]
    [0, 1]
    """
    last = start

    def with_last(pair: Pair[Any]) -> Located:
        nonlocal last
        before, last = last, pair[1]
        return *pair, before

    return map(with_last, pairs)


def _with_cursor(part: Call, context: Context, pause: Pause = None) -> Callable[[Any, Cursor], Any]:
    function = part.function
    if part.on_error:
        call = _with_cursor(part._replace(on_error=()), context)
        return lambda value, cursor: handled(part.on_error, partial(call, value, cursor), value, pause)[0]
    if part.seed is None:
        return lambda value, cursor: function(value)
    generators = context.generators(part.seed)
    return lambda value, cursor: function(value, rng=generators.at(cursor))


def _lane() -> str:
    thread = threading.current_thread()
    return f'process {os.getpid()}' if thread is threading.main_thread() else thread.name
