"""Calls of users' functions on values and their cursors, several of them composed into one function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, repeat
from typing import Any, NamedTuple, TypeAlias

from .activities import Activity, activity_from
from .cursors import START, Cursor, Pair, Pairs
from .error_notes import UNKNOWN, StageLocation, add_note, raise_with_note
from .failures import Attempt, Result
from .metering import OFF, Recorder
from .on_error import Missing, OnError, Skip, call_with_policies, failures_handled, may_skip
from .randomness import Generators, Key, Ordinal


class Call(NamedTuple):
    """A function to call on a value, and its stage.

    Attributes
    ----------
    seed, ordinal
        What the generators of a random function are keyed by; the seed of any other function is ``None``.
    """

    function: Callable[..., Any]
    seed: int | None = None
    ordinal: Ordinal = 0
    location: StageLocation = UNKNOWN
    on_error: tuple[OnError, ...] = ()

    @property
    def skips(self) -> bool:
        """Whether samples may be skipped or replaced."""
        return may_skip(self.on_error)

    @property
    def is_plain(self) -> bool:
        """Whether the call neither draws random numbers nor handles errors."""
        return self.seed is None and not self.on_error

    def function_of_cursor(self, key: Key) -> Callable[[Any, Cursor], Any]:
        """The function as one of a value and its cursor, which passes the cursor's generator if it is random."""
        function = self.function
        if self.seed is None:
            return lambda value, cursor: function(value)
        generators = Generators(self.seed, (self.ordinal, *key))
        return lambda value, cursor: function(value, rng=generators.at(cursor))


class Crashed(NamedTuple):
    """A value at which worker processes died: the first function that handles the error fails with it this many times.

    Which of several functions they died in is not known.
    """

    value: Any
    error: Exception
    times: int

    @staticmethod
    def once_more(value: Any, error: Exception) -> Crashed:
        """The value, after another crash."""
        return Crashed(uncrashed(value), error, value.times + 1 if isinstance(value, Crashed) else 1)

    def handled_by(self, calls: Iterable[Call]) -> bool:
        """Whether the policies of some call handle so many failures in a row."""
        handled = (failures_handled(call.on_error, self.error) for call in calls)
        return self.times <= next(filter(None, handled), 0)


def uncrashed(value: Any) -> Any:
    """The value itself."""
    return value.value if isinstance(value, Crashed) else value


Pause: TypeAlias = Callable[[float], object] | None
Located: TypeAlias = tuple[Any, Cursor, Cursor]  # a value, its cursor, and the cursor before it


def function_of_calls(
    calls: Sequence[Call], key: Key, start: Cursor = START, recorder: Recorder = OFF, pause: Pause = None
) -> Callable[..., Any]:
    """The calls composed into one function of a pair, to be used by one thread.

    The function returns a pair, or a ``Result`` if samples may be skipped or replaced. It may be passed the cursor
    before the value; otherwise it takes its values to be consecutive, the first one coming after ``start``.

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

    @activity_from(_activity)
    def of_pair(pair: Pair[Any], before: Cursor | None = None) -> Any:
        nonlocal last
        value, cursor = pair
        before, last = last if before is None else before, cursor
        attempts: list[Attempt] = []
        crash, value = (value, value.value) if value.__class__ is Crashed else (None, value)
        step = steps[0]
        try:
            for step in steps:
                call = partial(recorder.call, step.path, step.function) if recorder.is_recording else step.function
                if not step.on_error:
                    value = call(value, cursor)
                    continue
                sample, wait = value, pause
                if crash is not None and failures_handled(step.on_error, crash.error):
                    call, wait, crash = _failing_first(call, crash), float, None  # to start a process took long enough
                value, error, policy = call_with_policies(step.on_error, partial(call, sample, cursor), sample, wait)
                if error is not None:
                    add_note(error, step.location.note(sample, cursor, before, is_handled=True))
                if (attempt := step.attempt) is not None:
                    attempts.append(attempt if policy is None else attempt.failed(policy, sample, error))
                if value is Missing.SKIPPED:
                    break
        except BaseException as unhandled:
            raise_with_note(unhandled, step.location, value, cursor, before)
        return Result(value, cursor, attempts) if skips else (value, cursor)

    return of_pair


def _plain_function(
    calls: Sequence[Call], start: Cursor, recorder: Recorder, full: Callable[..., Any]
) -> Callable[..., Any]:
    # A faster version of `full`, which it calls while the recorder is recording.
    last, first_call = start, calls[0]
    first_function = first_call.function
    others = [(call.function, call) for call in calls[1:]]

    @activity_from(_activity)
    def of_pair(pair: Pair[Any], before: Cursor | None = None) -> Any:
        nonlocal last
        value, cursor = pair
        before, last = last if before is None else before, cursor
        if recorder.is_recording:
            return full(pair, before)
        step = first_call
        try:
            value = first_function(value)
            for function, step in others:  # noqa: B007  # the note names the last call
                value = function(value)
        except BaseException as error:
            raise_with_note(error, step.location, value, cursor, before)
        return value, cursor

    return of_pair


def _failing_first(call: Callable[..., Any], crash: Crashed) -> Callable[..., Any]:
    calls: Iterator[Callable[..., Any]] = chain(repeat(partial(_fail, crash.error), crash.times), repeat(call))

    def call_next(value: Any, cursor: Cursor) -> Any:
        return next(calls)(value, cursor)

    return call_next


def _fail(error: Exception, value: Any, cursor: Cursor) -> Any:
    raise error


def _activity(local: Mapping[str, Any]) -> Activity:
    return Activity(local['step'].location, local['value'], local['cursor'], local['before'])


def _step(call: Call, key: Key) -> _Step:
    path = call.location.path
    policies = tuple(policy for policy in call.on_error if isinstance(policy, Skip))
    attempt = Attempt(path, call.location, policies) if policies else None
    return _Step(call.function_of_cursor(key), call.location, path, call.on_error, attempt)


def with_previous_cursor(pairs: Pairs[Any], start: Cursor) -> Iterator[Located]:
    """The pairs, each with the cursor before it."""
    last = start

    def with_last(pair: Pair[Any]) -> Located:
        nonlocal last
        before, last = last, pair[1]
        return *pair, before

    return map(with_last, pairs)
