"""Stages, which turn a stream into another, and the pipeline of a source and stages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from itertools import chain, islice, takewhile
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeAlias

from more_itertools import chunked

from ..describing.descriptions import Description, FactoryCall
from ..describing.display import call_code, code, ordinal
from ..errors import NotResumable
from ..memory.blocks import allocating_from
from ..streams.cursors import START, Cursor, Pair, Pairs, enumerate_from, index_of
from ..streams.error_notes import UNKNOWN, StageLocation
from ..streams.failures import Failures
from ..streams.iterables import opened_once, source_of
from ..streams.metering import OFF
from ..streams.on_error import OnError, may_skip
from ..streams.stream import Context, In, In_contra, Out, Out_co, Stream, T, Upstream
from ..workers.kinds import Processes, Workers
from .gathering import IndexChunk, counted_chunks, index_chunk, open_gathered
from .indices import IndexStream, gather_of
from .tasks import BatchTask, Call, PendingBatch, Task, function_of_parts, with_previous_cursor

OpenStage: TypeAlias = Callable[[Upstream[In], Cursor, Context], Pairs[Out]]


class PlacedOperation(NamedTuple):
    """A stage in a pipeline: the how-manieth with its seed it is, and where it stands."""

    stage: Any
    ordinal: int
    place: StageLocation


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
    keeps_cursors
        Whether the stage hands on cursors of its upstream as they are, so that it may be opened at any of them.

    Examples
    --------
    >>> def open_on(upstream, cursor, context):
    ...     return map(lambda pair: (pair[0] + 1, pair[1]), upstream(cursor, context))
    >>> list(Stage(open_on)([1, 2, 3]))
    [2, 3, 4]
    """

    skips = False  # whether it may skip or replace samples that its function fails on

    def __init__(
        self,
        open_on: OpenStage[In_contra, Out_co],
        *,
        seed: int | None = None,
        reopens_upstream: bool = False,
        replays: bool = False,
        keeps_structure: bool = False,
        keeps_cursors: bool = False,
    ):
        self._open_on = open_on
        options = {
            'seed': seed,
            'reopens_upstream': reopens_upstream,
            'replays': replays,
            'keeps_structure': keeps_structure,
            'keeps_cursors': keeps_cursors,
        }
        given = {name: value for name, value in options.items() if value is not None and value is not False}
        self._call = FactoryCall(Stage, (open_on,), given)  # until a factory marked as described says better
        self.seed = seed
        self.reopens_upstream = reopens_upstream
        self.replays = replays
        self.keeps_structure = keeps_structure
        self.keeps_cursors = keeps_cursors

    def open_on(self, upstream: Upstream[Any], cursor: Cursor, context: Context) -> Pairs[Out_co]:
        """The pairs that the stage makes of those of its upstream."""
        return self._open_on(upstream, cursor, context)

    @property
    def steps(self) -> tuple[Stage[Any, Any], ...]:
        """The stages that this one stands for: several, for some."""
        return (self,)

    def __call__(self, iterable: Iterable[In_contra]) -> Iterator[Out_co]:
        """An iterator of what the stage makes of an iterable.

        An iterator over a pipeline is taken as the pipeline, from where it is: it stays where it is itself.
        """
        return iter(Pipeline(source_of(iterable), (self,)))


class Passing(Stage[Any, Any]):
    """A stage whose values are values of its upstream."""

    if TYPE_CHECKING:  # what T is, the stream decides that the stage meets

        def __call__(self, iterable: Iterable[T]) -> Iterator[T]: ...


class Blind(Passing):
    """A stage that does not look at the values that it hands on: it does the same to their indices."""


class Map(Stage[In_contra, Out_co]):
    """A stage that makes one value of each: ``function(value)``, or ``function(value, rng=generator)`` with a seed.

    Neighbours of this kind with the same workers are run together, as one function. What ``combines`` may write large
    batches into memory that was used before.
    """

    def __init__(
        self,
        function: Callable[..., Out_co],
        *,
        seed: int | None = None,
        workers: Workers | None = None,
        on_error: tuple[OnError, ...] = (),
        combines: bool = False,
    ):
        super().__init__(_open_otherwise, seed=seed, keeps_cursors=True)
        self.combines = combines
        self.function = function
        self.workers = workers
        self.on_error = on_error
        self.skips = may_skip(on_error)

    def open_on(self, upstream: Upstream[Any], cursor: Cursor, context: Context) -> Pairs[Out_co]:
        return _open_each([PlacedOperation(self, context.ordinal, context.place or UNKNOWN)], upstream, cursor, context)


