"""The samples that were skipped or replaced: listed, counted in the order of the samples, and held to a budget."""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from itertools import takewhile
from typing import Any, NamedTuple, TypeAlias

from more_itertools import first
from toolz import valmap

from ..describing.display import brief
from ..errors import TooManyFailures
from ..workers.remote_errors import sendable_error
from .cursors import START, Cursor, Pair
from .error_notes import StageLocation
from .on_error import Limit, Missing, Skip
from .randomness import Key

MAX_FAILURES = 100  # in the list of the last ones
MAX_ERRORS_IN_GROUP = 10  # the first ones of a stage
MIN_TRIED = 4096  # samples whose counts are kept at least

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
    """The call of a stage that skips or replaces on one sample, and which of its policies handled a failure."""

    path: str
    location: StageLocation
    policies: tuple[Skip | Limit, ...]
    handled_by: int | None = None
    sample: Any = None
    exception: Exception | None = None

    def failed(self, policy: Skip, sample: Any, exception: Exception | None) -> Attempt:
        """The attempt on a sample that a policy handled the failure of."""
        number = next(number for number, other in enumerate(self.policies) if other is policy)
        return self._replace(handled_by=number, sample=sample, exception=exception)

    def __reduce__(self) -> tuple[Any, ...]:
        exception = None if self.exception is None else _sendable(self.exception)
        # Without functions of the user's: an executor may send results by pickle, which knows no lambdas.
        return Attempt, (*self._replace(policies=tuple(map(_limit, self.policies)))[:-1], exception)


class Result(NamedTuple):
    """A value or ``Missing.SKIPPED``, its cursor, and an attempt for each stage reached that skips or replaces."""

    value: Any
    cursor: Cursor
    attempts: list[Attempt]


Counts: TypeAlias = dict[str, list[int]]  # by the path of a stage: samples tried, and failures for each policy
Position: TypeAlias = tuple[Key, Cursor]  # of a stage: the passes and branches it is in, and a cursor there
Entry: TypeAlias = tuple[str, int, Failure]  # the path of the stage, and how many samples it had tried


