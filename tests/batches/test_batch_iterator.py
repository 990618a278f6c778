import copy
import gc
import json
import pickle
import threading
import weakref
from contextlib import contextmanager, suppress
from importlib import import_module
from itertools import count, islice

import numpy as np
import pytest
from more_itertools import pairwise

from pipekit import (
    Closed,
    Exhausted,
    NotResumable,
    Stage,
    StateMismatch,
    apply,
    combine_batches,
    expiration_pool,
    flatten,
    keep,
    mix,
    pipeline,
    prefetch,
    processes,
    repeat,
    rows,
    sample,
    shard,
    shuffle,
    skip,
    take,
)
from pipekit import threads as thread_workers
from pipekit.batches.prefetch_thread import PrefetchThread
from pipekit.streams.metering import Meter
from pipekit.workers.pools import WorkerPools

TIMEOUT_SECONDS = 10.0  # far more than anything here takes
THREAD = 'pipekit-prefetch'


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    if threads():
        gc.collect()
    for thread in threads():
        thread.join(TIMEOUT_SECONDS)
    assert not threads()


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(import_module('pipekit.batches.delivery'), 'CLOSE_TIMEOUT_SECONDS', 0.05)


def threads():
    return [thread for thread in threading.enumerate() if thread.name == THREAD]


def numbers(*end, **options):
    return pipeline(range(10**9), prefetch(*end, **options))


class Gate:
    """A function that waits at one value until it is let through."""

    def __init__(self, value):
        self.value = value
        self.reached = threading.Event()
        self.open = threading.Event()

    def __call__(self, value):
        if value == self.value:
            self.reached.set()
            assert self.open.wait(TIMEOUT_SECONDS)
        return value


class Fails:
    """A function that raises at one value, once or always."""

    def __init__(self, value, error, times=10**9):
        self.value, self.error, self.times = value, error, times

    def __call__(self, value):
        if value == self.value and self.times:
            self.times -= 1
            raise self.error
        return value


class Calls:
    """A function that counts its calls, and can be waited for."""

    def __init__(self):
        self.number = 0
        self.changed = threading.Condition()

    def __call__(self, value):
        with self.changed:
            self.number += 1
            self.changed.notify_all()
        return value

    def reach(self, number):
        with self.changed:
            return self.changed.wait_for(lambda: self.number >= number, TIMEOUT_SECONDS)


@contextmanager
def in_thread(function, *args):
    outcome = []

    def run():
        try:
            outcome.append(function(*args))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield outcome
    thread.join(TIMEOUT_SECONDS)
    assert not thread.is_alive()


def test_an_epoch_is_a_number_of_batches_and_the_next_goes_on():
    with numbers(3) as batches:
        assert [list(batches), list(batches)] == [[0, 1, 2], [3, 4, 5]]


def test_the_batches_are_those_of_the_pipeline():
    plain = pipeline(sample(range(100), seed=0), apply(lambda x, rng: x + rng.random(), seed=1), combine_batches(4))
    with pipeline(plain, prefetch(20)) as batches:
        assert all(map(np.array_equal, list(batches), islice(plain, 20)))


@pytest.mark.parametrize('buffer_size', [1, 2, 16])
def test_the_size_of_the_buffer_changes_no_batch(buffer_size):
    with numbers(50, buffer_size=buffer_size) as batches:
        assert list(batches) + list(batches) == list(range(100))


def test_the_length_is_that_of_an_epoch():
    assert len(numbers(7)) == 7


@pytest.mark.parametrize('wrong', [0, -1, 2.5, True, '3'])
def test_sizes_are_positive_ints(wrong):
    with pytest.raises((TypeError, ValueError), match='batches_per_epoch'):
        prefetch(wrong)
    with pytest.raises((TypeError, ValueError), match='buffer_size'):
        prefetch(3, buffer_size=wrong)


def test_nothing_starts_before_the_first_epoch():
    calls = Calls()
    pipeline(range(9), apply(calls), prefetch(3))
    assert not threads()
    assert calls.number == 0


def test_with_starts_the_thread():
    calls = Calls()
    with pipeline(range(9), apply(calls), prefetch(3)):
        assert calls.reach(3)


