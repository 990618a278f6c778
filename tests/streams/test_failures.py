"""Bad samples: listed, counted in the order of the samples, and within a budget, wherever functions run."""

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice

import pytest

from pipekit import (
    Exhausted,
    Failure,
    RemoteError,
    TooManyFailures,
    apply,
    combine_batches,
    expiration_pool,
    flatten,
    mix,
    pipeline,
    prefetch,
    processes,
    repeat,
    replace,
    retry,
    sample,
    shuffle,
    skip,
    take,
    threads,
)
from pipekit.testing import check_stage


def load(number):
    if number % 7 == 3:
        raise OSError(1000 + number, 'unreadable')
    return number


def jitter(number, rng):
    if number % 5 == 4:
        raise ValueError(number)
    return number + rng.random()


WORKERS = [None, threads(1), threads(4), processes(2)]


@pytest.fixture(params=WORKERS, ids=repr)
def workers(request):
    return request.param


def test_skipping_does_not_change_the_other_samples(workers):
    skipping = apply(jitter, seed=0, workers=workers, on_error=skip(ValueError, budget=None))
    with pipeline(range(40), skipping, combine_batches(4, list), prefetch()) as batches:
        delivered = list(batches)
    kept = [number for number in range(40) if number % 5 != 4]
    everything = list(pipeline(range(40), apply(lambda number, rng: number + rng.random(), seed=0)))
    expected = [everything[number] for number in kept]
    assert delivered == [expected[start : start + 4] for start in range(0, len(kept), 4)]
    assert [failure.sample for failure in batches.failures] == [4, 9, 14, 19, 24, 29, 34, 39]


def fail_on_every_third(batch):
    if batch[0] % 9 == 6:
        raise OSError(batch[0])
    return batch


@pytest.mark.parametrize('of_sample', [threads(2), processes(2)], ids=repr)
@pytest.mark.parametrize('of_combiner', [None, processes(2)], ids=repr)
@pytest.mark.parametrize('of_batch', [None, processes(2)], ids=repr)
def test_skipping_batches_is_counted_wherever_each_function_runs(of_sample, of_combiner, of_batch):
    stages = (
        apply(abs, workers=of_sample),
        combine_batches(3, list, workers=of_combiner),
        apply(fail_on_every_third, workers=of_batch, on_error=skip(OSError, budget=None)),
        apply(len, workers=of_batch),
    )
    with pipeline(range(29), *stages, prefetch()) as batches:
        assert list(batches) == [3] * 6 + [2]
    assert [failure.sample[0] for failure in batches.failures] == [6, 15, 24]


def test_stages_that_skip_obey_the_laws():
    steps = [
        apply(load, on_error=skip(OSError, budget=None)),
        apply(jitter, seed=0, on_error=[retry(1), replace(float, budget=None)]),
        shuffle(3, seed=0),
        combine_batches(3),
    ]
    for step in steps:
        check_stage(step, range(20))
    check_stage(pipeline(*steps), range(60))
    check_stage(apply(load, workers=threads(3), on_error=skip(budget=None)), range(30))


def test_a_failure_says_where_and_why(workers):
    skipping = apply(load, workers=workers, on_error=skip(OSError, budget=2))
    with pipeline(sample(range(8), seed=0, replace=False), take(8), skipping, prefetch()) as batches:
        assert sorted(batches) == [0, 1, 2, 4, 5, 6, 7]
    (failure,) = batches.failures
    assert isinstance(failure, Failure)
    assert failure.stage.endswith('the 3rd of 3 stages')
    assert (failure.sample, type(failure.exception), failure.exception.errno) == (3, OSError, 1003)
    assert 'on sample 3 (cursor' in failure.exception.__notes__[-1]
    with pytest.raises(OSError, match='unreadable'):
        eval(failure.exception.__notes__[-1].rpartition(': ')[2], {'pipeline': batches.pipeline})


@pytest.mark.parametrize('budget', [2, 0.05])
def test_over_the_budget_the_batches_end_with_a_group_of_errors(workers, budget):
    skipping = apply(load, workers=workers, on_error=skip(OSError, budget=budget, grace=40))
    delivered = []
    with pipeline(range(1000), skipping, prefetch()) as batches, pytest.raises(TooManyFailures) as caught:
        delivered.extend(batches)
    assert delivered == [number for number in range(17) if number % 7 != 3]
    assert len(batches.failures) == 3
    assert [error.errno for error in caught.value.exceptions] == [1003, 1010, 1017]
    assert 'failed on 3 of 18 samples' in str(caught.value)
    assert isinstance(caught.value.subgroup(lambda error: getattr(error, 'errno', 0) == 1003), TooManyFailures)


def test_a_fraction_is_of_the_samples_tried():
    rare = [3 if number % 100 == 50 else 0 for number in range(5000)]
    assert len(list(pipeline(rare, apply(load, on_error=skip(budget=0.011))))) == 4950


def test_the_first_ten_errors_are_in_the_group():
    with pytest.raises(TooManyFailures) as caught:
        list(pipeline(range(1000), apply(load, on_error=skip(budget=20))))
    assert len(caught.value.exceptions) == 10


