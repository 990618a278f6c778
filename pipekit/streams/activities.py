"""What a thread is doing, read from its frames: which user's function pipekit calls there, and on which value.

Nothing is recorded while batches come in time. When a wait takes long, the frames of the threads are inspected. Only
the function that runs in a frame knows its local variables, so it is decorated with a reader of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from types import CodeType, FrameType, FunctionType
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

from .cursors import Cursor
from .error_notes import Note, StageLocation

F = TypeVar('F', bound=Callable[..., Any])


class Activity(NamedTuple):
    """A call of a user's function: the stage, the value, its cursor, and the cursor before it."""

    location: StageLocation
    value: Any
    cursor: Cursor
    before: Cursor

    @property
    def note(self) -> Note:
        """The text of an error note for this call."""
        return self.location.note(self.value, self.cursor, self.before)


Reader: TypeAlias = Callable[[Mapping[str, Any]], Activity]

_readers: dict[CodeType, Reader] = {}
_task_methods: set[CodeType] = set()


def activity_from(reader: Reader) -> Callable[[F], F]:
    """Decorate a function that calls a user's function: ``reader`` makes an activity of its local variables.

    The reader may raise ``KeyError`` for a variable that is not set yet.

    Examples
    --------
    >>> import sys
    >>> from pipekit.streams.error_notes import UNKNOWN
    >>> @activity_from(lambda local: Activity(UNKNOWN, local['sample'], 1, 0))
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
    """The activity in a frame; ``None`` if its function has no reader, or has only just begun."""
    with suppress(KeyError):
        return _readers[frame.f_code](frame.f_locals)
    return None


def runs_task(method: F) -> F:
    """Decorate the method with which a worker runs a task."""
    _task_methods.add(cast('FunctionType', method).__code__)
    return method


def task_in(frame: FrameType) -> Any:
    """The task that runs in a frame; ``None`` if its function is not decorated with ``runs_task``."""
    return frame.f_locals.get('self') if frame.f_code in _task_methods else None