def test_the_buffer_is_warm_when_an_epoch_starts():
    calls = Calls()
    with pipeline(range(10**9), apply(calls), prefetch(4, buffer_size=3)) as batches:
        assert list(batches) == [0, 1, 2, 3]
        assert calls.reach(7)


def test_no_more_than_the_buffer_is_made_ahead():
    calls = Calls()
    with pipeline(range(10**9), apply(calls), prefetch(100, buffer_size=3)) as batches:
        for handed_over, _ in enumerate(batches, 1):
            assert calls.number <= handed_over + 3


def test_what_is_left_of_an_epoch_comes_in_the_next():
    with numbers(5) as batches:
        for batch in batches:
            if batch == 1:
                break
        assert list(batches) == [2, 3, 4, 5, 6]


def test_an_epoch_left_by_an_exception_is_over():
    with numbers(5) as batches:
        with suppress(ZeroDivisionError):
            for batch in batches:
                1 / (1 - batch)
        assert list(batches) == [2, 3, 4, 5, 6]


def test_an_ended_epoch_stays_ended():
    with numbers(2) as batches:
        epoch = iter(batches)
        assert list(epoch) == [0, 1]
        assert list(epoch) == []
        assert list(batches) == [2, 3]
        assert list(epoch) == []


def test_a_new_epoch_ends_the_older_one():
    with numbers(5) as batches:
        older = iter(batches)
        assert next(older) == 0
        assert list(batches) == [1, 2, 3, 4, 5]
        for _ in range(2):
            with pytest.raises(Closed, match='another loop over the same batches has begun'):
                next(older)


def test_an_epoch_that_waits_is_ended_by_a_new_one_and_takes_no_batch():
    gate = Gate(2)
    with pipeline(range(10**9), apply(gate), prefetch(5, buffer_size=1)) as batches:
        older = iter(batches)
        assert [next(older), next(older)] == [0, 1]
        with in_thread(next, older) as outcome:
            assert gate.reached.wait(TIMEOUT_SECONDS)
            newer = iter(batches)
            gate.open.set()
        assert list(newer) == [2, 3, 4, 5, 6]
        assert isinstance(outcome[0], Closed)


def test_the_end_of_the_source_ends_an_epoch_short():
    with pipeline(range(5), prefetch(3)) as batches:
        assert [list(batches), list(batches)] == [[0, 1, 2], [3, 4]]


def test_an_empty_epoch_is_an_error_every_time():
    with pipeline(range(5), prefetch(3)) as batches:
        list(batches), list(batches)
        for _ in range(3):
            with pytest.raises(Exhausted, match=r'after 5 batches.*repeat\(\)'):
                list(batches)


def test_a_source_that_ends_with_an_epoch_is_exhausted_in_the_next():
    with pipeline(range(3), prefetch(3)) as batches:
        assert list(batches) == [0, 1, 2]
        with pytest.raises(Exhausted, match='after 3 batches'):
            list(batches)


@pytest.mark.parametrize('per_epoch', [3, None])
def test_a_source_without_batches_is_exhausted_at_once(per_epoch):
    with pipeline([], prefetch(per_epoch)) as batches, pytest.raises(Exhausted, match='after 0 batches'):
        list(batches)


def test_after_the_end_another_state_may_be_loaded():
    with pipeline(range(3), prefetch(3)) as batches:
        start = batches.state_dict()
        list(batches)
        with pytest.raises(Exhausted):
            list(batches)
        batches.load_state_dict(start)
        assert list(batches) == [0, 1, 2]


def test_without_a_number_an_epoch_is_a_pass():
    with pipeline('abc', prefetch()) as batches:
        assert [list(batches) for _ in range(3)] == [['a', 'b', 'c']] * 3


def test_the_first_pass_is_that_of_the_pipeline_and_the_others_draw_anew():
    plain = pipeline(range(20), shuffle(20, seed=0), apply(lambda x, rng: x + rng.random(), seed=0))
    with pipeline(plain, prefetch()) as batches:
        passes = [list(batches) for _ in range(3)]
    assert passes[0] == list(plain)
    assert len({tuple(values) for values in passes}) == 3
    assert all({int(value) for value in values} == set(range(20)) for values in passes)


