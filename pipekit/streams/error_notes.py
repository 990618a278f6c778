"""Where in a pipeline something went wrong: the note on an error that names the stage and the sample."""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

from ..describing.display import brief, code, ordinal
from ..describing.tracebacks import hide_own_frames
from ..errors import PipekitError
from .cursors import Cursor

STRAY_STOP = 'a function raised StopIteration, which would end the data silently'


class Note(str):
    """A note of pipekit's own on a user's error."""

    __slots__ = ()


class StageLocation(NamedTuple):
    """A stage of an open pipeline, as an error's note names it.

    Attributes
    ----------
    part
        The source or stage; its label, once it has been sent to another process.
    number, total
        Its position among all of them, the source being 1, and how many there are.
    key
        The passes and branches that the pipeline is in.
    is_plain
        Whether the cursors of the whole pipeline are those at this stage.
    noun
        What it is given.

    Examples
    --------
    >>> location = StageLocation('apply(load)', number=2, total=3, is_plain=True)
    >>> print(location.note('ada', cursor=12, before=11))
    in apply(load), the 2nd of 3 stages, on sample 'ada' (cursor 12)
    to run it again: pipeline.replay(11)
    """

    part: Any
    number: int
    total: int
    key: tuple[Any, ...] = ()
    is_plain: bool = False
    noun: str = 'sample'

    def at(self, key: tuple[Any, ...]) -> StageLocation:
        """The location in a pass or a branch."""
        return self._replace(key=key)

    @property
    def label(self) -> str:
        """The stage, and which of how many it is."""
        return f'{self._code()}, the {ordinal(self.number)} of {self.total} stages'

    @property
    def path(self) -> str:
        """The stage among all that there are, in whatever pass: the branches that it is in, and its number.

        Examples
        --------
        >>> StageLocation('apply(load)', number=2, total=3, key=(1, (3,))).path
        '1.2'
        """
        return '.'.join(str(part) for part in (*self.key, self.number) if isinstance(part, int))

    def note(self, value: object, cursor: Cursor, before: Cursor, *, is_handled: bool = False) -> Note:
        """The note on an error that a function of a value has raised.

        Parameters
        ----------
        before
            The cursor before the value.
        is_handled
            Whether the stage goes on after the error: then ``replay`` meets it at this stage alone.
        """
        stage = '' if self.is_plain and not self.key and not is_handled else f', stage={self.number}'
        key = f', key={self.key}' if self.key else ''
        again = f'to run it again: pipeline.replay({before}{stage}{key})'
        return Note(f'in {self.label}, on {self.noun} {brief(value)} (cursor {cursor})\n{again}')

    def _code(self) -> str:
        return self.part if isinstance(self.part, str) else ' '.join(code(self.part).split())

    def __reduce__(self) -> tuple[Any, ...]:
        return StageLocation, (self._code(), *self[1:])


UNKNOWN = StageLocation('a stage', 1, 1)


def raise_noted(
    error: BaseException, location: StageLocation | None, value: object, cursor: Cursor, before: Cursor | None
) -> NoReturn:
    """Raise an error that a user's function has raised, with a note of where."""
    raised = error
    if isinstance(error, StopIteration):
        raised = RuntimeError(STRAY_STOP)
        raised.__cause__ = error
    if location is not None and before is not None:
        add_note(raised, location.note(value, cursor, before))
    raise raised


def add_note(error: BaseException, note: Note) -> None:
    """Add a note to an error, in place of one that it has got when it was raised before."""
    notes = getattr(error, '__notes__', [])
    notes[:] = [other for other in notes if not isinstance(other, Note)]
    error.add_note(note)


def annotate(error: BaseException, name: str, cursor: Cursor) -> None:
    """Make an error on its way to the user say where it was raised, without frames of pipekit's own."""
    is_noted = any(isinstance(note, Note) for note in getattr(error, '__notes__', ()))
    if isinstance(error, Exception) and not isinstance(error, PipekitError) and not is_noted:
        add_note(error, Note(f'after the cursor {cursor}\nto run it again: {name}.replay({cursor})'))
    hide_own_frames(error)
