"""A BatchIterator beside a model: whatever is done to both, in any order, must come to the same.

The model has the batches of the pipeline without prefetch, and a position among them. For more examples than usual:
``python tests/batches/test_batch_iterator_machine.py 2000``.
"""

import json
import logging
import sys
import threading
import weakref
from collections.abc import Callable
from functools import cache, partial
from itertools import islice
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from pipekit import (
    Closed,
    Exhausted,
    TooManyFailures,
    apply,
    combine_batches,
    keep,
    pipeline,
    prefetch,
    repeat,
    sample,
    shuffle,
    skip,
    threads,
)

HORIZON = 500  # batches of an endless pipeline; no example comes that far


def jitter(number, rng):
    return number + rng.random()


def roll(number, rng):
    return int(rng.integers(6))


def is_low(number):
    return number < 3


def is_bad(number):
    return number % 5 == 4


def checked(number):
    if is_bad(number):
        raise ValueError(number)
    return number


class Fuse:
    """A sample function that raises at one batch, as long as it is told to."""

    def __init__(self):
        self.batch = None
        self.error = OSError()
        self.lasts = False

    def __call__(self, batch):
        if self.batch is not None and batch == self.batch:
            raise self.error
        return batch

    def __repr__(self):
        return 'fuse'


class Case(NamedTuple):
    """A pipeline to be tried: the source and stages for some workers, and the length of an epoch."""

    parts: Callable[[Any], list[Any]]
    per_epoch: int | None
    skipping_stage: str | None = None  # its number; the source is repeated `range(n_samples)`
    n_samples: int = 0
    tried_in_all: int = 0  # where there is an end: samples tried until then


def jitters(workers):
    return apply(jitter, seed=1, workers=workers)


def skips(workers, budget=None):
    return apply(checked, workers=workers, on_error=skip(ValueError, budget=budget))


PAIRS = combine_batches(2, list)
CASES = {
    'endless': Case(lambda workers: [sample(range(40), seed=0), jitters(workers), PAIRS], 3),
    'with an end': Case(lambda workers: [range(13), jitters(workers), PAIRS], 3),
    'empty': Case(lambda workers: [[], jitters(workers)], 3),
    'in passes': Case(lambda workers: [range(7), shuffle(3, seed=0), jitters(workers), PAIRS], None),
    'in empty passes': Case(lambda workers: [[], jitters(workers)], None),
    'in passes until an empty one': Case(
        lambda workers: [range(3), apply(roll, seed=23, workers=workers), keep(is_low)], None
    ),
    'skipping': Case(lambda workers: [range(10), repeat(), skips(workers), PAIRS], 4, '3', 10),
    'skipping, with an end': Case(lambda workers: [range(10), skips(workers), PAIRS], 4, '2', 10, 10),
    'skipping too many': Case(lambda workers: [range(10), repeat(), skips(workers, budget=3), PAIRS], 4, '3', 10, 20),
    'skipping in passes': Case(lambda workers: [range(10), skips(workers), PAIRS], None, '2', 10),
    'skipping before a short batch': Case(
        lambda workers: [range(10), skips(workers), combine_batches(3, list)], 4, '2', 10, 10
    ),
    'skipping before workers': Case(
        lambda workers: [range(10), repeat(), skips(workers), apply(abs, workers=threads(3)), PAIRS], 4, '3', 10
    ),
}


@cache
def made(case):
    """The plain pipeline, its batches with their cursors, and the error at their end."""
    plain = pipeline(*case.parts(None), apply(Fuse()))
    batches, error = [], None
    values = iter(plain if case.per_epoch else pipeline(plain, repeat()))
    try:
        batches.extend((batch, values.cursor) for batch in islice(values, HORIZON))
    except TooManyFailures as raised:
        error = raised
    return plain, batches, error


class Epoch:
    def __init__(self, model, before):
        self.model, self.before, self.is_over = model, before, False

    def __iter__(self):
        return self

    def __next__(self):
        return self.model.next_in(self)