class Failures:
    """Counts samples and failures in the order of the samples, wherever the functions run.

    The counts run ahead of the consumer, as the batches do. The counts at each cursor are kept until the consumer has
    passed it: those in a state depend neither on what was made ahead nor on what is read again after it is loaded.

    Parameters
    ----------
    has_consumer
        Whether there is one, which is behind.
    replaying_stage
        The number of the last stage that resumes by replay: the stages before it start again with the pass.
    """

    def __init__(self, *, has_consumer: bool = False, replaying_stage: int = 0) -> None:
        self.counts: Counts = {}
        self.has_ended = False  # whether the consumer has reached the end or an error, with no batches made ahead
        self.opened_at: dict[str, Position] = {}  # where each stage was opened first
        self.passed: dict[str, Position] = {}  # where each stage would go on from for the consumer
        self._has_consumer = has_consumer
        self._replaying_stage = replaying_stage
        self._at_first: Counts = {}
        self._tried: defaultdict[str, deque[tuple[Position, tuple[int, ...]]]] = defaultdict(deque)
        self._max_tried = MIN_TRIED
        self._last: deque[Entry] = deque(maxlen=MAX_FAILURES)
        self._first: list[Entry] = []
        self._logged: set[tuple[str, type]] = set()

    def rewound_to(self, counts: Counts) -> Failures:
        """A copy as of the time when the counts were these."""
        copy = Failures(has_consumer=self._has_consumer, replaying_stage=self._replaying_stage)
        copy.counts, copy._at_first = valmap(list, counts), valmap(list, counts)
        copy._logged = self._logged.copy()
        copy._last.extend(entry for entry in self._last if _is_counted(entry, counts))
        copy._first = [entry for entry in self._first if _is_counted(entry, counts)]
        return copy

    def note_opened(self, path: str, key: Key, cursor: Cursor) -> None:
        """Remember where a stage was opened whose failures belong in a state."""
        self.opened_at.setdefault(path, (key, cursor))

    def counts_at(self, positions: dict[str, Position]) -> Counts:
        """The counts of what lies before a position of each stage."""
        counts: Counts = {path: self._counts_of(path, position) for path, position in positions.items()}
        return {path: some for path, some in counts.items() if any(some)}

    def failures_at(self, positions: dict[str, Position]) -> list[Failure]:
        """The last failures before a position of each stage."""
        counts = self.counts.copy()
        for path, position in {} if self.has_ended else positions.items():
            counts[path] = counts.get(path, []) if self._restarts(path) else self._counts_of(path, position)
        return [entry[2] for entry in self._last.copy() if _is_counted(entry, counts)]

    def counted(self, result: Result) -> Pair[Any] | None:
        """The pair of a result, ``None`` if it was skipped; counts its attempts.

        Raises
        ------
        TooManyFailures
            If a stage is over its budget.
        """
        for attempt in result.attempts:
            counts = self.counts.setdefault(attempt.path, [0] * (1 + len(attempt.policies)))
            counts[0] += 1
            if attempt.handled_by is not None:
                counts[1 + attempt.handled_by] += 1
            if self._has_consumer and attempt.path in self.opened_at:
                self._remember(attempt, result.cursor, counts)
            if attempt.handled_by is not None:
                self._add(attempt, result.cursor, counts[0], counts[1 + attempt.handled_by])
        return None if result.value is Missing.SKIPPED else result[:2]

    def _remember(self, attempt: Attempt, cursor: Cursor, counts: list[int]) -> None:
        tried, key = self._tried[attempt.path], attempt.location.key
        if tried and self._restarts(attempt.path) and tried[-1][0][0] == key:
            tried.pop()  # between the beginning of a pass and its end, nothing is asked for
        tried.append(((key, cursor), tuple(counts)))
        if len(tried) > self._max_tried:
            self._forget_passed(attempt.path)

    def _restarts(self, path: str) -> bool:
        return (1 if '.' in path else int(path)) < self._replaying_stage

    def _counts_of(self, path: str, position: Position) -> list[int]:
        at_first, tried = self._at_first.get(path, []), self._tried[path].copy()
        if not self._has_consumer:
            return self.counts.get(path, [])
        if not tried or position == self.opened_at.get(path):
            return at_first
        key, cursor = position
        if cursor == START:  # the beginning of a pass comes after the end of the one before
            before = [counts for (other, _), counts in takewhile(lambda entry: entry[0][0] != key, tried)]
            return list(before[-1]) if before else at_first
        return next((list(counts) for other, counts in reversed(tried) if other == position), at_first)

    def _forget_passed(self, path: str) -> None:
        tried = self._tried[path]
        passed = self.passed.get(path)
        number = first((number for number, (position, _) in enumerate(tried) if position == passed), 0)
        for _ in range(number):
            tried.popleft()
        self._max_tried = max(MIN_TRIED, 2 * max(map(len, self._tried.values())))

    def _add(self, attempt: Attempt, cursor: Cursor, tried: int, failed: int) -> None:
        path, location, policies, number, sample, exception = attempt
        stage, limit = location.label, _limit(policies[number or 0])
        assert exception is not None
        entry = path, tried, Failure(stage, cursor, sample, exception)
        self._last.append(entry)
        if sum(other == path for other, _, _ in self._first) < MAX_ERRORS_IN_GROUP:
            self._first.append(entry)
        if (path, type(exception)) not in self._logged:
            self._logged.add((path, type(exception)))
            action = 'replaced' if limit.replaces else 'skipped'
            text = '%s: %s sample %s (cursor %s) because of %r; others like it are counted, not logged'
            logger.warning(text, stage, action, brief(sample), cursor, exception)
        if not limit.allows(failed, tried):
            text = f'{stage}, failed on {failed} of {tried} samples, over its budget of {limit.budget}'
            raise TooManyFailures(text, [failure.exception for other, _, failure in self._first if other == path])


def _limit(policy: Skip | Limit) -> Limit:
    return policy.limit if isinstance(policy, Skip) else policy


def _is_counted(entry: Entry, counts: Counts) -> bool:
    path, tried, _ = entry
    return tried <= first(counts.get(path, []), 0)


def _sendable(exception: Exception) -> BaseException:
    try:
        from ..workers.pickling import dumps
    except ModuleNotFoundError:  # without the extra `processes`, plain pickle is what executors use
        return sendable_error(exception)
    return sendable_error(exception, dumps)
