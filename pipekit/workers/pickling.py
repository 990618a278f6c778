"""How values are pickled for another process: more kinds of them than pickle takes, and large arrays out of band."""

from __future__ import annotations

import ast
import io
import linecache
import os
import pickle
import sys
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import _lru_cache_wrapper, lru_cache, partial
from operator import attrgetter
from types import CodeType, FunctionType, TracebackType, WrapperDescriptorType
from typing import Any, NamedTuple, TypeAlias

import cloudpickle
import numpy as np
import numpy.typing as npt
from more_itertools import first, nth
from tblib.pickling_support import pickle_exception

from ..describing.display import code
from ..describing.structures import fields_of
from ..memory.blocks import Bytes, pooled_empty

Extent: TypeAlias = tuple[int, int, int]  # start of a block in an arena, start of some bytes in it, how many they are
Place: TypeAlias = Callable[[Bytes], Extent | None]  # stores a buffer in an arena, if it can
Pickled: TypeAlias = tuple[bytes, list[Extent]]

MAX_PATH_CHARACTERS = 100
MAX_FRAMES, SHOWN_FRAMES = 100, 10  # of a traceback, and at each end of a longer one
MIN_OUT_OF_BAND_BYTES = 1 << 15  # smaller buffers are faster in the pipe


class FrameSummary(NamedTuple):
    """What a traceback shows of a frame; the position is a first and last line, and columns or -1."""

    filename: str
    name: str
    module: Any
    position: tuple[int, ...]


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Pickles lambdas, closures and what a notebook defines; errors with their causes; memory maps as file and offset.

    Parameters
    ----------
    file, **options
        As for ``pickle.Pickler``.
    reopen_views
        Whether views of memory maps, too, are pickled as file and offset, to be opened read-only.
    """

    def __init__(self, file: io.BytesIO, *, reopen_views: bool = False, **options: Any):
        super().__init__(file, pickle.HIGHEST_PROTOCOL, **options)
        self._reopen_views = reopen_views

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is np.ndarray:
            return _reduced_array(obj, self._reopen_views)
        if type(obj) is np.memmap:
            return _reduced_memmap(obj, self._reopen_views)
        if isinstance(obj, _lru_cache_wrapper) and not _is_importable(obj):
            return _cached, (obj.__wrapped__, obj.cache_parameters())
        if isinstance(obj, BaseException):
            has_c_init = isinstance(type(obj).__init__, WrapperDescriptorType)
            # The arguments of an __init__ in Python are unknown, so that such an error is rebuilt without calling it.
            return pickle_exception(obj, builtin_inits=(type(obj).__init__,)) if has_c_init else pickle_exception(obj)
        if isinstance(obj, TracebackType):
            return _reduced_traceback(obj)
        if isinstance(obj, CodeType):  # cloudpickle does not keep the name of its file, which tracebacks show
            lines = [] if os.path.exists(obj.co_filename) else linecache.getlines(obj.co_filename)
            return _code, (*self.dispatch_table[CodeType](obj), obj.co_filename, lines)
        reduced = super().reducer_override(obj)
        if isinstance(obj, type) and isinstance(reduced, tuple) and len(reduced) == 6:
            # The class comes back with the samples: its state there must not overwrite its state here.
            _complete_classes.add(obj)
            return (*reduced[:5], partial(_complete_class, reduced[5]))
        return reduced


def pickled(value: Any, place: Place, min_bytes: int = MIN_OUT_OF_BAND_BYTES, *, reopen_views: bool = False) -> Pickled:
    """A value as bytes without the buffers of at least ``min_bytes`` that ``place`` stores, and their extents.

    If ``place`` returns ``None``, the buffer is part of the bytes.
    """
    extents: list[Extent] = []

    def is_in_band(buffer: pickle.PickleBuffer) -> bool:
        extent = place(np.frombuffer(raw, np.uint8)) if (raw := buffer.raw()).nbytes >= min_bytes else None
        extents.extend([extent] if extent else [])
        return extent is None

    file = io.BytesIO()
    Pickler(file, reopen_views=reopen_views, buffer_callback=is_in_band).dump(value)
    return file.getvalue(), extents


def dumps(value: Any) -> bytes:
    """A value as bytes, including its large arrays."""
    return pickled(value, lambda buffer: None)[0]


def is_picklable(value: Any) -> bool:
    """Whether a value can be pickled."""
    try:
        pickled(value, lambda buffer: (0, 0, 0))
    except Exception:
        return False
    return True


def unpicklable_part(value: Any, path: str) -> str:
    """The first part of a value that cannot be pickled, such as ``"sample['lines'] is <generator>"``."""
    fields = list(enumerate(value)) if isinstance(value, list) else fields_of(value) or []
    for name, part in fields if len(path) < MAX_PATH_CHARACTERS else ():  # a value may contain itself
        if not is_picklable(part):
            is_item = isinstance(value, Mapping) or isinstance(name, int)
            return unpicklable_part(part, path + (f'[{name!r}]' if is_item else f'.{name}'))
    return f'{path} is {code(value)}'


_complete_classes: weakref.WeakSet[type] = weakref.WeakSet()  # that were sent or received by value


def _complete_class(set_state: Callable[[type, Any], object], kind: type, state: Any) -> None:
    if kind not in _complete_classes:
        set_state(kind, state)
        _complete_classes.add(kind)


def _code(make: Callable[..., CodeType], args: tuple[Any, ...], filename: str, lines: list[str]) -> CodeType:
    if lines:  # of a notebook's cell
        linecache.cache.setdefault(filename, (sum(map(len, lines)), None, lines, filename))
    return make(*args).replace(co_filename=filename)


def _is_importable(function: Any) -> bool:
    name = function.__module__
    by_value = ('__main__', *cloudpickle.list_registry_pickle_by_value())
    with suppress(AttributeError):
        is_by_value = f'{name}.'.startswith(tuple(f'{other}.' for other in by_value))
        return not is_by_value and attrgetter(function.__qualname__)(sys.modules.get(name)) is function
    return False


def _cached(function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    return lru_cache(**parameters)(function)


def _reduced_array(array: npt.NDArray[Any], reopen_views: bool) -> Any:
    if reopen_views and isinstance(array.base, np.memmap):
        return np.asarray, (array.view(np.memmap),)
    if array.dtype.hasobject:
        return NotImplemented
    if array.dtype.kind in 'mM':  # dates and durations do not support the buffer protocol
        return np.ndarray.view, (array.view(np.int64), array.dtype)
    if array.flags.forc:
        return NotImplemented
    axes = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    transposed = array.transpose(axes)
    return np.ndarray.transpose, (_without_gaps(transposed), *np.argsort(axes).tolist())


def _without_gaps(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if array.flags.c_contiguous:
        return array
    copy = pooled_empty(array.shape, array.dtype)
    copy = np.empty(array.shape, array.dtype) if copy is None else copy
    copy[...] = array
    copy.flags.writeable = array.flags.writeable
    return copy


def _reduced_memmap(array: np.memmap[Any, Any], reopen_views: bool) -> Any:
    whole = array
    while isinstance(whole.base, np.memmap):
        whole = whole.base
    reopens = (reopen_views or whole is array) and array.flags.forc
    if reopens and whole.mode != 'c' and whole.filename is not None and os.path.exists(whole.filename):
        mode = 'r+' if array.flags.writeable and not reopen_views else 'r'
        offset = whole.offset + array.ctypes.data - whole.ctypes.data
        order = 'C' if array.flags.c_contiguous else 'F'
        return np.memmap, (whole.filename, array.dtype, mode, offset, array.shape, order)
    return np.ndarray.view, (array.view(np.ndarray), np.memmap)


def _reduced_traceback(traceback: TracebackType) -> tuple[Any, ...]:
    frames = []
    part: TracebackType | None = traceback
    while part is not None:
        frames.append(_summary(part))
        part = part.tb_next
    if len(frames) > MAX_FRAMES:
        text = f'{len(frames) - 2 * SHOWN_FRAMES} frames are left out'
        frames[SHOWN_FRAMES:-SHOWN_FRAMES] = [FrameSummary('...', text, None, _without_columns(1))]
    return _traceback, (frames,)


def _summary(part: TracebackType) -> FrameSummary:
    program = part.tb_frame.f_code
    line: int | None = part.tb_lineno  # None of an instruction that no line of the source stands for
    found: Any = nth(program.co_positions(), part.tb_lasti // 2) if part.tb_lasti >= 0 else None
    if found is None or None in found or found[0] != line:
        found = _without_columns(program.co_firstlineno if line is None else line)
    return FrameSummary(program.co_filename, program.co_name, part.tb_frame.f_globals.get('__name__'), found)


def _without_columns(line: int) -> tuple[int, ...]:
    return line, line, -1, -1


def _traceback(frames: list[FrameSummary]) -> TracebackType | None:
    following: TracebackType | None = None
    for filename, name, module, position in reversed(frames):
        program = _program_that_raises(filename, position).replace(co_name=name)
        instructions = (tuple(-1 if part is None else part for part in each) for each in program.co_positions())
        last = 2 * next(n for n, each in enumerate(instructions) if each == position)
        # Of a generator that has not begun. A frame that has run would hold on to all those that it was called from.
        frame = FunctionType(program, {'__name__': module})().gi_frame
        following = TracebackType(following, frame, last, position[0])
    return following


@lru_cache
def _program_that_raises(filename: str, position: tuple[int, ...]) -> CodeType:
    where: Any = dict(zip(('lineno', 'end_lineno', 'col_offset', 'end_col_offset'), position, strict=True))
    module = ast.parse('def function(): yield')
    function: Any = module.body[0]
    function.body.insert(0, ast.Raise(**where))
    return first(part for part in compile(module, filename, 'exec').co_consts if isinstance(part, CodeType))
