"""A picture of a job: a bar for each contender, on a logarithmic scale."""

from __future__ import annotations

import re
from pathlib import Path

from measure import Job, Result

OURS, OTHERS, REFERENCE = '#c2410c', '#64748b', '#cbd5e1'  # colours, of pipekit, of the others, of the baseline
WIDTH, HEIGHT, MARGIN = 8.0, 0.3, 1.0  # inches: of the picture, of a bar, of what is above and below


def name_of(job: Job) -> str:
    """The name of a job's file."""
    title = job.title.lower().replace('µ', 'u').replace("'", '')
    return f'benchmark-{re.sub("[^a-z0-9]+", "-", title)}.png'


def draw(result: Result, folder: Path) -> None:
    """Draw the medians, and lines from the lowest to the highest figure."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    job, rows = result.job, result.rows[::-1]
    medians = [row.figure.median for row in rows]
    figure = Figure(figsize=(WIDTH, MARGIN + HEIGHT * len(rows)), dpi=120, layout='constrained')
    axes = figure.subplots()
    axes.barh(range(len(rows)), medians, height=0.7, color=[_colour(row.name, job) for row in rows])
    axes.hlines(
        range(len(rows)), [row.figure.lowest for row in rows], [row.figure.highest for row in rows], color='#0f172a'
    )
    least, most = min(row.figure.lowest for row in rows), max(row.figure.highest for row in rows)
    if least > 0:
        axes.set_xscale('log')
        axes.set_xlim(least / 2, most * (most / least) ** 0.2 * 1.5)  # space for the numbers
        axes.xaxis.set_major_locator(LogLocator(subs=(1,) if most > 100 * least else (1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f'{x:,.10g}'))
    for place, row in enumerate(rows):
        text = f'{row.figure.median:,.{job.digits}f}'
        axes.annotate(text, (row.figure.highest, place), (6, 0), textcoords='offset points', va='center', fontsize=8)
    axes.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=9)
    axes.tick_params(axis='y', length=0)
    axes.tick_params(axis='x', labelsize=8)
    axes.grid(axis='x', alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right', 'left']].set_visible(False)
    axes.set_xlabel(f'{job.unit}; {"more" if job.more_is_better else "less"} is better', fontsize=9)
    axes.set_title(f'{job.title[0].upper()}{job.title[1:]}', loc='left', fontsize=11, x=0)
    figure.savefig(folder / name_of(job))


def _colour(name: str, job: Job) -> str:
    if name.startswith('pipekit'):
        return OURS
    return REFERENCE if name == job.baseline else OTHERS
