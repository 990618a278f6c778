"""Streams: descriptions of sequences of values, which can be opened at a cursor.

Opening one at a cursor, in a context, returns an iterator of pairs ``(value, cursor)``: exactly the values after it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic, overload

from ..describing.arguments import optional, positive_int
from ..describing.descriptions import Description
from ..describing.display import code, structure
from ..describing.tables import Table
from ..memory.blocks import BlockPool
from .context import ALONE, Context
from .cursors import START, Cursor, Out_co, Pairs, T, cursor_of
from .error_notes import annotate
from .failures import Failures
from .global_generators import global_states, moved_since
from .index_stream import IndexStream
from .metering import StageRow
from .nesting import open_stream, streams_within
from .randomness import Key

if TYPE_CHECKING:
    from .stacking import ResumableBatches, Stacked


class Stream(ABC, Generic[Out_co]):
    """An immutable description of a sequence of values, finite or endless. Every ``iter`` starts at its beginning."""

    seeds: tuple[int, ...] = ()
    reopens: bool = True  # whether it can be opened more than once
    hides_stages: bool = False  # of a source: whether it may open another stream, whose stages are not known before
    branches: Sequence[Stream[Any]] = ()  # the sources of a mix
    indices: IndexStream | None = None  # if the values are elements of a sequence
    share: Any = None  # if the values are the shares of one rank
    length: float | None = None  # the number of values, infinite if there is no end; ``None`` if it is not known
    on_every_rank: Iterable[Any] = ()  # the source and stages that compute the samples of all ranks
    maps_with_workers: Iterable[tuple[Any, Any]] = ()  # operations and their workers; not those of the branches

    @abstractmethod
    def open(self, cursor: Cursor, context: Context) -> Pairs[Out_co]:
        """The values after ``cursor``, each with its cursor. Checks ``cursor`` now, and works when iterated over."""

    @property
    @abstractmethod
    def source(self) -> Stream[Any]:
        """The stream that the first stage takes; of a source, itself."""

    @property
    @abstractmethod
    def stages(self) -> tuple[Any, ...]:
        """The stages that the values of the source go through."""

    @property
    def _parts(self) -> list[Any]:
        return [self.source, *self.stages]

    @property
    def skips(self) -> bool:
        """Whether a stage may skip or replace samples."""
        return any(stage.skips for stream in streams_within(self) for stage in stream.stages)

    def stage_paths(self) -> set[str] | None:
        """The ``path`` of each source and stage; ``None`` where they are not all known."""
        inner = [branch.stage_paths() for branch in self.source.branches]
        if self.source.hides_stages or None in inner:
            return None
        own = {str(number) for number in range(1, 2 + len(self.stages))}
        return own.union(f'{branch}.{path}' for branch, paths in enumerate(inner) for path in paths or ())

    def rows(self, branches: tuple[int, ...] = ()) -> list[StageRow]:
        """The rows of a report: those of the branches of a mix, then the source and the stages."""
        rows = [row for number, part in enumerate(self.source.branches) for row in part.rows((*branches, number))]
        workers = None
        for number, part in enumerate(self._parts, 1):
            workers = part.workers or workers  # a stage without workers may run with the one before it
            path = '.'.join(map(str, (*branches, number)))
            rows.append(StageRow(path, part.short_code(), workers, part.calls_function))
        return rows

    @property
    def sets(self) -> list[Any]:
        """The sources whose order is another one in each process."""
        own = [] if getattr(self.source, 'is_ordered', True) else [self.source]
        return own + [found for branch in self.source.branches for found in branch.sets]

    @abstractmethod
    def _open_observed(self, observe: Callable[[int, Any], Any]) -> Pairs[Any]:
        """The pairs; ``observe(number, value)`` is called on those after the source, number 0, and after each stage."""

    @overload
    def __iter__(self: Stream[Stacked[T]]) -> ResumableBatches[T]: ...  # type: ignore[overload-overlap]
    @overload
    def __iter__(self) -> StreamIterator[Out_co]: ...
    def __iter__(self) -> Any:
        return StreamIterator(self)

    def resume(self, cursor: Cursor) -> StreamIterator[Out_co]:
        """Iterate over the values after the one that had this cursor.

        Parameters
        ----------
        cursor
            An int, or nested tuples of ints; lists, which JSON has in place of tuples, are accepted.

        Raises
        ------
        ValueError
            If it is not a cursor of this stream.
        NotResumable
            If the source is an iterator, which cannot start in its middle.

        Examples
        --------
        >>> from pipekit import apply, pipeline
        >>> squares = pipeline([1, 2, 3, 4], apply(lambda x: x**2))
        >>> values = iter(squares)
        >>> next(values), next(values), values.cursor
        (1, 4, 2)
        >>> list(squares.resume(2))
        [9, 16]
        """
        return StreamIterator(self, cursor_of(cursor))

    def replay(self, cursor: Cursor, *, stage: int | None = None, key: tuple[Any, ...] = ()) -> Out_co:
        """Compute the value after a cursor again, in the calling thread, with the same random numbers.

        The note on an error ends with the call of ``replay`` that raises it again, under a debugger for example. The
        last stage that runs ignores its ``on_error`` and raises.

        Parameters
        ----------
        cursor
            As for ``resume``.
        stage
            The number of stages to run, including the source; all by default.
        key
            The passes and branches of a ``mix`` from which the value comes.

        Raises
        ------
        ValueError
            If it is not a cursor of this stream, or there is no value after it.

        Examples
        --------
        >>> from pipekit import apply, combine_batches, pipeline
        >>> inverses = pipeline([2, 1, 0], apply(lambda x: 1 / x), combine_batches(2))
        >>> inverses.replay(0)
        array([0.5, 1. ])
        >>> inverses.replay(2)
        Traceback (most recent call last):
        ZeroDivisionError: division by zero
        in apply(<lambda>), the 2nd of 3 stages, on sample 0 (cursor 3)
        to run it again: pipeline.replay(2)
        """
        stream: Stream[Any] = self
        parts = _checked_key(key)
        for branch in (part for part in parts if isinstance(part, int)):
            if branch >= len(stream.source.branches):
                raise ValueError(f'the key {key!r} is not one of {stream!r}')
            stream = stream.source.branches[branch]
        stage = optional(positive_int, 'stage', stage, 'a positive int')
        if stage is not None and stage > 1 + len(stream.stages):
            raise ValueError(f'stage must be a positive int, at most {1 + len(stream.stages)} here, got {stage}')
        stream = stream._truncated(stage)
        for value in StreamIterator(stream, cursor_of(cursor), Context(parts)):
            replayed: Out_co = value
            return replayed
        raise ValueError(f'there is nothing after the cursor {cursor!r} of {stream!r}')

    @abstractmethod
    def _truncated(self, stage: int | None) -> Stream[Any]:
        """The stream up to a stage, the source being number 1; the last stage without its ``on_error``."""

    def describe(self) -> Table:
        """A table of the stages and the structure of the first value after each; computes the first value.

        Lines below the table name the stages that resume only by starting again and skipping values, and, where ranks
        share the batches, what each rank computes for all of them.

        Examples
        --------
        >>> from pipekit import apply, combine_batches, pipeline
        >>> pipeline(range(9), apply(float), combine_batches(3)).describe()
        stage               first value
        range(0, 9)         int
        apply(float)        float
        combine_batches(3)  float64[3]
        """
        found: list[str | None] = [None] * (1 + len(self.stages))

        moved: dict[int, list[str]] = {}
        states = global_states()

        def observe(number: int, value: Any) -> Any:
            nonlocal states
            if found[number] is None:
                found[number], moved[number] = structure(value), moved_since(states)
            states = global_states()
            return value

        if self.reopens:
            try:
                next(self._open_observed(observe), None)
            except Exception as error:
                found[found.index(None)] = f'raises {type(error).__name__}: {error}'
        unknown = 'nothing' if self.reopens else 'unknown: an iterator is not read ahead of its use'
        rows = [[code(part), what or unknown] for part, what in zip(self._parts, found, strict=True)]
        replaying = [code(part) for part in self._parts if part.replays]
        notes = [f'{part} resumes by replay: from the beginning, skipping' for part in replaying]
        drawing = [(code(part), ' and '.join(moved.get(number, []))) for number, part in enumerate(self._parts)]
        notes += [f'{part} draws from the global generator of {names}: see seeded' for part, names in drawing if names]
        notes += [f'{code(part)} is computed on every rank, for all of them' for part in self.on_every_rank]
        return Table(['stage', 'first value'], rows, notes=notes)

    def _repr_html_(self) -> str:
        return self.describe()._repr_html_()

    @abstractmethod
    def as_saved(self) -> Stream[Any]:
        """The stream without what a saved state does not name, such as workers."""

    def fingerprint(self) -> list[str]:
        """Lines of code, by which a saved state recognises its pipeline."""
        return [line for part in self._parts for line in part.fingerprint()]


def _checked_key(key: Any) -> Key:
    try:
        return tuple(cursor_of(part) for part in key)
    except (TypeError, ValueError) as error:
        expected = 'the key in the note on an error, a tuple of ints and tuples'
        raise TypeError(f'key must be {expected}, got {code(key)}') from error


class StreamIterator(Iterator[Out_co]):
    """An iterator over the values of a stream; ``cursor`` is the cursor of the last value.

    After an error, it continues after that cursor: work that the error interrupted is done again.

    Examples
    --------
    >>> from pipekit import pipeline
    >>> values = iter(pipeline('abc'))
    >>> next(values), values.cursor
    ('a', 1)
    """

    __slots__ = ('_context', '_next', 'cursor', 'stream')

    def __init__(self, stream: Stream[Out_co], cursor: Cursor = START, context: Context = ALONE):
        self.stream = stream
        self.cursor = cursor
        self._context = context._replace(run=context.run._replace(memory=BlockPool(), failures=Failures()))
        self._next = open_stream(stream, cursor, self._context).__next__

    def __next__(self) -> Out_co:
        try:
            value, self.cursor = self._next()
        except StopIteration:
            raise
        except BaseException as error:  # the next call continues after the cursor
            self._next = self._reopened
            annotate(error, 'pipeline', self.cursor)
            raise
        return value

    def resume(self, cursor: Cursor) -> StreamIterator[Out_co]:
        """An iterator over the values of the stream after a cursor."""
        return self.stream.resume(cursor)

    def _reopened(self) -> tuple[Out_co, Cursor]:
        self._next = open_stream(self.stream, self.cursor, self._context).__next__
        return self._next()

    def __repr__(self) -> str:
        return f'iter({self.stream!r})' if self.cursor == START else f'({self.stream!r}).resume({self.cursor!r})'


@dataclass(eq=False, repr=False)
class Source(Description, Stream[Out_co]):
    """A stream without stages: ``open_at(cursor, context)`` returns its pairs."""

    open_at: Callable[[Cursor, Context], Pairs[Out_co]]
    _: KW_ONLY
    seed: int | None = None
    seeds: tuple[int, ...] = ()
    branches: Sequence[Stream[Any]] = ()
    reopens: bool = True
    replays: bool = False
    is_ordered: bool = True  # whether the order is the same in every process
    indices: IndexStream | None = None
    share: Any = None
    n_values: float | None = None  # infinite if there is no end; ``None`` if it is not known

    workers = None
    calls_function = False

    def __post_init__(self) -> None:
        if self.seed is not None:
            self.seeds = (self.seed,)

    def open(self, cursor: Cursor, context: Context) -> Pairs[Out_co]:
        return self.open_at(cursor, context)

    @property
    def length(self) -> float | None:  # type: ignore[override]
        return self.n_values

    def fingerprint(self) -> list[str]:
        return [*Description.fingerprint(self), *chain.from_iterable(branch.fingerprint() for branch in self.branches)]

    @property
    def source(self) -> Stream[Any]:
        return self

    @property
    def stages(self) -> tuple[Any, ...]:
        return ()

    def _truncated(self, stage: int | None) -> Stream[Any]:
        return self

    def _open_observed(self, observe: Callable[[int, Any], Any]) -> Pairs[Any]:
        return ((observe(0, value), cursor) for value, cursor in self.open(START, ALONE))
