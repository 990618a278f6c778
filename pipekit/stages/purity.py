"""Checks whether a function of a sample depends on the sample and ``rng`` alone."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np

from ..describing.arguments import function, natural_number
from ..describing.descriptions import same
from ..describing.display import code
from ..streams.global_generators import global_states, moved_since
from .functions import takes_rng
from .held_generators import held_generators
from .seeding import draws_message


def check_function(func: Callable[..., Any], *sample: Any, seed: int = 0) -> None:
    """Check that what a function gives depends on the sample and ``rng`` alone, so that any stage may call it anywhere.

    The function is called twice, with copies of the sample.

    Parameters
    ----------
    func
        A function of a sample, or of its fields, random if it takes ``rng``.
    *sample
        The sample, or its fields.
    seed
        For the generators that a random function is passed, which are equal.

    Raises
    ------
    AssertionError
        If it draws from a global generator, holds a random generator, gives something else the second time, or changes
        its argument. The message says which, and what to do.

    Examples
    --------
    >>> import random
    >>> check_function(abs, -3)
    >>> check_function(lambda x, rng: x + rng.normal(), 1.5)
    >>> def jitter(x):
    ...     return x + random.random()
    >>> check_function(jitter, 1.5)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    AssertionError: jitter draws from the global generator of random, so that its results depend on everything else ...
    """
    function('func', func, 'a function of a sample')
    seed = natural_number('seed', seed)
    before = global_states()
    results, given = [], []
    for _ in range(2):
        given.append(deepcopy(sample))
        results.append(func(*given[-1], **({'rng': np.random.default_rng(seed)} if takes_rng(func) else {})))
    moved = moved_since(before)
    assert not moved, f'{code(func)} {draws_message(moved)}'
    held = next(held_generators(func, takes_rng=takes_rng(func)), None)
    assert held is None, (
        f'{code(func)} holds the random generator `{held.path}`, which threads share and processes copy; wrap it in '
        'reseeded(...), or let it take the argument rng'
    )
    assert same(*results), f'{code(func)} gave {code(results[0])} for a sample, and {code(results[1])} the second time'
    assert same(given[0], sample), (
        f'{code(func)} changes its argument, which later epochs get again; let it make a copy'
    )
