"""What becomes of samples that a function fails on: tried again, replaced or skipped, counted, and within a budget."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

from .arguments import exceptions_of, function, natural_number, non_negative, positive_int
from .cursors import Cursor, Pair
from .descriptions import Description, described
from .display import code
from .errors import TooManyFailures
from .places import Place
from .sending import sendable_error
from .words import brief

T = TypeVar('T')

GRACE = 1000  # samples: a fraction of fewer of them would be none
KEPT, SHOWN = 100, 10

logger = logging.getLogger('pipekit')


class OnError(Description):
    """What to do about some errors of a function: what ``skip``, ``retry`` and ``replace`` return."""

    exceptions: tuple[type[Exception], ...]


OnErrors: TypeAlias = OnError | Sequence[OnError] | None


class Retry(OnError):
    """The description that ``retry`` returns."""

    def __init__(self, times: int, exceptions: tuple[type[Exception], ...], backoff: float):
        self.times = times
        self.exceptions = exceptions
        self.backoff = backoff


class Skip(OnError):
    """The description that ``skip`` and ``replace`` return: the sample is gone, or another one is in its place."""

    def __init__(
        self,
        exceptions: tuple[type[Exception], ...],
        budget: float | None,
        grace: int,
        substitute: Callable[[Any], Any] | None = None,
    ):
        self.exceptions = exceptions
        self.budget = budget
        self.grace = grace
        self.substitute = substitute

    def allows(self, failed: int, tried: int) -> bool:
        """Whether so many failures are within the budget."""
        if self.budget is None or isinstance(self.budget, int):
            return self.budget is None or failed <= self.budget
        return failed <= self.budget * max(tried, self.grace)


@described
def skip(*exceptions: type[Exception], budget: float | None = 0.01, grace: int = GRACE) -> Skip:
    """Leave out a sample that a function fails on: ``apply(load, on_error=skip(OSError))``.

    The others keep their order, cursors and random numbers. What is left out is counted, logged once for each kind of
    error, and kept in ``batches.failures``.

    Parameters
    ----------
    *exceptions
        The errors that this is for; any ``Exception`` by default.
    budget
        How many may fail: a fraction of those tried, from 0.0 to 1.0, or a number of samples, which is an int; ``None``
        for any number. More raise ``TooManyFailures``.
    grace
        Until so many have been tried, a fraction is one of this number.

    Raises
    ------
    TypeError, ValueError
        If an argument is none of these.

    Examples
    --------
    >>> from pipekit import apply, pipeline
    >>> inverses = pipeline([2, 0, 4], apply(lambda x: 1 / x, on_error=skip(ZeroDivisionError)))
    >>> list(inverses)
    [0.5, 0.25]
    """
    return Skip(exceptions_of('skip', exceptions), _budget(budget), positive_int('grace', grace))


@described
def replace(
    func: Callable[[Any], Any], *exceptions: type[Exception], budget: float | None = 0.01, grace: int = GRACE
) -> Skip:
    """Put what ``func`` makes of the sample in place of what a function has failed to make of it.

    Parameters
    ----------
    func
        A function of the sample that was not to be had: for ``unpack``, of the whole of it.
    *exceptions, budget, grace
        As for ``skip``.

    Examples
    --------
    >>> from pipekit import apply, pipeline
    >>> list(pipeline([2, 0, 4], apply(lambda x: 1 / x, on_error=replace(lambda x: 0.0))))
    [0.5, 0.0, 0.25]
    """
    function('func', func, 'a function of a sample')
    return Skip(exceptions_of('replace', exceptions), _budget(budget), positive_int('grace', grace), func)


@described
def retry(times: int, *exceptions: type[Exception], backoff: float = 0.0) -> Retry:
    """Call a function that fails again, up to ``times`` times, with the same random numbers.

    What then still fails is left to what comes after this: ``on_error=[retry(3, OSError), skip(OSError)]``.

    Parameters
    ----------
    times
        The largest number of calls after the first one.
    *exceptions
        The errors that this is for; any ``Exception`` by default.
    backoff
        How many seconds to wait before the second call; twice as long before each further one.

    Examples
    --------
    >>> from pipekit import apply, pipeline
    >>> answers = iter([OSError('busy'), 3])
    >>> def load(name):
    ...     answer = next(answers)
    ...     if isinstance(answer, OSError):
    ...         raise answer
    ...     return answer
    >>> list(pipeline(['a'], apply(load, on_error=retry(2, OSError))))
    [3]
    """
    return Retry(positive_int('times', times), exceptions_of('retry', exceptions), non_negative('backoff', backoff))


def checked_on_error(on_error: Any) -> tuple[OnError, ...]:
    """Check for what can be done about errors: nothing, one thing, or several.

    Examples
    --------
    >>> checked_on_error([retry(3), skip()])
    (retry(3), skip())
    >>> checked_on_error('skip')
    Traceback (most recent call last):
    TypeError: on_error must be skip(...), replace(...), retry(...), or a list of them, got 'skip'
    """
    given = () if on_error is None else on_error if isinstance(on_error, list | tuple) else (on_error,)
    if not all(isinstance(policy, OnError) for policy in given):
        raise TypeError(
            f'on_error must be skip(...), replace(...), retry(...), or a list of them, got {code(on_error)}'
        )
    return tuple(given)


class Failure(NamedTuple):
    """A sample that a function has failed on, and that was skipped or replaced.

    Attributes
    ----------
    stage
        The stage, and the how-manieth of how many it is.
    cursor
        The sample's cursor at the stage.
    sample
        What the function was given.
    exception
        What it raised.

    Examples
    --------
    >>> Failure('apply(load), the 2nd of 2 stages', 1, 'ada', OSError('gone'))
    Failure(stage='apply(load), the 2nd of 2 stages', cursor=1, sample='ada', exception=OSError('gone'))
    """

    stage: str
    cursor: Cursor
    sample: Any
    exception: Exception


class Trial(NamedTuple):
    """A sample's turn at a stage that skips or replaces."""

    place: Place
    policy: Skip
    sample: Any = None
    exception: Exception | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Trial, (self.place, self.policy, self.sample, _sendable(self.exception))


