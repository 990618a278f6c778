"""Streams of elements of a sequence, as streams of their indices: a batch of them can be gathered at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, count, pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from .cursors import Cursor, Pairs
from .randomness import Indices

Gather: TypeAlias = Callable[[list[int]], Any]  # from indices to a batch of these elements of a sequence
Between: TypeAlias = Callable[[int, int], Sequence[int]]  # the indices after the first so many and up to so many

INDICES_PER_BLOCK = 1024  # made at once, and drawn from one generator: another number would change what a seed draws


class NumberedIndices(NamedTuple):
    """Indices of which any part is found directly; ``length`` is ``None`` if they have no end."""

    between: Between
    length: int | None

    def after(self, start: int) -> Iterator[int]:
        """The indices after the first ``start``."""
        first = (start // INDICES_PER_BLOCK + 1) * INDICES_PER_BLOCK
        if self.length is None:
            bounds: Iterator[int] = chain([start], count(first, INDICES_PER_BLOCK))
        else:
            bounds = chain([start], range(first, self.length, INDICES_PER_BLOCK), [self.length])
        return chain.from_iterable(self.between(*pair) for pair in pairwise(bounds))


def between_in_passes(length: int, order_of_pass: Callable[[int], Callable[[Indices], Indices]]) -> Between:
    """Indices in passes of ``length`` each; the order of a pass is a function from positions to indices."""
    current: tuple[int, Callable[[Indices], Indices]] | None = None

    def between(start: int, stop: int) -> list[int]:
        nonlocal current
        indices: list[int] = []
        while start < stop:
            number, first = divmod(start, length)
            if current is None or current[0] != number:
                current = number, order_of_pass(number)
            end = min(length, first + stop - start)
            indices += current[1](np.arange(first, end)).tolist()
            start += end - first
        return indices

    return between


OpenNumbered: TypeAlias = Callable[[Cursor, Any], NumberedIndices]  # at a cursor, which it checks, in a context


class IndexStream(NamedTuple):
    """A stream of elements of a sequence: the sequence, and the stream of their indices.

    If every cursor is the number of elements so far, ``open_numbered`` finds any part of the indices directly.
    """

    sequence: Any
    open_at: Callable[[Cursor, Any], Pairs[int]]  # in a context
    open_numbered: OpenNumbered | None = None


def numbered(sequence: Any, open_numbered: OpenNumbered) -> IndexStream:
    """The index stream in which every cursor is the number of elements so far."""

    def open_at(cursor: Any, context: Any) -> Pairs[int]:
        return zip(open_numbered(cursor, context).after(cursor), count(cursor + 1))

    return IndexStream(sequence, open_at, open_numbered)
