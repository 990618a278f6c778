"""Rows of files that ``numpy.save`` has written."""

from __future__ import annotations

from functools import partial
from io import BytesIO
from math import prod
from typing import Any

import numpy as np
import numpy.lib.format as npy

from ..describing.descriptions import described
from ..memory.locks import Lock
from .opening import FEW_BLOCKS, StorageOptions, name_of, open_file
from .reader import MAX_OPEN_FILES, Blocks, Reader

HEADER_BYTES = 1 << 14  # more than numpy reads of any header

_parsing = Lock()  # numpy parses headers as Python, which fails in CPython 3.11 where several threads do so at a time


@described
def read_npy(*, max_open_files: int = MAX_OPEN_FILES, storage_options: StorageOptions = None) -> Reader[Any]:
    """A sample function that reads a row of an ``.npy`` file: an array of its own, without the first axis.

    Only the bytes of the row are read. URLs need the extra ``files``, and are read in blocks of 1 MiB.

    Parameters
    ----------
    max_open_files, storage_options
        As for ``read_parquet``.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above. When called, if the file has no axes, holds objects or is in Fortran's order, or
        has other rows than was said.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from pipekit import Row
    >>> name = tempfile.mkdtemp() + '/a.npy'
    >>> np.save(name, np.arange(6).reshape(3, 2))
    >>> read = read_npy()
    >>> read.lengths([name])
    [3]
    >>> read(Row(name, 1))
    array([2, 3])
    """
    return Reader(partial(NpyTable, storage_options), max_open_files)


class NpyTable:
    """An open ``.npy`` file."""

    def __init__(self, options: StorageOptions, file: Any, blocks: Blocks):
        self._source = open_file(file, options, **FEW_BLOCKS)
        try:
            shape, self._dtype, self._start = read_header(self._source, file)
        except BaseException:
            self._source.close()
            raise
        self._file = file
        self.length, self._shape = shape[0], shape[1:]
        self._size = prod(self._shape) * self._dtype.itemsize

    def row(self, number: int) -> Any:
        self._source.seek(self._start + number * self._size)
        content = self._source.read(self._size)
        if len(content) < self._size:
            raise ValueError(f'{name_of(self._file)} ends within row {number}; write it again')
        return np.frombuffer(bytearray(content), self._dtype, prod(self._shape)).reshape(self._shape)[()]

    def close(self) -> None:
        self._source.close()


def read_header(source: Any, file: Any) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """The shape and type of the array in a file, and where it begins."""
    head = BytesIO(source.read(HEADER_BYTES))
    version = npy.read_magic(head)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    for _ in _parsing.held():
        shape, fortran_order, dtype = read(head)
    if not shape:
        raise ValueError(f'{name_of(file)} holds an array without axes, which has no rows')
    if dtype.hasobject:
        raise ValueError(f'{name_of(file)} holds Python objects; save them as JSON lines, for instance')
    if fortran_order and len(shape) > 1:
        raise ValueError(
            f"{name_of(file)} is in Fortran's order, so that its rows are scattered; save it in C's order, by "
            'np.ascontiguousarray'
        )
    return shape, dtype, head.tell()
