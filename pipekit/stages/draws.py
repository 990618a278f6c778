"""Indices drawn at random, of which any part is found directly."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..streams.index_stream import INDICES_PER_BLOCK, Between, between_in_passes
from ..streams.randomness import Generators, Indices, permutation, random_order

Weights: TypeAlias = npt.NDArray[np.float64]


def cumulative_shares(weights: Weights | None) -> Weights | None:
    """The sums of the weights up to each one, as parts of the last one."""
    if weights is None:
        return None
    sums: Weights = np.cumsum(weights)
    shares: Weights = sums / sums[-1]  # not by weights.sum(), which may round differently: the last one must be 1
    return shares


def with_replacement(n: int, shares: Weights | None, generators: Generators) -> Between:
    """Indices below ``n``, drawn with these cumulative shares."""

    def between(start: int, stop: int) -> list[int]:
        first, end = start // INDICES_PER_BLOCK, -(-stop // INDICES_PER_BLOCK)
        blocks = [generators.at(number).random(INDICES_PER_BLOCK) for number in range(first, end)]
        before = first * INDICES_PER_BLOCK
        draws = np.concatenate(blocks or [np.empty(0)])[start - before : stop - before]
        found = (draws * n).astype(np.int64) if shares is None else np.searchsorted(shares, draws, side='right')
        indices: list[int] = found.tolist()
        return indices

    return between


def without_replacement(n: int, weights: Weights | None, generators: Generators) -> Between:
    """Indices below ``n`` in passes, each in a random order."""
    allowed = None if weights is None else np.flatnonzero(weights)
    length = n if allowed is None else len(allowed)

    def ordered(passed: int) -> Callable[[Indices], Indices]:
        if allowed is None:
            return permutation(n, generators.at(passed))
        assert weights is not None
        return allowed[random_order(length, generators.at(passed), weights[allowed])].__getitem__

    return between_in_passes(length, ordered)
