"""Which samples were skipped or replaced: kept, counted in the order of the samples, and held to the budget."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

from ..describing.display import brief
from ..errors import TooManyFailures
from ..workers.remote_errors import sendable_error
from .cursors import Cursor, Pair
from .error_notes import StageLocation
from .on_error import Skip

T = TypeVar('T')

KEPT, SHOWN = 100, 10  # the last failures, and the first errors of a group

logger = logging.getLogger('pipekit')


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


class Attempt(NamedTuple):
    """A sample's turn at a stage that skips or replaces."""

    path: str
    location: StageLocation
    policy: Skip
    sample: Any = None
    exception: Exception | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Attempt, (*self[:-1], _sendable(self.exception))


class Result(NamedTuple):
    """What came of a sample in stages that handle errors.

    Attributes
    ----------
    value, cursor
        The pair.
    attempts
        One for each stage that was reached and skips or replaces.
    is_skipped
        Whether there is no value.
    """

    value: Any
    cursor: Cursor
    attempts: list[Attempt]
    is_skipped: bool


Counts: TypeAlias = dict[str, list[int]]  # by stage: how many samples were tried, and how many failed


class Failures:
    """The count of what was tried and what failed, in the order of the samples wherever the work is done.

    Examples
    --------
    >>> from pipekit import skip
    >>> failures = Failures()
    >>> attempt = Attempt('2', StageLocation('apply(load)', 2, 2), skip())
    >>> failures.settled(Result('a', 1, [attempt], is_skipped=False))
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

    def settled(self, result: Result) -> Pair[Any] | None:
        """The pair of an outcome, or none if it was skipped.

        Raises
        ------
        TooManyFailures
            If a budget is spent.
        """
        for attempt in result.attempts:
            counts = self.counts.setdefault(attempt.path, [0, 0])
            counts[0] += 1
            if attempt.exception is not None:
                counts[1] += 1
                self._note(attempt, result.cursor, *counts)
        return None if result.is_skipped else result[:2]

    def _note(self, attempt: Attempt, cursor: Cursor, tried: int, failed: int) -> None:
        path, location, policy, sample, exception = attempt
        stage = location.label
        assert exception is not None
        self.kept.append((path, tried, Failure(stage, cursor, sample, exception)))
        first = self._first.setdefault(path, [])
        if len(first) < SHOWN:
            first.append((tried, exception))
        if (path, type(exception)) not in self._logged:
            self._logged.add((path, type(exception)))
            done = 'skipped' if policy.substitute is None else 'replaced'
            text = '%s: %s sample %s (cursor %s) because of %r; others like it are counted'
            logger.warning(text, stage, done, brief(sample), cursor, exception)
        if not policy.allows(failed, tried):
            text = f'{stage}, failed on {failed} of {tried} samples, over its budget of {policy.budget}'
            raise TooManyFailures(text, [exception for _, exception in first])


def _copied(counts: Counts) -> Counts:
    return {stage: list(both) for stage, both in counts.items()}


def _sendable(exception: Exception | None) -> Exception | None:
    if exception is None:
        return None
    try:
        from ..workers.pickling import dumps
    except ModuleNotFoundError:  # the extra `processes` is not there, and what pickle takes is what counts
        return cast('Exception', sendable_error(exception))
    return cast('Exception', sendable_error(exception, dumps))
