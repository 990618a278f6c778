"""Checks of arguments, made where a description is made: every message names the argument, the value, the remedy."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from math import inf
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from .descriptions import Description, UnseededEntropy, fresh_seed
from .display import code

N = TypeVar('N', int, float)
E = TypeVar('E', TypeError, ValueError)


def positive_int(name: str, value: object, expected: str = 'a positive int') -> int:
    """Check for an integer of at least 1.

    Examples
    --------
    >>> positive_int('batch_size', 0)
    Traceback (most recent call last):
    ValueError: batch_size must be a positive int, got 0
    """
    return _at_least(1, name, value, expected)


def natural_number(name: str, value: object) -> int:
    """Check for an integer of at least 0.

    Examples
    --------
    >>> natural_number('n', True)
    Traceback (most recent call last):
    TypeError: n must be a non-negative int, got True
    """
    return _at_least(0, name, value, 'a non-negative int')


def fraction(name: str, value: Any) -> float:
    """Check for a number from 0 to 1.

    Examples
    --------
    >>> fraction('p', 1.5)
    Traceback (most recent call last):
    ValueError: p must be a number from 0 to 1, got 1.5
    """
    return _number(name, value, 'a number from 0 to 1', lambda number: 0 <= number <= 1)


def non_negative(name: str, value: Any) -> float:
    """Check for a finite number that is not negative.

    Examples
    --------
    >>> non_negative('backoff', 1)
    1.0
    """
    return _number(name, value, 'a non-negative number', lambda number: 0 <= number < inf)


def positive(name: str, value: Any, expected: str = 'a positive number') -> float:
    """Check for a finite number above 0.

    Examples
    --------
    >>> positive('stall_after', 0)
    Traceback (most recent call last):
    ValueError: stall_after must be a positive number, got 0
    """
    return _number(name, value, expected, lambda number: 0 < number < inf)


def optional(check: Callable[[str, Any, str], N], name: str, value: Any, expected: str) -> N | None:
    """Check for what a check is for, or ``None``.

    Examples
    --------
    >>> optional(positive_int, 'ahead', None, 'a positive int') is None
    True
    >>> optional(positive_int, 'ahead', 0, 'a positive int')
    Traceback (most recent call last):
    ValueError: ahead must be a positive int or None, got 0
    """
    return None if value is None else check(name, value, f'{expected} or None')


def exceptions_of(owner: str, exceptions: tuple[Any, ...]) -> tuple[type[Exception], ...]:
    """Check for types of exceptions; ``Exception`` where there are none.

    Examples
    --------
    >>> exceptions_of('skip', ())
    (<class 'Exception'>,)
    """
    for kind in exceptions:
        if not isinstance(kind, type) or not issubclass(kind, Exception):
            raise TypeError(f'{owner} is for subclasses of Exception, got {code(kind)}')
    return exceptions or (Exception,)


def function(name: str, value: object, expected: str = 'a function') -> None:
    """Check for something that can be called.

    Examples
    --------
    >>> function('predicate', 3)
    Traceback (most recent call last):
    TypeError: predicate must be a function, got 3
    """
    if not callable(value):
        raise TypeError(f'{name} must be {expected}, got {code(value)}')
    if isinstance(value, Description) and not hasattr(value, 'takes_rng'):
        raise TypeError(f'{name} must be {expected}, got the stage {value!r}; put it into the pipeline as it is')


def boolean(name: str, value: Any) -> bool:
    """Check for True or False.

    Examples
    --------
    >>> boolean('drop_last', 'no')
    Traceback (most recent call last):
    TypeError: drop_last must be True or False, got 'no'
    """
    if not isinstance(value, bool | np.bool):
        raise TypeError(f'{name} must be True or False, got {code(value)}')
    return bool(value)


def seed_or_fresh(seed: object) -> int:
    """Check a seed; without one, draw fresh entropy.

    Examples
    --------
    >>> seed_or_fresh(0)
    0
    >>> seed_or_fresh('zero')
    Traceback (most recent call last):
    TypeError: seed must be a non-negative int or None, got 'zero'
    """
    if seed is None:
        return fresh_seed()
    if isinstance(seed, UnseededEntropy):  # of a description that went through pickle: it stays one that nobody gave
        return seed
    return _at_least(0, 'seed', seed, 'a non-negative int or None')


def weights_of(weights: Iterable[float], n: int, things: str) -> npt.NDArray[np.float64]:
    """Check one finite non-negative weight for each of ``n`` things, not all zero.

    Examples
    --------
    >>> weights_of([1, -1], 2, 'sources')
    Traceback (most recent call last):
    ValueError: weights must be finite and non-negative, got -1.0 at 1
    """
    try:
        given = weights if isinstance(weights, np.ndarray) else np.array(list(weights))
        if given.dtype.kind not in 'biufO':
            raise TypeError(f'a weight cannot be of type {given.dtype}')
        array = given.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f'weights must be numbers, one for each of {n} {things}, got {code(weights)}') from error
    if array.shape != (n,):
        raise ValueError(f'weights must have one number for each of {n} {things}, got {code(weights)}')
    wrong = np.flatnonzero(~(np.isfinite(array) & (array >= 0)))
    if wrong.size:
        raise ValueError(f'weights must be finite and non-negative, got {array[wrong[0]]} at {wrong[0]}')
    if not array.any():
        raise ValueError(f'weights must not all be zero, got {code(weights)}')
    shares: npt.NDArray[np.float64] = array / array.max()  # the sum of the weights may be too large for a float
    return shares


def _at_least(least: int, name: str, value: Any, expected: str) -> int:
    if isinstance(value, float | np.floating):
        raise _wrong(ValueError, name, value, expected)
    if isinstance(value, bool | np.bool | np.ndarray) or not hasattr(value, '__index__'):
        raise _wrong(TypeError, name, value, expected)
    number = operator.index(value)
    if number < least:
        raise _wrong(ValueError, name, value, expected)
    return number


def _number(name: str, value: Any, expected: str, is_right: Callable[[Any], bool]) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise _wrong(TypeError, name, value, expected)
    if not is_right(value):
        raise _wrong(ValueError, name, value, expected)
    return float(value)


def _wrong(error: type[E], name: str, value: object, expected: str) -> E:
    return error(f'{name} must be {expected}, got {code(value)}')