def test_passes_are_those_of_repeat():
    stages = [shuffle(5, seed=0), apply(lambda x, rng: x + rng.random(), seed=0)]
    with pipeline(range(10), *stages, prefetch()) as batches:
        assert list(batches) + list(batches) == list(pipeline(range(10), *stages, repeat(2)))


def test_a_pass_that_was_left_goes_on_in_the_next_epoch():
    with pipeline('abc', prefetch()) as batches:
        next(iter(batches))
        assert [list(batches), list(batches)] == [['b', 'c'], ['a', 'b', 'c']]


def test_a_pass_left_after_its_last_batch_gives_no_empty_epoch():
    with pipeline('ab', prefetch()) as batches:
        for batch in batches:
            if batch == 'b':
                break
        assert list(batches) == ['a', 'b']


def test_an_iterator_has_one_pass():
    with pipeline(iter('ab'), prefetch()) as batches:
        assert list(batches) == ['a', 'b']
        with pytest.raises(NotResumable, match='iterator'):
            list(batches)


def test_a_pass_that_gives_nothing_is_an_error():
    wanted = [True]
    with pipeline('ab', keep(lambda _: wanted[0]), prefetch(buffer_size=1)) as batches:
        for batch in batches:
            if batch == 'a':
                wanted[0] = False
                break
        with suppress(Exhausted):
            list(batches)
        with pytest.raises(Exhausted, match='a pass over it yields none'):
            list(batches)


@pytest.mark.parametrize(
    'kind', [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit, type('Mine', (BaseException,), {})]
)
def test_an_error_comes_as_the_same_object_after_the_batches_before_it(kind):
    error = kind('at 2')
    with pipeline(range(9), apply(Fails(2, error)), prefetch(5)) as batches:
        epoch = iter(batches)
        assert [next(epoch), next(epoch)] == [0, 1]
        with pytest.raises(kind) as caught:
            next(epoch)
        assert caught.value is error
        assert list(epoch) == []


def test_a_stray_stop_iteration_is_an_error():
    with (
        pipeline(range(9), apply(Fails(2, StopIteration())), prefetch(5)) as batches,
        pytest.raises(RuntimeError, match='StopIteration'),
    ):
        list(batches)


def test_an_error_that_passes_costs_no_batch():
    with pipeline(range(9), apply(Fails(2, OSError('once'), times=1)), prefetch(5)) as batches:
        epoch = iter(batches)
        assert [next(epoch), next(epoch)] == [0, 1]
        with pytest.raises(OSError, match='once'):
            next(epoch)
        assert list(batches) == [2, 3, 4, 5, 6]


def test_an_error_that_stays_comes_in_every_epoch():
    with pipeline(range(9), apply(Fails(0, OSError('always'))), prefetch(5)) as batches:
        for _ in range(3):
            with pytest.raises(OSError, match='always'):
                list(batches)


def test_a_batch_may_be_an_error():
    with pipeline([ValueError(), KeyboardInterrupt()], prefetch(2)) as batches:
        assert list(map(type, batches)) == [ValueError, KeyboardInterrupt]


def test_an_error_when_the_source_is_opened_is_one_of_the_stream():
    def unreadable():
        raise OSError('no such folder')

    with pipeline(unreadable, prefetch(3)) as batches, pytest.raises(OSError, match='no such folder'):
        next(iter(batches))


def test_an_error_is_not_kept_by_its_traceback():
    class Mine(Exception):
        pass

    def fails(_):
        raise Mine

    with pipeline(range(9), apply(fails), prefetch(5)) as batches:
        gc.disable()
        try:
            try:
                next(iter(batches))
            except Mine as error:
                alive = weakref.ref(error)
            for thread in threads():
                thread.join(TIMEOUT_SECONDS)
            assert alive() is None
        finally:
            gc.enable()


def test_closed_batches_say_so_and_open_again_where_they_were():
    batches = numbers(3)
    next(iter(batches))
    batches.close()
    with pytest.raises(Closed, match='with batches'):
        next(iter(batches))
    with batches:
        assert list(batches) == [1, 2, 3]


def test_closing_twice_and_before_the_start_is_fine():
    batches = numbers(3)
    batches.close()
    batches.close()
    with batches, batches:
        assert next(iter(batches)) == 0


