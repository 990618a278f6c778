"""Executors of the user's own: what is sent to them, and how often."""

import pickle
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from itertools import count, islice
from multiprocessing import get_context

import pytest

from pipekit import apply, combine_batches, executor, pipeline, prefetch, replace, skip, threads
from pipekit.streams.context import Context, Run
from pipekit.streams.cursors import START
from pipekit.workers.borrowed import BorrowedExecutor, SentWork
from pipekit.workers.kinds import makes_whole_batches
from pipekit.workers.pools import WorkerPools


class Pickling:
    """Sends tasks as a cluster does: pickled, each by itself."""

    def __init__(self):
        self.sent = []

    def submit(self, function, /, *args):
        self.sent.append(pickle.dumps((function, args)))
        function, args = pickle.loads(self.sent[-1])
        future = Future()
        try:
            future.set_result(pickle.loads(pickle.dumps(function(*args))))
        except BaseException as error:
            future.set_exception(error)
        return future


class Counted:
    """A function that counts how often it is pickled and unpickled."""

    pickled = unpickled = 0

    def __call__(self, value):
        return -value

    def __reduce__(self):
        Counted.pickled += 1
        return unpickled_function, ()


def unpickled_function():
    Counted.unpickled += 1
    return Counted()


@pytest.fixture
def pools():
    pools = WorkerPools()
    yield pools
    pools.close()


def values_of(stream, pools, n=None):
    return [value for value, _ in islice(stream.open(START, Context(run=Run(pools))), n)]


@pytest.mark.parametrize('batch_size', [1, 4, 7])
def test_a_task_is_a_whole_batch(pools, batch_size):
    borrowed = Pickling()
    stages = [apply(abs, workers=borrowed), apply(float, workers=borrowed), combine_batches(batch_size, list)]
    expected = list(pipeline(range(20), *stages))
    assert values_of(pipeline(range(20), *stages), pools) == expected
    assert len(borrowed.sent) == len(expected)


def test_a_task_is_a_sample_where_no_batch_follows_or_samples_are_skipped(pools):
    for stages in (
        [apply(abs, workers=Pickling())],
        [apply(abs, workers=Pickling(), on_error=skip()), combine_batches(4, list)],
        [apply(abs, workers=executor(Pickling(), whole_batches=False)), combine_batches(4, list)],
        [apply(abs, workers=Pickling()), combine_batches(lambda chunk, value: len(chunk) < 4, list)],
    ):
        assert values_of(pipeline(range(20), *stages), pools) == list(pipeline(range(20), *stages))
        workers = stages[0].workers
        assert len(getattr(workers, 'borrowed', workers).sent) == 20


def test_which_workers_make_whole_batches():
    with ThreadPoolExecutor(1) as pool:
        assert not makes_whole_batches(pool)
        assert not makes_whole_batches(executor(pool))
        assert makes_whole_batches(executor(pool, whole_batches=True))
    assert makes_whole_batches(Pickling())
    assert not makes_whole_batches(executor(Pickling(), whole_batches=False))
    assert not makes_whole_batches(threads(2))
    assert not makes_whole_batches(None)


def test_a_function_is_pickled_and_unpickled_once(pools):
    Counted.pickled = Counted.unpickled = 0
    borrowed = Pickling()
    stages = [apply(Counted(), workers=borrowed), combine_batches(2, list)]
    assert values_of(pipeline(range(200), *stages), pools)[-1] == [-198, -199]
    assert len(borrowed.sent) == 100
    assert Counted.pickled == Counted.unpickled == 1


def test_functions_of_a_closure_are_sent_to_processes(pools):
    shift = 5
    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
        stages = [apply(lambda value: value + shift, workers=pool), combine_batches(3, list)]
        assert values_of(pipeline(range(6), *stages), pools) == [[5, 6, 7], [8, 9, 10]]


def test_threads_get_the_work_itself():
    work = SentWork(abs)
    assert work(-3) == 3
    assert work._pickled is None


@pytest.mark.parametrize('ahead', [1, 3, 50])
def test_no_more_than_ahead_tasks_are_in_flight(pools, ahead):
    read = count()
    stages = [apply(abs, workers=executor(Pickling(), ahead=ahead)), combine_batches(4, list)]
    assert len(values_of(pipeline(lambda: iter(read), *stages), pools, 10)) == 10
    assert next(read) <= 4 * (10 + ahead)


def test_a_described_executor_is_the_executor(pools):
    borrowed = Pickling()
    assert BorrowedExecutor(executor(borrowed)).ahead == BorrowedExecutor(borrowed).ahead
    assert repr(executor(borrowed, ahead=2)).startswith('executor(')
    assert executor(borrowed, ahead=2) == executor(borrowed, ahead=2)
    with pipeline('abc', apply(str.upper, workers=executor(borrowed)), prefetch()) as batches:
        assert list(batches) == ['A', 'B', 'C']


def test_an_error_in_a_batch_comes_after_the_batches_before_it_and_names_its_sample(pools):
    def fail(value):
        return 1 / (value - 5)

    part = pipeline(range(12), apply(fail, workers=Pickling()), combine_batches(2, list))
    pairs = part.open(START, Context(run=Run(pools)))
    assert [value for value, _ in islice(pairs, 2)] == [[-0.2, -0.25], [-1 / 3, -0.5]]
    with pytest.raises(ZeroDivisionError) as caught:
        next(pairs)
    assert 'on sample 5 (cursor 6)\nto run it again: pipeline.replay(5)' in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ('borrowed', 'options', 'error', 'message'),
    [
        (3, {}, TypeError, 'borrowed must be an executor, something with submit, got 3'),
        (ThreadPoolExecutor, {}, TypeError, 'borrowed must be an executor'),
        (threads(2), {}, TypeError, r'got threads\(2\)'),
        (Pickling(), {'ahead': 0}, ValueError, 'ahead must be a positive int or None, got 0'),
        (Pickling(), {'ahead': 'all'}, TypeError, 'ahead must be a positive int or None'),
        (Pickling(), {'whole_batches': 1}, TypeError, 'whole_batches must be'),
    ],
)
def test_wrong_arguments(borrowed, options, error, message):
    with pytest.raises(error, match=message):
        executor(borrowed, **options)


def fails_at_five(value):
    if value == 5:
        raise ValueError(value)
    return value


def test_a_replacement_may_be_a_lambda(pools):
    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
        replaced = apply(fails_at_five, workers=pool, on_error=replace(lambda value: -value, budget=None))
        assert values_of(pipeline(range(8), replaced), pools) == [0, 1, 2, 3, 4, -5, 6, 7]
