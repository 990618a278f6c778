"""What to do with a sample that a function fails on: retry, replace or skip it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from threading import TIMEOUT_MAX
from typing import Any, NamedTuple, TypeAlias

from ..describing.arguments import exceptions_of, function, non_negative, positive_int
from ..describing.descriptions import Description, described
from ..describing.display import code

GRACE_SAMPLES = 1000


class Missing(Enum):
    """Stands in place of the value of a skipped sample; an enum, because workers send it to other processes."""

    SKIPPED = auto()


class OnError(Description):
    """What to do with samples that raise some exceptions: what ``skip``, ``retry`` and ``replace`` return."""

    exceptions: tuple[type[Exception], ...]


OnErrors: TypeAlias = OnError | Sequence[OnError] | None


class Limit(NamedTuple):
    """How many samples a policy may skip or replace; see ``skip``."""

    budget: float | None
    grace: int
    replaces: bool

    def allows(self, failed: int, tried: int) -> bool:
        """Whether this many failures are within the budget."""
        if self.budget is None:
            return True
        if isinstance(self.budget, int):
            return failed <= self.budget
        return failed <= self.budget * max(tried, self.grace)


@dataclass(eq=False, repr=False)
class Retry(OnError):
    """The description that ``retry`` returns."""

    times: int
    exceptions: tuple[type[Exception], ...]
    backoff: float


@dataclass(eq=False, repr=False)
class Skip(OnError):
    """The description that ``skip`` and ``replace`` return; ``substitute`` makes the replacement."""

    exceptions: tuple[type[Exception], ...]
    budget: float | None
    grace: int
    substitute: Callable[[Any], Any] | None = None

    @property
    def limit(self) -> Limit:
        """What the failures that it handles are held to."""
        return Limit(self.budget, self.grace, self.substitute is not None)


@described
def skip(*exceptions: type[Exception], budget: float | None = 0.01, grace: int = GRACE_SAMPLES) -> Skip:
    """Skip the samples that a function fails on: ``apply(load, on_error=skip(OSError))``.

    The other samples keep their order, cursors and random numbers. Skipped samples are counted and listed in
    ``batches.failures``, and the first one with each type of exception is logged.

    Parameters
    ----------
    *exceptions
        The exceptions to handle; any ``Exception`` by default.
    budget
        How many samples may fail before ``TooManyFailures`` is raised: a float from 0.0 to 1.0 is a fraction of the
        samples tried so far, an int is a number of samples, ``None`` is no limit.
    grace
        A fraction is taken of at least this many samples, so that one early failure is not over the budget.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or value.

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
    func: Callable[[Any], Any], *exceptions: type[Exception], budget: float | None = 0.01, grace: int = GRACE_SAMPLES
) -> Skip:
    """Replace the result for a sample that a function fails on by ``func(sample)``.

    Parameters
    ----------
    func
        A function of the sample that the failed function was called with; for ``unpack``, of the sample as a whole.
    *exceptions, budget, grace
        As for ``skip``.

    Examples
    --------
    >>> from pipekit import apply, pipeline
    >>> list(pipeline([2, 0, 4], apply(lambda x: 1 / x, on_error=replace(lambda x: 0.0))))
    [0.5, 0.0, 0.25]
    """
    function('func', func, 'a function of a sample', 1)
    return Skip(exceptions_of('replace', exceptions), _budget(budget), positive_int('grace', grace), func)


@described
def retry(times: int, *exceptions: type[Exception], backoff: float = 0.0) -> Retry:
    """Call a function that fails again, up to ``times`` times, with the same random numbers.

    If the last retry fails too, the next policy applies: ``on_error=[retry(3, OSError), skip(OSError)]``.

    Parameters
    ----------
    times
        The largest number of calls after the first one.
    *exceptions
        The exceptions to handle; any ``Exception`` by default.
    backoff
        The seconds to wait before the first retry; the wait doubles with every further one.

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
    """The argument ``on_error`` as a tuple of policies, checked."""
    given = () if on_error is None else on_error if isinstance(on_error, list | tuple) else (on_error,)
    if not all(isinstance(policy, OnError) for policy in given):
        raise TypeError(
            f'on_error must be skip(...), replace(...), retry(...), or a list of them, got {code(on_error)}'
        )
    return tuple(given)


def may_skip(on_error: Iterable[OnError]) -> bool:
    """Whether samples may be skipped or replaced."""
    return any(isinstance(policy, Skip) for policy in on_error)


def failures_handled(policies: Iterable[OnError], error: Exception) -> int:
    """How many times in a row a call may fail with an error without raising it.

    After one that is skipped or replaced it is not called any more.
    """
    n = 0
    for policy in policies:
        if isinstance(error, policy.exceptions):
            if isinstance(policy, Skip):
                return n + 1
            assert isinstance(policy, Retry)
            n += policy.times
    return n


def call_with_policies(
    policies: Iterable[OnError], call: Callable[[], Any], sample: Any, pause: Callable[[float], object] | None = None
) -> tuple[Any, Exception | None, Skip | None]:
    """Call a function and handle its failure: the value or ``Missing.SKIPPED``, the exception, and who handled it.

    A call that succeeds after a retry counts as a success. An exception that no policy handles is raised.
    """
    try:
        return call(), None, None
    except Exception as error:
        raised = error
    for policy in policies:
        if not isinstance(raised, policy.exceptions):
            continue
        if isinstance(policy, Skip):
            return (Missing.SKIPPED if policy.substitute is None else policy.substitute(sample)), raised, policy
        assert isinstance(policy, Retry)
        for number in range(policy.times):
            (pause or time.sleep)(min(policy.backoff * 2.0 ** min(number, 64), TIMEOUT_MAX))
            try:
                return call(), None, None
            except Exception as error:
                raised = error
            if not isinstance(raised, policy.exceptions):
                break
    raise raised


def _budget(budget: Any) -> float | None:
    if budget is None or (type(budget) is int and budget >= 0):
        return budget
    if type(budget) is float and 0 <= budget <= 1:
        return budget
    expected = 'a fraction from 0.0 to 1.0, a number of samples, or None'
    kind = ValueError if type(budget) in (int, float) else TypeError
    raise kind(f'budget must be {expected}, got {code(budget)}')
