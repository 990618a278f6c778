"""Data that is in memory, or mapped into it: columns of equal length, of which a batch is gathered at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar, overload

import numpy as np

from ..describing.descriptions import Description, described
from ..describing.display import code
from ..memory.blocks import is_worth_pooling, pooled_empty

NUMERIC = set('biufc')

T_co = TypeVar('T_co', covariant=True)


class Arrays(Description, Generic[T_co]):
    """The sequence that ``arrays`` returns."""

    def __init__(self, columns: dict[str, Any] | tuple[Any, ...]):
        self._columns = columns
        self._parts = list(columns.values()) if isinstance(columns, dict) else list(columns)
        # Of other columns, a batch is made of single samples: strings, for one, are as wide as the widest in it.
        self._gathers = all(_is_numeric(column) for column in self._parts)

    def __len__(self) -> int:
        return int(self._parts[0].shape[0])

    @overload
    def __getitem__(self, index: int) -> T_co: ...
    @overload
    def __getitem__(self, index: slice) -> Arrays[T_co]: ...
    @overload
    def __getitem__(self, index: Any) -> Any: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            part = self._like([column[index] for column in self._parts])
            return arrays(**part) if isinstance(part, dict) else arrays(*part)
        if isinstance(index, list | np.ndarray) and np.ndim(index) == 1:
            return self._like([_gathered(column, _checked(index, len(self))) for column in self._parts])
        return self._like([column[index] for column in self._parts])

    def __iter__(self) -> Iterator[T_co]:
        return map(self.__getitem__, range(len(self)))

    def gathered(self, indices: list[int]) -> Any:
        """The samples at some indices as a batch, one gather for each column."""
        where = np.array(indices, np.intp)
        return self._like([_gathered(column, where) for column in self._parts])

    @property
    def gathers(self) -> bool:
        """Whether ``gathered`` gives what ``combine_to_arrays`` makes of the samples."""
        return self._gathers

    def _like(self, parts: Sequence[Any]) -> Any:
        return dict(zip(self._columns, parts, strict=True)) if isinstance(self._columns, dict) else tuple(parts)


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

    With ``sample``, or as a source, ``combine_batches`` gathers a batch with one copy for each column, where no stage
    between them looks at the values.

    Parameters
    ----------
    *columns, **named
        numpy arrays, memory maps, and what has a ``shape`` and takes lists of indices, such as the data sets of h5py
        and zarr. Their first axes are equally long.

    Raises
    ------
    TypeError, ValueError
        If there are none, both kinds are mixed, one has no axes, or they differ in length.

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
    parts = [*columns, *named.values()]
    for part in parts:
        if not isinstance(getattr(part, 'shape', None), tuple) or not hasattr(part, '__getitem__'):
            raise TypeError(f'arrays needs what has a shape and [], got {code(part)}')
    shapes = [tuple(part.shape) for part in parts]
    if not all(shapes) or len({shape[0] for shape in shapes}) != 1:
        raise ValueError(f'arrays must be equally long, got the shapes {", ".join(map(str, shapes))}')
    return Arrays(named or columns)


def _is_numeric(column: Any) -> bool:
    dtype = getattr(column, 'dtype', None)
    return isinstance(dtype, np.dtype) and dtype.kind in NUMERIC and dtype.isnative and dtype.metadata is None


def _checked(index: Any, length: int) -> Any:
    where = np.asarray(index)
    if where.dtype == np.bool and len(where) == length:
        return np.flatnonzero(where)
    if where.size == 0:
        return where.astype(np.intp)
    if where.dtype.kind not in 'iu':
        raise IndexError(f'arrays takes indices that are ints, got {code(index)}')
    if where.min() < -length or where.max() >= length:
        raise IndexError(f'an index is out of range for arrays of length {length}: {code(index)}')
    return np.where(where < 0, where + length, where)


def _gathered(column: Any, where: Any) -> Any:
    if isinstance(column, np.ndarray):
        plain = column.view(np.ndarray)
        if not plain.flags.c_contiguous or not plain.flags.aligned:  # all of which ``take`` would copy
            return plain[where]
        if not is_worth_pooling(len(where) * plain.strides[0]):
            return plain.take(where, axis=0)
        # The indices are known to be good: without a mode that says so, numpy gathers into memory of its own first.
        return plain.take(where, axis=0, out=pooled_empty((len(where), *plain.shape[1:]), plain.dtype), mode='clip')
    # What lies in a file wants its indices in order, and each once.
    order, places = np.unique(where, return_inverse=True)
    return np.asarray(column[order.tolist()])[places]
