"""The core: streams that open at a cursor, the stages that turn one into another, and the pipeline of both.

A stream is opened at a cursor, in a context, and gives an iterator of pairs ``(value, cursor)``. The cursor that comes
with a value is where the stream goes on after it; opening the stream there again yields exactly the values that follow.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial, reduce
from itertools import chain, count, groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeAlias

from .descriptions import Call, Description
from .display import Table, call_code, code, structure
from .errors import NotResumable
from .randomness import Cursor, Generators, Key

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T = TypeVar('T', default=Any)
    In = TypeVar('In', default=Any)
    Out = TypeVar('Out', default=Any)
    In_contra = TypeVar('In_contra', contravariant=True, default=Any)
    Out_co = TypeVar('Out_co', covariant=True, default=Any)
else:
    from typing import TypeVar

    T = TypeVar('T')
    In = TypeVar('In')
    Out = TypeVar('Out')
    In_contra = TypeVar('In_contra', contravariant=True)
    Out_co = TypeVar('Out_co', covariant=True)

Pair: TypeAlias = 'tuple[T, Cursor]'
Pairs: TypeAlias = 'Iterator[tuple[T, Cursor]]'

STRAY_STOP = 'a function raised StopIteration, which would end the data silently'
START: Cursor = 0  # the beginning of every stream, whatever its cursors look like


class Context(NamedTuple):
    """What a stream is opened with besides a cursor.

    ``key`` tells apart what would otherwise draw alike: the pass of a repeated stream and the branch of a mix.
    ``ordinal`` is the how-manieth stage with its seed a stage is. ``fused`` says whether neighbouring stages may be run
    together; values and cursors are the same if they are not.
    """

    key: Key = ()
    ordinal: int = 0
    fused: bool = True

    def in_pass(self, number: int) -> Context:
        """The context of a pass; the first one is that of a stream that is not repeated."""
        return self._replace(key=(*self.key, (number,))) if number else self

    def in_branch(self, number: int) -> Context:
        """The context of one of several sources."""
        return self._replace(key=(*self.key, number))

    def generators(self, seed: int | None) -> Generators:
        """The generators of a stage with this seed, one per cursor."""
        assert seed is not None
        return Generators(seed, (self.ordinal, *self.key))


class Stream(ABC, Generic[Out_co]):
    """An immutable description of a sequence of values, which may have no end. Every ``iter`` starts it again."""

    seeds: tuple[int, ...] = ()
    reopens: bool = True  # whether it can be opened more than once

    @abstractmethod
    def open(self, cursor: Cursor, context: Context) -> Pairs[Out_co]:
        """The values after ``cursor``, each with its own. Checks the cursor at once, does the work when iterated."""

    @property
    @abstractmethod
    def source(self) -> Stream[Any]: ...

    @property
    @abstractmethod
    def stages(self) -> tuple[Stage[Any, Any], ...]: ...

    def __iter__(self) -> StreamIterator[Out_co]:
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
        return _table(self)

    def _repr_html_(self) -> str:
        return self.describe()._repr_html_()

    def fingerprint(self) -> list[str]:
        """One line per stage, by which a saved state recognises its pipeline."""
        parts: list[Any] = [self.source, *self.stages]
        return [line for part in parts for line in part.fingerprint()]


class StreamIterator(Iterator[Out_co]):
    """The values of a stream. ``cursor`` is that of the last value handed over: where the stream goes on from.

    Examples
    --------
    >>> from pipekit import pipeline
    >>> values = iter(pipeline('abc'))
    >>> next(values), values.cursor
    ('a', 1)
    """

    __slots__ = ('_next', 'cursor', 'stream')

    def __init__(self, stream: Stream[Out_co], cursor: Cursor = START):
        self.stream = stream
        self.cursor = cursor
        self._next = stream.open(cursor, Context()).__next__

    def __next__(self) -> Out_co:
        value, self.cursor = self._next()
        return value

    def __repr__(self) -> str:
        return f'iter({self.stream!r})' if self.cursor == START else f'({self.stream!r}).resume({self.cursor!r})'


class Source(Description, Stream[Out_co]):
    """A stream that does not come from another one: ``open_at(cursor, context)`` gives its pairs."""

    def __init__(
        self,
        open_at: Callable[[Cursor, Context], Pairs[Out_co]],
        *,
        seed: int | None = None,
        seeds: tuple[int, ...] | None = None,
        branches: Sequence[Stream[Any]] = (),
        reopens: bool = True,
        replays: bool = False,
    ):
        self._open_at = open_at
        self._branches = branches
        self.seed = seed
        self.seeds = seeds if seeds is not None else () if seed is None else (seed,)
        self.reopens = reopens
        self.replays = replays

    def open(self, cursor: Cursor, context: Context) -> Pairs[Out_co]:
        return self._open_at(cursor, context)

    def fingerprint(self) -> list[str]:
        return [*super().fingerprint(), *chain.from_iterable(branch.fingerprint() for branch in self._branches)]

    @property
    def source(self) -> Stream[Any]:
        return self

    @property
    def stages(self) -> tuple[Stage[Any, Any], ...]:
        return ()


Upstream: TypeAlias = 'Callable[[Cursor, Context], Pairs[T]]'
OpenStage: TypeAlias = 'Callable[[Upstream[In], Cursor, Context], Pairs[Out]]'
NumberedStep: TypeAlias = 'tuple[Any, int]'


class Stage(Description, Generic[In_contra, Out_co]):
    """Turns a stream into another: ``open_on(upstream, cursor, context)`` gives its pairs.

    Called on any iterable, a stage gives an iterator of what it makes of it.

    Parameters
    ----------
    open_on
        Opens the stage on an upstream, itself a function from a cursor and a context to an iterator of pairs.
    seed
        Where the stage draws random numbers: what ``context.generators(seed)`` is asked with.
    reopens_upstream
        Whether the stage opens its upstream again after its end.
    replays
        Whether the stage resumes by starting again and skipping.
    keeps_structure
        Whether the stage hands on values as they are, or none.

    Examples
    --------
    >>> def open_on(upstream, cursor, context):
    ...     return ((value + 1, cursor) for value, cursor in upstream(cursor, context))
    >>> list(Stage(open_on)([1, 2, 3]))
    [2, 3, 4]
    """

    def __init__(
        self,
        open_on: OpenStage[In_contra, Out_co],
        *,
        seed: int | None = None,
        reopens_upstream: bool = False,
        replays: bool = False,
        keeps_structure: bool = False,
    ):
        self.open_on = open_on
        self.seed = seed
        self.reopens_upstream = reopens_upstream
        self.replays = replays
        self.keeps_structure = keeps_structure

    @property
    def steps(self) -> tuple[Stage[Any, Any], ...]:
        """The stages that this one stands for: several, for some."""
        return (self,)

    def __call__(self, iterable: Iterable[In_contra]) -> Iterator[Out_co]:
        return iter(Pipeline(source_of(iterable), (self,)))


class Passing(Stage[Any, Any]):
    """A stage whose values are values of its upstream."""

    if TYPE_CHECKING:  # what T is, the stream decides that the stage meets

        def __call__(self, iterable: Iterable[T]) -> Iterator[T]: ...


class Each(Stage[In_contra, Out_co]):
    """A stage that makes one value of each: ``function(value)``, or ``function(value, rng=generator)`` with a seed.

    Neighbours of this kind are run together, as one function.
    """

    def __init__(self, function: Callable[..., Out_co], *, seed: int | None = None):
        super().__init__(self._open_alone, seed=seed)
        self.function = function

    def _open_alone(self, upstream: Upstream[In_contra], cursor: Cursor, context: Context) -> Pairs[Out_co]:
        return _open_each([(self, context.ordinal)], upstream, cursor, context)


class Composed(Stage[In_contra, Out_co]):
    """Several stages that stand in a pipeline as one."""

    def __init__(self, stages: Iterable[Stage[Any, Any]]):
        self._steps = tuple(chain.from_iterable(stage.steps for stage in stages))
        super().__init__(_open_composed)

    @property
    def steps(self) -> tuple[Stage[Any, Any], ...]:
        return self._steps


class SubPipeline(Stage[In_contra, Out_co]):
    """A pipeline without a source. A pipeline that it is put into takes its stages one by one."""

    def __init__(self, stages: Sequence[Stage[Any, Any]]):
        super().__init__(_open_composed)
        self.stages = flat(stages)
        self._call = Call(SubPipeline, (self.stages,), {})

    def __repr__(self) -> str:
        return call_code('pipeline', self.stages, {})


class Foreign(Stage[In_contra, Out_co]):
    """Any function from an iterable to an iterator, as a stage. Its cursor is the number of values it has yielded."""

    def __init__(self, function: Callable[[Iterable[In_contra]], Iterable[Out_co]]):
        super().__init__(self._open, replays=True)
        self.function = function
        self._call = Call(Foreign, (function,), {})

    def _open(self, upstream: Upstream[In_contra], cursor: Cursor, context: Context) -> Pairs[Out_co]:
        def made() -> Iterator[Out_co]:
            values = self.function(map(itemgetter(0), upstream(START, context)))
            if not isinstance(values, Iterable):
                raise TypeError(
                    f'expected a stage, got {self!r}, which gives {code(values)}; did you mean apply({self!r})?'
                )
            return iter(values)

        return numbered(made, index_of(cursor, self))

    def __repr__(self) -> str:
        return code(self.function)


class Pipeline(Stream[Out_co]):
    """A source fed through stages. Made by ``pipeline(source, *stages)``; immutable, picklable, comparable.

    Examples
    --------
    >>> from pipekit import apply, pipeline
    >>> lengths = pipeline(['a', 'bc'], apply(len))
    >>> list(lengths), list(lengths), lengths == pipeline(['a', 'bc'], apply(len))
    ([1, 2], [1, 2], True)
    >>> lengths
    pipeline(['a', 'bc'], apply(len))
    """

    def __init__(self, source: Stream[Any], stages: Sequence[Stage[Any, Any]]):
        self._source = source
        self._stages = flat(stages)
        self._steps = tuple(chain.from_iterable(stage.steps for stage in self._stages))
        self.seeds = source.seeds + tuple(step.seed for step in self._steps if step.seed is not None)
        self.reopens = source.reopens
        for stage in self._stages:
            if stage.reopens_upstream and not source.reopens:
                raise NotResumable(f'{stage!r} opens its source again, which {_once(source)}')

    @property
    def source(self) -> Stream[Any]:
        return self._source

    @property
    def stages(self) -> tuple[Stage[Any, Any], ...]:
        return self._stages

    def open(self, cursor: Cursor, context: Context) -> Pairs[Out_co]:
        met = Counter(self._source.seeds)
        upstream: Upstream[Any] = partial(_open_source, self._source)
        for fusible, group in groupby(self._steps, lambda step: context.fused and isinstance(step, Each)):
            steps = [(step, _ordinal(step, met)) for step in group]
            upstream = partial(_open_each, steps, upstream) if fusible else reduce(_link, steps, upstream)
        return upstream(cursor, context)

    def __repr__(self) -> str:
        return call_code('pipeline', (self._source, *self._stages), {})

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Pipeline):
            return NotImplemented
        return (self._source, self._stages) == (other._source, other._stages)

    def __hash__(self) -> int:
        return hash((self._source, self._stages))

    def __reduce__(self) -> tuple[Any, ...]:
        return Pipeline, (self._source, self._stages)


def cursor_of(value: Any) -> Cursor:
    """A cursor as it was before a trip through JSON, which makes lists of tuples.

    Examples
    --------
    >>> cursor_of([3, [1, 2]])
    (3, (1, 2))
    """
    if isinstance(value, list | tuple):
        return tuple(cursor_of(part) for part in value)
    if type(value) is not int or value < 0:
        raise ValueError(f'a cursor is a non-negative int or nested tuples of them, got {code(value)}')
    return value


def index_of(cursor: Cursor, owner: object, length: int | None = None) -> int:
    """A cursor that counts values, checked.

    Examples
    --------
    >>> index_of(7, owner='abc', length=3)
    Traceback (most recent call last):
    ValueError: the cursor 7 is not one of 'abc', which has 3 values
    """
    if not isinstance(cursor, int):
        raise ValueError(f'the cursor {cursor!r} is not one of {code(owner)}, whose cursors are ints')
    if length is not None and cursor > length:
        raise ValueError(f'the cursor {cursor!r} is not one of {code(owner)}, which has {length} values')
    return cursor


def parts_of(cursor: Cursor, kinds: Sequence[type | None], owner: object) -> tuple[Any, ...]:
    """The parts of a cursor that is a tuple, checked: an ``int``, a ``tuple`` or ``None`` for any. Zeros at the start.

    Examples
    --------
    >>> parts_of((3, (1, 2)), [int, None], owner='take(9)'), parts_of(START, [int, None], owner='take(9)')
    ((3, (1, 2)), (0, 0))
    """
    if cursor == START and isinstance(cursor, int):
        return tuple(() if kind is tuple else START for kind in kinds)
    if isinstance(cursor, tuple) and len(cursor) == len(kinds):
        fits = [kind is None or isinstance(part, kind) for part, kind in zip(cursor, kinds, strict=True)]
        if all(fits):
            return cursor
    raise ValueError(f'the cursor {cursor!r} is not one of {code(owner)}, whose cursors are tuples of {len(kinds)}')


def numbered(make: Callable[[], Iterable[T]], done: int) -> Pairs[T]:
    """The values of an iterable after the first ``done``, each with its number.

    Examples
    --------
    >>> list(numbered(lambda: 'abc', 1))
    [('b', 2), ('c', 3)]
    """
    iterator = iter(make())
    skipped = sum(1 for _ in islice(iterator, done))
    if skipped < done:
        raise ValueError(f'the cursor {done} lies behind the end, after {skipped} values')
    yield from map(lambda value, number: (value, number), iterator, count(done + 1))


def counted(number: int, pair: Pair[T]) -> Pair[T]:
    """A pair whose cursor has a number before it.

    Examples
    --------
    >>> counted(3, ('a', 7))
    ('a', (3, 7))
    """
    return pair[0], (number, pair[1])


def passes(upstream: Upstream[T], number: int, before: Cursor, context: Context) -> Iterator[Pairs[T]]:
    """The pairs of one pass after another, from a cursor in a pass on, up to a pass that has none.

    Examples
    --------
    >>> from itertools import islice
    >>> [list(pairs) for pairs in islice(passes(source_of('ab').open, 3, 1, Context()), 2)]
    [[('b', (3, 2))], [('a', (4, 1)), ('b', (4, 2))]]
    """
    return _passes(upstream, number, before, context, upstream(before, context.in_pass(number)))


def _passes(
    upstream: Upstream[T], number: int, before: Cursor, context: Context, pairs: Pairs[T]
) -> Iterator[Pairs[T]]:
    while True:
        tagged = map(partial(counted, number), pairs)
        first = list(islice(tagged, 1))
        if not first and before == START:
            return
        yield _popped_then(first, tagged)
        number, before = number + 1, START
        pairs = upstream(START, context.in_pass(number))


def _popped_then(first: list[Pair[T]], others: Pairs[T]) -> Pairs[T]:
    while first:
        yield first.pop()
    yield from others


def source_of(iterable: Any) -> Stream[Any]:
    """The stream of anything that can be iterated over, or of a function that returns such.

    Examples
    --------
    >>> list(source_of('abc')), list(source_of(lambda: iter('abc')))
    (['a', 'b', 'c'], ['a', 'b', 'c'])
    """
    if isinstance(iterable, Stream):
        return iterable
    if isinstance(iterable, StreamIterator):
        return _continued(iterable.stream, iterable.cursor)
    if isinstance(iterable, Stage):
        raise TypeError(f'expected a source, got the stage {iterable!r}; did you mean pipeline(source, {iterable!r})?')
    source = _wrapped(iterable)
    source._call = Call(source_of, (iterable,), {})
    return source


class _Wrapped(Source[Out_co]):
    def __repr__(self) -> str:
        return code(self._call.args[0])


def _wrapped(iterable: Any) -> Source[Any]:
    if isinstance(iterable, Iterator):
        return _once_only(iterable)
    if is_sequence(iterable):
        return _Wrapped(partial(_open_sequence, iterable))
    if isinstance(iterable, Iterable) and getattr(iterable, 'ndim', 1) != 0:
        return _Wrapped(lambda cursor, _: numbered(lambda: iterable, index_of(cursor, iterable)), replays=True)
    if callable(iterable) and not isinstance(iterable, type):
        return _Wrapped(lambda cursor, _: numbered(iterable, index_of(cursor, iterable)), replays=True)
    raise TypeError(
        f'expected a source, got {code(iterable)}; a source is a sequence, an iterable, an iterator, '
        'or a function without arguments that returns one'
    )


def is_sequence(value: object) -> bool:
    """Whether something has ``len`` and ``[]`` and is no mapping.

    Examples
    --------
    >>> is_sequence([1]), is_sequence({1: 2}), is_sequence({1})
    (True, False, False)
    """
    if isinstance(value, type) or hasattr(value, 'keys') or not hasattr(value, '__getitem__'):
        return False
    try:
        len(value)  # type: ignore[arg-type]
    except TypeError:  # an array without axes has the method, and raises
        return False
    return True


def _open_sequence(sequence: Any, cursor: Cursor, context: Context) -> Pairs[Any]:
    start = index_of(cursor, sequence, len(sequence))
    return ((sequence[index], index + 1) for index in range(start, len(sequence)))


def _once_only(iterator: Iterator[T]) -> Source[T]:
    unopened = [iterator]

    def open_at(cursor: Cursor, context: Context) -> Pairs[T]:
        if cursor != START or not unopened:
            raise NotResumable(f'the source {_once(source)}')
        values = unopened.pop()
        return numbered(lambda: values, 0)

    source: Source[T] = _Wrapped(open_at, reopens=False)
    return source


def _once(source: Stream[Any]) -> str:
    return (
        f'{source!r} is an iterator and can be opened only once; '
        'pass a sequence, or a function without arguments that makes a new iterator'
    )


def _continued(stream: Stream[T], start: Cursor) -> Stream[T]:
    if start == START:
        return stream

    def open_at(cursor: Cursor, context: Context) -> Pairs[T]:
        return stream.open(start if cursor == START else cursor, context)

    source: Source[T] = _Continued(open_at, seeds=stream.seeds, reopens=stream.reopens)
    source._call = Call(_continued, (stream, start), {})
    return source


class _Continued(Source[Out_co]):
    def __repr__(self) -> str:
        stream, start = self._call.args
        return f'{stream!r}.resume({start!r})'

    def fingerprint(self) -> list[str]:
        stream, start = self._call.args
        return [*stream.fingerprint(), f'resumed at {start!r}']


def _ordinal(step: Stage[Any, Any], met: Counter[int]) -> int:
    if step.seed is None:
        return 0
    met[step.seed] += 1
    return met[step.seed] - 1


def _link(upstream: Upstream[Any], numbered_step: NumberedStep) -> Upstream[Any]:
    step, ordinal = numbered_step
    return lambda cursor, context: step.open_on(upstream, cursor, context._replace(ordinal=ordinal))


def _open_source(source: Stream[Any], cursor: Cursor, context: Context) -> Pairs[Any]:
    return source.open(cursor, context._replace(ordinal=0))


def _open_each(steps: Sequence[NumberedStep], upstream: Upstream[Any], cursor: Cursor, context: Context) -> Pairs[Any]:
    # A map of a function of pairs, unlike a generator's loop, holds no value while its consumer works.
    return map(_function_of_pairs(steps, context), upstream(cursor, context))


def _function_of_pairs(steps: Sequence[NumberedStep], context: Context) -> Callable[[Pair[Any]], Pair[Any]]:
    if any(step.seed is not None for step, _ in steps):
        functions = [_with_cursor(step, context._replace(ordinal=ordinal)) for step, ordinal in steps]

        def random(pair: Pair[Any]) -> Pair[Any]:
            value, cursor = pair
            try:
                for function in functions:
                    value = function(value, cursor)
            except StopIteration as error:
                raise RuntimeError(STRAY_STOP) from error
            return value, cursor

        return random

    plain_functions = [step.function for step, _ in steps]

    def plain(pair: Pair[Any]) -> Pair[Any]:
        value, cursor = pair
        try:
            for function in plain_functions:
                value = function(value)
        except StopIteration as error:
            raise RuntimeError(STRAY_STOP) from error
        return value, cursor

    return plain


def _with_cursor(step: Each[Any, Any], context: Context) -> Callable[[Any, Cursor], Any]:
    function = step.function
    if step.seed is None:
        return lambda value, cursor: function(value)
    generators = context.generators(step.seed)
    return lambda value, cursor: function(value, rng=generators.at(cursor))


def _open_composed(upstream: Any, cursor: Cursor, context: Context) -> Any:
    raise TypeError('a composed stage is opened step by step, by the pipeline that it is in')


def flat(stages: Iterable[Stage[Any, Any]]) -> tuple[Stage[Any, Any], ...]:
    """The stages, those of sub-pipelines one by one.

    Examples
    --------
    >>> from pipekit import flatten, pipeline, take
    >>> flat([pipeline(take(3), flatten()), take(2)])
    (take(3), flatten(), take(2))
    """
    return tuple(chain.from_iterable(stage.stages if isinstance(stage, SubPipeline) else [stage] for stage in stages))


def _table(stream: Stream[Any]) -> Table:
    found: list[str | None] = []

    def tap() -> Stage[Any, Any]:
        number = len(found)
        found.append(None)

        def record(pair: Pair[Any]) -> Pair[Any]:
            if found[number] is None:
                found[number] = structure(pair[0])
            return pair

        return Stage(lambda upstream, cursor, context: map(record, upstream(cursor, context)))

    tapped = [tap()]
    for stage in stream.stages:
        # What hands on its values needs no look at them: a shuffle would load its whole window for it.
        tapped += [Passing(_open_upstream)] if stage.keeps_structure else [stage]
        tapped += [tap()]
    if stream.reopens:
        try:
            next(iter(Pipeline(stream.source, tapped)), None)
        except Exception as error:
            found[found.index(None)] = f'raises {type(error).__name__}: {error}'
    parts: list[Any] = [stream.source, *stream.stages]
    unknown = 'nothing' if stream.reopens else 'unknown: an iterator is not read ahead of its use'
    rows = [[code(part), what or unknown] for part, what in zip(parts, found, strict=True)]
    replays = [f'{code(part)} resumes by replay: from the beginning, skipping' for part in parts if part.replays]
    return Table(['stage', 'first value'], rows, notes=replays)


def _open_upstream(upstream: Upstream[T], cursor: Cursor, context: Context) -> Pairs[T]:
    return upstream(cursor, context)
