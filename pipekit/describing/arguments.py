"""Checks of arguments, made by the factories; every message names the argument, what is expected, and the value."""

from __future__ import annotations

import inspect
import operator
import sys
from collections.abc import Callable, Iterable, Mapping, Set
from math import inf
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from more_itertools import take
from toolz import curry

from .descriptions import Description, UnseededEntropy, fresh_seed
from .display import code, is_partial

N = TypeVar('N', int, float)
E = TypeVar('E', TypeError, ValueError)

SEED_BITS = 1024
POSITIONAL_ONLY, KEYWORD_ONLY = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.KEYWORD_ONLY
BY_POSITION = POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD


def positive_int(name: str, value: object, expected: str = 'a positive int') -> int:
    """Check for an integer of at least 1."""
    return _at_least(1, name, value, expected)


def natural_number(name: str, value: object, expected: str = 'a non-negative int') -> int:
    """Check for an integer of at least 0."""
    return _at_least(0, name, value, expected)


def fraction(name: str, value: Any) -> float:
    """Check for a number from 0 to 1."""
    return _number(name, value, 'a number from 0 to 1', lambda number: 0 <= number <= 1)


def non_negative(name: str, value: Any) -> float:
    """Check for a finite number that is not negative."""
    return _number(name, value, 'a non-negative number', lambda number: 0 <= number < inf)


def positive(name: str, value: Any, expected: str = 'a positive number') -> float:
    """Check for a finite number above 0."""
    return _number(name, value, expected, lambda number: 0 < number < inf)


def optional(check: Callable[[str, Any, str], N], name: str, value: Any, expected: str) -> N | None:
    """Apply a check, unless the value is ``None``."""
    return None if value is None else check(name, value, f'{expected} or None')


def exceptions_of(owner: str, exceptions: tuple[Any, ...]) -> tuple[type[Exception], ...]:
    """Check for subclasses of ``Exception``; ``Exception`` itself if none is given."""
    for kind in exceptions:
        if not isinstance(kind, type) or not issubclass(kind, Exception):
            raise TypeError(f'{owner} is for subclasses of Exception, got {code(kind)}')
    return exceptions or (Exception,)


def function(name: str, value: object, expected: str = 'a function', arity: int | None = None, *names: str) -> None:
    """Check for something that can be called with ``arity`` arguments and those of ``names`` that it has.

    Calls that the signature of a decorated function's wrapper accepts are left to that.
    """
    if not callable(value):
        raise TypeError(f'{name} must be {expected}, got {code(value)}')
    if isinstance(value, Description) and not hasattr(value, 'takes_rng'):
        raise TypeError(f'{name} must be {expected}, got the stage {value!r}; put it into the pipeline as it is')
    if _is_async(value):
        raise TypeError(
            f'{name} must be {expected}, got {code(value)}, which is async and returns a coroutine; '
            'wrap it in a function that runs it, as with asyncio.run'
        )
    if arity is not None:
        _check_arity(name, value, expected, arity, names)


def boolean(name: str, value: Any) -> bool:
    """Check for True or False."""
    if not isinstance(value, bool | np.bool):
        raise TypeError(f'{name} must be True or False, got {code(value)}')
    return bool(value)


def seed_or_fresh(seed: object) -> int:
    """Check a seed, or draw one if it is ``None``."""
    if seed is None:
        return fresh_seed()
    if isinstance(seed, UnseededEntropy):  # from a description that was pickled, and had been given no seed
        return seed
    return _at_least(0, 'seed', seed, 'a non-negative int or None', (1 << SEED_BITS) - 1)


