"""Rows of Parquet files, whose row groups are read once and kept."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

from ..describing.descriptions import described
from ..errors import needs
from .opening import StorageOptions, is_url, name_of, open_file, version_of
from .reader import CACHE_BYTES, MAX_OPEN_FILES, Blocks, Reader, checked_columns, chosen_columns


@described
def read_parquet(
    columns: Sequence[str] | None = None,
    *,
    cache_bytes: int = CACHE_BYTES,
    max_open_files: int = MAX_OPEN_FILES,
    storage_options: StorageOptions = None,
) -> Reader[dict[str, Any]]:
    """A sample function that reads a row of a Parquet file: a dict of its columns. Needs the extra ``parquet``.

    Numbers are numpy's, of the type of the column, and lists of numbers are arrays. Other values are Python's, and a
    missing one is ``None``. A row group is decoded as a whole and kept.

    Parameters
    ----------
    columns
        The names of the columns to read; all by default.
    cache_bytes
        Each thread keeps the row groups that it has read last, up to so many bytes. With less than the row groups of
        one window and all lanes, they are decoded again and again.
    max_open_files
        How many files each thread keeps open.
    storage_options
        What fsspec needs to open URLs, such as ``{'anon': True}``.

    Raises
    ------
    ModuleNotFoundError
        If pyarrow is not installed.
    TypeError, ValueError
        If an argument is not as above. When called, if the file has other columns, or other rows than was said.

    Examples
    --------
    >>> import pyarrow, pyarrow.parquet, tempfile
    >>> name = tempfile.mkdtemp() + '/a.parquet'
    >>> pyarrow.parquet.write_table(pyarrow.table({'x': [1.5, 2.5], 'name': ['a', 'b']}), name)
    >>> read = read_parquet(['name', 'x'])
    >>> read.lengths([name])
    [2]
    >>> from pipekit import Row
    >>> read(Row(name, 1))
    {'name': 'b', 'x': np.float64(2.5)}
    """
    with needs('parquet', 'read_parquet'):
        import pyarrow  # noqa: F401  # an error at once; loaded here, because it takes long

    return Reader(partial(ParquetTable, checked_columns(columns), storage_options), max_open_files, cache_bytes)


class ParquetTable:
    """An open Parquet file."""

    def __init__(self, columns: list[str] | None, options: StorageOptions, file: Any, blocks: Blocks):
        from pyarrow.parquet import ParquetFile

        self._source = open_file(file, options) if is_url(file) else None
        try:
            self._parquet = ParquetFile(self._source or file)
            self._columns = chosen_columns(columns, self._parquet.schema_arrow.names, file)
        except BaseException:
            self.close()
            raise
        self._name = name_of(file), *version_of(file, options).values()  # blocks of another version are others
        self._blocks = blocks
        metadata = self._parquet.metadata
        self._ends = list(accumulate(metadata.row_group(k).num_rows for k in range(metadata.num_row_groups)))

    @property
    def length(self) -> int:
        return self._ends[-1] if self._ends else 0

    def row(self, number: int) -> dict[str, Any]:
        group = bisect_right(self._ends, number)
        values = self._blocks.get((self._name, group), partial(self._read, group))
        index = number - (self._ends[group - 1] if group else 0)
        return {name: value_at(index) for name, value_at in values.items()}

    def _read(self, group: int) -> tuple[dict[str, Callable[[int], Any]], int]:
        table = self._parquet.read_row_group(group, columns=self._columns)
        return {name: values_of(table.column(name).combine_chunks()) for name in self._columns}, table.nbytes

    def close(self) -> None:
        if hasattr(self, '_parquet'):
            self._parquet.close(force=True)
        if self._source is not None:
            self._source.close()


def values_of(column: Any) -> Callable[[int], Any]:
    """The function from an index to a value of a column, in which numbers keep their type."""
    import pyarrow

    if isinstance(column, pyarrow.ChunkedArray):  # of no rows, or too large for one chunk
        column = pyarrow.concat_arrays(column.chunks) if column.num_chunks else pyarrow.array([], column.type)
    if is_numeric(column.type):
        if not column.null_count:
            numbers = column.to_numpy(zero_copy_only=False)
            return lambda index: numbers[index]
        is_there = column.is_valid().to_numpy(zero_copy_only=False)
        filled = column.fill_null(False if pyarrow.types.is_boolean(column.type) else 0)
        filled = filled.to_numpy(zero_copy_only=False)
        return lambda index: filled[index] if is_there[index] else None
    kind = column.type
    is_list = pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind) or pyarrow.types.is_fixed_size_list(kind)
    if is_list and is_numeric(kind.value_type) and not column.flatten().null_count:
        return lambda index: (
            column[index].values.to_numpy(zero_copy_only=False).copy() if column[index].is_valid else None
        )
    return lambda index: column[index].as_py()


def is_numeric(kind: Any) -> bool:
    """Whether numpy has the type of a column."""
    from pyarrow import types

    return bool(types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind))