class Chunk(Stage[Any, Any]):
    """A stage that makes lists of so many values, without a look at them."""

    def __init__(self, size: int, drop_last: bool):
        super().__init__(_open_otherwise, keeps_cursors=True)
        self.size = size
        self.drop_last = drop_last

    def open_on(self, upstream: Upstream[Any], cursor: Cursor, context: Context) -> Pairs[list[Any]]:
        chunks = map(_turned, chunked(upstream(cursor, context), self.size))
        return filter(lambda chunk: len(chunk[0]) == self.size, chunks) if self.drop_last else chunks

    def chunks(self, pairs: Pairs[Any], start: Cursor) -> Iterator[PendingBatch]:
        """The pairs themselves in chunks. The one that is dropped, or that an error ends, is among them."""
        ends: list[BaseException] = []
        while not ends:
            chunk: list[Pair[Any]] = []
            try:
                chunk.extend(islice(pairs, self.size))
            except BaseException as error:  # what comes before an error may hold another one, which comes first
                ends.append(error)
            if len(chunk) < self.size:
                ends.append(StopIteration())
            if chunk:
                is_whole = len(chunk) == self.size or (len(ends) == 1 and not self.drop_last)
                before, start = start, chunk[-1][1]
                yield PendingBatch(chunk, before, is_whole)
        if not isinstance(ends[0], StopIteration):
            raise ends.pop(0)


class Composed(Stage[In_contra, Out_co]):
    """Several stages that stand in a pipeline as one."""

    def __init__(self, stages: Iterable[Stage[Any, Any]]):
        self._steps = tuple(chain.from_iterable(stage.steps for stage in stages))
        super().__init__(_open_otherwise)

    @property
    def steps(self) -> tuple[Stage[Any, Any], ...]:
        return self._steps


class SubPipeline(Stage[In_contra, Out_co]):
    """A pipeline without a source. A pipeline that it is put into takes its stages one by one."""

    def __init__(self, stages: Sequence[Stage[Any, Any]]):
        super().__init__(_open_otherwise)
        self.stages = flat(stages)
        self._call = FactoryCall(SubPipeline, (self.stages,), {})

    def __reduce__(self) -> tuple[Any, ...]:
        return SubPipeline, (self.stages,)

    def __repr__(self) -> str:
        return call_code('pipeline', self.stages, {})


class IterableStage(Stage[In_contra, Out_co]):
    """Any function from an iterable to an iterator, as a stage. Its cursor is the number of values it has yielded."""

    def __init__(self, function: Callable[[Iterable[In_contra]], Iterable[Out_co]]):
        super().__init__(_open_otherwise, replays=True)
        self.function = function
        self._call = FactoryCall(IterableStage, (function,), {})

    def open_on(self, upstream: Upstream[Any], cursor: Cursor, context: Context) -> Pairs[Out_co]:
        def made() -> Iterator[Out_co]:
            values = self.function(map(itemgetter(0), upstream(START, context)))
            if not isinstance(values, Iterable):
                raise TypeError(
                    f'expected a stage, got {self!r}, which gives {code(values)}; did you mean apply({self!r})?'
                )
            return iter(values)

        return enumerate_from(made, index_of(cursor, self))

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
                raise NotResumable(f'{stage!r} opens its source again, which {opened_once(code(source))}')

    @property
    def source(self) -> Stream[Any]:
        return self._source

    @property
    def stages(self) -> tuple[Stage[Any, Any], ...]:
        return self._stages

    def open(self, cursor: Cursor, context: Context) -> Pairs[Out_co]:
        source: Upstream[Any] = partial(_open_source, self._source, self._source_place)
        return _opened(source, self._placed, context, self._source._deferred)(cursor, context)

    @property
    def _deferred(self) -> IndexStream | None:  # type: ignore[override]
        indices = self._source._deferred
        if indices is None or not all(isinstance(step.stage, Blind) for step in self._placed):
            return None

        def open_at(cursor: Cursor, context: Context) -> Pairs[int]:
            return _opened(partial(_open_indices, indices), self._placed, context)(cursor, context)

        return IndexStream(indices.sequence, open_at)

    @cached_property
    def _placed(self) -> list[PlacedOperation]:
        met = Counter(self._source.seeds)
        placed = []
        for number, stage in enumerate(self._stages, 2):
            place = self._place(number, stage)
            first, *others = stage.steps
            placed.append(PlacedOperation(first, _ordinal(first, met), place))
            placed += [PlacedOperation(step, _ordinal(step, met), place._replace(noun='batch')) for step in others]
        return placed

    @cached_property
    def _source_place(self) -> StageLocation:
        return self._place(1, self._source)

    def _place(self, number: int, part: Any) -> StageLocation:
        label = f'{" ".join(code(part).split())}, the {ordinal(number)} of {1 + len(self._stages)} stages'
        is_plain = all(step.keeps_cursors for stage in self._stages[number - 1 :] for step in stage.steps)
        return StageLocation(label, number, (), is_plain)

    def _watched(self, watch: Callable[[int, Pair[Any]], Pair[Any]]) -> Pairs[Any]:
        watched = [_watching(partial(watch, 0))]
        for number, stage in enumerate(self._stages, 1):
            # What hands on its values needs no look at them: a shuffle would load its whole window for it.
            watched += [] if stage.keeps_structure else [stage]
            watched += [_watching(partial(watch, number))]
        return Pipeline(self._source, watched).open(START, Context())

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

    def _up_to(self, stage: int) -> Pipeline[Any]:
        part: Pipeline[Any] = Pipeline(self._source, self._stages[: stage - 1])
        part._placed = [step for step in self._placed if step.place.number <= stage]  # named as in the whole
        return part


