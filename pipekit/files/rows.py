"""The source of the rows of many files of known lengths. Any row of any pass is found by index arithmetic."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence, Sized
from math import inf
from typing import Any

import numpy as np
from more_itertools import take

from ..describing.arguments import boolean, optional, positive_int, seed_or_fresh
from ..describing.descriptions import described
from ..describing.display import code
from ..streams.context import Context
from ..streams.cursors import Cursor, Pairs, checked_index
from ..streams.index_stream import NumberedIndices, numbered
from ..streams.iterables import is_sequence
from ..streams.randomness import Indices
from ..streams.stream import Source
from .passes import Lanes, PassOrders
from .sequence import Row, RowSequence

MOST_ROWS = 1 << 62  # of all files; positions are numpy's ints


class RowsOfFiles(Source[Row]):
    """The source that ``rows`` returns."""

    def fingerprint(self) -> list[str]:
        # The code shows the first lengths only, and another number of rows is another order of them.
        assert self.indices is not None
        return [*super().fingerprint(), f'{len(self.indices.sequence)} rows']


@described
def rows(
    files: Sequence[Any],
    lengths: Iterable[int],
    *,
    window: int | None = None,
    lanes: int | None = None,
    batch_size: int | None = None,
    passes: int | None = None,
    shuffle: bool = True,
    seed: int | None = None,
) -> Source[Row]:
    """The rows of many files in passes: each row once per pass, the files in a new order in every pass.

    It yields a ``Row(file, number)`` for each; a reader such as ``read_parquet`` loads it. Nothing is opened to find
    it: any row of any pass is computed directly, in memory that grows with the number of files and not with that of
    rows. So resuming takes no longer than starting, and a rank finds its share of every batch by itself.

    Parameters
    ----------
    files
        A list of what the reader opens: paths or URLs.
    lengths
        The number of rows of each file, as from ``read_parquet().lengths(files)``.
    window
        Rows are shuffled within windows of so many consecutive rows, which may span several files: a thread reads about
        ``window`` rows at a time in random order. By default, the rows of a file come in their order.
    lanes
        Each pass is cut into so many consecutive parts, and every batch takes ``batch_size // lanes`` consecutive rows
        of each. With as many lanes as ranks, a rank reads one part, and opens only the files of that part. More lanes
        mix more files in a batch. The order depends on ``lanes``, and not on the number of ranks.
    batch_size
        That of ``combine_batches``, a multiple of ``lanes``; needed for lanes, and for nothing else.
    passes
        The number of passes; endless by default. ``passes=1`` is for validation.
    shuffle
        If false, files and their rows come in the order in which they are given.
    seed
        As for ``sample``.

    Raises
    ------
    TypeError, ValueError
        If the lengths do not fit the files, or another argument is not as above.

    Examples
    --------
    >>> from more_itertools import take
    >>> [tuple(row[:2]) for row in take(6, rows(['a', 'b', 'c'], [2, 3, 1], seed=0))]
    [('a', 0), ('a', 1), ('b', 0), ('b', 1), ('b', 2), ('c', 0)]
    >>> [tuple(row[:2]) for row in rows(['a', 'b', 'c'], [2, 3, 1], window=4, passes=1, seed=0)]
    [('a', 1), ('b', 0), ('b', 1), ('a', 0), ('b', 2), ('c', 0)]
    >>> [tuple(row[:2]) for row in rows(['a', 'b'], [2, 2], lanes=2, batch_size=2, passes=1, shuffle=False)]
    [('a', 0), ('b', 0), ('a', 1), ('b', 1)]
    """
    names = checked_files(files)
    counts = checked_lengths(lengths, names)
    window = optional(positive_int, 'window', window, 'a positive int')
    passes = optional(positive_int, 'passes', passes, 'a positive int')
    cut = checked_lanes(lanes, batch_size)
    if not boolean('shuffle', shuffle):
        for name, value in ('window', window), ('seed', seed):
            if value is not None:
                raise ValueError(f'{name} is for rows that are shuffled, got {name}={value} with shuffle=False')
    shuffling_seed = seed_or_fresh(seed) if shuffle else None
    total = int(counts.sum())
    length = None if passes is None else passes * total

    def open_numbered(cursor: Cursor, context: Context) -> NumberedIndices:
        checked_index(cursor, rows, length)
        generators = None if shuffling_seed is None else context.generators(shuffling_seed)
        return NumberedIndices(PassOrders(counts, cut, window, generators).between, length)

    sequence = RowSequence(names, counts)
    found = numbered(sequence, open_numbered)

    def open_at(cursor: Cursor, context: Context) -> Pairs[Row]:
        return ((sequence[index], number) for index, number in found.open_at(cursor, context))

    return RowsOfFiles(open_at, seed=shuffling_seed, indices=found, n_values=inf if length is None else length)


def checked_files(files: Any) -> list[Any]:
    """The files as a list of their own."""
    is_one = isinstance(files, str | bytes | os.PathLike)
    if is_one or not is_sequence(files):
        raise TypeError(f'files must be a list of paths or URLs, got {code(files)}{"; pass a list of it" * is_one}')
    if len(files) == 0:
        raise ValueError(f'files must be a list of at least one path or URL, got {code(files)}')
    return list(files)


def checked_lengths(lengths: Any, files: list[Any]) -> Indices:
    """The number of rows of each file, as an array."""
    expected = f'lengths must be non-negative ints, one for each of {len(files)} files'
    if isinstance(lengths, str | bytes | dict | set | frozenset) or not isinstance(lengths, Iterable):
        raise TypeError(f'{expected}, got {code(lengths)}')
    given = lengths if isinstance(lengths, np.ndarray) else take(len(files) + 1, lengths)  # they may never end
    if len(given) != len(files):
        at_least = '' if isinstance(lengths, Sized) else 'at least '
        n = len(lengths) if isinstance(lengths, Sized) else len(given)
        raise ValueError(f'{expected}, got {at_least}{n} of them: {code(lengths)}')
    for file, value in zip(files, given, strict=True):
        if isinstance(value, bool | np.bool) or not isinstance(value, int | np.integer):
            raise TypeError(f'{expected}, got {code(value)} for {code(file)}: {code(lengths)}')
        if value < 0:
            raise ValueError(f'{expected}, got {code(value)} for {code(file)}: {code(lengths)}')
    total = sum(map(int, given))
    if total == 0:
        raise ValueError(f'lengths must not all be zero, got {code(lengths)}')
    if total > MOST_ROWS:
        raise ValueError(f'lengths must add up to at most {MOST_ROWS}, got {code(lengths)}')
    return np.array(given, np.int64)


def checked_lanes(lanes: Any, batch_size: Any) -> Lanes:
    """The lanes; a single one if there are none."""
    lanes = optional(positive_int, 'lanes', lanes, 'a positive int')
    batch_size = optional(positive_int, 'batch_size', batch_size, 'a positive int')
    if lanes is None:
        if batch_size is not None:
            raise ValueError(f'batch_size is needed for lanes only, got {batch_size} without lanes; leave it out')
        return Lanes(1, 1)
    if batch_size is None:
        raise TypeError(f'lanes={lanes} needs batch_size, that of combine_batches for all ranks together')
    if batch_size % lanes:
        raise ValueError(
            f'lanes must divide batch_size, of which each lane gives an equal part, got {lanes} lanes for '
            f'batch_size {batch_size}'
        )
    return Lanes(lanes, batch_size // lanes)
