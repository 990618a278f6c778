"""Combiners: list of samples -> batch."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, overload

import numpy as np
from more_itertools import all_equal

from ..describing.arguments import fraction
from ..describing.display import code, field_code, structure
from ..describing.structures import fields_of, has_fields, names_of, with_fields
from ..describing.tracebacks import notes_of, set_notes
from ..memory.blocks import is_worth_pooling, pooled_empty
from .leaves import (
    BYTES,
    SHAPE,
    Array,
    Leaves,
    Path,
    are_tensors,
    arrays_of,
    difference_error,
    one_dtype,
    stacked_tensors,
)

if TYPE_CHECKING:
    from ..streams.stacking import Field, Untyped

K = TypeVar('K')
Combine: TypeAlias = Callable[[Leaves, set[type], Path], Any]


def combine_to_tuples(samples: Sequence[Any]) -> Any:
    """Collect each field of the samples into a tuple.

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
    return _combined(samples, lambda leaves, kinds, path: tuple(leaves))


@overload
def combine_to_arrays(samples: Sequence[Untyped]) -> Any: ...
@overload
def combine_to_arrays(samples: Sequence[Field]) -> Array: ...
@overload
def combine_to_arrays(samples: Sequence[tuple[Field, Field]]) -> tuple[Array, Array]: ...
@overload
def combine_to_arrays(samples: Sequence[tuple[Field, Field, Field]]) -> tuple[Array, Array, Array]: ...
@overload
def combine_to_arrays(samples: Sequence[tuple[Field, Field, Field, Field]]) -> tuple[Array, Array, Array, Array]: ...
@overload
def combine_to_arrays(samples: Sequence[Mapping[K, Field]]) -> dict[K, Array]: ...
@overload
def combine_to_arrays(samples: Sequence[Any]) -> Any: ...
def combine_to_arrays(samples: Sequence[Any]) -> Any:
    """Stack the samples' fields along a new first axis.

    ``n`` samples whose field ``k`` has shape ``s_k`` give one array of shape ``(n, *s_k)`` per field, in the structure
    of a sample: tuple for tuple, dict for dict, nested as they are. Lists of numbers or strings are taken as arrays, so
    lists of unequal length, empty ones among them, are arrays of different shapes: an error. ``combine_pad`` pads them.

    Nothing is converted: a batch holds the values that went in, in a type that does not depend on the other samples.
    Python's ints become ``int64``, floats ``float64``, strings numpy's ``StringDType``; bytes stay a list, and tensors
    of torch become a tensor. Batches are C-contiguous, however the samples lie in memory.

    Raises
    ------
    ValueError
        If there are no samples, they differ in structure, or a field differs in shape or type or holds what no array
        holds as it is: ``None``, objects, ints beyond 64 bits, lists of several types. Names the field, the first
        sample that differs, and the remedy.

    Examples
    --------
    >>> import numpy as np
    >>> images, labels = combine_to_arrays([(np.zeros((2, 3)), 0), (np.ones((2, 3)), 1)])
    >>> images.shape, labels
    ((2, 2, 3), array([0, 1]))
    >>> combine_to_arrays([(np.zeros(2), 'a'), (np.zeros(3), 'b')])
    Traceback (most recent call last):
    ValueError: sample[0] is float64[2] in sample 0 of the batch and float64[3] in sample 1; use combine_pad
    """
    return _combined(samples, _stacked)