def test_counts_go_on_after_a_resume(workers):
    def make(workers=None):
        steps = [repeat(), apply(load, workers=workers, on_error=skip(budget=5)), combine_batches(3, list)]
        return pipeline(range(7), *steps, prefetch(4))

    with make() as batches:
        straight = [list(islice(batches, 4)) for _ in range(2)]
        counts = batches.state_dict()['failures']
        with pytest.raises(TooManyFailures):
            [list(batches) for _ in range(9)]
    assert counts == {'3': [28, 4]}
    with make(workers) as batches:
        first = list(batches)
        state = json.loads(json.dumps(batches.state_dict()))
    assert state['failures'] == {'3': [13, 1]} or state['failures'] == {'3': [14, 2]}
    with make(workers) as batches:
        batches.load_state_dict(state)
        assert [first, list(batches)] == straight
        assert batches.state_dict()['failures'] == counts
        with pytest.raises(TooManyFailures, match='failed on 6 of 39 samples'):
            [list(batches) for _ in range(9)]


@pytest.mark.parametrize('end', [(), (prefetch(),)], ids=['iterated', 'prefetched'])
def test_a_budget_is_for_all_passes(end):
    def read(budget):
        # Each pass has three failures.
        return list(pipeline(range(20), apply(load, on_error=skip(budget=budget)), repeat(3), *end))

    assert len(read(9)) == 51
    with pytest.raises(TooManyFailures, match='failed on 9 of'):
        read(8)


def test_samples_that_are_made_again_count_once():
    batches = pipeline(range(70), apply(load, on_error=skip(budget=None)), prefetch(100, buffer_size=9))
    with batches:
        first = list(islice(batches, 2))
    with batches:
        assert first + list(batches) == [number for number in range(70) if number % 7 != 3]
    assert batches.state_dict()['failures'] == {'2': [69, 9]} or batches.state_dict()['failures'] == {'2': [70, 10]}
    assert [failure.sample for failure in batches.failures] == [number for number in range(70) if number % 7 == 3]


def test_a_state_without_the_option_loads_with_it():
    with pipeline(range(9), apply(load), prefetch(9)) as batches:
        delivered = []
        with pytest.raises(OSError, match='unreadable'):
            delivered.extend(batches)
        state = batches.state_dict()
    with pipeline(range(9), apply(load, on_error=skip()), prefetch(9)) as batches:
        batches.load_state_dict(state)
        assert list(batches) == [4, 5, 6, 7, 8]


def test_branches_are_counted_apart():
    mixed = mix(
        pipeline(range(100), apply(load, on_error=skip(budget=None))),
        pipeline(range(100), apply(load, on_error=skip(budget=None))),
        seed=0,
    )
    with pipeline(mixed, prefetch(50)) as batches:
        list(batches)
        counts = batches.state_dict()['failures']
    assert counts.keys() == {'0.2', '1.2'}


def test_each_kind_is_logged_once(caplog):
    with caplog.at_level(logging.WARNING, logger='pipekit'):
        list(pipeline(range(70), apply(load, on_error=skip(budget=None))))
    (record,) = caplog.records
    assert record.getMessage() == (
        'apply(load, on_error=skip(budget=None)), the 2nd of 2 stages: skipped sample 3 (cursor 4) because of '
        "OSError(1003, 'unreadable'); others like it are counted, not logged"
    )


def test_the_last_hundred_failures_are_listed():
    def fails(number):
        raise OSError(number)

    with pipeline(range(500), apply(fails, on_error=skip(budget=None)), prefetch(1)) as batches:
        assert list(islice(batches.pipeline, 1)) == []
        with pytest.raises(Exception, match='ended after 0 batches'):
            list(batches)
    assert [failure.sample for failure in batches.failures] == list(range(400, 500))


class NotToBePickled(Exception):
    def __init__(self, number):
        super().__init__(number)
        self.lines = (line for line in 'ab')


def test_an_error_that_cannot_be_pickled_is_a_remote_error():
    def fails(number):
        raise NotToBePickled(number)

    with pipeline(range(3), apply(fails, workers=processes(1), on_error=skip(budget=3)), prefetch(1)) as batches:
        with pytest.raises(Exception, match='ended after 0 batches'):
            list(batches)
        assert isinstance(batches.failures[0].exception, RemoteError)
        assert batches.failures[0].exception.type_name == 'NotToBePickled'


def test_a_borrowed_executor_skips_too():
    with (
        ThreadPoolExecutor(2) as executor,
        pipeline(range(9), apply(load, workers=executor, on_error=skip(budget=1)), prefetch()) as batches,
    ):
        assert list(batches) == [0, 1, 2, 4, 5, 6, 7, 8]


def test_flatten_after_a_skip():
    parts = apply(lambda number: [load(number)] * 2, on_error=skip(budget=None))
    check_stage(pipeline(parts, flatten()), range(12))


def checked(number):
    if number % 5 == 4:
        raise ValueError(number)
    return number


def fails_at_threes(number):
    if number % 3 == 0:
        raise KeyError(number)
    return number


def passing_on(values):
    yield from values


