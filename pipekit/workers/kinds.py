"""What the user says of where functions run: threads that prefetch starts and stops, or an executor that is lent."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, TypeAlias, TypeVar

from ..arguments import positive_int
from ..descriptions import Description, described
from ..display import code

B = TypeVar('B')


class Threads(Description):
    """The description that ``threads`` returns."""

    def __init__(self, n: int, ahead: int):
        self.n = n
        self.ahead = ahead


@described
def threads(n: int, *, name: str | None = None, ahead: int | None = None) -> Threads:
    """Threads to run a function in: for functions that wait, for a disk or a network, or that release the GIL.

    ``prefetch`` starts and stops them; without it, the function runs in the calling thread. Equal ones in one pipeline
    are the same threads.

    Parameters
    ----------
    n
        The number of threads.
    name
        Keeps threads apart that would be equal otherwise.
    ahead
        The largest number of samples in the hands of the threads or waiting for them, at least ``n``; by default twice
        as many as there are threads.

    Examples
    --------
    >>> from pipekit import apply, pipeline, prefetch
    >>> with pipeline('abc', apply(str.upper, workers=threads(2)), prefetch()) as letters:
    ...     list(letters)
    ['A', 'B', 'C']
    """
    n = positive_int('n', n)
    ahead = 2 * n if ahead is None else positive_int('ahead', ahead, 'a positive int or None')
    if ahead < n:
        raise ValueError(f'ahead must be at least n, to keep the threads busy, got ahead={ahead} for {n} threads')
    if name is not None and not isinstance(name, str):
        raise TypeError(f'name must be a string or None, got {code(name)}')
    return Threads(n, ahead)


class Submits(Protocol):
    """An executor, as far as pipekit uses it.

    Examples
    --------
    >>> class InPlace:
    ...     def submit(self, function, /, *args):
    ...         future = Future()
    ...         future.set_result(function(*args))
    ...         return future
    >>> InPlace().submit(max, 1, 2).result()
    2
    """

    def submit(self, function: Callable[..., B], /, *args: Any) -> Future[B]: ...


Workers: TypeAlias = Threads | Submits


def checked_workers(workers: Any) -> Workers | None:
    """Check for something that functions can run in.

    Examples
    --------
    >>> checked_workers(4)
    Traceback (most recent call last):
    TypeError: workers must be threads(n), an executor (something with submit), or None, got 4
    """
    if workers is None or isinstance(workers, Threads) or callable(getattr(workers, 'submit', None)):
        checked: Workers | None = workers
        return checked
    raise TypeError(f'workers must be threads(n), an executor (something with submit), or None, got {code(workers)}')