def combine_pad(samples: Sequence[Any], padding_values: Any = 0, ratio: float = 0.5) -> Any:
    """Pad each field to the largest shape in the batch, and stack along a new first axis.

    Along an axis on which an array has ``missing`` elements too few, ``floor(missing * ratio)`` are added before it,
    and the rest after it.

    Parameters
    ----------
    samples
        Arrays, lists and scalars, in any structure. Within a field the number of axes and the type must be the same.
        Lists are taken as arrays, also those of unequal length. An empty list has no type of its own: it takes the type
        and the further axes of the others.
    padding_values
        The value of the added elements: a number, or a function of the unpadded array that returns one, such as
        ``numpy.min``. A tuple or a mapping with the structure of the samples has one for each field.
    ratio
        The position of each array within its padded one, from 0, at the beginning, to 1, at the end.

    Raises
    ------
    ValueError
        If there are no samples, they differ in structure, or a field differs in its number of axes or its type; if a
        field holds what no array holds as it is, or an empty list in every sample; if ``padding_values`` has another
        structure, or a value that the arrays' type cannot hold; if ``ratio`` is not between 0 and 1.

    Examples
    --------
    >>> import numpy as np
    >>> combine_pad([np.array([1, 2, 3]), np.array([4])])
    array([[1, 2, 3],
           [0, 4, 0]])
    >>> combine_pad([[[0, 0, 5, 5], [2, 2, 9, 9]], []]).shape
    (2, 2, 4)
    >>> images, masks = combine_pad([([5, 7], [1, 1]), ([6], [1])], padding_values=(np.min, -1), ratio=0)
    >>> images.tolist(), masks.tolist()
    ([[5, 7], [6, 6]], [[1, 1], [1, -1]])

    In a pipeline, pass the options as ``combine_batches(32, functools.partial(combine_pad, ratio=0))``.
    """
    ratio = fraction('ratio', ratio)
    paddings = _paddings(padding_values, samples[0]) if len(samples) else {}
    return _combined(samples, lambda leaves, kinds, path: _padded(leaves, kinds, path, paddings[path], ratio))


def _combined(samples: Sequence[Any], combine: Combine, path: Path = ()) -> Any:
    if len(samples) == 0:
        raise ValueError('expected at least one sample to combine, got none')
    kinds = set(map(type, samples))
    if not any(map(has_fields, kinds)):
        return combine(samples, kinds, path)
    first = samples[0]
    if len(kinds) > 1 and not all(issubclass(kind, Mapping) for kind in kinds):
        raise difference_error(samples, list(map(type, samples)), path)
    names, columns = _columns(samples, path)
    parts = [_combined(column, combine, (*path, name)) for name, column in zip(names, columns, strict=True)]
    return with_fields(first, parts)


def _columns(samples: Sequence[Any], path: Path) -> tuple[Sequence[Any], Sequence[Leaves]]:
    first = samples[0]
    names = names_of(first)
    if isinstance(first, tuple):
        try:
            return names, list(zip(*samples, strict=True))
        except ValueError as error:
            raise difference_error(samples, list(map(len, samples)), path) from error
    if isinstance(first, Mapping):
        if any(sample.keys() != first.keys() for sample in samples):
            raise difference_error(samples, [sample.keys() for sample in samples], path)
        return names, [list(map(itemgetter(name), samples)) for name in names]
    return names, [list(map(attrgetter(name), samples)) for name in names]


def _stacked(leaves: Leaves, kinds: set[type], path: Path) -> Any:
    if kinds <= BYTES:
        return list(leaves)
    if are_tensors(kinds):
        return stacked_tensors(leaves, path)
    arrays = arrays_of(leaves, kinds, path)
    return arrays if isinstance(arrays, np.ndarray) else _concatenated(arrays, leaves, path)


def _concatenated(arrays: list[Array], leaves: Leaves, path: Path) -> Array:
    shape = arrays[0].shape
    failure = None
    try:
        # One copy, without the view per array that np.stack takes. It finds most of what may differ.
        batch = np.concatenate(arrays, **_target(arrays), casting='equiv') if shape else np.stack(arrays)
    except (TypeError, ValueError) as error:
        failure = error  # out of this block, so that what is found is not shown as an error in handling another one
    if failure is not None or not shape or set(map(len, arrays)) != {shape[0]}:
        if not all_equal(map(SHAPE, arrays)):
            hint = '; use combine_pad' if all_equal(arrays, key=np.ndim) else ''
            raise difference_error(arrays, list(map(SHAPE, arrays)), path, hint)
        one_dtype(arrays, leaves, path)
    if failure is not None:
        raise failure
    # Where the arrays lie otherwise in memory, numpy has kept their order.
    return np.ascontiguousarray(batch).reshape(len(arrays), *shape)