def test_closing_inside_the_loop_ends_it_with_an_error():
    batches = numbers(3)
    epoch = iter(batches)
    next(epoch)
    batches.close()
    with pytest.raises(Closed):
        next(epoch)


def test_closing_after_the_last_batch_of_an_epoch_ends_it_as_usual():
    batches = numbers(3)
    for batch in batches:
        if batch == 2:
            batches.close()


def test_closing_wakes_whoever_waits(impatient):
    gate = Gate(0)
    batches = pipeline(range(9), apply(gate), prefetch(3))
    epoch = iter(batches)
    with in_thread(next, epoch) as outcome:
        assert gate.reached.wait(TIMEOUT_SECONDS)
        with pytest.warns(RuntimeWarning):
            batches.close()
    assert isinstance(outcome[0], Closed)
    gate.open.set()


def test_closing_wakes_a_thread_that_waits_for_room():
    calls = Calls()
    batches = pipeline(range(9), apply(calls), prefetch(3, buffer_size=2))
    batches.__enter__()
    assert calls.reach(2)
    batches.close()
    assert not threads()


def test_closing_while_a_function_runs_is_bounded_and_warns(impatient):
    gate = Gate(0)
    batches = pipeline(range(9), apply(gate), prefetch(3)).__enter__()
    assert gate.reached.wait(TIMEOUT_SECONDS)
    with pytest.warns(RuntimeWarning, match='ends when it returns'):
        batches.close()
    gate.open.set()


@pytest.mark.parametrize('n_errors', [1, 2])
@pytest.mark.parametrize('workers', [None, thread_workers(2)])
def test_no_thread_is_alive_after_an_error_and_a_close(workers, n_errors):
    before = set(threading.enumerate())
    for _ in range(20):
        batches = pipeline([3, 0, 0], apply(lambda n: 1 / n, workers=workers), prefetch())
        for _ in range(n_errors):
            with pytest.raises(ZeroDivisionError):
                list(batches)
        batches.close()
        assert set(threading.enumerate()) <= before


def test_after_a_close_that_did_not_wait_the_batches_open_again(impatient):
    gate = Gate(1)
    batches = pipeline(range(9), apply(gate), prefetch(3))
    assert next(iter(batches)) == 0
    assert gate.reached.wait(TIMEOUT_SECONDS)
    with pytest.warns(RuntimeWarning):
        batches.close()
    gate.open.set()
    with batches:
        assert list(batches) == [1, 2, 3]


def test_a_function_may_close_its_own_batches():
    def closes(value):
        if value == 2:
            batches.close()
        return value

    batches = pipeline(range(9), apply(closes), prefetch(5))
    with pytest.raises(Closed):
        list(batches)


def test_the_generator_of_the_source_is_closed_by_the_thread():
    closed_in = []

    def source():
        try:
            yield from count()
        finally:
            closed_in.append(threading.current_thread().name)

    with pipeline(source, prefetch(3)) as batches:
        list(batches)
    assert closed_in == [THREAD]


def test_forgotten_batches_end_their_thread():
    calls = Calls()
    batches = pipeline(range(10**9), apply(calls), prefetch(3))
    for _ in batches:
        break
    (thread,) = threads()
    assert calls.reach(4)
    del batches
    thread.join(TIMEOUT_SECONDS)
    assert not thread.is_alive()


def test_an_epoch_keeps_its_batches():
    epoch = iter(numbers(3))
    gc.collect()
    assert list(epoch) == [0, 1, 2]


def test_batches_in_a_cycle_are_collected_in_whatever_thread():
    batches = numbers(3)
    batches.cycle = batches
    list(batches)
    (thread,) = threads()
    del batches
    with in_thread(gc.collect):
        pass
    thread.join(TIMEOUT_SECONDS)
    assert not thread.is_alive()


class Heavy:
    pass


def test_the_thread_holds_no_batch():
    calls = Calls()
    with pipeline(range(10**9), apply(lambda _: Heavy()), apply(calls), prefetch(9, buffer_size=2)) as batches:
        gc.disable()
        try:
            for batch in batches:
                alive = weakref.ref(batch)
                del batch
                assert alive() is None
            assert calls.reach(11)  # and now it waits for room
        finally:
            gc.enable()


