from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, overload

from typing_extensions import TypeVar

from .batches.batch_iterator import BatchIterator
from .batches.prefetch import Prefetch
from .plans.pipeline import Pipeline, Stage

A = TypeVar('A', default=Any)
B = TypeVar('B', default=Any)
C = TypeVar('C', default=Any)
D = TypeVar('D', default=Any)
E = TypeVar('E', default=Any)
F = TypeVar('F', default=Any)
G = TypeVar('G', default=Any)
H = TypeVar('H', default=Any)
I = TypeVar('I', default=Any)

From: TypeAlias = Iterable[A] | Callable[[], Iterable[A]]
To: TypeAlias = Callable[[Iterable[A]], Iterable[B]]

# First with prefetch, then without it, then without a source; each with up to eight stages.

@overload
def pipeline(x: From[A], end: Prefetch, /) -> BatchIterator[A]: ...
@overload
def pipeline(x: From[A], a: To[A, B], end: Prefetch, /) -> BatchIterator[B]: ...
@overload
def pipeline(x: From[A], a: To[A, B], b: To[B, C], end: Prefetch, /) -> BatchIterator[C]: ...
@overload
def pipeline(x: From[A], a: To[A, B], b: To[B, C], c: To[C, D], end: Prefetch, /) -> BatchIterator[D]: ...
@overload
def pipeline(x: From[A], a: To[A, B], b: To[B, C], c: To[C, D], d: To[D, E], end: Prefetch, /) -> BatchIterator[E]: ...
@overload
def pipeline(
    x: From[A], a: To[A, B], b: To[B, C], c: To[C, D], d: To[D, E], e: To[E, F], end: Prefetch, /
) -> BatchIterator[F]: ...
@overload
def pipeline(
    x: From[A], a: To[A, B], b: To[B, C], c: To[C, D], d: To[D, E], e: To[E, F], f: To[F, G], end: Prefetch, /
) -> BatchIterator[G]: ...
@overload
def pipeline(
    x: From[A],
    a: To[A, B],
    b: To[B, C],
    c: To[C, D],
    d: To[D, E],
    e: To[E, F],
    f: To[F, G],
    g: To[G, H],
    end: Prefetch,
    /,
) -> BatchIterator[H]: ...
@overload
def pipeline(
    x: From[A],
    a: To[A, B],
    b: To[B, C],
    c: To[C, D],
    d: To[D, E],
    e: To[E, F],
    f: To[F, G],
    g: To[G, H],
    h: To[H, I],
    end: Prefetch,
    /,
) -> BatchIterator[I]: ...
@overload
def pipeline(x: From[A], /) -> Pipeline[A]: ...
@overload
def pipeline(x: From[A], a: To[A, B], /) -> Pipeline[B]: ...
@overload
def pipeline(x: From[A], a: To[A, B], b: To[B, C], /) -> Pipeline[C]: ...
@overload
def pipeline(x: From[A], a: To[A, B], b: To[B, C], c: To[C, D], /) -> Pipeline[D]: ...
@overload
def pipeline(x: From[A], a: To[A, B], b: To[B, C], c: To[C, D], d: To[D, E], /) -> Pipeline[E]: ...
@overload
def pipeline(x: From[A], a: To[A, B], b: To[B, C], c: To[C, D], d: To[D, E], e: To[E, F], /) -> Pipeline[F]: ...
@overload
def pipeline(
    x: From[A], a: To[A, B], b: To[B, C], c: To[C, D], d: To[D, E], e: To[E, F], f: To[F, G], /
) -> Pipeline[G]: ...
@overload
def pipeline(
    x: From[A], a: To[A, B], b: To[B, C], c: To[C, D], d: To[D, E], e: To[E, F], f: To[F, G], g: To[G, H], /
) -> Pipeline[H]: ...
@overload
def pipeline(
    x: From[A],
    a: To[A, B],
    b: To[B, C],
    c: To[C, D],
    d: To[D, E],
    e: To[E, F],
    f: To[F, G],
    g: To[G, H],
    h: To[H, I],
    /,
) -> Pipeline[I]: ...
@overload
def pipeline(a: To[A, B], /) -> Stage[A, B]: ...
@overload
def pipeline(a: To[A, B], b: To[B, C], /) -> Stage[A, C]: ...
@overload
def pipeline(a: To[A, B], b: To[B, C], c: To[C, D], /) -> Stage[A, D]: ...
@overload
def pipeline(a: To[A, B], b: To[B, C], c: To[C, D], d: To[D, E], /) -> Stage[A, E]: ...
@overload
def pipeline(a: To[A, B], b: To[B, C], c: To[C, D], d: To[D, E], e: To[E, F], /) -> Stage[A, F]: ...
@overload
def pipeline(a: To[A, B], b: To[B, C], c: To[C, D], d: To[D, E], e: To[E, F], f: To[F, G], /) -> Stage[A, G]: ...
@overload
def pipeline(
    a: To[A, B], b: To[B, C], c: To[C, D], d: To[D, E], e: To[E, F], f: To[F, G], g: To[G, H], /
) -> Stage[A, H]: ...
@overload
def pipeline(
    a: To[A, B], b: To[B, C], c: To[C, D], d: To[D, E], e: To[E, F], f: To[F, G], g: To[G, H], h: To[H, I], /
) -> Stage[A, I]: ...
