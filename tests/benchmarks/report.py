"""What was measured, as text for the terminal and as a page of the documentation."""

from __future__ import annotations

import os
import platform
import subprocess
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from measure import Job, Result, Row, Summary, Target

PACKAGES = ['numpy', 'toolz', 'more-itertools', 'torch', 'torchdata', 'grain', 'streamable', 'deep_pipe']
OURS = 'pipekit'
TIE = 1.25  # the machine moves by this much, so a smaller lead is none
WIDTH = 120

INTRODUCTION = """\
# Benchmarks

Written by `tests/benchmarks/speed.py`, which `tox -e bench` runs; `tox -e bench -- tutorial` runs one job alone.

Every job takes all its contenders in turn, {rounds} rounds of them. A figure is the median of the rounds, with the \
lowest and the highest in parentheses. Ratios are taken between figures of the same round. The machine is shared and \
its speed moves: take differences below 25% as ties, and compare within a table only.
"""


def text_of(result: Result) -> str:
    """A job's table, aligned, and its notes."""
    job = result.job
    table = [_head(job), *(_cells(row, job) for row in result.rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [f'{job.title} ({"more" if job.more_is_better else "less"} is better)']
    for name, *cells in table:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append('  '.join(['', name.ljust(widths[0]), *padded]).rstrip())
    notes = (textwrap.fill(note, WIDTH, initial_indent='  ', subsequent_indent='  ') for note in job.notes)
    return '\n'.join([*lines, *notes, ''])


def page_of(results: Sequence[Result], rounds: int) -> str:
    """The page of the documentation."""
    return '\n'.join([INTRODUCTION.format(rounds=rounds), *_setting(), *_verdict(results), *_tables(results)])


def verdict_of(results: Iterable[Result]) -> list[str]:
    """A line for each target that is missed, or one that says that there is none."""
    missed = [_missed(row, result.job) for result in results for row in result.rows if row.is_met is False]
    return missed or ['every target is met']


def _setting() -> list[str]:
    return [
        '| | |',
        '| --- | --- |',
        f'| date | {datetime.now(UTC):%Y-%m-%d} |',
        f'| machine | {os.cpu_count()} cores, {_processor()}, {platform.system()} {platform.machine()} |',
        f'| Python | {platform.python_implementation()} {platform.python_version()} |',
        f'| pipekit | {_version("pipekit-batches")}, revision {_revision()} |',
        *(f'| {package} | {_version(package)} |' for package in PACKAGES),
        '',
    ]


def _verdict(results: Sequence[Result]) -> list[str]:
    ahead = [line for result in results for line in _ahead(result)]
    return [
        '## Targets',
        '',
        *(f'- {line}' for line in verdict_of(results)),
        '',
        '## Where another is ahead',
        '',
        'Of the fastest pipekit in a table, the baseline aside:',
        '',
        *(f'- {line}' for line in ahead or ['nobody']),
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


def _tables(results: Iterable[Result]) -> Iterator[str]:
    for result in results:
        job = result.job
        head = _head(job)
        yield f'## {job.title[0].upper()}{job.title[1:]}\n'
        for note in job.notes:
            yield f'{note}\n'
        yield f'{"More" if job.more_is_better else "Less"} is better.\n'
        yield f'| {" | ".join(head)} |'
        yield f'| --- |{" ---: |" * (len(head) - 1)}'
        for row in result.rows:
            yield f'| {" | ".join(_cells(row, job))} |'
        yield ''


def _head(job: Job) -> list[str]:
    ratio = [f'ratio to {job.baseline}'] if job.baseline else []
    target = ['target'] if job.targets else []
    return ['', job.unit, *ratio, *target]


def _cells(row: Row, job: Job) -> list[str]:
    ratio = [_numbers(row.ratio, 2)] if row.ratio else []
    target = [_target(row, job)] if job.targets else []
    return [row.name, _numbers(row.figure, job.digits), *ratio, *target]


def _numbers(summary: Summary, digits: int) -> str:
    median, lowest, highest = (f'{x:,.{digits}f}' for x in (summary.median, summary.lowest, summary.highest))
    return f'{median} ({lowest} to {highest})'


def _target(row: Row, job: Job) -> str:
    if row.target is None:
        return ''
    return f'{_bound(row.target, job)}: {"met" if row.is_met else "missed"}'


def _missed(row: Row, job: Job) -> str:
    assert row.target is not None
    summary = row.figure if row.target.of == 'figure' else row.ratio
    assert summary is not None
    return f'missed: {job.title}, {row.name}: {summary.median:,.2f}, target {_bound(row.target, job)}'


def _bound(target: Target, job: Job) -> str:
    return f'{"≥" if job.more_is_better else "≤"} {target.limit:,g}'


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
