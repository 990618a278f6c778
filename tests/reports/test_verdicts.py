"""The verdict names what the training waits for, and following it removes the wait."""

import time
import zlib

import numpy as np
import pytest
from timed_training import compute, computes, in_three_tries, sleeps, train

from pipekit import apply, combine_batches, pipeline, processes, threads
from pipekit.reports.report import report_on
from pipekit.streams.metering import Meter

BATCH = 4


@pytest.fixture
def free_core():
    """Skip a test that tells computing from waiting if other programs keep the cores busy."""
    for _ in range(50):
        begin, computed = time.perf_counter(), time.thread_time()
        compute(0, 0.05)
        if time.thread_time() - computed > 0.9 * (time.perf_counter() - begin):
            return
    pytest.skip('the machine is busy')


@in_three_tries
def test_a_fast_pipeline_needs_no_change():
    report = train(apply(abs), combine_batches(BATCH))
    assert report.bottleneck is None
    assert 'times faster than training; nothing to change' in report.verdict
    assert report.waiting < 0.05


SLOW = [
    # a name, a stage, what the verdict says about it, the workers that it proposes, and how many at most
    ('inline, waiting', lambda workers: apply(sleeps(0.006), workers=workers), 'workers=threads', threads, 6),
    ('in too few threads', lambda workers: apply(sleeps(0.006), workers=workers or threads(1)), 'threads', threads, 6),
    (
        'in too few processes',
        lambda workers: apply(sleeps(0.006), workers=workers or processes(1)),
        'processes',
        processes,
        6,
    ),
]


def number_in(verdict, kind):
    return int(verdict.rpartition(f'{kind}(')[2].partition(')')[0])


@pytest.mark.parametrize(('name', 'stage', 'remedy', 'kind', 'most'), SLOW, ids=[case[0] for case in SLOW])
@in_three_tries
def test_a_slow_stage_is_named_and_the_advice_removes_the_wait(name, stage, remedy, kind, most):
    slow = train(stage(None), combine_batches(BATCH))
    assert slow.bottleneck == 'apply(load)'
    assert f'{remedy}(' in slow.verdict
    n = number_in(slow.verdict, kind.__name__)
    assert 3 <= n <= most
    assert slow.waiting > 0.3
    assert train(stage(kind(n)), combine_batches(BATCH)).waiting < slow.waiting / 2


@in_three_tries
def test_several_stages_share_the_threads():
    both = [apply(sleeps(0.004), workers=threads(2)), apply(sleeps(0.002), workers=threads(2))]
    slow = train(*both, combine_batches(BATCH))
    assert slow.bottleneck == 'apply(load)'
    n = number_in(slow.verdict, 'threads')
    both = [apply(sleeps(0.004), workers=threads(n)), apply(sleeps(0.002), workers=threads(n))]
    assert train(*both, combine_batches(BATCH)).waiting < slow.waiting / 2


@in_three_tries
@pytest.mark.usefixtures('free_core')
def test_computing_in_the_prefetch_thread_should_move_to_processes():
    slow = train(apply(computes(0.008)), combine_batches(BATCH))
    assert slow.bottleneck == 'apply(augment)'
    assert 'in the prefetch thread; workers=processes(' in slow.verdict
    assert number_in(slow.verdict, 'processes') in (2, 3, 4)


@in_three_tries
@pytest.mark.usefixtures('free_core')
def test_threads_that_hold_the_gil_should_be_processes():
    slow = train(apply(computes(0.008), workers=threads(4)), combine_batches(BATCH))
    assert slow.bottleneck == 'apply(augment)'
    assert 'hold the GIL' in slow.verdict
    assert number_in(slow.verdict, 'processes') in range(2, 6)


@in_three_tries
@pytest.mark.usefixtures('free_core')
def test_threads_that_compute_without_the_gil_should_be_more():
    data = np.random.default_rng(0).bytes(1 << 18)

    def load(number):
        time.sleep(0.006)
        return len(zlib.compress(data))

    slow = train(apply(load, workers=threads(2)), combine_batches(BATCH))
    assert slow.bottleneck == 'apply(load)'
    assert 'threads(2); threads(' in slow.verdict


