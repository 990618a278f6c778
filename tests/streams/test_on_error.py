"""What ``on_error`` does with a sample that a function fails on: skip, replace and retry."""

import threading
import time

import numpy as np
import pytest

from pipekit import (
    apply,
    combine_batches,
    pipeline,
    prefetch,
    processes,
    replace,
    retry,
    skip,
    threads,
    unpack,
)
from pipekit.streams.on_error import Missing, call_with_policies, checked_on_error, may_skip


def load(number):
    if number % 7 == 3:
        raise OSError(1000 + number, 'unreadable')
    return number


WORKERS = [None, threads(1), threads(4), processes(2)]


@pytest.fixture(params=WORKERS, ids=repr)
def workers(request):
    return request.param


def test_a_replacement_takes_the_place_of_the_result(workers):
    def blank(sample):
        return np.zeros(2), sample[1]

    def crop(image, label):
        if label == 3:
            raise IndexError('too small')
        return image, label

    replacing = unpack(crop, workers=workers, on_error=replace(blank, IndexError))
    samples = [(np.ones(2), label) for label in range(6)]
    with pipeline(samples, replacing, combine_batches(6), prefetch()) as batches:
        ((images, labels),) = list(batches)
    assert images[:, 0].tolist() == [1, 1, 1, 0, 1, 1]
    assert labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert len(batches.failures) == 1


def test_a_retry_draws_the_same_random_numbers():
    drawn = []

    def flaky(number, rng):
        drawn.append(rng.random())
        if len(drawn) < 3:
            raise OSError('busy')
        return drawn[-1]

    (value,) = pipeline([0], apply(flaky, seed=0, on_error=retry(2, OSError)))
    assert drawn == [value] * 3


def test_after_the_last_retry_the_next_policy_applies_or_the_error_is_raised():
    calls = []

    def fails(number):
        calls.append(number)
        raise OSError(number)

    with pytest.raises(OSError, match='0') as caught:
        list(pipeline([0], apply(fails, on_error=retry(2, OSError))))
    assert calls == [0, 0, 0]
    assert 'on sample 0 (cursor 1)' in caught.value.__notes__[-1]
    assert list(pipeline([0, 1], apply(fails, on_error=[retry(1, OSError), skip(budget=2)]))) == []
    assert calls == [0, 0, 0, 0, 0, 1, 1]


def test_the_wait_doubles_with_each_retry(monkeypatch):
    waits = []
    monkeypatch.setattr('pipekit.streams.on_error.time.sleep', waits.append)

    def fails(number):
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011
        list(pipeline([0], apply(fails, on_error=retry(4, backoff=0.5))))
    assert waits == [0.5, 1, 2, 4]


@pytest.mark.parametrize('workers', [None, threads(1), processes(1)], ids=repr)
def test_close_ends_the_wait_before_a_retry(workers):
    def fails(number):
        raise OSError('busy')

    batches = pipeline(range(9), apply(fails, workers=workers, on_error=retry(3, backoff=100)), prefetch())
    with batches:
        begin = time.monotonic()
    assert time.monotonic() - begin < 10
    for thread in threading.enumerate():
        if thread.name.startswith('pipekit'):
            thread.join(10)
            assert not thread.is_alive()


def test_other_exceptions_are_raised():
    with pytest.raises(OSError, match='unreadable'):
        list(pipeline(range(9), apply(load, on_error=skip(KeyError))))


def test_later_stages_do_not_see_a_skipped_sample():
    reached = []
    steps = [apply(load, on_error=skip(budget=None)), apply(reached.append)]
    list(pipeline(range(9), *steps))
    assert reached == [0, 1, 2, 4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ('make', 'error', 'message'),
    [
        (lambda: skip(budget=-1), ValueError, 'budget must be .* got -1'),
        (lambda: skip(budget=2.5), ValueError, 'budget must be a fraction from 0.0 to 1.0, .* got 2.5'),
        (lambda: skip(budget='1%'), TypeError, "budget must be .* got '1%'"),
        (lambda: skip(budget=True), TypeError, 'budget must be .* got True'),
        (lambda: skip(grace=0), ValueError, 'grace must be a positive int, got 0'),
        (lambda: skip(int), TypeError, 'skip is for subclasses of Exception, got int'),
        (lambda: skip(OSError()), TypeError, 'skip is for subclasses of Exception, got'),
        (lambda: skip(KeyboardInterrupt), TypeError, 'skip is for subclasses of Exception, got KeyboardInterrupt'),
        (lambda: retry(0), ValueError, 'times must be a positive int, got 0'),
        (lambda: retry(OSError), TypeError, 'times must be a positive int, got OSError'),
        (lambda: retry(3, backoff=-1), ValueError, 'backoff must be a non-negative number, got -1'),
        (lambda: replace(0), TypeError, 'func must be a function of a sample, got 0'),
        (lambda: replace(OSError, 3), TypeError, 'replace is for subclasses of Exception, got 3'),
        (lambda: apply(load, on_error=OSError), TypeError, r'on_error must be skip\(...\), .* got OSError'),
        (lambda: unpack(load, on_error=[skip(), 3]), TypeError, 'on_error must be'),
    ],
)
def test_a_wrong_argument_is_an_error_at_once(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_policies_print_as_they_were_typed():
    assert repr(apply(load, on_error=[retry(3, OSError, backoff=1.0), skip(OSError, budget=0.01)])) == (
        'apply(load, on_error=[retry(3, OSError, backoff=1.0), skip(OSError, budget=0.01)])'
    )


def test_one_policy_is_a_tuple_of_one():
    assert checked_on_error(None) == ()
    assert checked_on_error(skip()) == (skip(),)
    assert checked_on_error([retry(3), skip()]) == (retry(3), skip())


def test_a_retry_alone_skips_nothing():
    assert not may_skip([retry(3)])
    assert may_skip([retry(3), skip()])
    assert may_skip([replace(abs)])


def test_a_handled_failure_returns_the_error():
    skipping, replacing = skip(KeyError), replace(str.upper, KeyError)
    assert call_with_policies([skipping], lambda: 3, 'a') == (3, None, None)
    value, error, policy = call_with_policies([skipping], lambda: {}['a'], 'a')
    assert (value, type(error), policy) == (Missing.SKIPPED, KeyError, skipping)
    value, error, policy = call_with_policies([skip(OSError), replacing], lambda: {}['a'], 'a')
    assert (value, type(error), policy) == ('A', KeyError, replacing)


def test_a_budget_is_none_or_a_number_or_a_fraction_of_at_least_grace_samples():
    assert skip(budget=None).limit.allows(9, tried=9)
    assert [skip(budget=2).limit.allows(failed, tried=9) for failed in (2, 3)] == [True, False]
    policy = skip(budget=0.1, grace=100)
    assert [policy.limit.allows(failed, tried=20) for failed in (10, 11)] == [True, False]
    assert [policy.limit.allows(failed, tried=200) for failed in (20, 21)] == [True, False]
