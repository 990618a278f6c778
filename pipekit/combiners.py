"""Combiners: a list of samples -> a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar, overload

import numpy as np
import numpy.typing as npt

from .arguments import fraction
from .display import code, structure
from .structures import fields_of, with_fields

A = TypeVar('A')
B = TypeVar('B')
C = TypeVar('C')
D = TypeVar('D')
Array: TypeAlias = npt.NDArray[Any]
Path: TypeAlias = tuple[Any, ...]
Leaves: TypeAlias = Sequence[Any]

NUMBERS = (bool, int, float, complex, np.number, np.bool)


def combine_to_tuples(samples: Sequence[Any]) -> Any:
    """Gather each field of the samples into a tuple.

    Raises
    ------
    ValueError
        If there are no samples, or they differ in structure; names the field and the first sample that differs.

    Examples
    --------
    >>> combine_to_tuples([('a', 0), ('b', 1)])
    (('a', 'b'), (0, 1))
    >>> combine_to_tuples([{'image': 'a'}, {'image': 'b'}])
    {'image': ('a', 'b')}
    >>> combine_to_tuples(['a', 'b'])
    ('a', 'b')
    """
    return _combined(samples, lambda leaves, path: tuple(leaves))


@overload
def combine_to_arrays(samples: Sequence[tuple[A, B]]) -> tuple[Array, Array]: ...
@overload
def combine_to_arrays(samples: Sequence[tuple[A, B, C]]) -> tuple[Array, Array, Array]: ...
@overload
def combine_to_arrays(samples: Sequence[tuple[A, B, C, D]]) -> tuple[Array, Array, Array, Array]: ...
@overload
def combine_to_arrays(samples: Sequence[Mapping[A, Any]]) -> dict[A, Array]: ...
@overload
def combine_to_arrays(samples: Sequence[Array] | Sequence[complex] | Sequence[np.generic]) -> Array: ...
@overload
def combine_to_arrays(samples: Sequence[Any]) -> Any: ...
def combine_to_arrays(samples: Sequence[Any]) -> Any:
    """Stack the samples' fields along a new first axis.

    ``n`` samples whose field ``k`` has shape ``s_k`` give one array of shape ``(n, *s_k)`` per field, in the structure
    of a sample: tuple for tuple, dict for dict, nested as they are. Lists are taken as arrays.

    Raises
    ------
    ValueError
        If there are no samples, or they differ in structure, or a field in shape; names the field and the first sample
        that differs.

    Examples
    --------
    >>> images, labels = combine_to_arrays([(np.zeros((2, 3)), 0), (np.ones((2, 3)), 1)])
    >>> images.shape, labels
    ((2, 2, 3), array([0, 1]))
    >>> combine_to_arrays([(np.zeros(2), 'a'), (np.zeros(3), 'b')])
    Traceback (most recent call last):
    ValueError: sample[0] is float64[2] in sample 0 of the batch and float64[3] in sample 1; use combine_pad
    """
    return _combined(samples, _stacked)


def combine_pad(samples: Sequence[Any], padding_values: Any = 0, ratio: float = 0.5) -> Any:
    """Pad each field to the largest shape in the batch, and stack.

    Of the cells missing along an axis, ``floor(missing * ratio)`` are added before the array and the rest after it.

    Parameters
    ----------
    samples
        Arrays and scalars, in any structure. Within a field the number of axes must be the same.
    padding_values
        What the added cells hold: a number, or a function of the unpadded array that returns one, such as
        ``numpy.min``. A tuple or a mapping in the structure of the samples gives each field its own.
    ratio
        Where the array lies in its padded one: 0 at the beginning, 1 at the end.

    Raises
    ------
    ValueError
        If the samples differ in structure, or a field in its number of axes; if ``padding_values`` has another
        structure, or a value that the arrays' type cannot hold; if ``ratio`` is not between 0 and 1.

    Examples
    --------
    >>> combine_pad([np.array([1, 2, 3]), np.array([4])])
    array([[1, 2, 3],
           [0, 4, 0]])
    >>> images, masks = combine_pad([([5, 7], [1, 1]), ([6], [1])], padding_values=(np.min, -1), ratio=0)
    >>> images.tolist(), masks.tolist()
    ([[5, 7], [6, 6]], [[1, 1], [1, -1]])

    To give a pipeline's ``combine_batches`` the options, use ``functools.partial(combine_pad, ratio=0)``.
    """
    ratio = fraction('ratio', ratio)

    def padded(leaves: Leaves, path: Path) -> Array:
        return _padded(leaves, path, _padding_of(padding_values, path), ratio)

    return _combined(samples, padded)


def _combined(samples: Sequence[Any], combine: Callable[[Leaves, Path], Any], path: Path = ()) -> Any:
    if len(samples) == 0:
        raise ValueError('expected at least one sample to combine, got none')
    fields = fields_of(samples[0])
    if fields is None:
        return combine(samples, path)
    names = [name for name, _ in fields]
    columns = _columns(samples, names)
    if columns is None:
        raise ValueError(_difference(samples, path))
    named = zip(names, columns, strict=True)
    return with_fields(samples[0], [_combined(column, combine, (*path, name)) for name, column in named])


def _columns(samples: Sequence[Any], names: list[Any]) -> Sequence[Leaves] | None:
    first = samples[0]
    if set(map(type, samples)) != {type(first)}:
        return None
    if isinstance(first, tuple):
        return list(zip(*samples, strict=True)) if set(map(len, samples)) == {len(first)} else None
    if isinstance(first, Mapping):
        if any(sample.keys() != first.keys() for sample in samples):
            return None
        return [[sample[name] for sample in samples] for name in names]
    return [[getattr(sample, name) for sample in samples] for name in names]


def _stacked(leaves: Leaves, path: Path) -> Array:
    arrays = _arrays(leaves, path)
    if isinstance(arrays, np.ndarray):
        return arrays
    shape = arrays[0].shape
    if {array.shape for array in arrays} != {shape}:
        hint = '; use combine_pad' if {array.ndim for array in arrays} == {len(shape)} else ''
        raise ValueError(_difference(arrays, path) + hint)
    # One copy, without the view per array that np.stack takes.
    return np.concatenate(arrays).reshape(len(arrays), *shape) if shape else np.array(arrays)


def _padded(leaves: Leaves, path: Path, padding: Any, ratio: float) -> Array:
    arrays = _arrays(leaves, path)
    if isinstance(arrays, np.ndarray):
        return arrays
    if len({array.ndim for array in arrays}) != 1:
        raise ValueError(_difference(arrays, path))
    shape = np.max([array.shape for array in arrays], axis=0)
    batch = np.empty((len(arrays), *shape), np.result_type(*arrays))
    for array, place in zip(arrays, batch, strict=True):
        before = np.floor((shape - array.shape) * ratio).astype(int)
        if array.shape != place.shape:
            place[...] = _fitting(padding(array) if callable(padding) else padding, batch.dtype, path)
        place[tuple(map(slice, before, before + array.shape))] = array
    return batch


def _arrays(leaves: Leaves, path: Path) -> Array | list[Array]:
    # Scalars are stacked at once; anything else is turned into arrays that are left to the caller to stack.
    kinds = set(map(type, leaves))
    if kinds == {np.ndarray}:
        return list(leaves)
    if all(issubclass(kind, NUMBERS) for kind in kinds) or kinds in ({str}, {bytes}):
        return np.array(leaves)
    if any(fields_of(leaf) is not None for leaf in leaves) or (len(kinds) > 1 and kinds & {str, bytes}):
        raise ValueError(_difference(leaves, path))
    try:
        arrays = list(map(np.asarray, leaves))
    except ValueError as error:
        raise ValueError(f'{_field(path)} cannot be made an array in every sample of the batch') from error
    if all(array.shape == () and array.dtype == object for array in arrays):
        objects = np.empty(len(leaves), object)
        objects[:] = leaves
        return objects
    return arrays


def _padding_of(padding_values: Any, path: Path, field: Path = ()) -> Any:
    fields = fields_of(padding_values)
    if fields is None and isinstance(padding_values, list):
        fields = list(enumerate(padding_values))
    if fields is None:
        return padding_values
    by_name = dict(fields)
    if not path or path[0] not in by_name:
        raise ValueError(f'padding_values {code(padding_values)} has no value for the field {_field((*field, *path))}')
    return _padding_of(by_name[path[0]], path[1:], (*field, path[0]))


def _fitting(value: Any, dtype: np.dtype[Any], path: Path) -> Any:
    with np.errstate(all='ignore'):
        fits = np.asarray(value).astype(dtype)
    close = np.isclose(fits, value, rtol=1e-2, equal_nan=True) if dtype.kind in 'fc' else fits == value
    if not np.all(close):
        raise ValueError(f'the padding value {code(value)} of {_field(path)} does not fit its type, {dtype}')
    return fits


def _difference(samples: Sequence[Any], path: Path) -> str:
    first = structure(samples[0])
    structures = map(structure, samples)
    number, other = next(((k, text) for k, text in enumerate(structures) if text != first), (0, first))
    return f'{_field(path)} is {first} in sample 0 of the batch and {other} in sample {number}'


def _field(path: Path) -> str:
    return 'sample' + ''.join(f'[{name!r}]' for name in path)