def _target(arrays: list[Array]) -> dict[str, Any]:
    """Where numpy is to put the arrays, and as which type."""
    first = arrays[0]
    dtype = first.dtype if first.dtype.isnative else first.dtype.newbyteorder('=')
    shape = (len(arrays) * len(first), *first.shape[1:])
    if is_worth_pooling(first.nbytes * len(arrays)) and all_equal(map(SHAPE, arrays)):
        room = pooled_empty(shape, dtype)
        if room is not None:
            return {'out': room}
    return {'dtype': dtype} if first.flags.c_contiguous else {'out': np.empty(shape, dtype)}


def _padded(leaves: Leaves, kinds: set[type], path: Path, padding: Any, ratio: float) -> Any:
    if kinds <= BYTES:
        return list(leaves)
    if are_tensors(kinds):
        raise ValueError(
            f"{field_code(path)} is a tensor; use tensor.numpy(), or torch's pad_sequence instead of combine_pad"
        )
    arrays = arrays_of(leaves, kinds, path)
    if not isinstance(arrays, list):
        return arrays
    shapes = list(map(SHAPE, arrays))
    if all_equal(shapes):
        return _concatenated(arrays, leaves, path)
    dtype = one_dtype(arrays, leaves, path)
    if not all_equal(shapes, key=len):
        raise difference_error(arrays, list(map(len, shapes)), path)
    shape = tuple(map(max, zip(*shapes, strict=True)))
    batch = pooled_empty((len(arrays), *shape), dtype)
    batch = np.empty((len(arrays), *shape), dtype) if batch is None else batch
    constant = None if callable(padding) else _checked_padding(padding, batch.dtype, path)
    sizes = np.array(shapes)
    starts = ((shape - sizes) * ratio).astype(int)
    corners = zip(starts.tolist(), (starts + sizes).tolist(), strict=True)
    for number, (array, place, (start, end)) in enumerate(zip(arrays, batch, corners, strict=True)):
        if array.shape != shape:
            place[...] = _computed_padding(padding, array, batch.dtype, path, number) if callable(padding) else constant
        place[tuple(map(slice, start, end))] = array
    return batch


def _paddings(padding: Any, sample: Any, path: Path = ()) -> dict[Path, Any]:
    padding = tuple(padding) if isinstance(padding, list) else padding
    fields, given = fields_of(sample), fields_of(padding)
    if fields is None and given is None:
        return {path: padding}
    names = [name for name, _ in fields or []]
    if given is None:
        by_name = dict.fromkeys(names, padding)
    elif isinstance(sample, tuple) and isinstance(padding, tuple) and len(padding) == len(sample):
        by_name = dict(zip(names, padding, strict=True))
    else:
        by_name = dict(given)
    if fields is None or by_name.keys() != set(names):
        raise ValueError(
            f'padding_values must be one for all fields or have the structure of the samples; '
            f'{field_code(path)} is {structure(sample)}, and its padding {code(padding)}'
        )
    parts = [_paddings(by_name[name], value, (*path, name)) for name, value in fields]
    return dict(ChainMap(*parts))


def _computed_padding(
    padding: Callable[[Array], Any], array: Array, dtype: np.dtype[Any], path: Path, number: int
) -> Any:
    try:
        value = padding(array)
    except Exception as error:
        note = f'raised by {code(padding)}, the padding of {field_code(path)} in sample {number} of the batch'
        set_notes(error, [*notes_of(error), note])
        raise
    return _checked_padding(value, dtype, path)


def _checked_padding(value: Any, dtype: np.dtype[Any], path: Path) -> Any:
    try:
        if _fits(np.asarray(value), dtype):
            return value
    except (TypeError, ValueError, OverflowError):  # numpy cannot convert it at all
        pass
    raise ValueError(f'the padding value {code(value)} of {field_code(path)} does not fit its type, {dtype}')


def _fits(value: Array, dtype: np.dtype[Any]) -> bool:
    if value.dtype.kind != dtype.kind and (value.dtype.kind == 'c' or dtype.kind in 'mM') and dtype.kind != 'O':
        return False
    with np.errstate(all='ignore'):
        cast = value.astype(dtype)
        if dtype.kind in 'fc':
            return bool(np.all(np.isfinite(cast) == np.isfinite(value)))
        return dtype.kind == 'O' or bool(np.all((cast == value) | ((cast != cast) & (value != value))))  # noqa: PLR0124
