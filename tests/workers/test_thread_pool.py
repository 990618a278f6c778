import gc
import sys
import threading
import weakref
from concurrent.futures import CancelledError
from contextlib import suppress
from itertools import count
from operator import itemgetter

import pytest
from more_itertools import bucket, ilen

from pipekit import apply, pipeline, prefetch, threads
from pipekit.workers.settings import Settings
from pipekit.workers.thread_pool import ThreadPool

TIMEOUT_SECONDS = 20


class Array(list):
    """A value that can be referred to weakly."""


@pytest.fixture
def pool():
    pool = ThreadPool(threads(2, name='t'), Settings())
    yield pool
    pool.close()


def of_pool():
    return [thread for thread in threading.enumerate() if thread.name.startswith("pipekit-threads(2, name='t')_")]


def test_threads_are_daemons_started_with_the_items_and_at_most_n(pool):
    assert not of_pool()
    for n_items in range(1, 5):
        assert pool.submit(abs, -3).result() == 3
        assert len(of_pool()) == min(n_items, 2)
    assert all(thread.daemon for thread in of_pool())
    pool.close()
    assert not of_pool()


@pytest.mark.parametrize(
    'error', [OSError('broken'), SystemExit(3), KeyboardInterrupt(), StopIteration(), GeneratorExit()]
)
def test_whatever_a_function_raises_is_the_error_of_its_call_alone(pool, error):
    def fail(value):
        raise error

    calls = [pool.submit(fail, 0), pool.submit(abs, -1)]
    with pytest.raises(type(error)) as caught:
        calls[0].result()
    assert caught.value is error
    assert calls[1].result() == 1


def test_nothing_is_held_once_its_result_is_taken(pool):
    refs = []

    def keep(value):
        refs.append(weakref.ref(value))
        made = Array()
        refs.append(weakref.ref(made))
        return made

    gc.disable()
    try:
        call = pool.submit(keep, Array())
        call.result()
        pool.submit(abs, 0).result()
        del call
        pool.submit(abs, 0).result()  # by now, both threads have gone on
        for _ in range(2000):
            if any(ref() for ref in refs):
                pool.submit(abs, 0).result()
        assert not any(ref() for ref in refs)
    finally:
        gc.enable()


def test_an_error_is_in_no_cycle(pool):
    class Custom(Exception):
        pass

    def fail(value):
        raise Custom

    gc.disable()
    try:
        with pytest.raises(Custom) as caught:
            pool.submit(fail, 0).result()
        ref = weakref.ref(caught.value)
        del caught
        for _ in range(4):
            pool.submit(abs, 0).result()
        assert ref() is None
    finally:
        gc.enable()


def test_cancelled_calls_say_so_and_one_that_runs_is_waited_for(pool):
    running, go = threading.Barrier(3), threading.Event()

    def wait(value):
        running.wait(TIMEOUT_SECONDS)
        return go.wait(TIMEOUT_SECONDS)

    calls = [pool.submit(wait, 0), pool.submit(wait, 0), pool.submit(abs, 1)]
    running.wait(TIMEOUT_SECONDS)
    pool.cancel()
    calls.append(pool.submit(abs, 1))
    for call in calls[2:]:
        with pytest.raises(CancelledError):
            call.result()
    go.set()
    assert [call.result() for call in calls[:2]] == [True, True]
    pool.close()
    assert not of_pool()


def test_a_pool_may_be_cancelled_and_given_calls_by_several_threads_at_once():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(100):
            pool = ThreadPool(threads(3, name='c'), Settings())
            numbers, outcomes, begun = count(), [], threading.Barrier(4)

            def submit(pool=pool, numbers=numbers, outcomes=outcomes, begun=begun):
                begun.wait(TIMEOUT_SECONDS)
                with suppress(CancelledError):
                    while True:
                        number = next(numbers)
                        outcomes.append(pool.submit(abs, -number).result() == number)

            submitting = [threading.Thread(target=submit) for _ in range(3)]
            for thread in submitting:
                thread.start()
            begun.wait(TIMEOUT_SECONDS)
            pool.cancel()
            for thread in submitting:
                thread.join(TIMEOUT_SECONDS)
                assert not thread.is_alive()
            pool.close()
            assert all(outcomes)
            assert not [
                thread for thread in threading.enumerate() if thread.name.startswith("pipekit-threads(3, name='c')_")
            ]
    finally:
        sys.setswitchinterval(interval)


def opened(function, workers):
    return pipeline(range(40), apply(function, workers=workers), prefetch())


@pytest.mark.parametrize('n', [1, 2, 5])
@pytest.mark.parametrize('initargs', [(), (1,), (1, 'b')])
def test_an_initializer_runs_once_in_each_thread_before_its_first_item(n, initargs):
    together = threading.Barrier(n, timeout=TIMEOUT_SECONDS)
    events = []

    def initialize(*arguments):
        assert arguments == initargs
        events.append(('initialized', threading.get_ident()))

    def load(number):
        events.append((number, threading.get_ident()))
        if [ident for _, ident in events].count(threading.get_ident()) == 2:
            together.wait()  # each thread has one
        return number

    for _ in range(2):  # it runs again after they were closed
        events.clear()
        with opened(load, threads(n, initializer=initialize, initargs=initargs)) as batches:
            assert list(batches) == list(range(40))
        by_thread = bucket(events, key=itemgetter(1))
        assert ilen(by_thread) == n
        for ident in by_thread:
            first, *others = [what for what, _ in by_thread[ident]]
            assert first == 'initialized'
            assert 'initialized' not in others


ERRORS = [OSError('broken'), KeyError('a'), ImportError('no module'), SystemExit(3), KeyboardInterrupt()]


@pytest.mark.parametrize('error', ERRORS, ids=repr)
@pytest.mark.parametrize('n', [1, 4])
def test_an_error_of_an_initializer_reaches_the_consumer_with_a_note(error, n):
    def setup():
        raise error

    workers = threads(n, initializer=setup)
    with opened(abs, workers) as batches, pytest.raises(type(error)) as caught:
        list(batches)
    assert caught.value is error
    assert f'raised by initializer=setup of workers={workers!r}' in error.__notes__
    assert [part.name for part in caught.traceback][-1] == 'setup'


def test_an_initializer_that_failed_is_called_again_when_the_batches_go_on():
    fails = iter([True])

    def setup():
        if next(fails, False):
            raise OSError('not yet')

    with opened(abs, threads(1, initializer=setup)) as batches:
        with pytest.raises(OSError, match='not yet'):
            list(batches)
        assert list(batches) == list(range(40))


@pytest.mark.parametrize('initializer', [1, 'setup', (print,), [], {}])
def test_an_initializer_is_a_function(initializer):
    with pytest.raises(TypeError, match='initializer must be a function or None, got '):
        threads(2, initializer=initializer)


@pytest.mark.parametrize('initargs', [1, 'ab', [1], {1}, None])
def test_initargs_is_a_tuple(initargs):
    with pytest.raises(TypeError, match=r'initargs must be a tuple, got .*; write \(.*,\) for one argument'):
        threads(2, initializer=print, initargs=initargs)
