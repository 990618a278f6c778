"""How values are pickled for another process: more kinds of them than pickle takes, and big arrays apart."""

from __future__ import annotations

import io
import os
import pickle
import sys
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import _lru_cache_wrapper, lru_cache, partial
from operator import attrgetter
from types import TracebackType, WrapperDescriptorType
from typing import Any, TypeAlias

import cloudpickle
import numpy as np
import numpy.typing as npt
from tblib.pickling_support import pickle_exception, pickle_traceback

from ..describing.display import code
from ..describing.structures import fields_of
from ..memory.blocks import Bytes, pooled_empty

Extent: TypeAlias = tuple[int, int, int]  # a block, where in the region the bytes begin, how many there are
Pickled: TypeAlias = tuple[bytes, list[Extent]]

LONGEST_PATH = 100  # characters
OUT_OF_PIPE = 1 << 15  # bytes: less is faster through it


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Pickles lambdas, closures and what a notebook defines; errors with all they carry; memory maps by their file.

    Parameters
    ----------
    file, **options
        What ``pickle.Pickler`` takes.
    maps
        Whether parts of memory maps go by their file too, to be read only, and not as what is in them.

    Examples
    --------
    >>> file = io.BytesIO()
    >>> Pickler(file).dump(lambda: 3)
    >>> pickle.loads(file.getvalue())()
    3
    """

    def __init__(self, file: io.BytesIO, *, maps: bool = False, **options: Any):
        super().__init__(file, pickle.HIGHEST_PROTOCOL, **options)
        self._maps = maps

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is np.ndarray:
            return _reduced(obj, self._maps)
        if type(obj) is np.memmap:
            return _reduced_map(obj, self._maps)
        if isinstance(obj, _lru_cache_wrapper) and not _is_importable(obj):
            return _cached, (obj.__wrapped__, obj.cache_parameters())
        if isinstance(obj, BaseException):
            made_in_c = isinstance(type(obj).__init__, WrapperDescriptorType)
            # What an __init__ in Python takes, nobody knows: such an error is made again without it.
            return pickle_exception(obj, builtin_inits=(type(obj).__init__,)) if made_in_c else pickle_exception(obj)
        if isinstance(obj, TracebackType):
            return pickle_traceback(obj)
        reduced = super().reducer_override(obj)
        if isinstance(obj, type) and isinstance(reduced, tuple) and len(reduced) == 6:
            # The other end sends it back with its samples: what it is there must not overwrite what it is here.
            _complete.add(obj)
            return (*reduced[:5], partial(_complete_class, reduced[5]))
        return reduced


def pickled(
    value: Any, place: Callable[[Bytes], Extent | None], out_of_pipe: int = OUT_OF_PIPE, *, maps: bool = False
) -> Pickled:
    """A value as bytes, and the places of those of its arrays that ``place`` has put elsewhere.

    Examples
    --------
    >>> body, places = pickled([np.zeros(100_000)], lambda array: (0, 0, array.nbytes))
    >>> len(body) < 1000, places
    (True, [(0, 0, 800000)])
    """
    places: list[Extent] = []

    def stays_in(buffer: pickle.PickleBuffer) -> bool:
        found = place(np.frombuffer(raw, np.uint8)) if (raw := buffer.raw()).nbytes >= out_of_pipe else None
        places.extend([found] if found else [])
        return found is None

    file = io.BytesIO()
    Pickler(file, maps=maps, buffer_callback=stays_in).dump(value)
    return file.getvalue(), places


def dumps(value: Any) -> bytes:
    """A value as bytes, all of it.

    Examples
    --------
    >>> pickle.loads(dumps(lambda: 3))()
    3
    """
    return pickled(value, lambda array: None)[0]


def picklable(value: Any) -> bool:
    """Whether a value can be pickled.

    Examples
    --------
    >>> picklable(lambda: 3), picklable(line for line in 'ab')
    (True, False)
    """
    try:
        pickled(value, lambda array: (0, 0, 0))
    except Exception:
        return False
    return True


def unpicklable_part(value: Any, path: str) -> str:
    """The first part of a value that cannot be pickled, with its name.

    Examples
    --------
    >>> unpicklable_part({'image': 1, 'lines': (line for line in 'ab')}, 'sample')
    "sample['lines'] is <generator>"
    """
    fields = list(enumerate(value)) if isinstance(value, list) else fields_of(value) or []
    for name, part in fields if len(path) < LONGEST_PATH else ():  # it may contain itself
        if not picklable(part):
            of_item = isinstance(value, Mapping) or isinstance(name, int)
            return unpicklable_part(part, path + (f'[{name!r}]' if of_item else f'.{name}'))
    return f'{path} is {code(value)}'


_complete: weakref.WeakSet[type] = weakref.WeakSet()  # classes that went or came by value


def _complete_class(set_state: Callable[[type, Any], object], kind: type, state: Any) -> None:
    if kind not in _complete:
        set_state(kind, state)
        _complete.add(kind)


def _is_importable(function: Any) -> bool:
    module = sys.modules.get(function.__module__)
    with suppress(AttributeError):
        return function.__module__ != '__main__' and attrgetter(function.__qualname__)(module) is function
    return False


def _cached(function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    return lru_cache(**parameters)(function)


def _reduced(array: npt.NDArray[Any], maps: bool) -> Any:
    if maps and isinstance(array.base, np.memmap):
        return np.asarray, (array.view(np.memmap),)
    if array.dtype.hasobject:
        return NotImplemented
    if array.dtype.kind in 'mM':  # which are no buffers
        return np.ndarray.view, (array.view(np.int64), array.dtype)
    if array.flags.forc:
        return NotImplemented
    axes = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    sorted_out = array.transpose(axes)
    if not sorted_out.flags.c_contiguous:
        room = pooled_empty(sorted_out.shape, array.dtype)
        room = np.empty(sorted_out.shape, array.dtype) if room is None else room
        room[...] = sorted_out
        room.flags.writeable = array.flags.writeable
        sorted_out = room
    return np.ndarray.transpose, (sorted_out, *np.argsort(axes).tolist())


def _reduced_map(array: np.memmap[Any, Any], maps: bool) -> Any:
    first = array
    while isinstance(first.base, np.memmap):
        first = first.base
    goes = (maps or first is array) and array.flags.forc
    if goes and first.mode != 'c' and first.filename is not None and os.path.exists(first.filename):
        mode = 'r+' if array.flags.writeable and not maps else 'r'
        offset = first.offset + array.ctypes.data - first.ctypes.data
        order = 'C' if array.flags.c_contiguous else 'F'
        return np.memmap, (first.filename, array.dtype, mode, offset, array.shape, order)
    return np.ndarray.view, (array.view(np.ndarray), np.memmap)