class Outcome(NamedTuple):
    """What came of a sample in stages that handle errors.

    Attributes
    ----------
    value, cursor
        The pair.
    trials
        For each stage that was reached and skips or replaces: its place, its budget, and what it failed with, if so.
    is_skipped
        Whether there is no value.
    """

    value: Any
    cursor: Cursor
    trials: list[Trial]
    is_skipped: bool


Counts: TypeAlias = dict[str, list[int]]  # by stage: how many samples were tried, and how many failed


class Failures:
    """The count of what was tried and what failed, in the order of the samples wherever the work is done.

    Examples
    --------
    >>> failures = Failures()
    >>> place = Place('apply(load), the 2nd of 2 stages', 2)
    >>> failures.settled(Outcome('a', 1, [Trial(place, skip())], is_skipped=False))
    ('a', 1)
    >>> failures.counts
    {'2': [1, 0]}
    """

    def __init__(self) -> None:
        self.counts: Counts = {}
        self.kept: deque[tuple[str, int, Failure]] = deque(maxlen=KEPT)
        self._first: dict[str, list[tuple[int, Exception]]] = {}
        self._logged: set[tuple[str, type]] = set()
        self._noted: deque[tuple[float, Counts]] = deque()  # the counts after the last batches
        self.has_ended = False  # then nothing has been made ahead

    def back_at(self, counts: Counts) -> Failures:
        """A copy without what has come since the counts were these."""
        past = Failures()
        past.counts = _copied(counts)
        past._logged |= self._logged
        past.kept.extend(entry for entry in self.kept if entry[1] <= counts.get(entry[0], [0])[0])
        for stage, first in self._first.items():
            past._first[stage] = [entry for entry in first if entry[0] <= counts.get(stage, [0])[0]]
        return past

    def at(self, number: float) -> Counts:
        """The counts when one of the last batches had been made; a half later, when the pass had ended.

        As long as none has been made, the counts as they are.
        """
        noted = list(self._noted)
        return next((counts for other, counts in noted if other == number), {} if noted else _copied(self.counts))

    def seen(self, number: float) -> list[Failure]:
        """What has failed up to then."""
        counts = self.counts if self.has_ended else self.at(number)
        return [failure for stage, tried, failure in self.kept.copy() if tried <= counts.get(stage, [0])[0]]

    def noted(self, items: Iterator[T], done: int, is_batch: Callable[[T], bool], ahead: int) -> Iterator[T]:
        """Hand on items, noting the counts after each, for as many as are made ahead."""
        number: float = done
        self._noted = deque([(number, _copied(self.counts))], ahead)

        def note(item: T) -> T:
            nonlocal number
            number = int(number) + (1 if is_batch(item) else 0.5)
            if self.counts:
                self._noted.append((number, _copied(self.counts)))
            return item

        return map(note, items)

    def settled(self, outcome: Outcome) -> Pair[Any] | None:
        """The pair of an outcome, or none if it was skipped.

        Raises
        ------
        TooManyFailures
            If a budget is spent.
        """
        for trial in outcome.trials:
            counts = self.counts.setdefault(trial.place.path, [0, 0])
            counts[0] += 1
            if trial.exception is not None:
                counts[1] += 1
                self._note(trial, outcome.cursor, *counts)
        return None if outcome.is_skipped else outcome[:2]

    def _note(self, trial: Trial, cursor: Cursor, tried: int, failed: int) -> None:
        place, policy, sample, exception = trial
        assert exception is not None
        self.kept.append((place.path, tried, Failure(place.label, cursor, sample, exception)))
        first = self._first.setdefault(place.path, [])
        first += [(tried, exception)] if len(first) < SHOWN else []
        if (place.path, type(exception)) not in self._logged:
            self._logged.add((place.path, type(exception)))
            done = 'skipped' if policy.substitute is None else 'replaced'
            text = '%s: %s sample %s (cursor %s) because of %r; others like it are counted'
            logger.warning(text, place.label, done, brief(sample), cursor, exception)
        if not policy.allows(failed, tried):
            text = f'{place.label}, failed on {failed} of {tried} samples, over its budget of {policy.budget}'
            raise TooManyFailures(text, [exception for _, exception in first])


