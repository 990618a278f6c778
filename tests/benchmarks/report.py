"""Shows the results, as text in the terminal and as a page of the documentation."""

from __future__ import annotations

import os
import platform
import subprocess
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from measure import BASELINE, FIGURE, Job, Result, Row, Summary, Verdict
from pictures import name_of

PACKAGES = [
    *('numpy', 'toolz', 'more-itertools', 'cloudpickle', 'loky'),
    *('torch', 'torchdata', 'grain', 'spdl', 'streamable', 'deep_pipe'),
]
OURS = 'pipekit'
MANY_RANKS = '## Many ranks\n'
TIE = 1.25  # timings on a shared machine vary by this much, so a smaller ratio is a tie
WIDTH = 120

INTRODUCTION = """\
# Benchmarks

Written by `tests/benchmarks/speed.py`, which `tox -e bench` runs; `tox -e bench -- tutorial` runs one job alone.

Every job measures its contenders in turn, in {rounds} rounds, and checks the values of their first batches. A figure \
is the median of the rounds. The lowest and the highest are in parentheses, and are the ends of the dark lines in the \
pictures. Ratios are computed within each round. The machine is shared and its speed varies, so treat differences \
below 25% as ties, and compare figures within one table only.
"""


def text_of(result: Result) -> str:
    """A job's table, aligned, and its notes."""
    job = result.job
    table = [_head(job), *(_cells(row, result) for row in result.rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [f'{job.title} ({"more" if job.more_is_better else "less"} is better)']
    for name, *cells in table:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append('  '.join(['', name.ljust(widths[0]), *padded]).rstrip())
    texts = [*job.notes, *_failures(result)]
    notes = (textwrap.fill(text, WIDTH, initial_indent='  ', subsequent_indent='  ') for text in texts)
    return '\n'.join([*lines, *notes, ''])


def page_of(results: Sequence[Result], rounds: int, load: float, folder: str) -> str:
    """The page of the documentation, with the load before the first job; ``folder`` has the pictures."""
    parts = [INTRODUCTION.format(rounds=rounds), *setting(load), *_verdict(results), *_tables(results, folder)]
    return '\n'.join(parts)


def many_ranks_on(page: Path) -> str:
    """The last section of the page, which ``ranks.py`` writes."""
    _, head, text = page.read_text(encoding='utf-8').partition(MANY_RANKS)
    return head + text


def verdict_of(results: Iterable[Result]) -> list[str]:
    """A line for each missed target and each contender that failed, or one line that says that every target is met."""
    missed = [
        f'missed: {result.job.title}, {row.name}: {verdict.reached.median:,.2f}, target {_bound(verdict, result.job)}'
        for result in results
        for row in result.rows
        for verdict in row.verdicts
        if not verdict.is_met
    ]
    failed = [f'{result.job.title}, {line}' for result in results for line in _failures(result)]
    return [*(missed or ['every target is met']), *failed]


def setting(load: float, packages: Sequence[str] = PACKAGES) -> list[str]:
    """A table of what was measured where: the date, the machine, the versions."""
    return [
        '| | |',
        '| --- | --- |',
        f'| date | {datetime.now(UTC):%Y-%m-%d} |',
        f'| machine | {os.cpu_count()} cores, {_processor()}, {platform.system()} {platform.machine()} |',
        f'| load before the first job | {load:.1f} |',
        f'| Python | {platform.python_implementation()} {platform.python_version()} |',
        f'| pipekit | {_version("pipekit-batches")}, revision {_revision()} |',
        *(f'| {package} | {_version(package)} |' for package in packages),
        '',
    ]


def _verdict(results: Sequence[Result]) -> list[str]:
    ahead = [line for result in results for line in _ahead(result)]
    return [
        '## Targets',
        '',
        *(f'- {line}' for line in verdict_of(results)),
        '',
        '## Where others are faster',
        '',
        'Compared with the fastest variant of pipekit in each table, not counting the baseline:',
        '',
        *(f'- {line}' for line in ahead or ['none']),
        '',
    ]


def _ahead(result: Result) -> Iterator[str]:
    job = result.job
    own = [row.figure.median for row in result.rows if row.name.startswith(OURS)]
    if not own:
        return
    best = max(own) if job.more_is_better else min(own)
    for row in result.rows:
        if row.name.startswith(OURS) or row.name == job.baseline:
            continue
        lead = row.figure.median / best if job.more_is_better else best / max(row.figure.median, 1e-12)
        if lead > 1:
            yield f'{job.title}: {row.name}, {lead:.2f} times{"" if lead > TIE else ", a tie"}'


def _tables(results: Iterable[Result], folder: str) -> Iterator[str]:
    for result in results:
        job = result.job
        head = _head(job)
        yield f'## {job.title[0].upper()}{job.title[1:]}\n'
        for note in [*job.notes, *_failures(result)]:
            yield f'{note}\n'
        yield f'{"More" if job.more_is_better else "Less"} is better.\n'
        yield f'![{job.title}]({folder}/{name_of(job)})\n'
        yield f'| {" | ".join(head)} |'
        yield f'| --- |{" ---: |" * (len(head) - 1)}'
        for row in result.rows:
            yield f'| {" | ".join(_cells(row, result))} |'
        yield ''


def _failures(result: Result) -> list[str]:
    return [f'{name} failed: {text.splitlines()[0]}' for name, text in result.failures.items()]


def _head(job: Job) -> list[str]:
    ratio = [f'ratio to {job.baseline}'] if job.baseline else []
    target = ['target'] if job.targets else []
    return ['', job.unit, *ratio, *target]


def _cells(row: Row, result: Result) -> list[str]:
    job = result.job
    ratio = [_numbers(row.ratio, 2) if row.ratio else ''] if job.baseline else []
    target = ['; '.join(_judgements(row, result))] if job.targets else []
    return [row.name, _numbers(row.figure, job.digits), *ratio, *target]


def _judgements(row: Row, result: Result) -> Iterator[str]:
    # A target relative to another contender is shown in the row of that contender.
    for other in result.rows:
        for verdict in other.verdicts:
            target, outcome = verdict.target, 'met' if verdict.is_met else 'missed'
            sign = _sign(result.job)
            if target.of == row.name:
                yield f'{target.name} {sign} {target.limit:,g} of it: {outcome} ({verdict.reached.median:,.2f})'
            elif other is row and target.of in (FIGURE, BASELINE):
                yield f'{sign} {target.limit:,g}: {outcome}'


def _numbers(summary: Summary, digits: int) -> str:
    median, lowest, highest = (f'{x:,.{digits}f}' for x in (summary.median, summary.lowest, summary.highest))
    return f'{median} ({lowest} to {highest})'


def _bound(verdict: Verdict, job: Job) -> str:
    target = verdict.target
    other = '' if target.of in (FIGURE, BASELINE) else f' × {target.of}'
    return f'{_sign(job)} {target.limit:,g}{other}'


def _sign(job: Job) -> str:
    return '≥' if job.more_is_better else '≤'


def _processor() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return models[0] if models else platform.processor() or 'an unknown processor'


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return 'not installed' if package in PACKAGES else 'not installed, run from its source'


def _revision() -> str:
    command = ['git', 'describe', '--always', '--dirty']
    try:
        return subprocess.run(
            command, cwd=Path(__file__).parent, check=True, capture_output=True, text=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'
