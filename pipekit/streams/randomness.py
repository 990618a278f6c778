"""Randomness as a pure function: (seed, key, cursor) -> numpy ``Generator``, and permutations in constant memory.

pipekit's own draws use ``Generator.random`` and raw bits alone: numpy may change what the other methods return.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from struct import Struct
from sys import getrefcount
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .cursors import Cursor

Key: TypeAlias = tuple['int | Key', ...]
Ordinal: TypeAlias = int | tuple[int, int]  # of a stage among those with its seed; with the rank, if that matters
Indices: TypeAlias = npt.NDArray[np.int64]

TWO_WORDS, THREE_WORDS = Struct('<2Q'), Struct('<3Q')
ROUNDS = 8  # even, so that the two halves of an odd number of bits swap back to their own widths
LARGEST_DRAWN = 1 << 13  # elements: permutations of more of them are computed, not drawn


class Generators:
    """The generators of one random stage, one per cursor.

    The seed and the key give the key of a ``Philox`` counter generator [1]_, and the cursor gives its counter, so any
    cursor's generator is reached at once. Both encodings are injective up to the collisions of a cryptographic hash.

    References
    ----------
    .. [1] J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

    Examples
    --------
    >>> generators = Generators(0, key=())
    >>> a, b = generators.at(5).random(), generators.at(6).random()
    >>> a == b, a == Generators(0, key=()).at(5).random(), a == Generators(0, key=(1,)).at(5).random()
    (False, True, False)
    """

    def __init__(self, seed: int, key: Key):
        self._state: dict[str, Any] = {
            'bit_generator': 'Philox',
            'state': {'counter': [0, 0, 0, 0], 'key': _hashed((int(seed), key), TWO_WORDS)},
            'buffer': [0, 0, 0, 0],
            'buffer_pos': 4,
            'has_uint32': 0,
            'uinteger': 0,
        }
        self._renew()

    def at(self, cursor: Cursor) -> np.random.Generator:
        """The generator of a cursor.

        It is the object returned for the previous cursor with a new state, unless somebody still holds that object or
        its bit generator: setting a state takes a tenth of the time of creating a generator.

        Examples
        --------
        >>> generators = Generators(0, key=())
        >>> kept = generators.at(1)
        >>> kept is generators.at(2)
        False
        """
        if getrefcount(self._generator) != self._unshared or getrefcount(self._bit_generator) != self._unshared_bits:
            self._renew()
        # The generator counts its draws in the lowest word.
        self._state['state']['counter'] = (
            [0, cursor, 0, 0] if type(cursor) is int and cursor < 1 << 64 else [0, *_hashed(cursor, THREE_WORDS)]
        )
        self._bit_generator.state = self._state  # type: ignore[assignment]
        return self._generator

    def _renew(self) -> None:
        # Unlike those of np.random.default_rng, this generator cannot spawn: its children would depend on how many were
        # spawned before. numpy.random is not used at import time, because numpy loads it on first use only.
        self._bit_generator = np.random.Philox(_no_entropy())  # type: ignore[arg-type]
        self._generator = np.random.Generator(self._bit_generator)
        self._unshared = getrefcount(self._generator)
        self._unshared_bits = getrefcount(self._bit_generator)


class NoEntropy:
    """A seed sequence of zeros, for a generator whose state is set right after."""

    def generate_state(self, n_words: int, dtype: npt.DTypeLike = np.uint32) -> npt.NDArray[Any]:
        return np.zeros(n_words, dtype)


@cache
def _no_entropy() -> NoEntropy:
    np.random.bit_generator.ISeedSequence.register(NoEntropy)
    return NoEntropy()


def _hashed(value: Key | Cursor, words: Struct) -> tuple[int, ...]:
    return words.unpack(_blake2b()(repr(value).encode(), digest_size=words.size).digest())


@cache
def _blake2b() -> Any:
    # Imported here, because hashlib takes as long to load as the rest of pipekit, and descriptions do not need it.
    from hashlib import blake2b

    return blake2b


def random_order(n: int, generator: np.random.Generator, weights: npt.NDArray[np.float64] | None = None) -> Indices:
    """The numbers from 0 to ``n - 1`` in a random order, in which those of larger weight tend to come earlier."""
    draws = generator.random(n)
    with np.errstate(over='ignore'):  # a weight may be close to zero
        return np.argsort(draws if weights is None else -np.log1p(-draws) / weights, kind='stable')


def permutation(n: int, generator: np.random.Generator) -> Callable[[Indices], Indices]:
    """A random permutation of ``range(n)`` as a function from positions to indices, in memory independent of ``n``.

    A small permutation is drawn as a whole, and every order is equally likely. A large one is computed, position by
    position, by a Feistel network [1]_ over the next power of two; an index outside ``range(n)`` is mapped again until
    it is inside [2]_. The round function is the finalizer of SplitMix64 [3]_.

    References
    ----------
    .. [1] M. Luby and C. Rackoff, "How to construct pseudorandom permutations from pseudorandom functions", 1988.
    .. [2] J. Black and P. Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002 ("cycle walking").
    .. [3] G. Steele, D. Lea and C. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.

    Examples
    --------
    >>> order = permutation(10**9, np.random.default_rng(0))
    >>> len(set(order(np.arange(1000)).tolist()))
    1000
    >>> sorted(permutation(5, np.random.default_rng(0))(np.arange(5)).tolist())
    [0, 1, 2, 3, 4]
    """
    if n <= LARGEST_DRAWN:
        return random_order(n, generator).__getitem__
    keys = generator.bit_generator.random_raw(ROUNDS)
    bits = (n - 1).bit_length()

    def order(positions: Indices) -> Indices:
        indices = _feistel(positions.astype(np.uint64), keys, bits)
        while (outside := np.flatnonzero(indices >= n)).size:
            indices[outside] = _feistel(indices[outside], keys, bits)
        return indices.astype(np.int64)

    return order


def _feistel(values: npt.NDArray[np.uint64], keys: npt.NDArray[np.uint64], bits: int) -> npt.NDArray[np.uint64]:
    low = bits // 2
    left, right = values >> np.uint64(low), values & np.uint64((1 << low) - 1)
    width = bits - low
    for key in keys:
        left, right = right, left ^ (_mixed(right + key) >> np.uint64(64 - width))
        width = bits - width
    joined: npt.NDArray[np.uint64] = (left << np.uint64(low)) | right
    return joined


def _mixed(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