def test_wake_ups_of_a_thread_that_does_not_wait_do_not_pile_up():
    thread = PrefetchThread(Heavy(), iter(()), WorkerPools(), Meter(), buffer_size=3, stall_after=None, new_stall=None)
    thread.entries.append(('batch', 1))
    for _ in range(9):
        thread.report_room()  # as each wait for a slow source does
    thread._is_awaited = True
    for _ in range(9):
        thread.wait()  # as a signal handler does that comes in the middle of a wait
    assert (thread._room.qsize(), thread._arrival.qsize()) == (1, 1)


def test_closing_lets_go_of_the_buffer():
    made = []

    def heavy(_):
        batch = Heavy()
        made.append(weakref.ref(batch))
        return batch

    gc.disable()
    try:
        with pipeline(range(10**9), apply(heavy), prefetch(9)) as batches:
            next(iter(batches))
        assert made
        assert not any(batch() for batch in made)
    finally:
        gc.enable()


def test_threads_that_share_an_epoch_get_each_batch_once():
    with numbers(2000) as batches:
        epoch = iter(batches)
        with in_thread(list, epoch) as a, in_thread(list, epoch) as b, in_thread(list, epoch) as c:
            pass
        assert sorted(a[0] + b[0] + c[0]) == list(range(2000))
        assert all(values == sorted(values) for [values] in (a, b, c))
        assert batches.state_dict()['delivered'] == 2000


def test_one_of_the_threads_gets_the_error_and_the_others_the_end():
    gate, error = Gate(3), OSError()
    with pipeline(range(9), apply(gate), apply(Fails(3, error)), prefetch(9)) as batches:
        epoch = iter(batches)
        with in_thread(list, epoch) as a, in_thread(list, epoch) as b, in_thread(list, epoch) as c:
            assert gate.reached.wait(TIMEOUT_SECONDS)
            gate.open.set()
        outcomes = [a[0], b[0], c[0]]
        assert outcomes.count(error) == 1
        assert sum(isinstance(outcome, list) for outcome in outcomes) == 2


def test_closing_ends_all_threads_that_share_an_epoch(impatient):
    gate = Gate(0)
    batches = pipeline(range(9), apply(gate), prefetch(9))
    epoch = iter(batches)
    with in_thread(next, epoch) as a, in_thread(next, epoch) as b:
        assert gate.reached.wait(TIMEOUT_SECONDS)
        with pytest.warns(RuntimeWarning):
            batches.close()
    assert isinstance(a[0], Closed)
    assert isinstance(b[0], Closed)
    gate.open.set()


def through_json(state):
    return json.loads(json.dumps(state))


def counted(per_epoch):
    source = pipeline(range(40), shuffle(7, seed=0), combine_batches(3, list))
    return pipeline(*([source, repeat()] if per_epoch else [source]), prefetch(per_epoch))