def handled(
    policies: Iterable[OnError], call: Callable[[], Any], sample: Any, pause: Callable[[float], object] | None = None
) -> tuple[Any, Exception | None, bool]:
    """Call a function and do what is to be done if it fails: the value, what was raised, and whether there is no value.

    Examples
    --------
    >>> handled([skip(KeyError)], lambda: {}['a'], 'a')
    (None, KeyError('a'), True)
    """
    try:
        return call(), None, False
    except Exception as error:
        raised = error
    for policy in policies:
        if not isinstance(raised, policy.exceptions):
            continue
        if isinstance(policy, Skip):
            value = None if policy.substitute is None else policy.substitute(sample)
            return value, raised, policy.substitute is None
        assert isinstance(policy, Retry)
        for number in range(policy.times):
            (pause or time.sleep)(policy.backoff * 2**number)
            try:
                return call(), None, False
            except Exception as error:
                raised = error
            if not isinstance(raised, policy.exceptions):
                break
    raise raised


def _copied(counts: Counts) -> Counts:
    return {stage: list(both) for stage, both in counts.items()}


def _budget(budget: Any) -> float | None:
    if budget is None or type(budget) is int:
        return None if budget is None else natural_number('budget', budget)
    if type(budget) is float and 0 <= budget <= 1:
        return budget
    expected = 'a fraction from 0.0 to 1.0, a number of samples, or None'
    kind = ValueError if isinstance(budget, float) else TypeError
    raise kind(f'budget must be {expected}, got {code(budget)}')


def _sendable(exception: Exception | None) -> Exception | None:
    if exception is None:
        return None
    try:
        from .workers.pickling import dumps
    except ModuleNotFoundError:  # the extra `processes` is not there, and what pickle takes is what counts
        return cast('Exception', sendable_error(exception))
    return cast('Exception', sendable_error(exception, dumps))
