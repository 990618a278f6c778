"""What a thread is at: which functions of pipekit's call a user's function, and how to read that from their frames.

Nothing is noted while all goes well. When a wait takes long, the frames of the threads are looked at; what is in them,
only the function that runs there can tell, so each has its reader beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import CodeType, FrameType, FunctionType
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

from .cursors import Cursor
from .error_notes import Note, StageLocation

F = TypeVar('F', bound=Callable[..., Any])


class Activity(NamedTuple):
    """A call of a user's function: at which stage, on what, with the cursors of that and before it."""

    location: StageLocation
    value: Any
    cursor: Cursor
    before: Cursor

    @property
    def note(self) -> Note:
        """Where it is, in the words of an error's note."""
        return self.location.note(self.value, self.cursor, self.before)


Reader: TypeAlias = Callable[[Mapping[str, Any]], Activity | None]

_readers: dict[CodeType, Reader] = {}
_tasks: set[CodeType] = set()


def read_by(reader: Reader) -> Callable[[F], F]:
    """Mark a function that calls a user's function: ``reader`` makes an activity of its local variables.

    It may raise ``KeyError`` for a variable that is not set yet.

    Examples
    --------
    >>> import sys
    >>> from pipekit.streams.error_notes import UNKNOWN
    >>> @read_by(lambda names: Activity(UNKNOWN, names['sample'], 1, 0))
    ... def run(function, sample):
    ...     return function(sample)
    >>> run(lambda sample: activity_in(sys._getframe(1)).value, 'ada')
    'ada'
    """

    def mark(function: F) -> F:
        _readers[cast('FunctionType', function).__code__] = reader
        return function

    return mark


def activity_in(frame: FrameType) -> Activity | None:
    """What a frame is at, if it is that of a function that calls a user's function."""
    reader = _readers.get(frame.f_code)
    if reader is None:
        return None
    try:
        return reader(frame.f_locals)
    except KeyError:  # it has only just begun
        return None


def is_task(method: F) -> F:
    """Mark the method with which a worker does a task."""
    _tasks.add(cast('FunctionType', method).__code__)
    return method


def task_in(frame: FrameType) -> Any:
    """The task that a worker does in a frame, if it is that of a method that does one."""
    return frame.f_locals.get('self') if frame.f_code in _tasks else None
