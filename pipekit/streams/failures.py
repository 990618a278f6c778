"""The samples that were skipped or replaced: listed, counted in the order of the samples, and held to a budget."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

from toolz import valmap

from ..describing.display import brief
from ..errors import TooManyFailures
from ..workers.remote_errors import sendable_error
from .cursors import Cursor, Pair
from .error_notes import StageLocation
from .on_error import Missing, Skip

T = TypeVar('T')

MAX_FAILURES = 100  # in the list of the last ones
MAX_ERRORS_IN_GROUP = 10  # the first ones of a stage

logger = logging.getLogger('pipekit')


class Failure(NamedTuple):
    """A sample that a function failed on, and that was skipped or replaced.

    Attributes
    ----------
    stage
        The code of the stage and its position.
    cursor
        The sample's cursor at the stage.
    sample
        What the function was called with.
    exception
        The exception that it raised.

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
    """The call of a stage that skips or replaces on one sample; ``exception`` is ``None`` if it succeeded."""

    path: str
    location: StageLocation
    policy: Skip
    sample: Any = None
    exception: Exception | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        exception = None if self.exception is None else _sendable(self.exception)
        return Attempt, (*self[:-1], exception)


class Result(NamedTuple):
    """A value or ``Missing.SKIPPED``, its cursor, and an attempt for each stage reached that skips or replaces."""

    value: Any
    cursor: Cursor
    attempts: list[Attempt]


Counts: TypeAlias = dict[str, list[int]]  # by the path of the stage: how many samples were tried, and how many failed
Entry: TypeAlias = tuple[str, int, Failure]  # the path of the stage, and how many samples it had tried


class Failures:
    """Counts samples and failures in the order of the samples, wherever the functions run.

    The counts run ahead of the consumer, as the batches do. A short history of them tells the counts, and the failures,
    as of the last batch that the consumer has got.
    """

    def __init__(self) -> None:
        self.counts: Counts = {}
        self.has_ended = False  # whether the consumer has reached the end or an error, with no batches made ahead
        self._last: deque[Entry] = deque(maxlen=MAX_FAILURES)
        self._first: list[Entry] = []
        self._logged: set[tuple[str, type]] = set()
        self._history: deque[tuple[float, Counts]] = deque()

    def rewound_to(self, counts: Counts) -> Failures:
        """A copy as of the time when the counts were these."""
        copy = Failures()
        copy.counts = valmap(list, counts)
        copy._logged = self._logged.copy()
        copy._last.extend(entry for entry in self._last if _is_counted(entry, counts))
        copy._first = [entry for entry in self._first if _is_counted(entry, counts)]
        return copy

    def counts_at(self, position: float) -> Counts:
        """The counts as of a position: a number of batches, and a half more after the end of a pass.

        The position is one of those in the history; without a history, the counts are the current ones.
        """
        history = list(self._history)
        if not history:
            return cast('Counts', valmap(list, self.counts))
        return dict(history).get(position, {})

    def failures_at(self, position: float) -> list[Failure]:
        """The last failures as of a position."""
        counts = self.counts if self.has_ended else self.counts_at(position)
        return [entry[2] for entry in self._last.copy() if _is_counted(entry, counts)]

    def recording_history(
        self, entries: Iterator[T], n_batches: int, is_batch: Callable[[T], bool], max_entries: int
    ) -> Iterator[T]:
        """The entries of a queue, after ``n_batches``; records the counts after each of the last ``max_entries``."""
        position: float = n_batches
        self._history = deque([(position, valmap(list, self.counts))], max_entries)

        def record(entry: T) -> T:
            nonlocal position
            position = int(position) + (1 if is_batch(entry) else 0.5)
            if self.counts:
                self._history.append((position, valmap(list, self.counts)))
            return entry

        return map(record, entries)

    def counted(self, result: Result) -> Pair[Any] | None:
        """The pair of a result, ``None`` if it was skipped; counts its attempts.

        Raises
        ------
        TooManyFailures
            If a stage is over its budget.
        """
        for attempt in result.attempts:
            counts = self.counts.setdefault(attempt.path, [0, 0])
            counts[0] += 1
            if attempt.exception is not None:
                counts[1] += 1
                self._add(attempt, result.cursor, *counts)
        return None if result.value is Missing.SKIPPED else result[:2]

    def _add(self, attempt: Attempt, cursor: Cursor, tried: int, failed: int) -> None:
        path, location, policy, sample, exception = attempt
        stage = location.label
        assert exception is not None
        entry = path, tried, Failure(stage, cursor, sample, exception)
        self._last.append(entry)
        if sum(other == path for other, _, _ in self._first) < MAX_ERRORS_IN_GROUP:
            self._first.append(entry)
        if (path, type(exception)) not in self._logged:
            self._logged.add((path, type(exception)))
            action = 'skipped' if policy.substitute is None else 'replaced'
            text = '%s: %s sample %s (cursor %s) because of %r; others like it are counted, not logged'
            logger.warning(text, stage, action, brief(sample), cursor, exception)
        if not policy.allows(failed, tried):
            text = f'{stage}, failed on {failed} of {tried} samples, over its budget of {policy.budget}'
            raise TooManyFailures(text, [failure.exception for other, _, failure in self._first if other == path])


def _is_counted(entry: Entry, counts: Counts) -> bool:
    path, tried, _ = entry
    return tried <= counts.get(path, [0])[0]


def _sendable(exception: Exception) -> BaseException:
    try:
        from ..workers.pickling import dumps
    except ModuleNotFoundError:  # without the extra `processes`, plain pickle is what executors use
        return sendable_error(exception)
    return sendable_error(exception, dumps)
