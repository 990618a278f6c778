"""Streams: descriptions of sequences of values that open at a cursor.

A stream is opened at a cursor, in a context, and gives an iterator of pairs ``(value, cursor)``. The cursor that comes
with a value is where the stream goes on after it; opening the stream there again yields exactly the values that follow.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, count, islice
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeAlias, overload

from ..describing.arguments import positive_int
from ..describing.descriptions import Description
from ..describing.display import code, structure
from ..describing.tables import Table
from ..memory.blocks import BlockPool
from .context import Context, Upstream
from .cursors import START, Cursor, Out_co, Pair, Pairs, T, cursor_of, tagged
from .error_notes import annotate
from .metering import StageRow
from .randomness import Key

if TYPE_CHECKING:
    from .stacking import ResumableBatches, Stacked

ALONE = Context()

Gather: TypeAlias = Callable[[list[int]], Any]  # makes a batch of elements of a sequence, of their indices


class IndexStream(NamedTuple):
    """A stream of elements of a sequence, as the sequence and the stream of their indices.

    Where all cursors count the elements, ``indices_after`` gives the indices alone, which is faster.
    """

    sequence: Any
    open_at: Upstream[int]
    indices_after: Callable[[Cursor, Context], Iterator[int]] | None = None


def counting(sequence: Any, indices_after: Callable[[Cursor, Context], Iterator[int]]) -> IndexStream:
    """The index stream whose cursors count the elements."""

    def open_at(cursor: Any, context: Context) -> Pairs[int]:
        return zip(indices_after(cursor, context), count(cursor + 1))  # the second one has no end

    return IndexStream(sequence, open_at, indices_after)


class Stream(ABC, Generic[Out_co]):
    """An immutable description of a sequence of values, which may have no end. Every ``iter`` starts it again."""

    seeds: tuple[int, ...] = ()
    reopens: bool = True  # whether it can be opened more than once
    branches: Sequence[Stream[Any]] = ()  # of a source: what it is mixed of
    indices: IndexStream | None = None  # where its values are elements of a sequence

    @abstractmethod
    def open(self, cursor: Cursor, context: Context) -> Pairs[Out_co]:
        """The values after ``cursor``, each with its own. Checks the cursor at once, does the work when iterated."""

    @property
    @abstractmethod
    def source(self) -> Stream[Any]:
        """The stream that does not come from another one."""

    @property
    @abstractmethod
    def stages(self) -> tuple[Any, ...]:
        """The stages that the source is fed through."""

    @property
    def skips(self) -> bool:
        """Whether a stage may skip or replace samples."""
        return any(stage.skips for stage in self.stages) or any(branch.skips for branch in self.source.branches)

    def rows(self, branches: tuple[int, ...] = ()) -> list[StageRow]:
        """The source and the stages, after those of the branches of a mix, as a report lists them."""
        rows = [row for number, part in enumerate(self.source.branches) for row in part.rows((*branches, number))]
        workers = None
        for number, part in enumerate([self.source, *self.stages], 1):
            workers = part.workers or workers  # a stage without workers may have run with the one before it
            path = '.'.join(map(str, (*branches, number)))
            rows.append(StageRow(path, part.short_code(), workers, part.calls_function))
        return rows

    @abstractmethod
    def _watched(self, watch: Callable[[int, Pair[Any]], Pair[Any]]) -> Pairs[Any]:
        """The pairs, those after the source and each stage being shown to ``watch`` with the number of the part."""

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
            An int, or nested tuples of ints; the lists that JSON makes of tuples are taken as tuples.

        Raises
        ------
        ValueError
            If a stage here cannot have made this cursor.
        NotResumable
            If the source is an iterator, which cannot be opened in its middle.

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
        """Make the value after a cursor again, in the calling thread, with the same randomness.

        The note on an error has the call that runs the sample again at which it was raised: under a debugger, say.
        The last of the stages that run raises what it fails on, whatever its ``on_error``.

        Parameters
        ----------
        cursor
            As for ``resume``.
        stage
            How many stages to run, the source being the first; all by default.
        key
            The passes and branches of a ``mix`` that the stage was in.

        Raises
        ------
        ValueError
            If a stage here cannot have made this cursor, or there is nothing after it.

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
        parts: Key = tuple(cursor_of(part) for part in key)
        for branch in (part for part in parts if isinstance(part, int)):
            if branch >= len(stream.source.branches):
                raise ValueError(f'the key {key!r} is not one of {stream!r}')
            stream = stream.source.branches[branch]
        stream = stream._up_to(None if stage is None else positive_int('stage', stage))
        for value in StreamIterator(stream, cursor_of(cursor), Context(parts)):
            replayed: Out_co = value
            return replayed
        raise ValueError(f'there is nothing after the cursor {cursor!r} of {stream!r}')

    @abstractmethod
    def _up_to(self, stage: int | None) -> Stream[Any]:
        """The stream up to a stage, counted from the source, which is 1, and that stage without its ``on_error``."""

    def describe(self) -> Table:
        """A table of the stages with the structure of the first value after each; runs the first value to find it.

        Stages that resume only by starting again and skipping have a line of their own below the table.

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

        def watch(number: int, pair: Pair[Any]) -> Pair[Any]:
            found[number] = found[number] or structure(pair[0])
            return pair

        if self.reopens:
            try:
                next(self._watched(watch), None)
            except Exception as error:
                found[found.index(None)] = f'raises {type(error).__name__}: {error}'
        unknown = 'nothing' if self.reopens else 'unknown: an iterator is not read ahead of its use'
        parts: list[Any] = [self.source, *self.stages]
        rows = [[code(part), what or unknown] for part, what in zip(parts, found, strict=True)]
        replays = [f'{code(part)} resumes by replay: from the beginning, skipping' for part in parts if part.replays]
        return Table(['stage', 'first value'], rows, notes=replays)

    def _repr_html_(self) -> str:
        return self.describe()._repr_html_()

    def fingerprint(self) -> list[str]:
        """One line per stage, by which a saved state recognises its pipeline."""
        parts: list[Any] = [self.source, *self.stages]
        return [line for part in parts for line in part.fingerprint()]


class StreamIterator(Iterator[Out_co]):
    """The values of a stream. ``cursor`` is that of the last value handed over: where the stream goes on from.

    After an error it goes on from there too, making again what was half done.

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
        self._context = context._replace(run=context.run._replace(memory=BlockPool()))
        self._next = stream.open(cursor, self._context).__next__

    def __next__(self) -> Out_co:
        try:
            value, self.cursor = self._next()
        except StopIteration:
            raise
        except BaseException as error:  # what was half done is made again: the next call goes on after the cursor
            self._next = self._reopened
            annotate(error, 'pipeline', self.cursor)
            raise
        return value

    def resume(self, cursor: Cursor) -> StreamIterator[Out_co]:
        """``resume`` of the stream."""
        return self.stream.resume(cursor)

    def _reopened(self) -> tuple[Out_co, Cursor]:
        self._next = self.stream.open(self.cursor, self._context).__next__
        return self._next()

    def __repr__(self) -> str:
        return f'iter({self.stream!r})' if self.cursor == START else f'({self.stream!r}).resume({self.cursor!r})'


