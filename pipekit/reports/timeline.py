"""A report as a figure: a timeline of the last epoch, and the time of each stage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from toolz import groupby

from ..streams.metering import BatchRecord, CallRecord, WaitRecord
from .timings import Timings

if TYPE_CHECKING:
    from .figures import Picture


Span: TypeAlias = tuple[float, float]  # a beginning and a duration, in seconds

WAITING_COLOR, MAKING_COLOR = '#d62728', '#7f7f7f'
MAX_LABEL_CHARACTERS = 40


class Lane(NamedTuple):
    """A row of the timeline: what was done, by whom, and when."""

    label: str
    color: str
    spans: list[Span]


def plot(timings: Timings, verdict: str) -> Picture:
    """A timeline of the last epoch, and below it the seconds that each stage takes per batch."""
    from .figures import Picture  # needs the extra `plot`

    lanes = list(_lanes(timings))
    n_lanes, n_bars = len(lanes), max(len(timings.stages), 1)
    figure = Picture(figsize=(10, 1.6 + 0.32 * (n_lanes + n_bars)), layout='constrained')
    timeline, bars = figure.subplots(2, 1, height_ratios=[n_lanes + 1, n_bars + 1])
    _draw_lanes(timeline, lanes)
    _draw_bars(bars, timings)
    figure.suptitle(verdict, wrap=True, fontsize='medium')
    for axes in figure.axes:
        axes.spines[['top', 'right']].set_visible(False)
    return figure


def _lanes(timings: Timings) -> Iterator[Lane]:
    begin, end = _last_epoch(timings.waits)
    yield Lane('training waits', WAITING_COLOR, _spans(timings.waits, begin, end))
    yield Lane('a batch is made', MAKING_COLOR, _spans(timings.batches, begin, end))
    for number, times in enumerate(timings.stages):
        calls_in = groupby(attrgetter('lane'), timings.calls_of[times.path])
        for lane, calls in sorted(calls_in.items()):
            worker = '' if times.workers is None else f' · {lane.removeprefix("pipekit-")}'
            if spans := _spans(calls, begin, end):
                yield Lane(_shortened(times.stage) + worker, _color(number), spans)


def _last_epoch(waits: Sequence[WaitRecord]) -> tuple[float, float]:
    if not waits:
        return 0.0, 0.0
    first = max((number for number, wait in enumerate(waits) if wait.is_first), default=0)
    return waits[first].begin, waits[-1].end


def _spans(records: Iterable[BatchRecord | CallRecord | WaitRecord], begin: float, end: float) -> list[Span]:
    """The parts of the records between two times, relative to the first."""
    overlapping = (record for record in records if record.end > begin and record.begin < end)
    clipped = ((max(record.begin, begin), min(record.end, end)) for record in overlapping)
    return [(start - begin, stop - start) for start, stop in clipped]


def _draw_lanes(axes: Any, lanes: Sequence[Lane]) -> None:
    for row, lane in enumerate(lanes):
        axes.broken_barh(lane.spans, (row - 0.4, 0.8), facecolors=lane.color)
    axes.set_yticks(range(len(lanes)), [lane.label for lane in lanes])
    axes.set_ylim(len(lanes) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.set_xlabel('seconds')
    axes.set_title('last epoch', loc='left')


def _draw_bars(axes: Any, timings: Timings) -> None:
    rows = range(len(timings.stages))
    axes.barh(rows, [1e3 * times.for_batch for times in timings.stages], color=list(map(_color, rows)))
    axes.set_yticks(rows, [_shortened(times.stage) for times in timings.stages])
    axes.invert_yaxis()
    axes.axvline(1e3 * timings.step, color=WAITING_COLOR, linestyle='--', label='training step')
    axes.set_xlim(left=0)
    axes.set_xlabel('milliseconds, summed over the workers')
    axes.set_title('time per batch', loc='left')
    axes.legend(loc='lower right', frameon=False)


def _color(number: int) -> str:
    return f'C{number}'


def _shortened(text: str) -> str:
    line = ' '.join(text.split())
    return line if len(line) <= MAX_LABEL_CHARACTERS else f'{line[: MAX_LABEL_CHARACTERS - 3]}...'
