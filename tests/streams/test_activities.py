"""While a user's function runs, the frames of its thread say at which stage and on which sample."""

import sys
import threading
from contextlib import nullcontext

import pytest
from more_itertools import consume, first

from pipekit import apply, combine_batches, keep, pipeline, prefetch, replace, retry, skip, threads, unpack
from pipekit.streams.activities import Activity, activity_from, activity_in, runs_task, task_in
from pipekit.streams.error_notes import UNKNOWN


class Dataset(list):
    """Reads batches with ``__getitems__``, as data sets of torch do."""

    def __init__(self, values, function):
        super().__init__(values)
        self.function = function

    def __getitems__(self, indices):
        self.function(indices)
        return [self[index] for index in indices]


def fail(value):
    raise ValueError(value)


def fail_once_then(function):
    failed = []

    def flaky(value):
        if value == 3 and not failed:
            failed.append(value)
            raise OSError
        return function(value)

    return flaky


SOURCE = [0, 1, 2, 3, 4, 5]
SAMPLE, BATCH = (3, 4), ([3, 4, 5], 6)  # the value that the observed function is called on, and its cursor
STALLS = {  # a source and stages, the last of which calls an observed function, and on which value
    'apply': (lambda f, w: [SOURCE, apply(f, workers=w)], SAMPLE),
    'a later apply': (lambda f, w: [SOURCE, apply(abs), apply(f, workers=w)], SAMPLE),
    'unpack': (lambda f, w: [[(x,) for x in SOURCE], unpack(f, workers=w)], ((3,), 4)),
    'skip': (lambda f, w: [SOURCE, apply(f, workers=w, on_error=skip(OSError))], SAMPLE),
    'replace': (lambda f, w: [SOURCE, apply(fail, workers=w, on_error=replace(f, budget=None))], SAMPLE),
    'retry': (lambda f, w: [SOURCE, apply(fail_once_then(f), workers=w, on_error=retry(1))], SAMPLE),
    'keep': (lambda f, w: [SOURCE, keep(f)], SAMPLE),
    'an adaptive batch_size': (lambda f, w: [SOURCE, combine_batches(lambda chunk, x: f(x), list)], SAMPLE),
    'combine_batches': (lambda f, w: [SOURCE, combine_batches(3, lambda xs: list(map(f, xs)), workers=w)], BATCH),
    'a gather': (lambda f, w: [Dataset(SOURCE, lambda xs: list(map(f, xs))), combine_batches(3, list)], BATCH),
}


def activities(frame):
    while frame is not None:
        if (activity := activity_in(frame)) is not None:
            yield activity
        frame = frame.f_back


@pytest.mark.parametrize('where', [None, threads(2)], ids=['in the calling thread', 'in threads'])
@pytest.mark.parametrize('name', STALLS)
def test_a_function_that_runs_is_found(name, where):
    make, (value, cursor) = STALLS[name]
    found = []

    def look(sample):
        if sample == 3:
            found.append(first(activities(sys._getframe())))
        return True

    parts = make(look, where)
    with nullcontext(pipeline(*parts)) if where is None else pipeline(*parts, prefetch()) as values:
        consume(values)
    activity = found[0]  # the prefetch thread may have begun the next pass, and found more
    assert (activity.value, activity.cursor, activity.before) == (value, cursor, 3)
    assert activity.location.number == activity.location.total == len(parts)
    assert f'(cursor {cursor})\nto run it again: pipeline.replay(3' in activity.note


def test_a_stalled_thread_is_seen_from_another_one():
    entered, go = threading.Event(), threading.Event()

    def stall(value):
        entered.set()
        assert go.wait(20)

    thread = threading.Thread(target=lambda: consume(pipeline([5], apply(stall))))
    thread.start()
    assert entered.wait(20)
    activity = first(activities(sys._current_frames()[thread.ident]))
    go.set()
    thread.join(20)
    assert (activity.value, activity.cursor, activity.before) == (5, 1, 0)


def test_a_frame_that_has_only_just_begun_has_no_activity():
    @activity_from(lambda local: Activity(UNKNOWN, local['later'], 1, 0))
    def run():
        assert activity_in(sys._getframe()) is None
        later = 'ada'
        assert activity_in(sys._getframe()).value == later

    run()
    assert activity_in(sys._getframe()) is None


def test_the_task_of_a_frame_is_found():
    class Task:
        @runs_task
        def run(self):
            return task_in(sys._getframe())

    task = Task()
    assert task.run() is task
    assert task_in(sys._getframe()) is None
