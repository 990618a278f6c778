"""Notes on users' errors: the stage and the sample, and the line of code that runs the sample again."""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

from ..describing.display import brief, code, ordinal
from ..describing.tracebacks import hide_own_frames, notes_of, set_notes
from ..errors import PipekitError
from .cursors import Cursor

LONGEST_LABEL, LONGEST_CURSOR = 240, 1000  # characters; a mix may have a thousand sources
STRAY_STOP = 'a function raised StopIteration, which would end the data silently'


class Note(str):
    """A note that pipekit has added to an error, as opposed to a user's own notes.

    ``cursor`` is the one before the sample. Where it is too long for the text, that names this attribute instead.
    """

    __slots__ = ('cursor',)
    cursor: Cursor

    def __new__(cls, where: str, name: str, cursor: Cursor, others: str = '') -> Note:
        text = str(cursor)
        argument = text if len(text) <= LONGEST_CURSOR else 'error.__notes__[-1].cursor'
        note = super().__new__(cls, f'{where}\nto run it again: {name}.replay({argument}{others})')
        note.cursor = cursor
        return note

    def __reduce__(self) -> tuple[Any, ...]:
        return _note, (str(self), self.cursor)


def _note(text: str, cursor: Cursor) -> Note:
    note = str.__new__(Note, text)
    note.cursor = cursor
    return note


class StageLocation(NamedTuple):
    """A stage of an open pipeline, as named in notes on errors.

    Attributes
    ----------
    part
        The source or stage; its code, after the location was sent to another process.
    number, total
        Its position, starting at 1 for the source, and the number of stages including the source.
    key
        The pass and the branch of a mix that the values come from, for every nesting.
    shares_cursors
        Whether the cursors at this stage are also the cursors of the whole pipeline.
    noun
        What the stage takes: a sample or a batch.

    Examples
    --------
    >>> location = StageLocation('apply(load)', number=2, total=3, shares_cursors=True)
    >>> print(location.note('ada', cursor=12, before=11))
    in apply(load), the 2nd of 3 stages, on sample 'ada' (cursor 12)
    to run it again: pipeline.replay(11)
    """

    part: Any
    number: int
    total: int
    key: tuple[Any, ...] = ()
    shares_cursors: bool = False
    noun: str = 'sample'

    def at(self, key: tuple[Any, ...]) -> StageLocation:
        """The location in the pass and branches of ``key``."""
        return self._replace(key=key)

    @property
    def label(self) -> str:
        """The code of the stage and its position."""
        return f'{self._code()}, the {ordinal(self.number)} of {self.total} stages'

    @property
    def path(self) -> str:
        """Identifies the stage in reports and states: the branches it is in, and its number; the same in every pass."""
        return '.'.join(str(part) for part in (*self.key, self.number) if isinstance(part, int))

    def note(self, value: object, cursor: Cursor, before: Cursor, *, is_handled: bool = False) -> Note:
        """The note on an error that was raised by a call on a value.

        Parameters
        ----------
        before
            The cursor before the value.
        is_handled
            Whether the stage handles the error: then ``replay`` only raises it if told to stop at this stage.
        """
        stage = '' if self.shares_cursors and not self.key and not is_handled else f', stage={self.number}'
        key = f', key={self.key}' if self.key else ''
        where = f'in {self.label}, on {self.noun} {brief(value)} (cursor {brief(cursor)})'
        return Note(where, 'pipeline', before, f'{stage}{key}')

    def _code(self) -> str:
        if isinstance(self.part, str):
            return self.part
        text = ' '.join(code(self.part).split())
        return text if len(text) <= LONGEST_LABEL else f'{text[:LONGEST_LABEL]}...'

    def __reduce__(self) -> tuple[Any, ...]:
        return StageLocation, (self._code(), *self[1:])


UNKNOWN = StageLocation('a stage', 1, 1)


def raise_with_note(
    error: BaseException, location: StageLocation, value: object, cursor: Cursor, before: Cursor
) -> NoReturn:
    """Raise the error of a user's function again, with a note on where it was raised."""
    raised = error
    if isinstance(error, StopIteration):
        raised = RuntimeError(STRAY_STOP)
        raised.__cause__ = error
    add_note(raised, location.note(value, cursor, before))
    raise raised


def add_note(error: BaseException, note: Note) -> None:
    """Add a note to an error; replaces the one from an earlier time that the same error was raised."""
    set_notes(error, [*(other for other in notes_of(error) if not isinstance(other, Note)), note])


def annotate(error: BaseException, name: str, cursor: Cursor) -> None:
    """Prepare an error for the user: add a note if it has none, and hide pipekit's frames in its traceback."""
    is_noted = any(isinstance(note, Note) for note in notes_of(error))
    if isinstance(error, Exception) and not isinstance(error, PipekitError) and not is_noted:
        add_note(error, Note(f'after the cursor {brief(cursor)}', name, cursor))
    hide_own_frames(error)
