"""The types of ``combine_batches(n)``, for type checkers only: nothing here runs.

The overloads of ``Stacking`` are a table from the type of a sample to the type of a batch. pyright looks it up at the
stage. mypy does not resolve overloads while it infers the type of a pipeline, and takes the last one: a batch is a
``Stacked[Sample]``, which any later stage accepts, and which is resolved when the pipeline is iterated over.
"""

# mypy: disable-error-code="overload-overlap"
# pyright: reportOverlappingOverload=false

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, final, overload

import numpy.typing as npt

from .cursors import Cursor

K = TypeVar('K')
S = TypeVar('S')
S_co = TypeVar('S_co', covariant=True)
Array: TypeAlias = npt.NDArray[Any]

class HasArray(Protocol):
    """Arrays, and values that numpy converts to arrays: numpy scalars, torch tensors."""

    def __array__(self) -> Array: ...

Field: TypeAlias = HasArray | complex | str | list[Any]

@final
class Untyped:
    """Matched by ``Any`` alone, as no value is an instance. Its overload comes first: ``Any`` matches the first one."""

class Stacked(Any, Generic[S_co]):  # type: ignore[misc]
    """A batch of arrays, stacked from samples of type ``S_co``."""

class Stacking(Protocol):
    """A stage from samples to batches of arrays with the structure of a sample."""

    @overload
    def __call__(self, iterable: Iterable[Untyped], /) -> Iterator[Any]: ...
    @overload
    def __call__(self, iterable: Iterable[Field], /) -> Iterator[Array]: ...
    @overload
    def __call__(self, iterable: Iterable[tuple[Field, Field]], /) -> Iterator[tuple[Array, Array]]: ...
    @overload
    def __call__(self, iterable: Iterable[tuple[Field, Field, Field]], /) -> Iterator[tuple[Array, Array, Array]]: ...
    @overload
    def __call__(
        self, iterable: Iterable[tuple[Field, Field, Field, Field]], /
    ) -> Iterator[tuple[Array, Array, Array, Array]]: ...
    @overload
    def __call__(self, iterable: Iterable[Mapping[K, Field]], /) -> Iterator[dict[K, Array]]: ...
    @overload
    def __call__(self, iterable: Iterable[S], /) -> Iterator[Stacked[S]]: ...

class Batches(Generic[S_co]):
    """An iterator over batches of arrays, stacked from samples of type ``S_co``."""

    def __iter__(self) -> Batches[S_co]: ...
    @overload
    def __next__(self: Batches[Untyped]) -> Any: ...
    @overload
    def __next__(self: Batches[Field]) -> Array: ...
    @overload
    def __next__(self: Batches[tuple[Field, Field]]) -> tuple[Array, Array]: ...
    @overload
    def __next__(self: Batches[tuple[Field, Field, Field]]) -> tuple[Array, Array, Array]: ...
    @overload
    def __next__(self: Batches[tuple[Field, Field, Field, Field]]) -> tuple[Array, Array, Array, Array]: ...
    @overload
    def __next__(self: Batches[Mapping[K, Field]]) -> dict[K, Array]: ...
    @overload
    def __next__(self: Batches[Any]) -> Any: ...

class ResumableBatches(Batches[S_co]):
    """The same with the cursor and ``resume`` of a ``StreamIterator``."""

    cursor: Cursor

    def resume(self, cursor: Cursor) -> ResumableBatches[S_co]: ...
