"""Calls of the users' functions on values with their cursors: several as one function, for one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from more_itertools import first

from .activities import Activity, read_by
from .cursors import START, Cursor, Pair, Pairs
from .error_notes import UNKNOWN, StageLocation, add_note, raise_noted
from .failures import Attempt, Result
from .metering import OFF, Recorder
from .on_error import OnError, Skip, handled, may_skip
from .randomness import Generators, Key


class Call(NamedTuple):
    """What is to be done to a value: a function, what its generators are keyed by if it is random, and its stage."""

    function: Callable[..., Any]
    seed: int | None = None
    ordinal: int = 0
    location: StageLocation = UNKNOWN
    on_error: tuple[OnError, ...] = ()

    @property
    def skips(self) -> bool:
        """Whether samples may be skipped or replaced."""
        return may_skip(self.on_error)

    @property
    def is_plain(self) -> bool:
        """Whether it neither draws random numbers nor handles errors."""
        return self.seed is None and not self.on_error

    def with_cursor(self, key: Key) -> Callable[[Any, Cursor], Any]:
        """The function, of a value and its cursor, with a generator where it is random."""
        function = self.function
        if self.seed is None:
            return lambda value, cursor: function(value)
        generators = Generators(self.seed, (self.ordinal, *key))
        return lambda value, cursor: function(value, rng=generators.at(cursor))


Pause: TypeAlias = Callable[[float], object] | None
Located: TypeAlias = tuple[Any, Cursor, Cursor]  # a value, its cursor, and the cursor before it


def function_of_calls(
    calls: Sequence[Call], key: Key, start: Cursor = START, recorder: Recorder = OFF, pause: Pause = None
) -> Callable[..., Any]:
    """The calls as one function of a pair, for one thread; of results, where samples may be skipped or replaced.

    Unless it is given the cursor before a value, it takes the values for consecutive ones, from ``start`` on. While the
    recorder is on, it records the calls.

    Examples
    --------
    >>> function_of_calls([Call(float), Call(abs)], key=())((-3, 1))
    (3.0, 1)
    """
    calls = [call._replace(location=call.location.at(key)) for call in calls]
    full = _full_function(calls, key, start, recorder, pause)
    return _plain_function(calls, start, recorder, full) if all(call.is_plain for call in calls) else full


class _Step(NamedTuple):
    function: Callable[[Any, Cursor], Any]
    location: StageLocation
    path: str
    on_error: tuple[OnError, ...]
    attempt: Attempt | None


def _full_function(
    calls: Sequence[Call], key: Key, start: Cursor, recorder: Recorder, pause: Pause
) -> Callable[..., Any]:
    last = start
    skips = any(call.skips for call in calls)
    steps = [_step(call, key) for call in calls]

    @read_by(_activity_of_step)
    def of_pair(pair: Pair[Any], before: Cursor | None = None) -> Any:
        nonlocal last
        value, cursor = pair
        attempts: list[Attempt] = []
        is_skipped = False
        step = steps[0]
        try:
            for step in steps:
                call = partial(recorder.call, step.path, step.function) if recorder.is_recording else step.function
                if not step.on_error:
                    value = call(value, cursor)
                    continue
                sample = value
                value, error, is_skipped = handled(step.on_error, partial(call, sample, cursor), sample, pause)
                if error is not None:
                    note = step.location.note(sample, cursor, last if before is None else before, is_handled=True)
                    add_note(error, note)
                if (attempt := step.attempt) is not None:
                    attempts.append(attempt if error is None else attempt._replace(sample=sample, exception=error))
                if is_skipped:
                    break
        except BaseException as unhandled:
            raise_noted(unhandled, step.location, value, cursor, last if before is None else before)
        last = cursor
        return Result(value, cursor, attempts, is_skipped) if skips else (value, cursor)

    return of_pair


def _plain_function(
    calls: Sequence[Call], start: Cursor, recorder: Recorder, recorded: Callable[..., Any]
) -> Callable[..., Any]:
    # The same, faster, of calls that neither draw random numbers nor handle errors.
    last, first_call = start, calls[0]
    first_function = first_call.function
    others = [(call.function, call) for call in calls[1:]]

    @read_by(_activity_of_call)
    def of_pair(pair: Pair[Any], before: Cursor | None = None) -> Pair[Any]:
        nonlocal last
        value, cursor = pair
        if recorder.is_recording:
            made: Pair[Any] = recorded(pair, last if before is None else before)
            last = cursor
            return made
        call = first_call
        try:
            value = first_function(value)
            for function, call in others:  # noqa: B007  # the note names the last call
                value = function(value)
        except BaseException as error:
            raise_noted(error, call.location, value, cursor, last if before is None else before)
        last = cursor
        return value, cursor

    return of_pair


def _activity_of_step(names: Any) -> Activity:
    before = names['last'] if names['before'] is None else names['before']
    return Activity(names['step'].location, names['value'], names['cursor'], before)


def _activity_of_call(names: Any) -> Activity:
    before = names['last'] if names['before'] is None else names['before']
    return Activity(names['call'].location, names['value'], names['cursor'], before)


def _step(call: Call, key: Key) -> _Step:
    path = call.location.path
    policy = first((policy for policy in call.on_error if isinstance(policy, Skip)), None)
    attempt = None if policy is None else Attempt(path, call.location, policy)
    return _Step(call.with_cursor(key), call.location, path, call.on_error, attempt)


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