class Model:
    """A BatchIterator without a thread."""

    def __init__(self, case, fuse):
        self.case, self.fuse = case, fuse
        self.plain, self.made, self.error = made(case)
        self.cursor, self.delivered, self.resumes_after = 0, 0, None
        self.current = lambda: None
        self.is_closed = self.is_running = False
        self.first_seen, self.last_seen = 0, None  # which samples `failures` tells of

    def __iter__(self):
        self.open()
        epoch = Epoch(self, self.delivered - (self.resumes_after or 0))
        self.current, self.resumes_after = weakref.ref(epoch), None
        return epoch

    def __enter__(self):
        self.is_closed = False
        self.open()
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        self.is_closed, self.is_running = True, False

    def open(self):
        if self.is_closed:
            raise Closed
        if not self.is_running:
            self.is_running, self.last_seen = True, None

    def next_in(self, epoch):
        if not epoch.is_over and self.current() is not epoch:
            raise Closed
        if epoch.is_over or self.delivered - epoch.before == self.case.per_epoch:
            return self.end(epoch)
        self.open()
        if self.is_after_pass():
            self.cursor = self.cursor[0] + 1, 0
            if self.delivered > epoch.before:
                return self.end(epoch)
        if self.delivered == len(self.made):
            return self.end_for_good(epoch)
        batch, cursor = self.made[self.delivered]
        if batch == self.fuse.batch:
            return self.fail(epoch, self.fuse.error, None)
        self.cursor, self.delivered = cursor, self.delivered + 1
        return batch

    def is_after_pass(self):
        if self.case.per_epoch is not None or self.cursor == 0 or self.cursor[1] == 0:
            return False
        return self.delivered == len(self.made) or self.made[self.delivered][1][0] > self.cursor[0]

    def end(self, epoch):
        epoch.is_over = True
        raise StopIteration

    def fail(self, epoch, error, tried):
        epoch.is_over, self.is_running, self.last_seen = True, False, tried
        raise error

    def end_for_good(self, epoch):
        if self.error is not None:
            self.fail(epoch, self.error, self.case.tried_in_all)
        self.last_seen = self.case.tried_in_all
        if self.delivered == epoch.before:
            raise Exhausted
        self.end(epoch)

    def state_dict(self):
        epoch = self.current()
        n_tried = self.tried(self.cursor)
        return {
            'version': 1,
            'cursor': as_lists(self.cursor),
            'delivered': self.delivered,
            'in_epoch': self.resumes_after if epoch is None or epoch.is_over else self.delivered - epoch.before,
            'failures': {self.case.skipping_stage: [n_tried, len(self.bad(0, n_tried))]} if n_tried else {},
            'batches_per_epoch': self.case.per_epoch,
            'pipeline': self.plain.fingerprint(),
        }

    def load_state_dict(self, state):
        self.cursor, self.delivered = as_tuples(state['cursor']), state['delivered']
        self.resumes_after = None if state['in_epoch'] == self.case.per_epoch else state['in_epoch']
        self.current, self.is_running = lambda: None, False
        self.first_seen, self.last_seen = self.tried(self.cursor), None

    def replay(self, cursor):
        if self.delivered == len(self.made) or self.is_after_pass():
            raise ValueError('there is nothing after the cursor')
        return self.fuse(self.made[self.delivered][0])

    def samples_that_failed(self):
        return self.bad(self.first_seen, self.tried(self.cursor) if self.last_seen is None else self.last_seen)

    def tried(self, cursor):
        if self.case.skipping_stage is None:
            return 0
        return cursor if isinstance(cursor, int) else cursor[0] * self.case.n_samples + cursor[1]

    def bad(self, first, last):
        return [k % self.case.n_samples for k in range(first, last) if is_bad(k % self.case.n_samples)]


def as_lists(cursor):
    return list(map(as_lists, cursor)) if isinstance(cursor, tuple) else cursor


def as_tuples(cursor):
    return tuple(map(as_tuples, cursor)) if isinstance(cursor, list) else cursor


def loop(epoch, batches, most):
    """What a loop gets, which is left after so many batches: batches with states, and the error that ends it."""
    got = []
    try:
        for batch in epoch:
            got.append((batch, batches.state_dict()))
            if len(got) == most:
                break
    except Exception as error:
        got.append((told(error), None))
    return got


def told(error):
    error.__traceback__ = None  # which would keep the epoch
    return error if isinstance(error, OSError) else type(error)


def outcome(act, *args):
    try:
        return act(*args)
    except Exception as error:
        return told(error)