AFTER_SKIPPING = {
    'nothing': [],
    'a map': [apply(float)],
    'threads': [apply(float, workers=threads(3))],
    'a shuffle': [shuffle(7, seed=0)],
    'a pool': [expiration_pool(3, 2, seed=0)],
    'an iterable stage': [passing_on],
    'a generator and a shuffle': [passing_on, shuffle(4, seed=0)],
    'a flatten': [apply(lambda number: [number] * 3), flatten()],
    'an adaptive size': [combine_batches(lambda chunk, sample: len(chunk) < 1 + sample % 3, list)],
    'a batch': [combine_batches(4, list)],
    'a batch and a take': [combine_batches(4, list), take(8)],
    'a repeat': [repeat(2), combine_batches(3, list)],
    'another skip': [apply(fails_at_threes, on_error=skip(KeyError, budget=None)), shuffle(3, seed=0)],
}


def counting(stages, batches_per_epoch):
    skipping = apply(checked, on_error=skip(ValueError, budget=None))
    return pipeline(range(30), skipping, *stages, prefetch(batches_per_epoch, buffer_size=2))


@pytest.mark.parametrize('batches_per_epoch', [7, None])
@pytest.mark.parametrize('name', AFTER_SKIPPING)
def test_a_state_counts_what_lies_before_its_cursor_however_often_it_was_resumed(name, batches_per_epoch):
    def states(n):
        while len(found) < n:
            for _ in batches:
                found.append(batches.state_dict()['failures'])
                if len(found) == n:
                    return

    with counting(AFTER_SKIPPING[name], batches_per_epoch) as batches:
        found = []
        with suppress(Exhausted):
            states(18)
        undisturbed = found
    state, found = None, []
    for _ in undisturbed:
        with counting(AFTER_SKIPPING[name], batches_per_epoch) as batches:
            if state is not None:
                batches.load_state_dict(json.loads(json.dumps(state)))
            batch = next(iter(batches), None)
            while batch is None:
                batch = next(iter(batches), None)
            state = batches.state_dict()
            found.append(state['failures'])
    assert found == undisturbed


def test_counts_do_not_depend_on_the_workers():
    def states(workers):
        skipping = apply(checked, workers=workers, on_error=skip(ValueError, budget=None))
        with pipeline(
            range(40), skipping, apply(abs, workers=workers), combine_batches(3, list), prefetch()
        ) as batches:
            return [(batches.state_dict()['failures'], len(batches.failures)) for _ in batches]

    assert states(None) == states(threads(1)) == states(threads(5)) == states(processes(2))


def test_a_budget_that_holds_in_one_go_holds_after_restarts():
    def make():
        skipping = apply(checked, on_error=skip(ValueError, budget=8))
        return pipeline(range(40), skipping, shuffle(16, seed=0), prefetch(100))

    with make() as batches:
        whole = list(batches)
    got, state = [], None
    while len(got) < len(whole):
        with make() as batches:
            if state is not None:
                batches.load_state_dict(state)
            for batch in batches:
                got.append(batch)
                state = batches.state_dict()
                if len(got) % 5 == 0:
                    break
    assert got == whole


def failing(sample):
    if sample in KINDS:
        raise KINDS[sample](sample)
    return sample


KINDS = {'o': OSError, 'z': ZeroDivisionError, 'k': KeyError}


@pytest.mark.parametrize(
    ('policies', 'samples', 'fails'),
    [
        ([skip(ZeroDivisionError, budget=0), replace(len, OSError, budget=None)], 'aoooo', False),
        ([skip(ZeroDivisionError, budget=0), replace(len, OSError, budget=None)], 'aoooz', True),
        ([replace(len, OSError, budget=None), skip(ZeroDivisionError, budget=0)], 'aoooo', False),
        ([replace(len, OSError, budget=None), skip(ZeroDivisionError, budget=0)], 'aoooz', True),
        ([replace(len, OSError, budget=0), skip(ZeroDivisionError, budget=None)], 'azzz', False),
        ([replace(len, OSError, budget=0), skip(ZeroDivisionError, budget=None)], 'azzo', True),
        ([skip(OSError, budget=2), skip(ZeroDivisionError, budget=2), skip(KeyError, budget=1)], 'aoozzk', False),
        ([skip(OSError, budget=2), skip(ZeroDivisionError, budget=2), skip(KeyError, budget=1)], 'oozzo', True),
        ([skip(OSError, budget=2), skip(ZeroDivisionError, budget=2), skip(KeyError, budget=1)], 'oozzkk', True),
        ([skip(OSError, budget=1), skip(budget=3)], 'aozzk', False),
        ([skip(OSError, budget=1), skip(budget=3)], 'ozzkk', True),
    ],
)
@pytest.mark.parametrize('workers', [None, threads(2)])
def test_each_policy_has_a_budget_of_its_own(policies, samples, fails, workers):
    batches = pipeline(list(samples), apply(failing, on_error=policies, workers=workers), prefetch())
    with batches:
        if fails:
            with pytest.raises(TooManyFailures):
                list(batches)
        else:
            list(batches)
    assert json.loads(json.dumps(batches.state_dict()))['failures'] == batches.state_dict()['failures']
