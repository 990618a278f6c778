"""Runs jobs. A job is a table of contenders, functions that measure once; each round calls all of them."""

from __future__ import annotations

import gc
import signal
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

Measure = Callable[[], float]

FIGURE, BASELINE = 'its own figure', 'the baseline'
TIMEOUT_SECONDS = 60  # after which a contender counts as failed


@dataclass(frozen=True)
class Target:
    """A limit that a contender should reach.

    Parameters
    ----------
    name
        The contender.
    limit
        The smallest figure if more is better, otherwise the largest.
    of
        What is limited: ``FIGURE``, or the ratio to ``BASELINE`` or to another contender in the same round.
    """

    name: str
    limit: float
    of: str = BASELINE


@dataclass(frozen=True)
class Job:
    """Contenders that do the same work.

    Parameters
    ----------
    title
        What is measured.
    unit
        The unit of the figures, for the table's head.
    contenders
        For each name, a function that does the work once and returns its figure.
    baseline
        The contender that ratios refer to.
    targets
        The targets; those of missing contenders do not count.
    more_is_better
        Whether larger figures are better.
    notes
        Explanations for the reader of the table, and what was left out and why.
    digits
        The decimals of a figure.
    warm_up
        Whether to leave out a first round, in which everything runs for the first time.
    """

    title: str
    unit: str
    contenders: Mapping[str, Measure]
    baseline: str | None = None
    targets: Sequence[Target] = ()
    more_is_better: bool = False
    notes: Sequence[str] = ()
    digits: int = 0
    warm_up: bool = False


@dataclass(frozen=True)
class Summary:
    """The median of several rounds, with the lowest and the highest of them."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> Summary:
        return cls(statistics.median(figures), min(figures), max(figures))

    @classmethod
    def of_ratio(cls, figures: Sequence[float], others: Sequence[float]) -> Summary:
        return cls.of([own / other for own, other in zip(figures, others, strict=True)])


@dataclass(frozen=True)
class Verdict:
    """The figure or ratio that was reached, and whether it meets the target."""

    target: Target
    reached: Summary
    is_met: bool


@dataclass(frozen=True)
class Row:
    """The figures of one contender."""

    name: str
    figure: Summary
    ratio: Summary | None
    verdicts: Sequence[Verdict] = ()


@dataclass(frozen=True)
class Result:
    """The figures of a job's contenders, and the errors of those that failed."""

    job: Job
    rows: Sequence[Row]
    failures: Mapping[str, str] = field(default_factory=dict)


def run(job: Job, rounds: int) -> Result:
    """Measure every contender in every round, beginning with another one each time.

    Ratios are taken within a round, because the speed of the machine drifts from one to the next. A contender that
    fails or hangs is left out from then on.
    """
    names = list(job.contenders)
    figures: dict[str, list[float]] = {name: [] for name in names}
    failures: dict[str, str] = {}
    for number in range(-job.warm_up, rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            if name in failures:
                continue
            gc.collect()
            try:
                with _time_limit():
                    figure = job.contenders[name]()
            except Exception as error:
                failures[name] = f'{type(error).__name__}: {error}'
                del figures[name]
            else:
                figures[name] += [figure] if number >= 0 else []
    return Result(job, [_row(job, name, figures) for name in figures], failures)


def _row(job: Job, name: str, figures: Mapping[str, Sequence[float]]) -> Row:
    own = figures[name]
    ratio = Summary.of_ratio(own, figures[job.baseline]) if job.baseline in figures else None
    verdicts = []
    for target in job.targets:
        other = job.baseline if target.of == BASELINE else target.of
        if target.name == name and (other == FIGURE or other in figures):
            reached = Summary.of(own) if other == FIGURE else Summary.of_ratio(own, figures[other])
            is_met = reached.median >= target.limit if job.more_is_better else reached.median <= target.limit
            verdicts.append(Verdict(target, reached, is_met))
    return Row(name, Summary.of(own), ratio, verdicts)


@contextmanager
def _time_limit() -> Iterator[None]:
    def give_up(*_: object) -> None:
        raise TimeoutError(f'no figure within {TIMEOUT_SECONDS} s')

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(TIMEOUT_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