def flat(stages: Iterable[Stage[Any, Any]]) -> tuple[Stage[Any, Any], ...]:
    """The stages, those of sub-pipelines one by one.

    Examples
    --------
    >>> from pipekit import flatten, pipeline, take
    >>> flat([pipeline(take(3), flatten()), take(2)])
    (take(3), flatten(), take(2))
    """
    return tuple(chain.from_iterable(stage.stages if isinstance(stage, SubPipeline) else [stage] for stage in stages))


def _ordinal(step: Stage[Any, Any], met: Counter[int]) -> int:
    if step.seed is None:
        return 0
    met[step.seed] += 1
    return met[step.seed] - 1


def _open_source(source: Stream[Any], place: StageLocation, cursor: Cursor, context: Context) -> Pairs[Any]:
    place = place.at(context.key)
    return _watched_closely(source.open(cursor, context._replace(ordinal=0, place=place)), place, context)


def _open_indices(deferred: IndexStream, cursor: Cursor, context: Context) -> Pairs[int]:
    return deferred.open_at(cursor, context._replace(ordinal=0))


def _opened(
    upstream: Upstream[Any], steps: list[PlacedOperation], context: Context, deferred: IndexStream | None = None
) -> Upstream[Any]:
    if deferred is not None and context.fused:
        upstream, steps = _gathering(upstream, steps, context, deferred)
    while steps:
        opened, steps = _first_together(steps, context)
        upstream = partial(opened, upstream)
    return upstream


def _gathering(
    upstream: Upstream[Any], steps: list[PlacedOperation], context: Context, deferred: IndexStream
) -> tuple[Upstream[Any], list[PlacedOperation]]:
    """If batches can be made of indices, all at once, how to do so, and the steps after that."""
    n_blind = len(list(takewhile(lambda step: isinstance(step.stage, Blind), steps)))
    blind, chunks, combining = steps[:n_blind], steps[n_blind : n_blind + 1], steps[n_blind + 1 : n_blind + 2]
    if not combining or not isinstance(chunks[0].stage, Chunk) or combining[0].stage.workers is not None:
        return upstream, steps
    gather = gather_of(deferred.sequence, combining[0].stage.function)
    if gather is None:
        return upstream, steps
    if blind or deferred.indices_after is None:
        indices = _opened(partial(_open_indices, deferred), blind, context)
        chunks_at = partial(_open_index_chunks, chunks[0].stage, indices)
    else:
        chunks_at = partial(_open_counted_chunks, chunks[0].stage, deferred.indices_after)
    plain = _opened(upstream, steps[: n_blind + 2], context)
    return partial(open_gathered, chunks_at, plain, gather, combining[0].place), steps[n_blind + 2 :]


def _open_index_chunks(stage: Chunk, indices: Upstream[int], cursor: Cursor, context: Context) -> Iterator[IndexChunk]:
    return map(index_chunk, stage.chunks(indices(cursor, context), cursor))


def _open_counted_chunks(
    stage: Chunk, indices_after: Callable[..., Iterator[int]], cursor: Any, context: Context
) -> Iterator[IndexChunk]:
    indices = indices_after(cursor, context._replace(ordinal=0))
    return counted_chunks(indices, cursor, stage.size, drop_last=stage.drop_last)


