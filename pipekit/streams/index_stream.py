"""Streams of elements of a sequence, as streams of their indices: a batch of them can be gathered at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, NamedTuple, TypeAlias

from .cursors import Cursor, Pairs

Gather: TypeAlias = Callable[[list[int]], Any]  # from indices to a batch of these elements of a sequence


class IndexStream(NamedTuple):
    """A stream of elements of a sequence: the sequence, and the stream of their indices.

    If every cursor is the number of elements so far, ``indices_after`` returns the indices alone, which is faster.
    """

    sequence: Any
    open_at: Callable[[Cursor, Any], Pairs[int]]  # in a context
    indices_after: Callable[[Cursor, Any], Iterator[int]] | None = None


def counting(sequence: Any, indices_after: Callable[[Cursor, Any], Iterator[int]]) -> IndexStream:
    """The index stream in which every cursor is the number of elements so far."""

    def open_at(cursor: Any, context: Any) -> Pairs[int]:
        return zip(indices_after(cursor, context), count(cursor + 1))

    return IndexStream(sequence, open_at, indices_after)
