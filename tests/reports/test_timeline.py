"""The figure of a report: a lane for each stage and worker in the last epoch, and a bar for each stage."""

import pytest

from pipekit import apply, pipeline, prefetch, threads
from pipekit.reports.timeline import plot
from pipekit.reports.timings import Timings
from pipekit.streams.metering import Meter

pytest.importorskip('matplotlib')


def figure_of(*stages, epochs=1, **options):
    with pipeline(range(20), *stages, prefetch(**options)) as batches:
        for _ in range(epochs):
            list(batches)
        return batches.report().plot()


def lanes(figure):
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_the_last_epoch_stands_above_the_time_per_batch():
    figure = figure_of(apply(abs), profile=True)
    assert [axes.get_title(loc='left') for axes in figure.axes] == ['last epoch', 'time per batch']
    assert lanes(figure) == ['training waits', 'a batch is made', 'range(0, 20)', 'apply(abs)']
    assert [bar.get_text() for bar in figure.axes[1].get_yticklabels()] == ['range(0, 20)', 'apply(abs)']


def test_each_worker_has_a_lane():
    labels = lanes(figure_of(apply(abs, workers=threads(1))))[2:]
    assert len(labels) == 1
    assert labels[0].startswith('apply(abs) · ')


def test_equal_stages_have_a_lane_each():
    assert lanes(figure_of(apply(abs), apply(abs)))[2:] == ['apply(abs)'] * 2


def test_a_long_name_is_shortened():
    def a_function_with_a_very_long_name_indeed(number):
        return number

    (label,) = lanes(figure_of(apply(a_function_with_a_very_long_name_indeed)))[2:]
    assert label == 'apply(a_function_with_a_very_long_nam...'


def test_only_the_last_epoch_is_drawn():
    meter = Meter()
    meter.waits.extend([(0.0, 1.0, True), (5.0, 6.0, True), (7.0, 9.0, False)])
    meter.batches.extend([(0.0, 1.0, 0.0, 0.0, True), (4.0, 6.0, 0.0, 0.0, True), (7.0, 8.0, 0.0, 0.0, True)])
    timeline, _ = plot(Timings(meter, []), 'nothing to change').axes
    spans = [[path.get_extents().intervalx.tolist() for path in lane.get_paths()] for lane in timeline.collections]
    assert spans == [[[0.0, 1.0], [2.0, 4.0]], [[0.0, 1.0], [2.0, 3.0]]]


def test_a_report_without_batches_can_be_drawn(tmp_path):
    pipeline('abc', prefetch()).report().plot().savefig(tmp_path / 'report.png')
