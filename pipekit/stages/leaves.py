"""The values of one field of the samples as arrays: exact and of one type, or an error that says what to do."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt
from more_itertools import all_equal, first

from ..describing.display import brief, code, field_code, structure

Array: TypeAlias = npt.NDArray[Any]
Path: TypeAlias = tuple[Any, ...]
Leaves: TypeAlias = Sequence[Any]

SHAPE, DTYPE = attrgetter('shape'), attrgetter('dtype')
NUMBERS: dict[type, np.dtype[Any]] = {kind: np.dtype(kind) for kind in (bool, int, float, complex)}
TEXT = np.dtypes.StringDType()  # as wide as each string: the type of a batch does not depend on the longest one
CONVERT = '; convert them to one type'
AS_THEY_ARE = 'use combine_to_tuples to keep such values as they are'
BYTES: set[type] = {bytes, np.bytes_}  # an array would drop zeros at the end
ARRAY_INTERFACES = ('__array__', '__array_interface__', '__array_struct__')


def arrays_of(leaves: Leaves, kinds: set[type], path: Path) -> Array | list[Array]:
    """The leaves as arrays of one type each, left to the caller to stack; numbers and strings are stacked at once.

    Raises
    ------
    ValueError
        If a leaf cannot be an array without a change of its values or type, or two leaves differ in type.
    """
    if kinds == {np.ndarray}:
        return list(leaves)
    dtypes = [_dtype_of_scalars(kind) for kind in kinds]
    if dtypes[0] is not None and None not in dtypes:
        if not all_equal(dtypes):
            raise difference_error(leaves, [_dtype_of_scalars(type(leaf)) for leaf in leaves], path, CONVERT)
        return _scalars(leaves, dtypes[0], path)
    for kind in (bytes, *_tensor_types()):  # which are a list or a tensor, not an array, where all leaves are of them
        are_of_it = [isinstance(leaf, kind) for leaf in leaves]
        if not all_equal(are_of_it):
            raise difference_error(leaves, are_of_it, path, CONVERT)
    arrays = [_array(leaf, number, path) for number, leaf in enumerate(leaves)]
    return _completed(leaves, arrays, path) if list in kinds else arrays


def one_dtype(arrays: Sequence[Array], leaves: Leaves, path: Path) -> np.dtype[Any]:
    """The type of all arrays of a field.

    Raises
    ------
    ValueError
        If they differ in type.
    """
    dtypes: list[np.dtype[Any]] = [dtype if dtype.isnative else dtype.newbyteorder('=') for dtype in map(DTYPE, arrays)]
    if not all_equal(dtypes):
        raise difference_error(leaves, dtypes, path, CONVERT)
    return dtypes[0]


def are_tensors(kinds: set[type]) -> bool:
    """Whether all leaves are tensors of torch."""
    torch = sys.modules.get('torch')  # whoever has a tensor has loaded it
    return torch is not None and all(issubclass(kind, torch.Tensor) for kind in kinds)


def stacked_tensors(leaves: Leaves, path: Path) -> Any:
    """Tensors of torch stacked along a new first axis: a tensor."""
    for key, hint in (('shape', ''), ('dtype', CONVERT), ('device', '; move them to one device')):
        if not all_equal(leaves, key=attrgetter(key)):
            raise difference_error(leaves, list(map(attrgetter(key), leaves)), path, hint)
    return sys.modules['torch'].stack(list(leaves))


def difference_error(shown: Leaves, keys: Sequence[Any], path: Path, hint: str = '') -> ValueError:
    """The error about the first leaf whose key is another one than that of the first leaf."""
    number = next(k for k, key in enumerate(keys) if key != keys[0])
    for most in (8, sys.maxsize):
        one, other = (structure(shown[k], most) for k in (0, number))
        if one != other:
            break
    else:
        other = f'{other} of another type'
    return ValueError(f'{field_code(path)} is {one} in sample 0 of the batch and {other} in sample {number}{hint}')


def _tensor_types() -> tuple[type, ...]:
    torch = sys.modules.get('torch')
    return () if torch is None else (torch.Tensor,)


def _dtype_of_scalars(kind: type) -> np.dtype[Any] | None:
    for number, dtype in NUMBERS.items():
        if issubclass(kind, number):
            return dtype
    if issubclass(kind, np.number | np.bool):
        return np.dtype(kind)
    return TEXT if issubclass(kind, str) else None


def _scalars(leaves: Leaves, dtype: np.dtype[Any], path: Path) -> Array:
    try:
        return np.array(leaves, dtype)
    except OverflowError:
        limits = np.iinfo(dtype)
        number = first(k for k, leaf in enumerate(leaves) if not limits.min <= leaf <= limits.max)
        _fail(path, number, f'{code(leaves[number])}, too large for {dtype}', 'make it a np.uint64 or a string')
    except UnicodeEncodeError as error:
        _fail(path, 0, 'a string that is not Unicode', AS_THEY_ARE, error)


def _completed(leaves: Leaves, arrays: list[Array], path: Path) -> list[Array]:
    """The arrays, those of lists without elements with the type and the further axes of the others."""
    are_empty = [isinstance(leaf, list) and not array.size for leaf, array in zip(leaves, arrays, strict=True)]
    if all(are_empty):
        _fail(path, 0, 'an empty list, as in all samples', 'make it an array with a type and a shape')
    model = arrays[are_empty.index(False)]
    empty = np.empty((0, *model.shape[1:]), model.dtype)
    return [empty if is_empty else array for is_empty, array in zip(are_empty, arrays, strict=True)]


def _array(leaf: Any, number: int, path: Path) -> Array:
    if isinstance(leaf, list | tuple):
        dtypes = list(_dtypes_within(leaf))
        if not all_equal(dtypes):
            _fail(path, number, f'a list of {_names(dtypes)}', f'convert its elements to one type, or {AS_THEY_ARE}')
        return _array_of_list(leaf, first(dtypes, np.dtype(float)), number, path)
    if isinstance(leaf, range):  # numpy takes an empty one for floats
        return _array_of_list(leaf, NUMBERS[int], number, path)
    if (dtype := _dtype_of_scalars(type(leaf))) is not None:
        return _array_of_list(leaf, dtype, number, path)
    if hasattr(leaf, 'mask') and isinstance(leaf, np.ndarray):
        _fail(path, number, 'a masked array and would lose its mask', 'fill it, or use combine_to_tuples')
    is_bytes = isinstance(leaf, bytes)  # a subclass of them
    if is_bytes or not _has_dtype(leaf):
        remedy = f'make it a list, or {AS_THEY_ARE}' if isinstance(leaf, Sequence) and not is_bytes else AS_THEY_ARE
        _fail(path, number, brief(leaf) if leaf is None else structure(leaf), remedy)
    array = np.asarray(leaf)
    if array.dtype.hasobject and not isinstance(leaf, np.ndarray):
        _fail(path, number, structure(leaf), AS_THEY_ARE)
    return array


def _has_dtype(leaf: Any) -> bool:
    # Of anything else numpy makes an array of objects, or takes it for a sequence and chooses a type for the elements.
    if any(hasattr(leaf, name) for name in ARRAY_INTERFACES):
        return True
    try:
        memoryview(leaf)
    except TypeError:
        return False
    return True


def _array_of_list(leaf: Any, dtype: Any, number: int, path: Path) -> Array:
    if not isinstance(dtype, np.dtype) or dtype.kind == 'O':
        _fail(path, number, f'a list of {_names([dtype])}', AS_THEY_ARE)
    try:
        return np.array(leaf, dtype)
    except OverflowError:
        what = 'a list with an int' if isinstance(leaf, list | tuple) else 'an int'
        _fail(path, number, f'{what} too large for {dtype}', 'make it np.uint64')
    except ValueError as error:
        _fail(path, number, f'ragged, {structure(leaf)}', 'make it one array, or a tuple of arrays', error)


def _dtypes_within(leaf: Any) -> Iterator[Any]:
    """The types of the elements of nested lists; the Python type of those that no array holds as they are."""
    if isinstance(leaf, np.ndarray):
        yield leaf.dtype
    elif not isinstance(leaf, list | tuple):
        yield _dtype_of_scalars(type(leaf)) or type(leaf)
    else:
        kinds = dict.fromkeys(map(type, leaf))  # in order, for the message
        inner = kinds.keys() & {list, tuple, np.ndarray}
        yield from dict.fromkeys(_dtype_of_scalars(kind) or kind for kind in kinds if kind not in inner)
        for part in leaf if inner else ():
            if type(part) in inner:
                yield from dict.fromkeys(_dtypes_within(part))


def _names(dtypes: Sequence[Any]) -> str:
    names = ['str' if dtype is TEXT else getattr(dtype, '__name__', str(dtype)) for dtype in dtypes]
    return ' and '.join(dict.fromkeys(names))


def _fail(path: Path, number: int, what: str, remedy: str, cause: Exception | None = None) -> NoReturn:
    raise ValueError(f'{field_code(path)} is {what}, in sample {number} of the batch; {remedy}') from cause
