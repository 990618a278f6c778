"""Elements of a sequence by their indices: streams of these, and batches made of them at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, NamedTuple, TypeAlias

from .arrays import Arrays
from .combiners import combine_to_arrays

Gather: TypeAlias = Callable[[list[int]], Any]


class IndexStream(NamedTuple):
    """A stream of elements of a sequence, as the sequence and the stream of their indices.

    Where all cursors count the elements, ``indices_after`` gives the indices alone, which is faster.
    """

    sequence: Any
    open_at: Callable[..., Iterator[Any]]
    indices_after: Callable[..., Iterator[int]] | None = None


def counting(sequence: Any, indices_after: Callable[..., Iterator[int]]) -> IndexStream:
    """The same, of a stream whose cursors count the elements.

    Examples
    --------
    >>> list(counting('abcd', lambda cursor, context: iter(range(cursor, 4))).open_at(2, None))
    [(2, 3), (3, 4)]
    """

    def open_at(cursor: Any, context: Any) -> Iterator[Any]:
        return zip(indices_after(cursor, context), count(cursor + 1))  # the second one has no end

    return IndexStream(sequence, open_at, indices_after)


def gather_of(sequence: Any, combine: Callable[..., Any]) -> Gather | None:
    """How to make a batch of elements of a sequence at once, if there is a way.

    Examples
    --------
    >>> import numpy as np
    >>> from pipekit import arrays
    >>> gather = gather_of(arrays(np.arange(5) * 10), combine_to_arrays)
    >>> gather([3, 1, 1])
    (array([30, 10, 10]),)
    >>> gather_of([1, 2, 3], combine_to_arrays) is None
    True
    """
    if isinstance(sequence, Arrays):
        return sequence.gathered if sequence.gathers and combine is combine_to_arrays else None
    if callable(getattr(sequence, '__getitems__', None)):  # of a data set of torch
        return lambda indices: combine(sequence.__getitems__(indices))
    return None
