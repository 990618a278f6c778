"""Readers: sample functions from a row to its sample, with the files that each thread keeps open for them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from ..describing.arguments import positive_int
from ..describing.descriptions import Description
from ..describing.display import code
from ..workers.resources import PerWorker, per_worker
from .opening import name_of
from .sequence import Row

T = TypeVar('T')
T_co = TypeVar('T_co', covariant=True)

COUNTING_THREADS = 16
MAX_OPEN_FILES = 16
CACHE_BYTES = 1 << 28


class Table(Protocol[T_co]):
    """An open file."""

    @property
    def length(self) -> int: ...
    def row(self, number: int) -> T_co: ...
    def close(self) -> None: ...


class Blocks:
    """The blocks of files that were read last: as many as fit into so many bytes, and at least one.

    Examples
    --------
    >>> blocks = Blocks(most_bytes=5)
    >>> [blocks.get(key, lambda: print('read', key) or (key, 2)) for key in 'abacba']
    read a
    read b
    read c
    read b
    read a
    ['a', 'b', 'a', 'c', 'b', 'a']
    """

    def __init__(self, most_bytes: int):
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def get(self, key: Hashable, read: Callable[[], tuple[Any, int]]) -> Any:
        """The block of a key; ``read`` returns it and its size in bytes."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
            return found[0]
        block, size = read()
        while self._kept and self._bytes + size > self._most_bytes:
            self._bytes -= self._kept.popitem(last=False)[1][1]
        self._kept[key] = block, size
        self._bytes += size
        return block

    def clear(self) -> None:
        self._kept.clear()
        self._bytes = 0


OpenTable = Callable[[Any, Blocks], Table[T]]  # a file, and where the blocks are kept that are read of it


class OpenFiles(Generic[T]):
    """The files that a thread keeps open: the one used least recently is closed for another."""

    def __init__(self, open_table: OpenTable[T], most: int, cache_bytes: int):
        self._open_table = open_table
        self._most = most
        self._blocks = Blocks(cache_bytes)
        self._tables: OrderedDict[Any, Table[T]] = OrderedDict()

    def table(self, file: Any) -> Table[T]:
        """An open file, as it is, or opened now."""
        table = self._tables.get(file)
        if table is not None:
            self._tables.move_to_end(file)
            return table
        while len(self._tables) >= self._most:
            self._tables.popitem(last=False)[1].close()
        table = self._tables[file] = opened(self._open_table, file, self._blocks)
        return table

    def discard(self, file: Any) -> None:
        """Close a file, so that it is opened again if it is needed."""
        table = self._tables.pop(file, None)
        if table is not None:
            table.close()

    def close(self) -> None:
        """Close all of them."""
        self._blocks.clear()
        while self._tables:
            self._tables.popitem()[1].close()


class Reader(Description, Generic[T]):
    """A function of a ``Row`` that reads its sample, such as ``read_parquet`` returns."""

    takes_rng = False
    unsaved = ('max_open_files', 'cache_bytes', 'storage_options')  # none of them changes a value

    def __init__(self, open_table: OpenTable[T], max_open_files: int, cache_bytes: int = CACHE_BYTES):
        self._open_table = open_table
        most = positive_int('max_open_files', max_open_files)
        size = positive_int('cache_bytes', cache_bytes)
        self._files: PerWorker[OpenFiles[T]] = per_worker(partial(OpenFiles, open_table, most, size))

    def __call__(self, row: Row) -> T:
        """The sample of a row.

        Raises
        ------
        ValueError
            If the file has another number of rows than ``rows`` was told, or no such row.
        """
        file, number, of = _parts(row)
        files = self._files()
        table = files.table(file)
        if (of is not None and of != table.length) or not 0 <= number < table.length:
            found = table.length
            files.discard(file)
            raise _wrong_length(file, number, of, found)
        try:
            return table.row(number)
        except Exception:  # what it was reading from may be broken, as a connection
            files.discard(file)
            raise

    def lengths(self, files: Iterable[Any]) -> list[int]:
        """The number of rows of each file, for ``rows``; several files at a time.

        Of a Parquet, HDF5, zarr or npy file, only what says its length is read. JSON lines and tar files are read as a
        whole once, to build the index that is kept beside them.
        """
        if isinstance(files, str):
            raise TypeError(f'files must be a list of paths or URLs, got {code(files)}; pass a list of it')
        with ThreadPoolExecutor(COUNTING_THREADS) as threads:
            return list(threads.map(self._length, files))

    def _length(self, file: Any) -> int:
        with closing(opened(self._open_table, file, Blocks(1))) as table:
            return table.length

    def __reduce__(self) -> tuple[Any, ...]:
        return (*super().__reduce__(), self._files)

    def __setstate__(self, files: PerWorker[OpenFiles[T]]) -> None:
        self._files = files  # copies in one process share what they open


def opened(open_table: OpenTable[T], file: Any, blocks: Blocks) -> Table[T]:
    """Open a file; an error says which one."""
    try:
        return open_table(file, blocks)
    except Exception as error:
        error.add_note(f'while opening {name_of(file)}')
        raise


def checked_columns(columns: Any) -> list[str] | None:
    """The names of columns, or ``None`` for all."""
    if columns is None:
        return None
    names = list(columns) if isinstance(columns, list | tuple) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise TypeError(f'columns must be a list of names or None, got {code(columns)}')
    return names


def chosen_columns(columns: list[str] | None, there: list[str], file: Any) -> list[str]:
    """The columns to read of a file."""
    missing = [name for name in columns or [] if name not in there]
    if missing:
        raise ValueError(f'{name_of(file)} has no column {code(missing[0])}; its columns are {", ".join(there)}')
    return there if columns is None else columns


def _parts(row: Any) -> tuple[Any, int, int | None]:
    if isinstance(row, tuple) and len(row) in (2, 3):
        return Row(*row)
    raise TypeError(f'a reader takes a Row(file, number), as rows yields them, got {code(row)}')


def _wrong_length(file: Any, number: int, of: int | None, length: int) -> ValueError:
    if of is not None and of != length:
        return ValueError(
            f'{name_of(file)} has {length} rows, and lengths said {of}; count them again, with reader.lengths(files)'
        )
    return ValueError(f'{name_of(file)} has {length} rows, and no row {number}')