class Machine(RuleBasedStateMachine):
    states = Bundle('states')

    def __init__(self, case):
        super().__init__()
        self.case = case
        self.other_threads = set(threading.enumerate())
        self.fuse = Fuse()
        self.epochs = []  # the iterators of the real one and of the model

    @initialize(workers=st.sampled_from([None, threads(2)]), buffer_size=st.integers(1, 4), target=states)
    def begin_with(self, workers, buffer_size):
        fuse = apply(self.fuse, workers=None if self.case.skipping_stage else workers)
        end = prefetch(self.case.per_epoch, buffer_size=buffer_size)
        self.make = lambda: pipeline(*self.case.parts(workers), fuse, end)
        self.make_anew()
        self.first = self.state()
        return self.first

    def make_anew(self):
        self.batches, self.model = self.make(), Model(self.case, self.fuse)

    def state(self):
        return json.dumps(self.batches.state_dict())

    @rule()
    def begin_an_epoch(self):
        pair = outcome(iter, self.batches), outcome(iter, self.model)
        if Closed in pair:
            assert pair == (Closed, Closed)
        else:
            self.epochs.append(pair)

    @rule(back=st.integers(0, 2), most=st.integers(1, 5), target=states)
    def take_from_an_epoch(self, back, most):
        if back >= len(self.epochs):
            return multiple()
        real, expected = self.epochs[-1 - back]
        return self.compared(loop(real, self.batches, most), loop(expected, self.model, most))

    @rule()
    def forget_the_epochs(self):
        self.epochs.clear()

    @rule(most=st.integers(1, 5), target=states)
    def loop_and_break(self, most):
        return self.compared(*(loop(batches, batches, most) for batches in (self.batches, self.model)))

    @rule(most=st.integers(1, 5))
    def loop_in_with(self, most):
        with self.batches, self.model:
            self.loop_and_break(most)
        self.no_thread_is_left()

    def compared(self, real, expected):
        assert real == expected
        if (self.fuse.error, None) in real and not self.fuse.lasts:
            self.fuse.batch = None
        return multiple(*[json.dumps(state) for _, state in real if state][-1:])

    @rule()
    def close(self):
        self.batches.close()
        self.model.close()
        self.no_thread_is_left()

    @rule()
    def open(self):
        self.batches.__enter__()
        self.model.__enter__()

    @rule(target=states)
    def save(self):
        return self.state()

    @rule(state=states, in_a_fresh_one=st.booleans())
    def load(self, state, in_a_fresh_one):
        if in_a_fresh_one:
            self.close()
            self.make_anew()
        self.batches.load_state_dict(json.loads(state))
        self.model.load_state_dict(json.loads(state))

    @rule()
    def rewind(self):
        self.load(self.first, in_a_fresh_one=False)

    @rule(ahead=st.integers(0, 3), lasts=st.booleans())
    def break_a_function(self, ahead, lasts):
        self.close()  # so that it is certain which batches are made after this
        batches = [batch for batch, _ in self.model.made[self.model.delivered :][: ahead + 1]]
        self.fuse.batch, self.fuse.error, self.fuse.lasts = batches[-1] if batches else None, OSError(), lasts
        self.open()

    @rule()
    def mend_it(self):
        self.close()
        self.fuse.batch = None
        self.open()

    @rule()
    def replay(self):
        if self.case.skipping_stage is None:  # where something is skipped, a replay raises what it failed with
            cursor = self.batches.state_dict()['cursor']
            assert outcome(self.batches.replay, cursor) == outcome(self.model.replay, cursor)

    @invariant()
    def what_is_seen_is_the_same(self):
        state = self.batches.state_dict()
        assert state == json.loads(json.dumps(state)) == self.model.state_dict()
        failures = self.batches.failures
        assert [failure.sample for failure in failures] == self.model.samples_that_failed()
        assert all(isinstance(failure.exception, ValueError) for failure in failures)

    def no_thread_is_left(self):
        assert not own_threads(self.other_threads)

    def teardown(self):
        self.close()


def own_threads(others):
    return [thread for thread in set(threading.enumerate()) - others if thread.name.startswith('pipekit-')]


def check(case, max_examples, **options):
    run_state_machine_as_test(
        partial(Machine, case),
        settings=settings(
            max_examples=max_examples,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            **options,
        ),
    )


@pytest.fixture(autouse=True)
def no_log_of_what_is_skipped(caplog):
    caplog.set_level(logging.ERROR, 'pipekit')


@pytest.mark.parametrize('name', CASES)
def test_batches_are_those_of_the_model(name):
    check(CASES[name], max_examples=30)


if __name__ == '__main__':
    for case in CASES.values():
        check(case, int(sys.argv[1]))
