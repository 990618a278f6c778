"""Functions that draw from generators of their own, or of the whole program, as functions of a sample and ``rng``."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from types import CellType, FunctionType
from typing import Any, TypeAlias

import numpy as np

from ..describing.arguments import function
from ..describing.descriptions import described
from ..describing.display import code
from ..streams.global_generators import (
    N_WORDS,
    global_states,
    half_words,
    restore_global,
    seed_global,
    torch_is_loaded,
)
from ..workers.settings import is_beside_others
from .functions import SampleFunction, takes_rng
from .held_generators import held_generators

Seed: TypeAlias = Callable[[list[int]], object]  # with words of 64 bits
SetSeed: TypeAlias = Callable[[Any, int], object] | str | None

SEED_METHODS = 'set_random_seed', 'set_random_state'  # of albumentations and MONAI


class Seeded(SampleFunction):
    """The function that ``seeded`` returns."""

    def __init__(self, func: Callable[..., Any]):
        super().__init__(func, is_random=True)

    def __call__(self, *values: Any, rng: np.random.Generator | None = None, **named: Any) -> Any:
        words = _words(self.given(rng))
        if is_beside_others():
            raise RuntimeError(shared_message(self))
        before, knew_torch = global_states(), torch_is_loaded()
        try:
            seed_global(words)
            result = self._body(*values, **named)
            if torch_is_loaded() and not knew_torch:  # the function has loaded it, and may have drawn from it unseeded
                seed_global(words)
                result = self._body(*values, **named)
        finally:
            restore_global(before)
        return result


@described
def seeded(func: Callable[..., Any]) -> Seeded:
    """A random function that calls ``func`` with the global generators seeded from ``rng``.

    For functions that draw from ``random``, ``numpy.random`` or torch's default generator. What they draw then depends
    on the seed and the sample alone, as for a function that takes ``rng``. Afterwards the generators go on where they
    were.

    All threads of a program share these generators. So the function must run where no other thread draws: in
    ``processes(n)``, in an executor of processes, or without ``prefetch``. In the thread of ``prefetch`` and in
    ``threads(n)`` it is refused when the batches are opened.

    Parameters
    ----------
    func
        A function of a sample, or of its fields, which does not take ``rng``.

    Raises
    ------
    TypeError
        If ``func`` is not a function, or takes ``rng``.
    RuntimeError
        When called in a thread that ``prefetch`` or ``threads(n)`` has started.

    Examples
    --------
    >>> import random
    >>> from pipekit import apply
    >>> def jitter(x):
    ...     return x + random.randrange(10)
    >>> list(apply(seeded(jitter), seed=0)([100, 200])) == list(apply(seeded(jitter), seed=0)([100, 200]))
    True
    """
    function('func', func, 'a function of a sample')
    if takes_rng(func):
        raise TypeError(f'seeded is for functions that draw from global generators, got {code(func)}, which takes rng')
    return Seeded(func)


def draws_message(libraries: list[str]) -> str:
    """What a function does that draws from global generators, and the remedy."""
    return (
        f'draws from the global generator of {" and ".join(libraries)}, so that its results depend on everything else '
        'that draws; wrap its function in seeded(...), or let it take the argument rng'
    )


def shared_message(func: object) -> str:
    """Why a seeded function cannot run in a thread beside others."""
    return (
        f'{code(func)} seeds generators that all threads share, and others may draw from them meanwhile; '
        'pass workers=processes(n), or let the function take the argument rng'
    )


class Reseeded(SampleFunction):
    """The function that ``reseeded`` returns: a copy of the transform for each thread, seeded for each sample."""

    owns_generators = True  # they are not shared

    def __init__(self, transform: Any, seeder: Callable[[Any], Seed]):
        super().__init__(transform, is_random=True)
        self._seeder = seeder
        self._local = threading.local()

    def __call__(self, *values: Any, rng: np.random.Generator | None = None, **named: Any) -> Any:
        words = _words(self.given(rng))
        local = self._local
        if not hasattr(local, 'transform'):
            local.transform = copied(self._body)
            local.seed = self._seeder(local.transform)
        local.seed(words)
        return local.transform(*values, **named)


@described
def reseeded(transform: Callable[..., Any], *, set_seed: SetSeed = None) -> Reseeded:
    """A random function that calls ``transform`` with its own generators seeded from ``rng``.

    For transforms that keep a generator, as those of albumentations and MONAI do, and for functions that close over
    one. Each thread has a copy of its own, so that it may run anywhere.

    Parameters
    ----------
    transform
        A function of a sample, or of its fields, or an object that can be called.
    set_seed
        How to seed it: a function of the transform and an int below ``2**32``, or the name of a method that takes such
        an int. By default the method ``set_random_seed`` or ``set_random_state`` if it has one. Otherwise each
        generator that is found in it is seeded: of numpy, of ``random``, and of torch.

    Raises
    ------
    TypeError
        If ``transform`` is not a function, takes ``rng``, or there is no way to seed it.

    Examples
    --------
    >>> from functools import partial
    >>> import numpy as np
    >>> from pipekit import apply
    >>> def jitter(x, generator):
    ...     return x + int(generator.integers(10))
    >>> jitter = partial(jitter, generator=np.random.default_rng())
    >>> list(apply(reseeded(jitter), seed=0)([100, 200])) == list(apply(reseeded(jitter), seed=0)([100, 200]))
    True
    """
    function('transform', transform, 'a function of a sample')
    if takes_rng(transform):
        raise TypeError(
            f'reseeded is for transforms with a generator of their own, got {code(transform)}, which takes rng'
        )
    return Reseeded(transform, _seeder(transform, set_seed))


def copied(transform: Any) -> Any:
    """A copy that shares no generator with the original; of a function, with copies of what it closes over."""
    if not isinstance(transform, FunctionType):
        return deepcopy(transform)
    cells = tuple(map(_copied_cell, transform.__closure__ or ()))
    copy = FunctionType(
        transform.__code__, transform.__globals__, transform.__name__, deepcopy(transform.__defaults__), cells
    )
    copy.__kwdefaults__ = deepcopy(transform.__kwdefaults__)
    return copy


def _copied_cell(cell: CellType) -> CellType:
    try:
        return CellType(deepcopy(cell.cell_contents))
    except ValueError:  # it is empty
        return CellType()


def _seeder(transform: Any, set_seed: SetSeed) -> Callable[[Any], Seed]:
    """A function of a copy of the transform that returns the function which seeds it."""
    if callable(set_seed):
        seed: Callable[[Any, int], object] = set_seed
        return lambda copy: lambda words: seed(copy, words[0] >> 32)
    if isinstance(set_seed, str):
        if not callable(getattr(transform, set_seed, None)):
            raise TypeError(f'set_seed must be the name of a method of {code(transform)}, got {set_seed!r}')
        return partial(_method_caller, set_seed)
    if set_seed is not None:
        raise TypeError(f'set_seed must be a function, the name of a method, or None, got {code(set_seed)}')
    methods = [name for name in SEED_METHODS if callable(getattr(transform, name, None))]
    if methods:
        return partial(_method_caller, methods[0])
    held = list(held_generators(transform))
    shared = [each.path for each in held if each.names]
    if not held or shared:
        found = f'draws from the global variable {shared[0]}' if shared else 'has no generator that could be found'
        raise TypeError(
            f'{code(transform)} {found}; pass set_seed=, a function of the transform and a seed, or use seeded(...) if '
            'it draws from random, numpy.random or torch'
        )
    return _seeder_of_held


def _seeder_of_held(transform: Any) -> Seed:
    generators = [each.value for each in held_generators(transform)]

    def seed(words: list[int]) -> None:
        for number, generator in enumerate(generators):
            _seed(generator, [(word + number) % (1 << 64) for word in words])

    return seed


def _method_caller(name: str, transform: Any) -> Seed:
    return lambda words: getattr(transform, name)(words[0] >> 32)


def _seed(generator: Any, words: list[int]) -> None:
    if isinstance(generator, np.random.Generator):
        generator = generator.bit_generator
    if isinstance(generator, np.random.BitGenerator):
        generator.state = type(generator)(words).state
    elif isinstance(generator, np.random.RandomState):
        generator.seed(half_words(words))
    elif isinstance(generator, random.Random):
        generator.seed(repr(words))
    else:
        generator.manual_seed(words[0] >> 1)  # of torch


def _words(rng: np.random.Generator) -> list[int]:
    words: list[int] = rng.bit_generator.random_raw(N_WORDS).tolist()
    return words