def weights_of(weights: Iterable[float], n: int, things: str) -> npt.NDArray[np.float64]:
    """Check for ``n`` finite non-negative weights, not all zero; returns them up to a common factor."""
    if isinstance(weights, Mapping | Set | np.ma.MaskedArray):
        raise TypeError(f'weights must be a list or an array, in the order of the {things}, got {code(weights)}')
    try:
        given = weights if isinstance(weights, np.ndarray) else np.array(take(n + 1, weights))  # they may never end
        if given.dtype.kind not in 'biufO':
            raise TypeError(f'a weight cannot be of type {given.dtype}')
        array = given.astype(np.float64)
    except OverflowError as error:
        raise ValueError(f'weights must be finite and non-negative, got {code(weights)}, too large') from error
    except (TypeError, ValueError) as error:
        raise TypeError(f'weights must be numbers, one for each of {n} {things}, got {code(weights)}') from error
    if array.shape != (n,):
        raise ValueError(f'weights must have one number for each of {n} {things}, got {code(weights)}')
    wrong = np.flatnonzero(~(np.isfinite(array) & (array >= 0)))
    if wrong.size:
        raise ValueError(f'weights must be finite and non-negative, got {array[wrong[0]]} at {wrong[0]}')
    if not array.any():
        raise ValueError(f'weights must not all be zero, got {code(weights)}')
    shares: npt.NDArray[np.float64] = array / array.max()  # because their sum may be too large for a float
    return shares


def _at_least(least: int, name: str, value: Any, expected: str, most: int = sys.maxsize) -> int:
    if isinstance(value, float | np.floating):
        raise _wrong(ValueError, name, value, expected)
    if isinstance(value, bool | np.bool | np.ndarray) or not hasattr(value, '__index__'):
        raise _wrong(TypeError, name, value, expected)
    number = operator.index(value)
    if number < least:
        raise _wrong(ValueError, name, value, expected)
    if number > most:
        limit = most if most == sys.maxsize else f'{most.bit_length()} bits'
        raise _wrong(ValueError, name, value, f'{expected}, at most {limit}')
    return number


def _number(name: str, value: Any, expected: str, is_right: Callable[[Any], bool]) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise _wrong(TypeError, name, value, expected)
    if not is_right(value):
        raise _wrong(ValueError, name, value, expected)
    try:
        return float(value)
    except OverflowError as error:
        raise _wrong(ValueError, name, value, expected) from error


def _is_async(func: Any) -> bool:
    while is_partial(func):
        func = func.func
    called = func if inspect.isroutine(func) or isinstance(func, type) else getattr(func, '__call__', func)  # noqa: B004
    return inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called)


def _check_arity(name: str, func: Any, expected: str, arity: int, names: tuple[str, ...]) -> None:
    if isinstance(func, curry):  # with fewer arguments it returns a function
        return
    try:
        # What a decorator's wrapper takes, which may add arguments to those of the function that it wraps.
        signature = inspect.signature(func, follow_wrapped=False)
    except (TypeError, ValueError) as error:  # some builtins have none
        if is_partial(func) and 'incorrect arguments' in str(error):
            raise TypeError(f'{name} must be {expected}, got {code(func)}, which gives arguments not taken') from error
        return
    parameters = signature.parameters
    keywords = {each for each in names if each in parameters and parameters[each].kind is not POSITIONAL_ONLY}
    try:
        signature.bind(*range(arity), **dict.fromkeys(keywords))
    except TypeError as error:
        raise TypeError(
            f'{name} must be {expected}, got {code(func)}, which {_takes(parameters, keywords, arity)}'
        ) from error


def _takes(parameters: Mapping[str, inspect.Parameter], keywords: set[str], arity: int) -> str:
    needed = [each for each in parameters.values() if each.default is each.empty and each.name not in keywords]
    by_position = [each for each in needed if each.kind in BY_POSITION]
    by_name = [each.name for each in needed if each.kind is KEYWORD_ONLY]
    if by_name:
        return f'needs the argument {by_name[0]}; give it with functools.partial'
    if len(by_position) <= arity:
        return f'does not take {arity} argument{"s" if arity > 1 else ""} by position'
    remedy = 'give the others with functools.partial'
    return f'takes {len(by_position)} arguments; {remedy}, or use unpack where samples have several fields'


def _wrong(error: type[E], name: str, value: object, expected: str) -> E:
    return error(f'{name} must be {expected}, got {code(value)}')


def checked_rank(rank: Any, world_size: Any) -> tuple[int, int]:
    """The number of a rank, and how many ranks there are."""
    world_size = positive_int('world_size', world_size)
    rank = natural_number('rank', rank)
    if rank >= world_size:
        raise ValueError(f'rank must be less than world_size, got rank {rank} of {world_size}')
    return rank, world_size
