"""Rows of files with a JSON value on each line."""

from __future__ import annotations

import json
from functools import partial
from io import BufferedReader
from typing import Any, cast

import numpy as np

from ..describing.descriptions import described
from .index import index_of
from .opening import BUFFER_BYTES, FEW_BLOCKS, LONGEST_BEGINNING, StorageOptions, check_uncompressed, open_file
from .reader import MAX_OPEN_FILES, Blocks, Reader


@described
def read_json_lines(*, max_open_files: int = MAX_OPEN_FILES, storage_options: StorageOptions = None) -> Reader[Any]:
    """A sample function that reads a line of a file of JSON lines: the parsed value. Empty lines are no rows.

    Where the lines begin is found once, by reading the file, and kept beside it: ``a.jsonl.index``. If its folder
    cannot be written to, it is kept in memory. URLs need the extra ``files``, and are read in blocks of 1 MiB.

    Parameters
    ----------
    max_open_files, storage_options
        As for ``read_parquet``.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above. When called, if the file is compressed, has changed since its index was built,
        or has other rows than was said, or if the line is no JSON.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from pipekit import Row
    >>> path = pathlib.Path(tempfile.mkdtemp(), 'a.jsonl')
    >>> n_bytes = path.write_text('{"text": "one"}\\n{"text": "two"}\\n')
    >>> read = read_json_lines()
    >>> read.lengths([path])
    [2]
    >>> read(Row(path, 1))
    {'text': 'two'}
    """
    return Reader(partial(LinesTable, storage_options), max_open_files)


class LinesTable:
    """An open file of JSON lines."""

    def __init__(self, options: StorageOptions, file: Any, blocks: Blocks):
        self._bounds = np.array(index_of(file, options, partial(line_bounds, file, options)), np.int64)
        self.length = len(self._bounds) - 1
        self._source = open_file(file, options, **FEW_BLOCKS)

    def row(self, number: int) -> Any:
        start, end = self._bounds[number : number + 2].tolist()
        self._source.seek(start)
        return json.loads(self._source.read(end - start))

    def close(self) -> None:
        self._source.close()


def line_bounds(file: Any, options: StorageOptions) -> list[int]:
    """Where each line that is not empty begins, and where the file ends."""
    bounds: list[int] = []
    position = 0
    with BufferedReader(cast('Any', open_file(file, options)), BUFFER_BYTES) as lines:
        check_uncompressed(lines.peek(LONGEST_BEGINNING), file)
        for line in lines:
            if line.strip():
                bounds.append(position)
            position += len(line)
    return [*bounds, position]