@pytest.mark.parametrize('per_epoch', [5, None])
@pytest.mark.parametrize('handed_over', range(32))
def test_a_state_taken_in_the_loop_goes_on_with_the_rest_of_the_epoch(per_epoch, handed_over):
    length = per_epoch or 14
    with counted(per_epoch) as batches, counted(per_epoch) as restored:
        for _ in range(handed_over // length):
            list(batches)
        epoch = iter(batches)
        for _ in range(handed_over % length):
            next(epoch)
        restored.load_state_dict(through_json(batches.state_dict()))
        assert restored.state_dict() == batches.state_dict()
        assert list(restored) == list(epoch)
        assert list(restored) == list(batches)


@pytest.mark.parametrize('per_epoch', [5, None])
def test_a_state_taken_after_the_last_batch_goes_on_with_the_next_epoch_if_that_was_known_to_be_the_last(per_epoch):
    with counted(per_epoch) as batches, counted(per_epoch) as restored:
        for _ in batches:
            state = batches.state_dict()
        restored.load_state_dict(through_json(state))
        if per_epoch is None:
            assert list(restored) == []
        assert list(restored) == list(batches)


@pytest.mark.parametrize('per_epoch', [3, None])
def test_each_loop_starts_again_where_that_is_asked_for(per_epoch):
    def jitter(number, rng):
        return number + rng.random()

    def make(**options):
        return pipeline(range(7), apply(jitter, seed=0), combine_batches(2), prefetch(per_epoch, **options))

    with make() as batches:
        first = [batch.tolist() for batch in batches]
    with make(restart=True) as batches:
        for taken in [9, 1, 0, 2, 9, 9]:
            assert [batch.tolist() for batch in islice(batches, taken)] == first[:taken]
        epoch = iter(batches)
        next(epoch)
        state = through_json(batches.state_dict())
    with make(restart=True) as batches:
        batches.load_state_dict(state)
        assert [batch.tolist() for batch in batches] == first[1:]
        assert [batch.tolist() for batch in batches] == first


def test_failures_count_from_the_beginning_of_each_loop_that_starts_again():
    def fail(number):
        return 1 / number

    skipping = apply(fail, on_error=skip(budget=1))
    with pipeline(range(5), skipping, prefetch(restart=True)) as batches:
        for _ in range(5):
            assert len(list(batches)) == 4
            assert len(batches.failures) == 1


def test_an_iterator_cannot_start_again():
    with pipeline(iter(range(5)), prefetch(restart=True)) as batches:
        assert list(batches) == [0, 1, 2, 3, 4]
        with pytest.raises(NotResumable, match='can be opened only once'):
            list(batches)


SIZES = [0, 1, 5, 6, 7, 12, 13]


@pytest.mark.parametrize(
    'stages',
    [
        [],
        [apply(abs)],
        [shuffle(3, seed=0)],
        [take(6)],
        [repeat(2)],
        [repeat(), take(9)],
        [repeat(), combine_batches(2), take(4)],
        [shard(0, 3)],
        [shard(2, 3)],
        [shard(1, 3, drop_last=True)],
        [expiration_pool(2, 3, seed=0)],
        [combine_batches(3)],
        [combine_batches(3, drop_last=True)],
        [combine_batches(6, rank=1, world_size=3)],
        [combine_batches(6, rank=1, world_size=3, drop_last=True)],
        [apply(abs), take(11), combine_batches(2, list), shuffle(3, seed=0), combine_batches(2, list)],
        [pipeline(apply(abs), combine_batches(2))],
    ],
)
def test_the_length_of_a_pass_is_known(stages):
    for n in SIZES:
        with pipeline(range(n), *stages, prefetch()) as batches:
            expected = len(batches)
            assert expected == len(list(pipeline(range(n), *stages)))


def test_the_length_of_passes_over_rows_is_known():
    with pipeline(rows(['a', 'b'], [3, 4], passes=2, seed=0), combine_batches(4, list), prefetch()) as batches:
        assert len(batches) == len(list(batches)) == 4


@pytest.mark.parametrize(
    'parts',
    [
        [rows(['a', 'b'], [3, 4], seed=0)],
        [range(5), keep(bool)],
        [range(5), apply(abs, on_error=skip())],
        [[[1], [2]], flatten()],
        [range(5), combine_batches(lambda chunk, value: True)],
        [range(5), repeat()],
        [sample(range(5), seed=0)],
        [lambda: iter(range(5))],
        [mix(range(5), range(5), seed=0)],
        [range(5), pairwise],
        [range(5), Stage(lambda upstream, cursor, context: upstream(cursor, context))],
        [iter(range(5))],
    ],
)
def test_a_length_that_is_not_known_is_an_error(parts):
    with pytest.raises(TypeError, match='pass batches_per_epoch to prefetch'):
        len(pipeline(*parts, prefetch()))


@pytest.mark.parametrize('per_epoch', [5, None])
def test_a_state_taken_between_epochs_goes_on_with_all_of_the_next(per_epoch):
    with counted(per_epoch) as batches, counted(per_epoch) as restored:
        list(batches)
        restored.load_state_dict(through_json(batches.state_dict()))
        assert list(restored) == list(batches)


@pytest.mark.parametrize('per_epoch', [5, None])
def test_a_state_taken_after_a_break_goes_on_with_all_of_the_next(per_epoch):
    with counted(per_epoch) as batches, counted(per_epoch) as restored:
        for _ in islice(batches, 2):
            pass
        restored.load_state_dict(through_json(batches.state_dict()))
        assert list(restored) == list(batches)


def test_a_state_taken_after_an_error_is_one_between_epochs():
    with pipeline(range(9), apply(Fails(2, OSError(), times=1)), prefetch(5)) as batches:
        try:
            list(batches)
        except OSError:
            state = batches.state_dict()
        assert (state['cursor'], state['in_epoch']) == (2, None)


def test_a_state_is_loaded_while_the_thread_runs():
    with numbers(5) as batches:
        start = batches.state_dict()
        assert list(batches) == [0, 1, 2, 3, 4]
        batches.load_state_dict(start)
        assert list(batches) == [0, 1, 2, 3, 4]


def test_a_state_loaded_in_the_loop_ends_that_loop():
    with numbers(5) as batches:
        start = batches.state_dict()
        epoch = iter(batches)
        next(epoch)
        batches.load_state_dict(start)
        with pytest.raises(Closed, match='state'):
            next(epoch)
        assert list(batches) == [0, 1, 2, 3, 4]


def test_a_state_loaded_while_closed_is_where_the_batches_open():
    batches = numbers(5)
    with batches:
        list(batches)
        state = batches.state_dict()
        list(batches)
    batches.load_state_dict(state)
    with pytest.raises(Closed):
        iter(batches)
    with batches:
        assert list(batches) == [5, 6, 7, 8, 9]


def test_a_loaded_state_is_saved_again_and_outlives_a_close():
    state = {**numbers(5).state_dict(), 'cursor': 7, 'delivered': 7, 'in_epoch': 2}
    batches = numbers(5)
    batches.load_state_dict(state)
    batches.close()
    assert batches.state_dict() == state
    with batches:
        assert list(batches) == [7, 8, 9]


def test_a_state_loaded_while_another_thread_waits_ends_its_epoch(impatient):
    gate = Gate(1)
    with pipeline(range(9), apply(gate), prefetch(3)) as batches:
        start = batches.state_dict()
        epoch = iter(batches)
        assert next(epoch) == 0
        with in_thread(next, epoch) as outcome:
            assert gate.reached.wait(TIMEOUT_SECONDS)
            batches.load_state_dict(start)
        assert isinstance(outcome[0], Closed)
        gate.open.set()
        assert list(batches) == [0, 1, 2]


def test_what_was_made_ahead_is_not_in_the_state():
    calls = Calls()
    with pipeline(range(9), apply(calls), prefetch(3)) as batches:
        assert calls.reach(3)
        assert batches.state_dict()['cursor'] == 0


STATE = {'version': 1, 'cursor': 4, 'delivered': 4, 'in_epoch': 1, 'batches_per_epoch': 3, 'failures': {}}
STATE |= {'pipeline': ['range(0, 9)']}


@pytest.mark.parametrize(
    'wrong',
    [
        None,
        [],
        {},
        'state',
        {**STATE, 'more': 1},
        {**STATE, 'version': 99},
        {**STATE, 'batches_per_epoch': 4},
        {**STATE, 'batches_per_epoch': None},
        {**STATE, 'pipeline': None},
        {**STATE, 'pipeline': [1]},
        {**STATE, 'pipeline': 'range(0, 9)'},
        {**STATE, 'pipeline': ['range(0, 8)']},
        {**STATE, 'pipeline': ['range(0, 9)', 'take(3)']},
        {**STATE, 'pipeline': []},
        {**STATE, 'cursor': None},
        {**STATE, 'cursor': -1},
        {**STATE, 'cursor': 1.5},
        {**STATE, 'cursor': 'abc'},
        {**STATE, 'cursor': 10},
        {**STATE, 'cursor': [1, 2]},
        {**STATE, 'delivered': None},
        {**STATE, 'delivered': -1},
        {**STATE, 'delivered': True},
        {**STATE, 'in_epoch': -1},
        {**STATE, 'in_epoch': 1.0},
        {**STATE, 'in_epoch': 4},
        {**STATE, 'delivered': 0},
    ],
)
def test_a_wrong_state_is_refused_and_changes_nothing(wrong):
    with pipeline(range(9), prefetch(3)) as batches:
        batches.load_state_dict(STATE)
        with pytest.raises(StateMismatch):
            batches.load_state_dict(wrong)
        assert batches.state_dict() == STATE
        assert list(batches) == [4, 5]


def test_the_error_for_a_state_of_another_pipeline_names_the_stage_that_differs():
    saved = pipeline(range(9), take(3), prefetch(3)).state_dict()
    with pytest.raises(StateMismatch, match=r'stage 2 was take\(3\) when the state was saved, and is take\(4\) here'):
        pipeline(range(9), take(4), prefetch(3)).load_state_dict(saved)


def test_workers_on_error_and_the_buffer_may_change_between_saving_a_state_and_loading_it():
    source = sample(range(9), seed=0)
    with pipeline(source, apply(str), prefetch(3)) as batches:
        epoch = iter(batches)
        next(epoch)
        state, rest = through_json(batches.state_dict()), list(epoch)
    changed = apply(str, workers=thread_workers(2), on_error=skip(OSError))
    with pipeline(source, changed, prefetch(3, buffer_size=9, profile=True, stall_after=None)) as batches:
        batches.load_state_dict(state)
        assert list(batches) == rest


def test_the_error_for_a_damaged_state_names_what_is_wrong():
    with pytest.raises(StateMismatch, match='in_epoch is 99'):
        numbers(3).load_state_dict({**numbers(3).state_dict(), 'in_epoch': 99})


def test_an_iterator_does_not_go_on_from_a_state():
    batches = pipeline(iter('abc'), prefetch(3))
    with pytest.raises(NotResumable, match='iterator'):
        batches.load_state_dict({**batches.state_dict(), 'cursor': 1, 'delivered': 1})


def test_batches_print_as_the_code_that_made_them():
    assert repr(pipeline('abc', take(2), prefetch(3, buffer_size=5))) == (
        "pipeline('abc', take(2), prefetch(3, buffer_size=5))"
    )


def test_batches_are_not_copied():
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match='state_dict'):
            copied(numbers(3))


