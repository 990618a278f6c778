"""The times of stages, of making batches and of training are those that were measured."""

import time

import pytest
from timed_training import in_three_tries, sleeps, train

from pipekit import (
    apply,
    combine_batches,
    keep,
    load_by_random_id,
    mix,
    pipeline,
    prefetch,
    processes,
    shuffle,
    skip,
    threads,
)
from pipekit.reports.timings import MIN_BATCHES, Timings
from pipekit.streams.metering import Meter


def timings_after(n, making=0.0, waiting=0.0, step=0.0):
    """The timings after one epoch of ``n`` batches, each of which took these seconds."""
    meter = Meter()
    for number in range(n):
        begin = number * (waiting + step)
        meter.batches.append((begin, begin + making, 0.0, 0.0, True))
        meter.waits.append((begin, begin + waiting, number == 0))
    return Timings(meter, [])


def test_means_and_shares_are_those_of_the_records():
    timings = timings_after(20, making=0.003, waiting=0.001, step=0.004)
    assert (timings.making, timings.step, timings.waiting) == pytest.approx((0.003, 0.004, 0.2))


@pytest.mark.parametrize(('n', 'is_sufficient'), [(0, False), (MIN_BATCHES, False), (MIN_BATCHES + 1, True)])
def test_too_few_batches_give_no_means(n, is_sufficient):
    timings = timings_after(n, making=0.003, waiting=0.001, step=0.004)
    assert timings.is_sufficient == is_sufficient
    assert (timings.step > 0) == (timings.making > 0) == (timings.waiting > 0) == is_sufficient


def test_the_time_between_two_epochs_is_not_training():
    meter = Meter()
    meter.waits.extend([(0.0, 1.0, True), (2.0, 3.0, False), (100.0, 101.0, True), (102.0, 103.0, False)])
    assert Timings(meter, []).steps == [1.0, 1.0]


@in_three_tries
def test_counts_and_times_are_right():
    stages = apply(sleeps(0.003), workers=threads(2)), apply(lambda number: number), combine_batches(5)
    report = train(*stages, n=20, profile=True)
    loaded = next(times for times in report.stages if times.stage == 'apply(load)')
    assert 100 <= loaded.samples <= 140
    assert loaded.workers == 'threads(2)'
    assert 0.003 <= loaded.median <= 0.006
    assert loaded.computing < 0.5
    assert report.n_batches == 20
    assert 0.009 < report.step < 0.02


def test_a_stage_before_a_shuffle_is_measured_at_the_first_batches():
    with pipeline(range(10**6), apply(abs), shuffle(64, seed=0), combine_batches(16), prefetch(48)) as batches:
        list(batches)
        stages = batches.report().stages
    assert [times.per_batch for times in stages] == [pytest.approx(16, rel=0.3), 1]


def test_the_ends_of_passes_are_not_counted_as_batches():
    with pipeline(range(12), apply(abs), combine_batches(4), prefetch()) as batches:
        for _ in range(4):
            list(batches)
    assert [times.per_batch for times in batches.report().stages] == [4, 1]


def test_an_exact_profile_counts_each_call_once():
    stages = keep(lambda number: number % 2), combine_batches(3), combine_batches(lambda chunk, value: len(chunk) < 2)
    with pipeline(load_by_random_id(abs, ids=range(9), seed=0), *stages, prefetch(10, profile=True)) as batches:
        list(batches)
        batches.close()
        report = batches.report()
    source, kept, combined, adaptive = report.stages
    assert (combined.per_batch, adaptive.per_batch) == (pytest.approx(2, abs=0.2), 1)
    assert 5 < kept.per_batch == source.per_batch


def test_an_exact_profile_includes_the_overhead_of_a_stage():
    def is_more(chunk, number):
        time.sleep(0.003)
        return len(chunk) < 2

    with pipeline(range(20), combine_batches(is_more), prefetch(profile=True)) as batches:
        list(batches)
        _, combining = batches.report().stages
    assert combining.mean > 0.003 > combining.median
    assert combining.computing < 0.5


@pytest.mark.parametrize('alone', [False, True])
def test_a_stage_that_runs_in_the_processes_of_its_neighbour_is_listed_there(alone):
    stages = apply(abs, workers=processes(1)), combine_batches(2), *([] if alone else [apply(sum)])
    with pipeline(range(20), *stages, prefetch()) as batches:
        list(batches)
        report = batches.report()
    assert [times.workers for times in report.stages] == ['processes(1)', 'processes(1)', None][: len(stages)]
    assert 'None' not in repr(report)


def test_a_stage_in_a_mix_is_listed_with_its_branch():
    branches = [pipeline(range(40), apply(abs)), pipeline(range(40), shuffle(3, seed=0), apply(float))]
    with pipeline(mix(*branches, seed=0), apply(str), prefetch()) as batches:
        list(batches)
        stages = batches.report().stages
    assert [(times.path, times.stage) for times in stages] == [
        ('0.2', 'apply(abs)'),
        ('1.3', 'apply(float)'),
        ('2', 'apply(str)'),
    ]


def test_a_stage_is_listed_without_its_options():
    def passed_on(values):
        yield from values

    whole = pipeline('abc', shuffle(3, seed=0), apply(ord, workers=threads(2), on_error=skip()), passed_on)
    assert whole.rows() == [
        ('1', "'abc'", None, False),
        ('2', 'shuffle(3)', None, False),
        ('3', 'apply(ord)', threads(2), True),
        ('4', 'passed_on', threads(2), False),
    ]
