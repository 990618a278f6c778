"""Rows, and the sequence of all rows of files, one file after the other."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..streams.randomness import Indices


class Row(NamedTuple):
    """A row of a file: what ``rows`` yields, and readers such as ``read_parquet`` load.

    Attributes
    ----------
    file
        The file, as it was given to ``rows``.
    number
        The number of the row in the file, from 0.
    of
        How many rows the file is said to have; a reader checks it, unless it is ``None``.

    Examples
    --------
    >>> Row('a.parquet', 3, of=10)
    Row(file='a.parquet', number=3, of=10)
    """

    file: Any
    number: int
    of: int | None = None


class RowSequence:
    """The rows of files, one file after the other, as a sequence that holds the names and lengths alone.

    Examples
    --------
    >>> RowSequence(['a', 'b'], np.array([2, 3]))[2]
    Row(file='b', number=0, of=3)
    """

    def __init__(self, files: Sequence[Any], lengths: Indices):
        self._files = files
        self._starts: list[int] = [0, *np.cumsum(lengths).tolist()]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < self._starts[-1]:
            raise IndexError(index)
        file = bisect_right(self._starts, index) - 1
        start = self._starts[file]
        return Row(self._files[file], index - start, self._starts[file + 1] - start)