def test_many_open_and_close_at_once():
    batches = numbers(10**6)

    def open_and_close():
        for _ in range(50):
            with suppress(Closed), batches:
                next(iter(batches))

    def load():
        for _ in range(50):
            batches.load_state_dict(numbers(10**6).state_dict())

    with in_thread(open_and_close) as a, in_thread(open_and_close) as b, in_thread(load) as c:
        pass
    assert [a, b, c] == [[None]] * 3
    with batches:
        first = next(iter(batches))
        assert list(islice(batches, 3)) == [first + 1, first + 2, first + 3]


@pytest.mark.parametrize('make', [set, frozenset])
@pytest.mark.parametrize('feed', [pipeline, lambda letters, end: pipeline(mix(letters, 'xyz', seed=0), end)])
def test_a_state_of_a_set_is_refused_because_its_order_differs_between_processes(make, feed):
    with feed(make('abcdef'), prefetch()) as batches:
        next(iter(batches))
        state = batches.state_dict()
    with pytest.raises(NotResumable, match=r'is a set, whose order differs between processes; pass sorted'):
        feed(make('abcdef'), prefetch()).load_state_dict(state)


@pytest.mark.parametrize(
    ('saved', 'loaded'),
    [
        (None, thread_workers(2)),
        (thread_workers(2), None),
        (thread_workers(2), thread_workers(3)),
        (processes(1), thread_workers(2)),
        (thread_workers(1), processes(2)),
    ],
)
@pytest.mark.parametrize('depth', [1, 2, 3])
def test_a_state_names_no_workers_and_no_policies_however_deep(saved, loaded, depth):
    def make(workers):
        source = range(40)
        for _ in range(depth):
            on_error = skip(OSError) if workers else None
            source = mix(pipeline(source, apply(abs, workers=workers, on_error=on_error)), range(100, 200), seed=0)
        return pipeline(source, prefetch(6))

    with make(saved) as batches:
        next(iter(batches))
        state = batches.state_dict()
        rest = list(batches)
    with make(loaded) as batches:
        batches.load_state_dict(json.loads(json.dumps(state)))
        assert list(batches) == rest
