"""A picture of a report: who did what when, and what each stage takes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from .timings import Timings

if TYPE_CHECKING:
    from .figures import Picture


Span: TypeAlias = tuple[float, float]  # a beginning and a duration, in seconds

WAITING, MAKING = '#d62728', '#7f7f7f'
LONGEST_LABEL = 40


def plot(measured: Timings, verdict: str) -> Picture:
    """A timeline of the last epoch, and the seconds that each stage takes for a batch.

    Examples
    --------
    >>> from pipekit import apply, pipeline, prefetch
    >>> with pipeline(range(20), apply(abs), prefetch(profile=True)) as batches:
    ...     values = list(batches)
    >>> picture = plot(Timings(batches._meter, batches.pipeline), 'nothing to change')
    >>> [axes.get_title(loc='left') for axes in picture.axes]
    ['the last epoch', 'the time for a batch']
    """
    from .figures import Picture  # needs the extra `plot`

    lanes = _lanes(measured)
    height = 1.6 + 0.32 * (len(lanes) + max(len(measured.stages), 1))
    figure = Picture(figsize=(10, height), layout='constrained')
    ratios = [len(lanes) + 1, max(len(measured.stages), 1) + 1]
    timeline, bars = figure.subplots(2, 1, height_ratios=ratios)
    colors = {times.path: f'C{number}' for number, times in enumerate(measured.stages)}
    _draw_lanes(timeline, lanes, colors)
    _draw_bars(bars, measured, colors)
    figure.suptitle(verdict, wrap=True, fontsize='medium')
    for axes in figure.axes:
        axes.spines[['top', 'right']].set_visible(False)
    return figure


def _lanes(measured: Timings) -> dict[str, dict[str, list[Span]]]:
    begin, end = _epoch(measured)
    lanes: dict[str, dict[str, list[Span]]] = {'training waits': {WAITING: []}, 'a batch is made': {MAKING: []}}
    lanes['training waits'][WAITING] = _within([(wait.begin, wait.end) for wait in measured.waits], begin, end)
    lanes['a batch is made'][MAKING] = _within([(batch.begin, batch.end) for batch in measured.batches], begin, end)
    for times in measured.stages:
        spans: defaultdict[str, list[Span]] = defaultdict(list)
        for call in measured.calls_of[times.path]:
            spans[call.lane].append((call.begin, call.end))
        for lane in sorted(spans):
            shown = _within(spans[lane], begin, end)
            where = '' if times.workers is None else f' · {lane.removeprefix("pipekit-")}'
            if shown:
                lanes[_cut(times.stage) + where] = {times.path: shown}
    return lanes


def _epoch(measured: Timings) -> Span:
    waits = measured.waits
    if not waits:
        return 0.0, 0.0
    first = max((number for number, wait in enumerate(waits) if wait.is_first), default=0)
    return waits[first].begin, waits[-1].end


def _within(spans: Sequence[Span], begin: float, end: float) -> list[Span]:
    cut = [(max(start, begin), min(stop, end)) for start, stop in spans if stop > begin and start < end]
    return [(start - begin, stop - start) for start, stop in cut]


def _draw_lanes(axes: Any, lanes: dict[str, dict[str, list[Span]]], colors: dict[str, str]) -> None:
    for row, spans in enumerate(lanes.values()):
        for kind, shown in spans.items():
            axes.broken_barh(shown, (row - 0.4, 0.8), facecolors=colors.get(kind, kind))
    axes.set_yticks(range(len(lanes)), lanes)
    axes.set_ylim(len(lanes) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.set_xlabel('seconds')
    axes.set_title('the last epoch', loc='left')


def _draw_bars(axes: Any, measured: Timings, colors: dict[str, str]) -> None:
    amounts = [1e3 * times.mean * times.per_batch for times in measured.stages]
    axes.barh(range(len(amounts)), amounts, color=[colors[times.path] for times in measured.stages])
    axes.set_yticks(range(len(amounts)), [_cut(times.stage) for times in measured.stages])
    axes.invert_yaxis()
    axes.axvline(1e3 * measured.step, color=WAITING, linestyle='--', label='training takes')
    axes.set_xlim(left=0)
    axes.set_xlabel('milliseconds, of all workers together')
    axes.set_title('the time for a batch', loc='left')
    axes.legend(loc='lower right', frameon=False)


def _cut(text: str) -> str:
    line = ' '.join(text.split())
    return line if len(line) <= LONGEST_LABEL else f'{line[: LONGEST_LABEL - 3]}...'
