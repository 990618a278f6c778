"""Stages, which turn one stream into another, and pipelines, which are a source fed through stages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Generic, Self

from more_itertools import first, flatten
from toolz import valfilter

from ..describing.descriptions import Description, FactoryCall
from ..describing.display import call_code, code
from ..errors import NotResumable
from ..streams.context import ALONE, Context, Upstream
from ..streams.cursors import START, Cursor, In_contra, Out_co, Pairs, T, checked_index, enumerate_from
from ..streams.error_notes import StageLocation
from ..streams.index_stream import IndexStream
from ..streams.iterables import single_use_message, source_of
from ..streams.stream import Stream
from ..workers.kinds import Workers
from .fusion import map_groups, plan
from .operations import Custom, Map, OpenStage, Operation, PlacedOperation, place_operations
from .running import open_index_pipeline, open_pipeline
from .shares import check_shares, computed_on_every_rank, share_of


class Stage(Description, Generic[In_contra, Out_co]):
    """Turns one stream into another: ``open_on(upstream, cursor, context)`` returns its pairs of a value and a cursor.

    Called on an iterable, a stage returns an iterator over the values that it makes of it.

    Parameters
    ----------
    open_on
        Opens the stage on its upstream, which is itself a function of a cursor and a context that returns pairs.
    seed
        If the stage draws random numbers: the seed that it passes to ``context.generators(seed)``.
    reopens_upstream
        Whether the stage opens its upstream again when it has ended.
    replays
        Whether the stage resumes by starting from the beginning and skipping values.
    keeps_structure
        Whether all values are values of the upstream, unchanged.
    keeps_cursors
        Whether all cursors are cursors of the upstream, unchanged, so that the stage opens at any of those.

    Examples
    --------
    >>> def open_on(upstream, cursor, context):
    ...     return map(lambda pair: (pair[0] + 1, pair[1]), upstream(cursor, context))
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
        keeps_cursors: bool = False,
    ):
        options = {
            'seed': seed,
            'reopens_upstream': reopens_upstream,
            'replays': replays,
            'keeps_structure': keeps_structure,
            'keeps_cursors': keeps_cursors,
        }
        given: dict[str, Any] = valfilter(lambda option: option is not None and option is not False, options)
        self._set_operations([Custom(open_on, **given)])
        self._call = FactoryCall(Stage, (open_on,), given)  # replaced by a factory that is marked with described

    @classmethod
    def from_operations(cls, *operations: Operation) -> Self:
        """A stage that consists of these operations, for a factory that is marked with ``described``."""
        stage = cls.__new__(cls)
        stage._set_operations(operations)
        return stage

    def _set_operations(self, operations: Sequence[Operation]) -> None:
        self.operations = tuple(operations)
        self.seed = first((each.seed for each in operations if each.seed is not None), None)

    _stages: tuple[Stage[Any, Any], ...] = ()

    @property
    def stages(self) -> tuple[Stage[Any, Any], ...]:
        """The stages that it consists of: itself, unless it is several as one."""
        return self._stages or (self,)

    @property
    def replays(self) -> bool:
        """Whether it resumes by starting from the beginning and skipping values."""
        return any(each.replays for each in self.operations)

    @property
    def keeps_structure(self) -> bool:
        """Whether all its values are values of its upstream, unchanged."""
        return all(each.keeps_structure for each in self.operations)

    @property
    def skips(self) -> bool:
        """Whether it may skip or replace samples on which its function fails."""
        return any(each.skips for each in self.operations)

    @property
    def calls_function(self) -> bool:
        """Whether it calls a function on each value."""
        return any(isinstance(each, Map) for each in self.operations)

    @property
    def workers(self) -> Workers | None:
        """The workers that its function runs in."""
        return first((each.workers for each in reversed(self.operations) if isinstance(each, Map)), None)

    def __call__(self, iterable: Iterable[In_contra]) -> Iterator[Out_co]:
        """Iterate over the values that the stage makes of an iterable.

        An iterator over a pipeline stands for the rest of that pipeline, and is not advanced itself.
        """
        source = source_of(iterable)
        return iter(Pipeline(source.source, (*source.stages, self)))


if TYPE_CHECKING:

    class SameType(Stage[Any, Any]):
        """A stage whose values have the type of its upstream's."""

        def __call__(self, iterable: Iterable[T]) -> Iterator[T]: ...

else:
    SameType = Stage


