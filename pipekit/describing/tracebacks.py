"""Which frames of a traceback or of a thread's stack are shown: the user's, not those of pipekit."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from contextlib import suppress
from types import FrameType, TracebackType
from typing import TypeVar

import more_itertools

T = TypeVar('T')

OWN_FILES = os.path.dirname(os.path.dirname(__file__)) + os.sep
# Libraries through which pipekit calls users' functions.
LIBRARIES = tuple(os.path.dirname(str(module.__file__)) + os.sep for module in (futures, more_itertools))
FULL_TRACEBACKS = 'PIPEKIT_FULL_TRACEBACKS'  # an environment variable


def without_own(
    parts: Iterable[T],
    frame_of: Callable[[T], FrameType],
    libraries: tuple[str, ...] = LIBRARIES,
    *,
    from_own: bool = True,
) -> Iterator[T]:
    """The parts of a stack, outermost first, without those of pipekit and of the libraries that it calls.

    The environment variable ``PIPEKIT_FULL_TRACEBACKS`` keeps them all.

    Parameters
    ----------
    parts, frame_of
        The parts, and the frame of one.
    libraries
        Files and folders whose frames are hidden if pipekit has called them.
    from_own
        Whether the stack begins in the user's code; if not, pipekit has called what it begins with.
    """
    if os.environ.get(FULL_TRACEBACKS):
        yield from parts
        return
    hidden: tuple[str, ...] = (OWN_FILES,) if from_own else (OWN_FILES, *libraries)
    for part in parts:
        if frame_of(part).f_code.co_filename.startswith(hidden):
            hidden = (OWN_FILES, *libraries)
        else:
            hidden = (OWN_FILES,)
            yield part


def hide_own_frames(error: BaseException) -> None:
    """Leave only the user's frames in an error's traceback."""
    shown = list(without_own(_chain(error.__traceback__), lambda part: part.tb_frame))
    set_traceback(error, None)
    for part in reversed(shown):
        line: int | None = part.tb_lineno  # None of an instruction that no line of the source stands for
        number = part.tb_frame.f_code.co_firstlineno if line is None else line
        set_traceback(error, TracebackType(error.__traceback__, part.tb_frame, part.tb_lasti, number))


def notes_of(error: BaseException) -> list[str]:
    """The notes of an error."""
    try:
        return list(getattr(error, '__notes__', ()))
    except Exception:  # a class of the user's may have made it anything
        return []


def set_notes(error: BaseException, notes: list[str]) -> None:
    """Set the notes of an error, unless its class cannot have any."""
    with suppress(Exception):  # not by add_note, which a class may override, and which fails on a frozen dataclass
        BaseException.__setattr__(error, '__notes__', notes)


def set_traceback(error: BaseException, traceback: TracebackType | None) -> None:
    """Set the traceback of an error, which may be a frozen dataclass."""
    BaseException.with_traceback(error, traceback)


def own_depth() -> int:
    """The number of frames, from that of the caller on, that are ours: the ``stacklevel`` of a warning to the user.

    Examples
    --------
    >>> own_depth()
    1
    """
    frame: FrameType | None = sys._getframe(1)
    depth = 1
    while frame is not None and frame.f_code.co_filename.startswith(OWN_FILES):
        frame, depth = frame.f_back, depth + 1
    return depth


def _chain(part: TracebackType | None) -> Iterable[TracebackType]:
    while part is not None:
        yield part
        part = part.tb_next
