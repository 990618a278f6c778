"""Which batches the meter looks into, and what it keeps of them."""

from itertools import islice

import numpy as np
import pytest

from pipekit import apply, combine_batches, pipeline, prefetch
from pipekit.streams.metering import ONE_IN, Batch, Meter


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
            meter.timed(made, lambda entry: True)
        return [Batch(*batch) for batch in meter.batches]

    return measured


def test_every_batch_is_sampled_if_they_are_slow_on_average(batches_of):
    assert all(batch.is_sampled for batch in batches_of(500, lambda number: 0.004))
    assert all(batch.is_sampled for batch in batches_of(500, lambda number: 0.016 if number % 4 == 0 else 0))


@pytest.mark.parametrize('period', [2, 4, 16, 64, 128])
def test_periodic_work_is_weighted_correctly(period, batches_of, monkeypatch):
    monkeypatch.setattr('pipekit.streams.metering.REMEMBERED', 10**6)
    batches = batches_of(period * ONE_IN * 3, lambda number: 0.001 if number % period == period - 1 else 0)
    later = [batch for batch in batches[ONE_IN:] if batch.is_sampled]
    slow = sum(batch.end > batch.begin for batch in later)
    assert len(later) == pytest.approx(len(batches) / ONE_IN, abs=1)
    assert slow == pytest.approx(len(later) / period, abs=1)


def test_the_meter_keeps_nothing_of_a_sample():
    with pipeline(range(100), apply(np.zeros), combine_batches(1), prefetch(profile=True)) as batches:
        list(islice(batches, 9))
    assert {type(value) for calls in batches._delivery.meter.calls_of.values() for call in calls for value in call} == {
        str,
        float,
    }
