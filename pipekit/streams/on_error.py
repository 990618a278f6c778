"""What to do about a sample that a function fails on: try it again, replace it or skip it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from ..describing.arguments import exceptions_of, function, natural_number, non_negative, positive_int
from ..describing.descriptions import Description, described
from ..describing.display import code

GRACE = 1000  # samples: a fraction of fewer of them would be none


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
        if self.budget is None:
            return True
        if isinstance(self.budget, int):
            return failed <= self.budget
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


def may_skip(on_error: Iterable[OnError]) -> bool:
    """Whether samples may be skipped or replaced.

    Examples
    --------
    >>> may_skip([retry(3)]), may_skip([retry(3), skip()])
    (False, True)
    """
    return any(isinstance(policy, Skip) for policy in on_error)


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


def _budget(budget: Any) -> float | None:
    if budget is None or type(budget) is int:
        return None if budget is None else natural_number('budget', budget)
    if type(budget) is float and 0 <= budget <= 1:
        return budget
    expected = 'a fraction from 0.0 to 1.0, a number of samples, or None'
    kind = ValueError if isinstance(budget, float) else TypeError
    raise kind(f'budget must be {expected}, got {code(budget)}')
