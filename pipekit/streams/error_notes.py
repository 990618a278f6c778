"""Where in a pipeline something went wrong: the note on an error that names the stage and the sample."""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

from ..describing.display import brief
from .cursors import Cursor

STRAY_STOP = 'a function raised StopIteration, which would end the data silently'


class Note(str):
    """A note of ours on a user's error."""

    __slots__ = ()


class StageLocation(NamedTuple):
    """A stage of an open pipeline, as an error's note names it.

    Attributes
    ----------
    label
        The stage, and the how-manieth of how many it is.
    number
        The how-manieth.
    key
        The passes and branches that the pipeline is in.
    is_plain
        Whether the cursors of the whole pipeline are those at this stage.
    noun
        What it is given.

    Examples
    --------
    >>> place = StageLocation('apply(load), the 2nd of 3 stages', number=2, key=(), is_plain=True)
    >>> print(place.note('ada', cursor=12, before=11))
    in apply(load), the 2nd of 3 stages, on sample 'ada' (cursor 12)
    to run it again: pipeline.replay(11)
    """

    label: str
    number: int
    key: tuple[Any, ...] = ()
    is_plain: bool = False
    noun: str = 'sample'

    def at(self, key: tuple[Any, ...]) -> StageLocation:
        """The place in a pass or a branch."""
        return self._replace(key=key)

    @property
    def path(self) -> str:
        """The stage among all that there are, in whatever pass: the branches that it is in, and its number.

        Examples
        --------
        >>> StageLocation('', number=2, key=(1, (3,))).path
        '1.2'
        """
        return '.'.join(str(part) for part in (*self.key, self.number) if isinstance(part, int))

    def note(self, value: object, cursor: Cursor, before: Cursor) -> Note:
        """The note on an error that a function of a value has raised; ``before`` is the cursor before the value."""
        stage = '' if self.is_plain and not self.key else f', stage={self.number}'
        key = f', key={self.key}' if self.key else ''
        again = f'to run it again: pipeline.replay({before}{stage}{key})'
        return Note(f'in {self.label}, on {self.noun} {brief(value)} (cursor {cursor})\n{again}')


UNKNOWN = StageLocation('a stage', 1)


def raise_noted(
    error: BaseException, place: StageLocation | None, value: object, cursor: Cursor, before: Cursor | None
) -> NoReturn:
    """Raise an error that a user's function has raised, with a note of where."""
    raised = error
    if isinstance(error, StopIteration):
        raised = RuntimeError(STRAY_STOP)
        raised.__cause__ = error
    if place is not None and before is not None:
        add_note(raised, place.note(value, cursor, before))
    raise raised


def add_note(error: BaseException, note: Note) -> None:
    """Add a note to an error, in place of one that it has got when it was raised before."""
    notes = getattr(error, '__notes__', [])
    notes[:] = [other for other in notes if not isinstance(other, Note)]
    error.add_note(note)


def is_noted(error: BaseException) -> bool:
    """Whether an error's notes say where it was raised.

    Examples
    --------
    >>> is_noted(OSError())
    False
    """
    return any(isinstance(note, Note) for note in getattr(error, '__notes__', ()))
