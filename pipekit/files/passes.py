"""The order of the rows in each pass, in index arithmetic: files in a random order, lanes, windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..streams.index_stream import between_in_passes
from ..streams.randomness import Generators, Indices, permutation, random_order

MOST_CACHED_ROWS = 1 << 20  # in the permutations of windows that are kept, of 8 bytes a row


class Lanes(NamedTuple):
    """Lanes of which each gives ``run`` consecutive rows to every batch.

    Sample ``x`` of all samples belongs to lane ``x % (n * run) // run``, whatever pass it is in: a lane has the same
    places in every batch, also where passes end in the middle of one.
    """

    n: int
    run: int

    @property
    def batch_size(self) -> int:
        return self.n * self.run

    def counts(self, samples: int) -> Indices:
        """How many of the first samples each lane has.

        Examples
        --------
        >>> Lanes(n=3, run=2).counts(9)
        array([4, 3, 2])
        """
        batches, rest = divmod(samples, self.batch_size)
        return batches * self.run + np.clip(rest - self.run * np.arange(self.n), 0, self.run)

    def of(self, samples: Indices) -> tuple[Indices, Indices]:
        """The lane of each sample, and how many samples that lane has had before it."""
        return samples % self.batch_size // self.run, samples // self.batch_size * self.run + samples % self.run


class PassOrders:
    """The order of each pass, as indices of rows that are numbered file by file; ``between`` finds any part of them."""

    def __init__(self, lengths: Indices, lanes: Lanes, window: int | None, generators: Generators | None):
        self._starts = np.cumsum(lengths) - lengths
        self._lengths = lengths
        self._total = int(lengths.sum())
        self._lanes = lanes
        self._window = window
        self._generators = generators
        self.between = between_in_passes(self._total, self._order_of_pass)

    def _order_of_pass(self, number: int) -> Callable[[Indices], Indices]:
        lanes, total = self._lanes, self._total
        in_batch = number * total % lanes.batch_size  # where in a batch the pass begins
        begun = lanes.counts(in_batch)
        sizes = lanes.counts(in_batch + total) - begun
        starts = np.cumsum(sizes) - sizes
        shuffled = self._within_windows(number, sizes)
        row_of = self._rows_of_pass(number)

        def order(numbers: Indices) -> Indices:
            lane, place = lanes.of(in_batch + numbers)
            return row_of(starts[lane] + shuffled(lane, place - begun[lane]))

        return order

    def _rows_of_pass(self, number: int) -> Callable[[Indices], Indices]:
        """From positions, one file of the pass after the other, to rows."""
        if self._generators is None:
            return lambda positions: positions
        files = random_order(len(self._lengths), self._generators.at(number))
        ends = np.cumsum(self._lengths[files])
        shifts = self._starts[files] - (ends - self._lengths[files])

        def row_of(positions: Indices) -> Indices:
            rows: Indices = positions + shifts[np.searchsorted(ends, positions, side='right')]
            return rows

        return row_of

    def _within_windows(self, number: int, sizes: Indices) -> Callable[[Indices, Indices], Indices]:
        """From a lane and places in it to other places in the same window of the lane."""
        generators, window = self._generators, self._window
        if generators is None or window is None:
            return lambda lanes, places: places
        windows_per_lane = -(-int(sizes.max()) // window)

        @lru_cache(max(1, MOST_CACHED_ROWS // window))
        def order_of(lane: int, first: int) -> Callable[[Indices], Indices]:
            size = min(window, int(sizes[lane]) - first)
            return permutation(size, generators.at((number, lane, first)))

        def shuffled(lanes: Indices, places: Indices) -> Indices:
            found = np.empty_like(places)
            for key, where in grouped(lanes * windows_per_lane + places // window):
                lane, first = key // windows_per_lane, key % windows_per_lane * window
                found[where] = first + order_of(lane, first)(places[where] - first)
            return found

        return shuffled


def grouped(keys: Indices) -> Iterator[tuple[int, Indices]]:
    """Each key, and where it is.

    Examples
    --------
    >>> [(key, where.tolist()) for key, where in grouped(np.array([5, 7, 5]))]
    [(5, [0, 2]), (7, [1])]
    """
    order = np.argsort(keys, kind='stable')
    bounds = np.flatnonzero(np.diff(keys[order])) + 1
    for where in np.split(order, bounds):
        yield int(keys[where[0]]), where
