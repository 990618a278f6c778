import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from itertools import count, islice

import numpy as np
import pytest

from pipekit import apply, combine_batches, pipeline, prefetch, sample, shuffle, threads, unpack
from pipekit.streams.context import Context, Run
from pipekit.streams.cursors import START
from pipekit.testing import check_stage
from pipekit.workers.pools import WorkerPools, awaited

TIMEOUT_SECONDS = 20


def jitter(value, rng):
    return value + rng.random()


def split(value):
    return value, value * 2


def add(a, b, rng):
    return a + b + rng.random()


def steps(workers):
    return (
        apply(jitter, seed=0, workers=workers),
        shuffle(3, seed=0),
        apply(split, workers=workers),
        unpack(add, seed=0, workers=workers),
        combine_batches(4, workers=workers),
    )


@pytest.fixture
def pools():
    pools = WorkerPools()
    yield pools
    pools.cancel()
    pools.close()


@pytest.mark.parametrize('workers', [threads(1), threads(2), threads(8), threads(3, ahead=20)], ids=repr)
def test_threads_change_nothing(workers):
    check_stage(pipeline(*steps(workers)), range(30))
    expected = [batch.tolist() for batch in pipeline(range(30), *steps(None))]
    with pipeline(range(30), *steps(workers), prefetch()) as batches:
        assert [batch.tolist() for batch in batches] == expected


def test_a_borrowed_executor_changes_nothing_and_is_left_running():
    with ThreadPoolExecutor(3) as executor:
        check_stage(pipeline(*steps(executor)), range(30))
        with pipeline(range(8), apply(abs, workers=executor), prefetch()) as batches:
            assert list(batches) == list(range(8))
        assert executor.submit(abs, -1).result(TIMEOUT_SECONDS) == 1


def test_a_state_saved_with_workers_goes_on_without_them():
    def batches(workers):
        return pipeline(sample(range(100), seed=0), *steps(workers), prefetch(3))

    with batches(threads(4)) as first:
        list(first)
        state = first.state_dict()
        expected = [batch.tolist() for batch in first]
    with batches(None) as second:
        second.load_state_dict(state)
        assert [batch.tolist() for batch in second] == expected


def test_without_prefetch_everything_runs_in_the_calling_thread():
    here = threading.get_ident()
    values = pipeline(range(9), apply(lambda _: threading.get_ident(), workers=threads(4)))
    assert set(values) == {here}


def test_equal_workers_are_the_same_threads_and_a_name_keeps_them_apart(pools):
    def names(*workers):
        stages = [apply(lambda seen: (*seen, threading.current_thread().name), workers=each) for each in workers]
        pairs = pipeline([()] * 9, stages[0], shuffle(1), stages[1]).open(START, Context(run=Run(pools)))
        return [set(column) for column in zip(*(value for value, _ in pairs), strict=True)]

    first, second = names(threads(1), threads(1))
    assert first == second
    first, second = names(threads(1), threads(1, name='io'))
    assert not first & second


def test_neighbours_with_equal_workers_are_one_task(pools):
    submitted = []

    class Counting(ThreadPoolExecutor):
        def submit(self, function, /, *args):
            submitted.append(function)
            return super().submit(function, *args)

    with Counting(2) as executor:
        stages = [apply(abs, workers=executor), apply(float, workers=executor)]
        assert len(list(pipeline(range(5), *stages).open(START, Context(run=Run(pools))))) == 5
        assert len(submitted) == 5


def test_all_threads_are_kept_busy(pools):
    together = threading.Barrier(4, timeout=TIMEOUT_SECONDS)
    values = pipeline(range(8), apply(lambda _: together.wait() < 4, workers=threads(4)))
    assert all(value for value, _ in values.open(START, Context(run=Run(pools))))


def test_no_more_than_ahead_are_in_flight(pools):
    read = count()
    values = pipeline(lambda: iter(read), apply(abs, workers=threads(2, ahead=5)))
    list(islice(values.open(START, Context(run=Run(pools))), 10))
    assert next(read) == 14


def test_no_more_than_two_for_each_core_are_in_flight_in_a_borrowed_executor(pools, monkeypatch):
    monkeypatch.setattr('pipekit.workers.borrowed.os.cpu_count', lambda: 3)
    read = count()
    with ThreadPoolExecutor(2) as executor:
        values = pipeline(lambda: iter(read), apply(abs, workers=executor))
        list(islice(values.open(START, Context(run=Run(pools))), 10))
    assert next(read) <= 10 + 2 * 3 + 2


def test_values_before_an_error_are_delivered(pools):
    error = OSError('broken')

    def load(number):
        if number == 3:
            raise error
        return number

    values = pipeline(range(9), apply(load, workers=threads(4))).open(START, Context(run=Run(pools)))
    assert [value for value, _ in islice(values, 3)] == [0, 1, 2]
    with pytest.raises(OSError, match='broken') as caught:
        next(values)
    assert caught.value is error