class IterableStage(Stage[In_contra, Out_co]):
    """Any function from an iterable to an iterator, as a stage. Its cursor is the number of values it has yielded."""

    def __init__(self, function: Callable[[Iterable[In_contra]], Iterable[Out_co]]):
        self.function = function
        self._set_operations([Custom(self._open, replays=True)])
        self._call = FactoryCall(IterableStage, (function,), {})

    def _open(self, upstream: Upstream[Any], cursor: Cursor, context: Context) -> Pairs[Out_co]:
        def values_from_start() -> Iterator[Out_co]:
            values = self.function(map(itemgetter(0), upstream(START, context)))
            if not isinstance(values, Iterable):
                raise TypeError(
                    f'expected a stage, got {self!r}, which returns {code(values)}; did you mean apply({self!r})?'
                )
            return iter(values)

        return enumerate_from(values_from_start, checked_index(cursor, self))

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
        self._stages = tuple(flatten(stage.stages for stage in stages))
        operations = [each for stage in self._stages for each in stage.operations]
        self.seeds = source.seeds + tuple(each.seed for each in operations if each.seed is not None)
        self.reopens = source.reopens
        for stage in self._stages:
            if not source.reopens and any(each.reopens_upstream for each in stage.operations):
                raise NotResumable(f'{stage!r} opens its source again, which {single_use_message(code(source))}')
        self.share = share_of(source, operations)
        if self.share is not None:
            check_shares(source, self._stages)

    @property
    def source(self) -> Stream[Any]:
        return self._source

    @property
    def stages(self) -> tuple[Stage[Any, Any], ...]:
        return self._stages

    def open(self, cursor: Cursor, context: Context) -> Pairs[Out_co]:
        return open_pipeline(self._source, self._place(1), self._operations, cursor, context)

    @cached_property
    def indices(self) -> IndexStream | None:  # type: ignore[override]
        indices = self._source.indices
        reorders = all(isinstance(each.operation, Custom) and each.operation.reorders for each in self._operations)
        if indices is None or not reorders:
            return None
        return IndexStream(indices.sequence, partial(open_index_pipeline, indices, self._operations))

    @cached_property
    def _operations(self) -> list[PlacedOperation]:
        operations: list[tuple[Operation, StageLocation]] = []
        for number, stage in enumerate(self._stages, 2):
            place = self._place(number)
            nouns = ['sample'] + ['batch'] * (len(stage.operations) - 1)
            operations += [
                (each, place._replace(noun=noun)) for each, noun in zip(stage.operations, nouns, strict=True)
            ]
        return place_operations(operations, self._source.seeds, self._source.share)

    @property
    def maps_with_workers(self) -> Iterator[tuple[PlacedOperation, Workers | None]]:  # type: ignore[override]
        """The maps, each with the workers that it runs in under ``prefetch``; not those of the branches."""
        for maps in flatten(map(map_groups, plan(self._operations, has_workers=True))):
            yield from ((each, maps[0].operation.workers) for each in maps)

    def _place(self, number: int) -> StageLocation:
        parts = [self._source, *self._stages]
        shares_cursors = all(each.keeps_cursors for stage in self._stages[number - 1 :] for each in stage.operations)
        return StageLocation(parts[number - 1], number, len(parts), shares_cursors=shares_cursors)

    @property
    def length(self) -> float | None:  # type: ignore[override]
        n = self._source.length
        for each in self._operations:
            n = None if n is None else each.operation.length_of(n)
        return n

    @property
    def on_every_rank(self) -> list[Any]:  # type: ignore[override]
        return [] if self._source.share is not None else computed_on_every_rank(self._source, self._stages)

    def _open_observed(self, observe: Callable[[int, Any], Any]) -> Pairs[Any]:
        observed = [_observing_stage(partial(observe, 0))]
        for number, stage in enumerate(self._stages, 1):
            # A stage that keeps the structure is left out: a shuffle would load its whole window for one value.
            observed += [] if stage.keeps_structure else [stage]
            observed += [_observing_stage(partial(observe, number))]
        return Pipeline(self._source, observed).open(START, ALONE)

    def as_saved(self) -> Pipeline[Out_co]:
        """The pipeline without what a saved state does not name."""
        return Pipeline(self._source.as_saved(), [stage.as_saved() for stage in self._stages])

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

    def _truncated(self, stage: int | None) -> Pipeline[Any]:
        last = 1 + len(self._stages) if stage is None else stage
        part: Pipeline[Any] = Pipeline(self._source, self._stages[: last - 1])
        # Placed in the whole pipeline, so that errors and randomness are the same as there.
        part._operations = [_without_on_error(each) if each.place.number == last else each for each in self._operations]
        part._operations = [each for each in part._operations if each.place.number <= last]
        return part


def join_stages(stages: Sequence[Stage[Any, Any]]) -> Stage[Any, Any]:
    """Several stages as one, which a pipeline takes apart again."""
    joined: Stage[Any, Any] = Stage.from_operations(*flatten(stage.operations for stage in stages))
    joined._stages = tuple(flatten(stage.stages for stage in stages))
    return joined


def _without_on_error(each: PlacedOperation) -> PlacedOperation:
    operation = each.operation
    return each._replace(operation=replace(operation, on_error=())) if isinstance(operation, Map) else each


def _observing_stage(observe: Callable[[Any], Any]) -> Stage[Any, Any]:
    return Stage.from_operations(Map(observe))
