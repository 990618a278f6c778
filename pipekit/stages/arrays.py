"""Samples in arrays of equal length, in memory or on disk, from which batches are gathered at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar, overload

import numpy as np

from ..describing.descriptions import Description, described
from ..describing.display import code
from ..memory.blocks import is_worth_pooling, pooled_empty
from .combiners import combine_to_arrays
from .leaves import are_tensors

NUMERIC = set('biufc')

T_co = TypeVar('T_co', covariant=True)


class Arrays(Description, Generic[T_co]):
    """The sequence that ``arrays`` returns."""

    unsaved = ()  # its arguments are columns, whatever their names

    def __init__(self, columns: dict[str, Any] | tuple[Any, ...]):
        self._columns = columns
        self._arrays = list(columns.values()) if isinstance(columns, dict) else list(columns)
        self._is_numeric = all(map(_is_numeric, self._arrays))

    def __len__(self) -> int:
        return int(self._arrays[0].shape[0])

    @overload
    def __getitem__(self, index: int) -> T_co: ...
    @overload
    def __getitem__(self, index: slice) -> Arrays[T_co]: ...
    @overload
    def __getitem__(self, index: Any) -> Any: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            columns = self._like([column[index] for column in self._arrays])
            return arrays(**columns) if isinstance(columns, dict) else arrays(*columns)
        if isinstance(index, list | np.ndarray) and np.ndim(index) == 1:
            return self._like([_take(column, _checked_indices(index, len(self))) for column in self._arrays])
        return self._like([column[index] for column in self._arrays])

    def __iter__(self) -> Iterator[T_co]:
        return map(self.__getitem__, range(len(self)))

    def gathers_for(self, combine: Callable[..., Any]) -> bool:
        """Whether ``gather`` makes the batches that a combiner would.

        Those of strings it would not: there, they are as wide as the widest in the batch.
        """
        return self._is_numeric and combine is combine_to_arrays

    def gather(self, indices: list[int]) -> Any:
        """The batch of the samples at some indices, with one copy per column."""
        where = np.array(indices, np.intp)
        return self._like([_take(column, where) for column in self._arrays])

    def _like(self, values: Sequence[Any]) -> Any:
        return dict(zip(self._columns, values, strict=True)) if isinstance(self._columns, dict) else tuple(values)


@overload
def arrays(**named: Any) -> Arrays[dict[str, Any]]: ...
@overload
def arrays(first: Any, second: Any, /) -> Arrays[tuple[Any, Any]]: ...
@overload
def arrays(first: Any, second: Any, third: Any, /) -> Arrays[tuple[Any, Any, Any]]: ...
@overload
def arrays(*columns: Any) -> Arrays[tuple[Any, ...]]: ...
@described
def arrays(*columns: Any, **named: Any) -> Arrays[Any]:
    """A sequence of samples over arrays of equal length: tuples, or dicts if the arrays are named.

    As a source, or sampled by ``sample``, ``combine_batches`` gathers each batch with one copy per column, unless a
    stage in between looks at the values.

    Parameters
    ----------
    *columns, **named
        numpy arrays, memory maps, tensors of torch, or other objects with a ``shape`` that take lists of indices, such
        as the data sets of h5py and zarr. Their first axes have the same length. Columns of pandas, polars and pyarrow
        go by ``column.to_numpy()``: they may be indexed by labels rather than by positions.

    Raises
    ------
    TypeError, ValueError
        If there are no arrays, some have names and some do not, one has no axes or is not indexed by position, has a
        mask or another meaning of its own, or they differ in length.

    Examples
    --------
    >>> import numpy as np
    >>> data = arrays(images=np.zeros((100, 28, 28)), labels=np.arange(100))
    >>> len(data), data[7]['labels'], data[[1, 2, 3]]['images'].shape, len(data[10:20])
    (100, np.int64(7), (3, 28, 28), 10)
    >>> arrays(np.zeros(3), np.zeros(4))
    Traceback (most recent call last):
    ValueError: arrays must be equally long, got the shapes (3,), (4,)
    """
    if bool(columns) == bool(named):
        raise TypeError('arrays takes arrays by position or by name, at least one and not both')
    values = [*columns, *named.values()]
    for array in values:
        _check_column(array)
    shapes = [tuple(array.shape) for array in values]
    if not all(shapes) or len({shape[0] for shape in shapes}) != 1:
        raise ValueError(f'arrays must be equally long, got the shapes {", ".join(map(str, shapes))}')
    return Arrays(named or columns)


def _check_column(column: Any) -> None:
    if hasattr(column, 'to_numpy'):
        raise TypeError(f'arrays takes columns that are indexed by position, got {code(column)}; pass its .to_numpy()')
    if isinstance(column, np.ma.MaskedArray):
        raise TypeError(
            f'arrays would lose the mask of {code(column)}, a masked array; pass array.filled(value) and the mask'
        )
    if isinstance(column, np.ndarray) and type(column) not in (np.ndarray, np.memmap):
        raise TypeError(f'arrays takes plain arrays, got a {type(column).__name__}; pass np.asarray(array)')
    if not isinstance(getattr(column, 'shape', None), tuple) or not hasattr(column, '__getitem__'):
        remedy = '; pass np.array(column)' if isinstance(column, list | tuple) else ''
        raise TypeError(f'arrays needs arrays, or other objects with a shape and [], got {code(column)}{remedy}')


def _is_numeric(column: Any) -> bool:
    dtype = getattr(column, 'dtype', None)
    return isinstance(dtype, np.dtype) and dtype.kind in NUMERIC and dtype.isnative and dtype.metadata is None


def _checked_indices(index: Any, length: int) -> Any:
    where = np.asarray(index)
    if where.dtype == np.bool and len(where) == length:
        return np.flatnonzero(where)
    if where.size == 0:
        return where.astype(np.intp)
    if where.dtype.kind not in 'iu':
        raise IndexError(f'the indices of arrays must be ints, got {code(index)}')
    if where.min() < -length or where.max() >= length:
        raise IndexError(f'the indices of arrays of length {length} must be within it, got {code(index)}')
    return np.where(where < 0, where + length, where)


def _take(column: Any, where: Any) -> Any:
    if isinstance(column, np.ndarray):
        plain = column.view(np.ndarray)
        if not plain.flags.c_contiguous or not plain.flags.aligned:  # ``take`` would copy all of it
            return plain[where]
        if not is_worth_pooling(len(where) * plain.strides[0]):
            return plain.take(where, axis=0)
        # The indices are within range. With the default mode, numpy would gather into a temporary array first.
        return plain.take(where, axis=0, out=pooled_empty((len(where), *plain.shape[1:]), plain.dtype), mode='clip')
    if are_tensors({type(column)}):
        return column[where.tolist()]
    # h5py takes indices in increasing order, without duplicates.
    order, places = np.unique(where, return_inverse=True)
    return np.asarray(column[order.tolist()])[places]
