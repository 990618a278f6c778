"""Rows of HDF5 files and zarr groups, whose columns are arrays with equally long first axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..describing.descriptions import described
from ..errors import needs
from .opening import StorageOptions, is_url, name_of, open_file, version_of
from .reader import CACHE_BYTES, MAX_OPEN_FILES, Blocks, Reader, checked_columns, chosen_columns


@described
def read_hdf5(
    columns: Sequence[str] | None = None,
    *,
    cache_bytes: int = CACHE_BYTES,
    max_open_files: int = MAX_OPEN_FILES,
    storage_options: StorageOptions = None,
) -> Reader[dict[str, Any]]:
    """A sample function that reads a row of an HDF5 file: a dict of its data sets. Needs the extra ``hdf5``.

    Data sets in chunks are read chunk by chunk, and the chunks kept.

    Parameters
    ----------
    columns
        The names of the data sets, also of those in groups, as ``'train/images'``; by default, all outside of groups.
        Their first axes have the same length, which is the number of rows.
    cache_bytes
        Each thread keeps the chunks that it has read last, up to so many bytes.
    max_open_files, storage_options
        As for ``read_parquet``.

    Raises
    ------
    ModuleNotFoundError
        If h5py is not installed.
    TypeError, ValueError
        If an argument is not as above. When called, if the file has other columns, or other rows than was said.

    Examples
    --------
    >>> import h5py, tempfile
    >>> import numpy as np
    >>> name = tempfile.mkdtemp() + '/a.h5'
    >>> with h5py.File(name, 'w') as file:
    ...     file['images'], file['labels'] = np.zeros((5, 28, 28), np.uint8), np.arange(5)
    >>> read = read_hdf5(['images', 'labels'])
    >>> read.lengths([name])
    [5]
    >>> from pipekit import Row
    >>> sample = read(Row(name, 3))
    >>> sample['images'].shape, sample['labels']
    ((28, 28), np.int64(3))
    """
    with needs('hdf5', 'read_hdf5'):
        import h5py  # noqa: F401  # an error at once; loaded here, because it takes long

    return Reader(partial(_open_hdf5, checked_columns(columns), storage_options), max_open_files, cache_bytes)


@described
def read_zarr(
    columns: Sequence[str] | None = None,
    *,
    cache_bytes: int = CACHE_BYTES,
    max_open_files: int = MAX_OPEN_FILES,
    storage_options: StorageOptions = None,
) -> Reader[dict[str, Any]]:
    """A sample function that reads a row of a zarr group: a dict of its arrays. Needs the extra ``zarr``.

    Parameters
    ----------
    columns
        The names of the arrays, also of those in inner groups, as ``'train/images'``; by default, all outside of them.
    cache_bytes, max_open_files, storage_options
        As for ``read_hdf5``.

    Raises
    ------
    ModuleNotFoundError
        If zarr is not installed.
    TypeError, ValueError
        As for ``read_hdf5``.

    Examples
    --------
    >>> import tempfile, zarr
    >>> import numpy as np
    >>> name = tempfile.mkdtemp() + '/a.zarr'
    >>> group = zarr.open_group(name, mode='w')
    >>> array = group.create_array('labels', data=np.arange(5))
    >>> read = read_zarr()
    >>> read.lengths([name])
    [5]
    >>> from pipekit import Row
    >>> read(Row(name, 3))
    {'labels': np.int64(3)}
    """
    with needs('zarr', 'read_zarr'):
        import zarr  # noqa: F401  # an error at once; loaded here, because it takes long

    return Reader(partial(_open_zarr, checked_columns(columns), storage_options), max_open_files, cache_bytes)


class ArrayColumns:
    """Open arrays with equally long first axes."""

    def __init__(self, arrays: Mapping[str, Any], file: Any, version: Any, blocks: Blocks, close: Callable[[], None]):
        lengths = {name: array.shape[0] if array.shape else None for name, array in arrays.items()}
        if len(set(lengths.values())) != 1 or None in lengths.values():
            found = ', '.join(f'{name} {"no axes" if n is None else n}' for name, n in lengths.items()) or 'no columns'
            raise ValueError(
                f'the columns of {name_of(file)} must be equally long, got {found}; choose some by columns='
            )
        self.length = int(next(iter(arrays.values())).shape[0])
        self._arrays = arrays
        self._version = name_of(file), version  # blocks of another version are others
        self._blocks = blocks
        self.close = close

    def row(self, number: int) -> dict[str, Any]:
        return {name: self._value(name, array, number) for name, array in self._arrays.items()}

    def _value(self, name: str, array: Any, number: int) -> Any:
        size = (getattr(array, 'chunks', None) or [1])[0]
        if size == 1:
            return _owned(array[number])
        block, index = divmod(number, size)
        return _owned(self._blocks.get((self._version, name, block), partial(_read, array, block * size, size))[index])


def _read(array: Any, start: int, size: int) -> tuple[Any, int]:
    values = array[start : start + size]
    return values, values.nbytes


def _owned(value: Any) -> Any:
    """A value that does not keep its block in memory: a copy of an array, a scalar for one without axes."""
    return value.copy()[()] if isinstance(value, np.ndarray) else value


def _open_hdf5(columns: list[str] | None, options: StorageOptions, file: Any, blocks: Blocks) -> ArrayColumns:
    import h5py

    source = open_file(file, options) if is_url(file) else None
    opened: list[Any] = [] if source is None else [source]

    def close() -> None:
        while opened:
            opened.pop().close()

    try:
        opened.append(h5py.File(source or file, 'r'))
        root = opened[-1]
        there = sorted(name for name, value in root.items() if isinstance(value, h5py.Dataset))
        chosen = chosen_columns(columns, there + [name for name in columns or [] if _is_inner(name, root)], file)
        arrays = {name: _as_strings(root[name]) for name in chosen}
        version = tuple(version_of(file, options).values())
        return ArrayColumns(arrays, file, version, blocks, close)
    except BaseException:
        close()
        raise


def _as_strings(dataset: Any) -> Any:
    import h5py

    text = h5py.check_string_dtype(dataset.dtype)
    return _Strings(dataset) if text is not None and text.encoding == 'utf-8' else dataset


class _Strings:
    """A data set of strings, which h5py reads as bytes."""

    def __init__(self, dataset: Any):
        self.shape, self.chunks = dataset.shape, dataset.chunks
        self._strings = dataset.asstr()

    def __getitem__(self, index: Any) -> Any:
        return self._strings[index]


def _open_zarr(columns: list[str] | None, options: StorageOptions, file: Any, blocks: Blocks) -> ArrayColumns:
    import zarr

    root = zarr.open_group(file, mode='r', storage_options=dict(options) if options and is_url(file) else None)
    there = sorted(root.array_keys())
    chosen = chosen_columns(columns, there + [name for name in columns or [] if _is_inner(name, root)], file)
    arrays = {name: root[name] for name in chosen}
    return ArrayColumns(arrays, file, object(), blocks, lambda: None)  # a folder does not say when it has changed


def _is_inner(name: str, root: Any) -> bool:
    return '/' in name and name in root and hasattr(root[name], 'shape')