def test_values_before_an_error_of_the_source_are_delivered(pools):
    def source():
        yield from [1, 2]
        raise OSError('broken')

    values = pipeline(source, apply(abs, workers=threads(4))).open(START, Context(run=Run(pools)))
    assert [value for value, _ in islice(values, 2)] == [1, 2]
    with pytest.raises(OSError, match='broken'):
        next(values)


def test_the_threads_end_when_the_batches_are_closed():
    before = set(threading.enumerate())
    batches = pipeline(sample(range(9), seed=0), apply(abs, workers=threads(4)), prefetch(5))
    with batches:
        list(batches)
        assert len(set(threading.enumerate()) - before) == 5
    assert set(threading.enumerate()) == before


def test_closing_waits_for_a_function_in_a_thread(monkeypatch):
    begun, closing = threading.Event(), threading.Event()
    cancel = WorkerPools.cancel
    monkeypatch.setattr(WorkerPools, 'cancel', lambda self: (closing.set(), cancel(self)))
    returned = []

    def load(number):
        begun.set()
        assert closing.wait(TIMEOUT_SECONDS)
        returned.append(number)

    with pipeline([0], apply(load, workers=threads(1)), prefetch()) as batches:
        iter(batches)
        assert begun.wait(TIMEOUT_SECONDS)
    assert returned == [0]


def test_closing_does_not_wait_for_work_that_a_borrowed_executor_has_not_begun():
    busy, done = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as executor:
        executor.submit(lambda: (busy.set(), done.wait(TIMEOUT_SECONDS)))
        assert busy.wait(TIMEOUT_SECONDS)
        batches = pipeline(range(9), apply(abs, workers=executor), prefetch())
        iter(batches)
        batches.close()
        done.set()


def test_a_closed_executor_raises_its_own_error_with_a_note():
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with (
        pipeline(range(9), apply(abs, workers=executor), prefetch()) as batches,
        pytest.raises(RuntimeError, match='after shutdown') as caught,
    ):
        list(batches)
    assert caught.value.__notes__[0] == 'raised by submit of workers=<ThreadPoolExecutor>'


def test_anything_with_submit_is_an_executor(pools):
    class Inline:
        def submit(self, function, /, *args):
            future = Future()
            future.set_result(function(*args))
            return future

    values = pipeline(range(3), apply(float, workers=Inline())).open(START, Context(run=Run(pools)))
    assert [value for value, _ in values] == [0.0, 1.0, 2.0]


def test_two_pipelines_may_borrow_the_same_executor_at_once():
    with ThreadPoolExecutor(2) as executor:
        stage = apply(np.sqrt, workers=executor)
        with pipeline(range(50), stage, prefetch(5)) as first, pipeline(range(50), stage, prefetch(5)) as second:
            assert [value for pair in zip(first, second, strict=True) for value in pair] == [
                np.sqrt(number) for number in range(5) for _ in range(2)
            ]


class Work:
    """As a task, but called with a plain value."""

    def __init__(self, function):
        self.functions = [function]

    def __call__(self, value):
        return self.functions[0](value)


@pytest.mark.parametrize('fails', [False, True])
def test_each_wait_for_a_result_is_reported(fails):
    waits = []
    with ThreadPoolExecutor(1) as executor:
        pools = WorkerPools(lambda workers, begin: waits.append((workers, begin)))
        results = pools.map(executor, Work((lambda _: 1 / 0) if fails else abs), iter([-1, -2, -3]))
        with pytest.raises(ZeroDivisionError) if fails else nullcontext():
            assert list(results) == [1, 2, 3]
    assert [workers for workers, _ in waits] == [executor] * (1 if fails else 3)
    assert waits == sorted(waits, key=lambda wait: wait[1])


def test_a_frame_that_waits_says_for_what():
    frames = []

    class Observed(Future):
        def result(self):
            frame = sys._getframe()
            while frame is not None:
                frames.append(awaited(frame))
                frame = frame.f_back
            return 1

    class Executor:
        def submit(self, function, /, *args):
            return Observed()

    assert list(WorkerPools().map(Executor(), Work(abs), iter([1]))) == [1]
    assert list(filter(None, frames)) == ['a result of abs from <Executor>']


class Runs:
    """An executor whose submit returns something in place of a future."""

    def __init__(self, returned):
        self.returned = returned

    def submit(self, function, *args):
        return self.returned


@pytest.mark.parametrize('returned', [None, 3, 'done'])
def test_an_executor_that_returns_no_future_is_named_with_what_it_returns(returned):
    batches = pipeline(range(8), apply(abs, workers=Runs(returned)), prefetch())
    with batches, pytest.raises(TypeError) as caught:
        list(batches)
    assert 'submit of workers=' in str(caught.value)
    assert f'must return a future, with result, cancel and add_done_callback, got {returned!r}' in str(caught.value)