def verdict_on_threads(n, *, making, call, computing, delay):
    """The verdict on ``apply(abs, workers=threads(n))`` for calls with these durations in seconds."""
    workers, meter = threads(n), Meter()
    for number in range(50):
        begin = number * making
        meter.batches.append((begin, begin + making, making, 0.0, True))
        meter.waits.append((begin, begin + 0.8 * making, number == 0))
        meter.add_calls([('2', 'lane', begin, begin + call, computing)])
    meter.n_batches = meter.n_sampled = 50
    meter.waited_for[workers] = 50 * making
    meter.delays[workers].extend([delay] * 50)
    return report_on(meter, pipeline(range(9), apply(abs, workers=workers)).rows(), 3).verdict


# The number of threads, and milliseconds: to make a batch, in its call, of that computing, and from the end of the call
# until the prefetch thread goes on.
GIL_IS_HELD = {
    'two threads, one of them always waiting': (2, 8, 16, 8, 5),
    'two threads that wait less than half the time': (2, 8, 10.6, 8, 5),
    'calls that end before another thread gets the GIL': (4, 8, 8, 8, 3.6),
    'many threads': (32, 8, 256, 8, 20),
}
GIL_IS_FREE = {
    'two threads that compute in parallel': (2, 8, 16, 16, 0.1),
    'two threads, half waiting and half computing': (2, 8, 16, 8, 0.1),
    'two threads that mostly wait': (2, 8, 16, 1, 5),
    'one thread': (1, 8, 8, 8, 5),
}


@pytest.mark.parametrize('case', [*GIL_IS_HELD, *GIL_IS_FREE])
def test_threads_hold_the_gil_if_the_prefetch_thread_waits_for_it_too(case):
    n, *times = (GIL_IS_HELD | GIL_IS_FREE)[case]
    making, call, computing, delay = (duration / 1000 for duration in times)
    verdict = verdict_on_threads(n, making=making, call=call, computing=computing, delay=delay)
    assert ('hold the GIL' in verdict) == (case in GIL_IS_HELD)


@in_three_tries
def test_slow_combining_is_named():
    def combine(samples):
        time.sleep(0.02)
        return samples

    slow = train(combine_batches(BATCH, combine))
    assert slow.bottleneck == 'combine_batches(4, combine)'
    n = number_in(slow.verdict, 'threads')
    assert train(combine_batches(BATCH, combine, workers=threads(n))).waiting < slow.waiting / 2


@in_three_tries
def test_a_slow_source_is_named():
    def rows():
        for number in range(1000):
            time.sleep(0.005)
            yield number

    slow = train(apply(abs), combine_batches(BATCH), source=rows)
    assert slow.bottleneck == 'source'
    assert 'reading from rows takes' in slow.verdict


@in_three_tries
def test_an_exact_profile_distinguishes_the_source_from_other_stages():
    def slowly(iterable):
        for number in iterable:
            time.sleep(0.005)
            yield number

    slow = train(slowly, apply(abs), combine_batches(BATCH), profile=True)
    assert slow.bottleneck == 'slowly'
    assert [times.stage for times in slow.stages] == [
        'sample(range(0, 100))',
        'slowly',
        'apply(abs)',
        'combine_batches(4)',
    ]
    assert 'profile=True' in train(slowly, combine_batches(BATCH)).verdict


@in_three_tries
def test_bursts_need_a_larger_buffer():
    def burst(number):
        time.sleep(0.12 if number % 16 == 15 else 0)
        return number

    slow = train(apply(burst), source=range(10**6), n=160, buffer_size=1)
    assert slow.bottleneck == 'buffer'
    size = number_in(slow.verdict.replace('buffer_size=', 'x('), 'x')
    assert size in (8, 16, 32)
    assert train(apply(burst), source=range(10**6), n=160, buffer_size=size).waiting < 0.1


@in_three_tries
def test_sending_results_of_processes_is_distinguished_from_slow_work():
    def load(number):
        return b'x' * (8 << 20)

    slow = train(apply(load, workers=processes(2)), step=0.0005, n=60)
    assert slow.bottleneck == 'apply(load)'
    assert 'sending their results takes the rest' in slow.verdict


def test_without_batches_the_verdict_says_so():
    verdict = report_on(Meter(), pipeline('abc').rows(), buffer_size=3).verdict
    assert verdict == 'Too few batches yet to say where the time goes: 0.'
