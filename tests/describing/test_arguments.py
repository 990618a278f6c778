import math
from fractions import Fraction

import numpy as np
import pytest

from pipekit.describing.arguments import (
    boolean,
    exceptions_of,
    fraction,
    function,
    natural_number,
    non_negative,
    optional,
    positive,
    positive_int,
    seed_or_fresh,
    weights_of,
)
from pipekit.describing.descriptions import UnseededEntropy

NO_INTS = [True, np.True_, '3', [3], np.array(3), np.array([3]), 3j, Fraction(3)]
NO_WHOLE = [2.5, 2.0, math.nan, math.inf, np.float32(2.5), np.float64(2)]


@pytest.mark.parametrize('check', [positive_int, natural_number])
@pytest.mark.parametrize('value', [1, 2**63 - 1, np.int64(7), np.uint8(7)])
def test_whole_numbers_of_any_kind_become_ints(check, value):
    assert type(check('n', value)) is int
    assert check('n', value) == value


@pytest.mark.parametrize(
    ('check', 'expected'),
    [
        (lambda value: positive_int('n', value), 'n must be a positive int'),
        (lambda value: natural_number('n', value), 'n must be a non-negative int'),
        (seed_or_fresh, 'seed must be a non-negative int or None'),
    ],
)
@pytest.mark.parametrize(
    ('value', 'error'), [*((v, TypeError) for v in NO_INTS), *((v, ValueError) for v in [*NO_WHOLE, -1, np.int8(-1)])]
)
def test_anything_else_is_named_and_shown(check, expected, value, error):
    with pytest.raises(error, match=rf'^{expected}, got .'):
        check(value)


@pytest.mark.parametrize('check', [positive_int, natural_number])
def test_none_is_no_number(check):
    with pytest.raises(TypeError, match=r'^n must be a .* int, got None$'):
        check('n', None)


def test_zero_is_natural_and_a_seed_but_not_positive():
    assert natural_number('n', 0) == seed_or_fresh(np.int64(0)) == 0
    with pytest.raises(ValueError, match='batch_size must be a positive int or a function, got 0'):
        positive_int('batch_size', 0, 'a positive int or a function')


def test_without_a_seed_there_is_a_fresh_one_each_time():
    first, second = seed_or_fresh(None), seed_or_fresh(None)
    assert isinstance(first, UnseededEntropy)
    assert first != second


@pytest.mark.parametrize('value', [0, 1, 0.5, np.float32(0.5), np.int64(1)])
def test_numbers_from_0_to_1_are_fractions(value):
    assert type(fraction('p', value)) is float
    assert fraction('p', value) == value


@pytest.mark.parametrize(
    ('value', 'error'),
    [
        (-0.1, ValueError),
        (1.1, ValueError),
        (2, ValueError),
        (math.nan, ValueError),
        (math.inf, ValueError),
        (np.float32(-1), ValueError),
        (True, TypeError),
        (np.True_, TypeError),
        ('0.5', TypeError),
        (None, TypeError),
        (0.5j, TypeError),
        (np.array(0.5), TypeError),
    ],
)
def test_other_numbers_are_not(value, error):
    with pytest.raises(error, match=r'^p must be a number from 0 to 1, got .'):
        fraction('p', value)


def test_positive_and_non_negative_numbers_are_finite():
    assert non_negative('backoff', 0) == 0
    assert positive('stall_after', np.float32(0.5)) == 0.5
    for check, value in [(non_negative, -0.1), (positive, 0), (non_negative, math.inf), (positive, math.inf)]:
        with pytest.raises(ValueError, match=r'^x must be a (non-negative|positive) number, got '):
            check('x', value)


def test_an_optional_argument_may_be_none_and_says_so():
    assert optional(positive_int, 'ahead', None, 'a positive int') is None
    assert optional(positive_int, 'ahead', 3, 'a positive int') == 3
    with pytest.raises(ValueError, match=r'^ahead must be a positive int or None, got 0$'):
        optional(positive_int, 'ahead', 0, 'a positive int')


@pytest.mark.parametrize('value', [True, False, np.True_, np.False_])
def test_booleans_of_numpy_are_booleans(value):
    assert boolean('drop_last', value) is bool(value)


@pytest.mark.parametrize('value', [0, 1, None, 'no', np.array(True)])
def test_nothing_else_is_a_boolean(value):
    with pytest.raises(TypeError, match=r'^drop_last must be True or False, got '):
        boolean('drop_last', value)


def test_without_types_of_exceptions_any_exception_is_meant():
    assert exceptions_of('skip', ()) == (Exception,)
    assert exceptions_of('skip', (OSError, KeyError)) == (OSError, KeyError)
    for wrong in (3, KeyboardInterrupt, OSError()):
        with pytest.raises(TypeError, match=r'^skip is for subclasses of Exception, got '):
            exceptions_of('skip', (wrong,))


@pytest.mark.parametrize('value', [abs, str, lambda x: x, np.add])
def test_what_can_be_called_is_a_function(value):
    function('predicate', value)


@pytest.mark.parametrize(('value', 'shown'), [(3, '3'), (None, 'None'), ('abs', "'abs'"), ([abs], r'\[abs\]')])
def test_what_cannot_be_called_is_not(value, shown):
    with pytest.raises(TypeError, match=f'^predicate must be a function, got {shown}$'):
        function('predicate', value)


@pytest.mark.parametrize(
    'weights',
    [[1, 3], (1, 3.0), np.array([1, 3], np.uint8), (w for w in [1, 3]), [Fraction(1, 3), 1], [1e-300, 3e-300]],
)
def test_weights_are_kept_up_to_a_factor(weights):
    small, large = weights_of(weights, 2, 'elements')
    assert small / large == pytest.approx(1 / 3)


def test_weights_whose_sum_is_too_large_for_a_float_are_weights():
    assert weights_of([1e308, 1e308, 1e308], 3, 'elements').sum() == 3


@pytest.mark.parametrize(
    ('weights', 'error', 'message'),
    [
        ([1], ValueError, r'weights must have one number for each of 2 sources, got \[1\]'),
        ([1, 2, 3], ValueError, 'weights must have one number for each of 2 sources'),
        ([[1, 2], [3, 4]], ValueError, 'weights must have one number for each of 2 sources'),
        ([1, -2], ValueError, 'weights must be finite and non-negative, got -2.0 at 1'),
        ([math.nan, 1], ValueError, 'weights must be finite and non-negative, got nan at 0'),
        ([1, math.inf], ValueError, 'weights must be finite and non-negative, got inf at 1'),
        ([None, 1], ValueError, 'weights must be finite and non-negative, got nan at 0'),
        ([0, 0.0], ValueError, r'weights must not all be zero, got \[0, 0.0\]'),
        ('12', TypeError, "weights must be numbers, one for each of 2 sources, got '12'"),
        (['a', 1], TypeError, 'weights must be numbers'),
        ([1j, 1], TypeError, 'weights must be numbers'),
        ([[1], [1, 2]], TypeError, 'weights must be numbers'),
        (3, TypeError, 'weights must be numbers, one for each of 2 sources, got 3'),
    ],
)
def test_wrong_weights_are_named_and_shown(weights, error, message):
    with pytest.raises(error, match=message):
        weights_of(weights, 2, 'sources')
