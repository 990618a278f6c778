"""Measuring: a job is a table of contenders, each a function that measures itself once; rounds take them in turn."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Measure = Callable[[], float]


@dataclass(frozen=True)
class Target:
    """What a contender should reach: ``of`` its own figure, or of its ratio to the baseline in the same round."""

    limit: float
    of: Literal['ratio', 'figure'] = 'ratio'


@dataclass(frozen=True)
class Job:
    """Contenders that do the same work.

    Parameters
    ----------
    title
        What is measured.
    unit
        What a figure counts, as the table's head says it.
    contenders
        For each name, a function that does the work once and returns its figure.
    baseline
        The contender that ratios refer to.
    targets
        What contenders should reach.
    more_is_better
        Whether a larger figure is the better one.
    notes
        What a reader of the table should know; what was left out, and why.
    digits
        The decimals of a figure.
    """

    title: str
    unit: str
    contenders: Mapping[str, Measure]
    baseline: str | None = None
    targets: Mapping[str, Target] = field(default_factory=dict)
    more_is_better: bool = False
    notes: Sequence[str] = ()
    digits: int = 0


@dataclass(frozen=True)
class Summary:
    """The median of several rounds, with the lowest and the highest of them."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> Summary:
        return cls(statistics.median(figures), min(figures), max(figures))


@dataclass(frozen=True)
class Row:
    """What one contender reached."""

    name: str
    figure: Summary
    ratio: Summary | None
    target: Target | None
    is_met: bool | None


@dataclass(frozen=True)
class Result:
    """What a job's contenders reached."""

    job: Job
    rows: Sequence[Row]


def run(job: Job, rounds: int) -> Result:
    """Measure every contender in every round, beginning with another one each time.

    Ratios are taken within a round, because the speed of the machine drifts from one to the next.
    """
    names = list(job.contenders)
    figures: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            gc.collect()
            figures[name].append(job.contenders[name]())
    return Result(job, [_row(job, name, figures) for name in names])


def _row(job: Job, name: str, figures: Mapping[str, Sequence[float]]) -> Row:
    figure = Summary.of(figures[name])
    ratio = None
    if job.baseline is not None:
        pairs = zip(figures[name], figures[job.baseline], strict=True)
        ratio = Summary.of([own / baseline for own, baseline in pairs])
    target = job.targets.get(name)
    if target is None:
        return Row(name, figure, ratio, None, None)
    summary = figure if target.of == 'figure' else ratio
    assert summary is not None
    is_met = summary.median >= target.limit if job.more_is_better else summary.median <= target.limit
    return Row(name, figure, ratio, target, is_met)