def _first_together(
    steps: list[PlacedOperation], context: Context
) -> tuple[OpenStage[Any, Any], list[PlacedOperation]]:
    """How to open as many of the steps as can be run as one, and the others."""
    each, others = _neighbours(steps, context)
    if not each:
        return partial(_open_step, steps[0]), steps[1:]
    workers = each[0].stage.workers
    skips = context.forgives and any(step.stage.skips for step in each)
    # Where samples are skipped, what a batch is made of is not known beforehand.
    by_batch = isinstance(workers, Processes) and context.pools is not None and not skips
    if by_batch and others and isinstance(others[0].stage, Chunk):
        whole, rest = _neighbours(others[1:], context)
        if whole and whole[0].stage.workers is None:
            whole, rest = whole[:1], others[2:]  # what follows it has not asked for processes
        if whole and whole[0].stage.workers in (None, workers):
            return partial(_open_batches, each, others[0].stage, whole), rest
    return partial(_open_each, each), others


def _neighbours(steps: list[PlacedOperation], context: Context) -> tuple[list[PlacedOperation], list[PlacedOperation]]:
    if not steps or not isinstance(steps[0].stage, Map) or not context.fused:
        return [], steps
    workers = steps[0].stage.workers
    n = len(list(takewhile(lambda step: isinstance(step.stage, Map) and step.stage.workers == workers, steps)))
    return steps[:n], steps[n:]


def _open_step(step: PlacedOperation, upstream: Upstream[Any], cursor: Cursor, context: Context) -> Pairs[Any]:
    place = step.place.at(context.key)
    pairs = step.stage.open_on(upstream, cursor, context._replace(ordinal=step.ordinal, place=place))
    return _watched_closely(pairs, place, context)


def _watched_closely(pairs: Pairs[Any], place: StageLocation, context: Context) -> Pairs[Any]:
    return context.meter.watched(pairs, place.path) if context.meter is not None and context.meter.is_exact else pairs


def _open_each(
    steps: Sequence[PlacedOperation], upstream: Upstream[Any], cursor: Cursor, context: Context
) -> Pairs[Any]:
    pairs = upstream(cursor, context)
    parts = _parts(steps, context)
    workers = steps[0].stage.workers
    memory = context.memory if steps[0].stage.combines else None
    # A map, unlike a generator's loop, holds no value while its consumer works.
    if workers is not None and context.pools is not None:
        task = Task(parts, context.key, is_measured=context.meter is not None)
        task.pause, task.memory = context.pools.pause, memory
        made = _worked(workers, task, with_previous_cursor(pairs, cursor), context)
    else:
        pause = None if context.pools is None else context.pools.pause
        function = function_of_parts(parts, context.key, cursor, context.meter or OFF, pause)
        made = map(function if memory is None else allocating_from(memory, function), pairs)
    if any(part.skips for part in parts):
        failures = Failures() if context.failures is None else context.failures
        return filter(None, map(failures.settled, made))
    return made


def _open_batches(
    each: Sequence[PlacedOperation],
    chunks: Chunk,
    whole: Sequence[PlacedOperation],
    upstream: Upstream[Any],
    cursor: Cursor,
    context: Context,
) -> Pairs[Any]:
    is_measured = context.meter is not None
    one = Task(_parts(each, context), context.key, is_measured=is_measured)
    task = BatchTask(one, Task(_parts(whole, context), context.key, is_measured=is_measured))
    made = _worked(each[0].stage.workers, task, chunks.chunks(upstream(cursor, context), cursor), context)
    return filter(None, made)  # there is none of a chunk that is not whole


def _worked(workers: Workers, task: Task | BatchTask, items: Iterator[Any], context: Context) -> Iterator[Any]:
    assert context.pools is not None
    made = context.pools.map(workers, task, items)
    return made if context.meter is None else map(context.meter.unpacked, made)


def _parts(steps: Sequence[PlacedOperation], context: Context) -> list[Call]:
    return [
        Call(stage.function, stage.seed, ordinal, place, stage.on_error if context.forgives else ())
        for stage, ordinal, place in steps
    ]


def _turned(pairs: list[Pair[Any]]) -> Pair[list[Any]]:
    return [value for value, _ in pairs], pairs[-1][1]


def _open_otherwise(upstream: Any, cursor: Cursor, context: Context) -> Any:
    raise TypeError('this stage is opened by a method of its own, or step by step, by the pipeline that it is in')


def _watching(watch: Callable[[Pair[Any]], Pair[Any]]) -> Stage[Any, Any]:
    return Stage(lambda upstream, cursor, context: map(watch, upstream(cursor, context)))