class Source(Description, Stream[Out_co]):
    """A stream that does not come from another one: ``open_at(cursor, context)`` gives its pairs."""

    workers = None
    calls_function = False

    def __init__(
        self,
        open_at: Callable[[Cursor, Context], Pairs[Out_co]],
        *,
        seed: int | None = None,
        seeds: tuple[int, ...] | None = None,
        branches: Sequence[Stream[Any]] = (),
        reopens: bool = True,
        replays: bool = False,
        indices: IndexStream | None = None,
    ):
        self._open_at = open_at
        self.indices = indices
        self.branches = branches
        self.seed = seed
        self.seeds = seeds if seeds is not None else () if seed is None else (seed,)
        self.reopens = reopens
        self.replays = replays

    def open(self, cursor: Cursor, context: Context) -> Pairs[Out_co]:
        return self._open_at(cursor, context)

    def fingerprint(self) -> list[str]:
        return [*super().fingerprint(), *chain.from_iterable(branch.fingerprint() for branch in self.branches)]

    @property
    def source(self) -> Stream[Any]:
        return self

    @property
    def stages(self) -> tuple[Any, ...]:
        return ()

    def _up_to(self, stage: int | None) -> Stream[Any]:
        return self

    def _watched(self, watch: Callable[[int, Pair[Any]], Pair[Any]]) -> Pairs[Any]:
        return map(partial(watch, 0), self.open(START, ALONE))


def passes(upstream: Upstream[T], number: int, before: Cursor, context: Context) -> Iterator[Pairs[T]]:
    """The pairs of one pass after another, from a cursor in a pass on, up to a pass that has none.

    Examples
    --------
    >>> from itertools import islice
    >>> from pipekit.streams.iterables import source_of
    >>> [list(pairs) for pairs in islice(passes(source_of('ab').open, 3, 1, Context()), 2)]
    [[('b', (3, 2))], [('a', (4, 1)), ('b', (4, 2))]]
    """
    # The first pass is opened here, and not in the generator, so that a wrong cursor is told at once.
    return _passes(upstream, number, before, context, upstream(before, context.in_pass(number)))


def _passes(
    upstream: Upstream[T], number: int, before: Cursor, context: Context, pairs: Pairs[T]
) -> Iterator[Pairs[T]]:
    while True:
        numbered = map(partial(tagged, number), pairs)
        first = list(islice(numbered, 1))
        if not first and before == START:
            return
        yield _popped_then(first, numbered)
        number, before = number + 1, START
        pairs = upstream(START, context.in_pass(number))


def _popped_then(first: list[Pair[T]], others: Pairs[T]) -> Pairs[T]:
    while first:
        yield first.pop()
    yield from others
