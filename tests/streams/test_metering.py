"""Which batches the meter looks into, and what it keeps of them."""

from itertools import islice

import numpy as np
import pytest

from pipekit import apply, combine_batches, pipeline, prefetch
from pipekit.streams.metering import SAMPLING_INTERVAL, BatchRecord, CallRecord, Meter, Recorder


@pytest.fixture
def batches_of(monkeypatch):
    """The records of a meter after ``n`` batches; a function of its number says how many seconds each one took."""

    def measured(n, duration):
        now = 0.0
        monkeypatch.setattr('pipekit.streams.metering.perf_counter', lambda: now)

        def items():
            nonlocal now
            for number in range(n):
                now += duration(number)
                yield number, number

        meter, made = Meter(), items()
        for _ in range(n):
            meter.next_entry(made, lambda entry: True)
        return [BatchRecord(*batch) for batch in meter.batches]

    return measured


def test_every_batch_is_sampled_if_they_are_slow_on_average(batches_of):
    assert all(batch.is_sampled for batch in batches_of(500, lambda number: 0.004))
    assert all(batch.is_sampled for batch in batches_of(500, lambda number: 0.016 if number % 4 == 0 else 0))


@pytest.mark.parametrize('period', [2, 4, 16, 64, 128])
def test_periodic_work_is_weighted_correctly(period, batches_of, monkeypatch):
    monkeypatch.setattr('pipekit.streams.metering.MAX_RECORDS', 10**6)
    batches = batches_of(period * SAMPLING_INTERVAL * 3, lambda number: 0.001 if number % period == period - 1 else 0)
    later = [batch for batch in batches[SAMPLING_INTERVAL:] if batch.is_sampled]
    slow = sum(batch.end > batch.begin for batch in later)
    assert len(later) == pytest.approx(len(batches) / SAMPLING_INTERVAL, abs=1)
    assert slow == pytest.approx(len(later) / period, abs=1)


def test_the_meter_keeps_nothing_of_a_sample():
    with pipeline(range(100), apply(np.zeros), combine_batches(1), prefetch(profile=True)) as batches:
        list(islice(batches, 9))
    assert {type(value) for calls in batches._delivery.meter.calls_of.values() for call in calls for value in call} == {
        str,
        float,
    }


def test_a_recorder_calls_functions_and_records_the_calls():
    recorder = Recorder('main', is_recording=True)
    assert recorder.call('2', abs, -3) == 3
    with pytest.raises(TypeError):
        recorder.call('3', abs, 'a')
    assert [CallRecord(*call)[:2] for call in recorder.calls] == [('2', 'main'), ('3', 'main')]


def test_the_overhead_of_a_stage_is_what_is_not_recorded_within_it(monkeypatch):
    now = 0.0
    monkeypatch.setattr('pipekit.streams.metering.perf_counter', lambda: now)

    def spend(seconds):
        nonlocal now
        now += seconds

    def pairs():
        for number in range(3):
            spend(0.5)
            meter.call('2', spend, 10)
            yield number, number + 1

    meter = Meter(is_exact=True)
    assert list(meter.profiled(pairs(), '2')) == [(0, 1), (1, 2), (2, 3)]
    overheads = [CallRecord(*record) for record in meter.overhead_of['2']]
    assert [record.end - record.begin for record in overheads] == [0.5] * 3
    assert meter.n_pulls == {'2': 3}
