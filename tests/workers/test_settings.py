"""Functions compute the same wherever they run: with the settings of the thread that opens the batches."""

import decimal
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from decimal import Decimal
from functools import partial

import numpy as np
import pytest

from pipekit import apply, combine_batches, pipeline, prefetch, processes, sample, shuffle, threads

VARIABLE = ContextVar('VARIABLE', default='unset')
TIMEOUT_SECONDS = 20


@contextmanager
def variable(value):
    token = VARIABLE.set(value)
    yield
    VARIABLE.reset(token)


@contextmanager
def numpy_calls(function):
    before = np.geterrcall()
    np.seterrcall(function)
    with np.errstate(all='call'):
        yield
    np.seterrcall(before)


def signal_kind(kind, status):
    raise ArithmeticError(kind)


SETTINGS = [
    *(partial(np.errstate, **{kind: how}) for kind in ('divide', 'over', 'invalid') for how in ('raise', 'ignore')),
    partial(np.errstate, all='raise'),
    partial(numpy_calls, signal_kind),
    *(partial(decimal.localcontext, prec=precision) for precision in (1, 3, 50)),
    *(partial(decimal.localcontext, rounding=kind) for kind in (decimal.ROUND_UP, decimal.ROUND_DOWN)),
    partial(decimal.localcontext, traps=[decimal.Inexact]),
    partial(decimal.localcontext, decimal.ExtendedContext),
]
KINDS = [None, threads(1), threads(3), processes(1)]


def computed(number):
    """What some calculations give, and what they raise."""
    found = [str(np.geterr())]
    calculations = [
        lambda: np.float64(number) / np.zeros(1),
        lambda: np.full(1, 1e300) * 1e300,
        lambda: np.sqrt(np.full(1, -1.0)),
        lambda: Decimal(number) / 7,
        lambda: Decimal(1) / Decimal(0),
        lambda: -Decimal('123456789.5'),
    ]
    for calculation in calculations:
        try:
            found.append(str(calculation()))
        except ArithmeticError as error:
            found.append(f'{type(error).__name__} {error}')
    return found


def batches_of(workers, *more):
    stages = apply(computed, workers=workers), shuffle(2, seed=0), *more, combine_batches(2, list)
    return pipeline(range(1, 7), *stages)


@pytest.mark.filterwarnings('ignore:.*encountered:RuntimeWarning')
@pytest.mark.parametrize('setting', SETTINGS, ids=lambda setting: f'{setting.func.__name__} {setting.keywords}')
@pytest.mark.parametrize('workers', KINDS, ids=repr)
def test_numpy_and_decimal_compute_as_in_the_calling_thread(workers, setting):
    plain = list(batches_of(None))
    with setting():
        expected = list(batches_of(None))
        opened = pipeline(batches_of(workers), prefetch())
        opened.__enter__()
    with opened:  # what is set afterwards is not seen
        assert list(opened) == expected != plain


@pytest.mark.parametrize('workers', KINDS[:3], ids=repr)
def test_any_context_variable_is_that_of_the_thread_that_opens(workers):
    seen = apply(lambda _: VARIABLE.get(), workers=workers)
    batches = pipeline(sample(range(9), seed=0), seen, prefetch(5))
    for value in 'ab':
        with variable(value):
            batches.__enter__()
        assert list(batches) == [value] * 5
        batches.close()
    with batches:
        assert set(batches) == {'unset'}


def test_the_source_sees_them_too():
    with variable('a'), pipeline(lambda: iter([VARIABLE.get()]), prefetch()) as batches:
        assert list(batches) == ['a']


@pytest.mark.parametrize('workers', KINDS, ids=repr)
def test_what_a_function_sets_does_not_come_back(workers):
    def change(number):
        np.seterr(all='raise')
        decimal.getcontext().prec = 2

    with decimal.localcontext(prec=7), np.errstate(all='ignore'):
        before = np.geterr()
        with pipeline(range(9), apply(change, workers=workers), prefetch()) as batches:
            list(batches)
        assert (decimal.getcontext().prec, np.geterr()) == (7, before)


def test_threads_do_not_change_each_others_settings():
    together = threading.Barrier(3, timeout=TIMEOUT_SECONDS)

    def change(number):
        VARIABLE.set(number)
        decimal.getcontext().prec = number
        together.wait()
        return VARIABLE.get(), decimal.getcontext().prec

    with pipeline(iter([1, 2, 3]), apply(change, workers=threads(3)), prefetch()) as batches:
        assert list(batches) == [(1, 1), (2, 2), (3, 3)]


def test_a_change_in_place_after_the_opening_is_not_seen():
    with decimal.localcontext(prec=3) as context:
        batches = pipeline(range(1, 9), apply(lambda n: str(Decimal(1) / 7), workers=threads(2)), prefetch())
        batches.__enter__()
        context.prec = 5
        with batches:
            assert set(batches) == {'0.143'}
