"""The random generators that a whole program shares: of ``random``, ``numpy.random`` and, where it is loaded, torch."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..workers.settings import is_beside_others

States: TypeAlias = dict[str, Any]  # by the name of the library

N_WORDS = 4  # of 64 bits each, that a seed consists of

WAITING: set[object] = set()  # threads of prefetch for which a consumer waits, and so draws nothing


def half_words(words: Sequence[int]) -> list[int]:
    """Words of 64 bits as words of 32 bits, of which numpy makes the seeds of its older generators."""
    return [part for word in words for part in divmod(word, 1 << 32)]


class GlobalGenerator(NamedTuple):
    """How to save, restore, compare and seed the global generator of a library."""

    state: Callable[[], Any]
    restore: Callable[[Any], object]
    seed: Callable[[Sequence[int]], object]
    equal: Callable[[Any, Any], bool]


def _equal_dicts(a: Any, b: Any) -> bool:
    return bool(a['state']['pos'] == b['state']['pos'] and np.array_equal(a['state']['key'], b['state']['key']))


def _of_numpy() -> GlobalGenerator:
    # numpy.random is not used at import time, because numpy loads it on first use only.
    return GlobalGenerator(
        lambda: np.random.get_state(legacy=False),
        np.random.set_state,
        lambda words: np.random.seed(half_words(words)),
        lambda a, b: a['bit_generator'] != 'MT19937' or _equal_dicts(a, b),
    )


def _of_torch(torch: Any) -> GlobalGenerator:
    generator = torch.default_generator
    return GlobalGenerator(
        generator.get_state, generator.set_state, lambda words: generator.manual_seed(words[0] >> 1), torch.equal
    )


OF_RANDOM = GlobalGenerator(
    random.getstate,
    random.setstate,
    lambda words: random.seed(b''.join(word.to_bytes(8, 'little') for word in words)),
    lambda a, b: bool(a == b),
)


def _generators() -> dict[str, GlobalGenerator]:
    found = {'random': OF_RANDOM, 'numpy.random': _of_numpy()}
    return found | {'torch': _of_torch(sys.modules['torch'])} if torch_is_loaded() else found


def global_states() -> States:
    """The states of the global generators.

    Examples
    --------
    >>> before = global_states()
    >>> _ = random.random()
    >>> moved_since(before)
    ['random']
    >>> restore_global(before)
    >>> moved_since(before)
    []
    """
    return {name: each.state() for name, each in _generators().items()}


def restore_global(states: States) -> None:
    """Put the states back."""
    for name, each in _generators().items():
        if name in states:
            each.restore(states[name])


def seed_global(words: Sequence[int]) -> None:
    """Seed the global generators with ``N_WORDS`` ints of 64 bits."""
    for each in _generators().values():
        each.seed(words)


def others_may_draw() -> bool:
    """Whether the generators may move in other threads: this one runs beside those of a program, and none waits."""
    return is_beside_others() and not WAITING


def torch_is_loaded() -> bool:
    """Whether torch's generator is among them."""
    return hasattr(sys.modules.get('torch'), 'default_generator')


def moved_since(states: States) -> list[str]:
    """The libraries whose generators have another state now."""
    generators = _generators()
    return [name for name, state in states.items() if not generators[name].equal(state, generators[name].state())]
