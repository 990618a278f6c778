"""What the user says of where functions run: threads, processes, or an executor that is lent."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future
from importlib.util import find_spec
from typing import Any, Protocol, TypeAlias, TypeVar

from ..describing.arguments import optional, positive_int
from ..describing.descriptions import Description, described
from ..describing.display import code
from ..errors import needs

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
    n, ahead = _checked('threads', n, name, ahead)
    return Threads(n, 2 * n if ahead is None else ahead)


class Processes(Description):
    """The description that ``processes`` returns."""

    def __init__(self, n: int, ahead: int | None, blas_threads: int | None):
        self.n = n
        self.ahead = ahead
        self.blas_threads = blas_threads


@described
def processes(n: int, *, name: str | None = None, ahead: int | None = None, blas_threads: int | None = 1) -> Processes:
    """Processes to run a function in: for functions that compute in Python. Needs the extra ``processes``.

    ``prefetch`` starts and stops them; without it, the function runs in the calling thread. Equal ones in one pipeline
    are the same processes. Nothing is forked; lambdas, closures and what a notebook defines work.

    A function is sent once to each process, and what it closes over with it, as it is when the batches are opened; its
    arrays of 1 MiB and more are not sent, but seen by all processes, read-only. Samples are sent and come back in
    groups, as many as take 10 ms; where ``combine_batches`` with a fixed size follows at once, a process makes whole
    batches. Big arrays come back through shared memory, without a copy.

    A process that dies is replaced, and its work done again, with one warning. At a sample where that happens three
    times in a row, ``WorkerCrashed`` is raised.

    Parameters
    ----------
    n
        The number of processes.
    name
        Keeps processes apart that would be equal otherwise.
    ahead
        The largest number of samples, or of batches where a process makes whole ones, in the hands of the processes or
        waiting for them, at least ``n``; by default two groups for each process.
    blas_threads
        How many threads a numerical library may start in each process; ``None`` for what it does by itself.

    Raises
    ------
    ModuleNotFoundError
        If the extra is not installed.
    NotImplementedError
        On Windows, where an executor of processes can be lent.

    Examples
    --------
    >>> from pipekit import apply, pipeline, prefetch
    >>> with pipeline([1, 2, 3], apply(lambda x: x**2, workers=processes(2)), prefetch()) as squares:
    ...     list(squares)
    [1, 4, 9]
    """
    n, ahead = _checked('processes', n, name, ahead)
    blas_threads = optional(positive_int, 'blas_threads', blas_threads, 'a positive int')
    if os.name != 'posix':
        raise NotImplementedError('processes(n) needs a POSIX system; lend an executor of processes instead')
    with needs('processes', 'processes(n)'):
        for module in ('cloudpickle', 'tblib'):
            if find_spec(module) is None:
                raise ModuleNotFoundError(name=module)
    return Processes(n, ahead, blas_threads)


class SupportsSubmit(Protocol):
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


Workers: TypeAlias = Threads | Processes | SupportsSubmit


def checked_workers(workers: Any) -> Workers | None:
    """Check for something that functions can run in.

    Examples
    --------
    >>> checked_workers(4)
    Traceback (most recent call last):
    TypeError: workers must be threads(n), processes(n), an executor (something with submit), or None, got 4
    """
    if workers is None or isinstance(workers, Threads | Processes) or callable(getattr(workers, 'submit', None)):
        checked: Workers | None = workers
        return checked
    kinds = 'threads(n), processes(n), an executor (something with submit), or None'
    raise TypeError(f'workers must be {kinds}, got {code(workers)}')


def _checked(things: str, n: Any, name: Any, ahead: Any) -> tuple[int, int | None]:
    n = positive_int('n', n)
    ahead = optional(positive_int, 'ahead', ahead, 'a positive int')
    if ahead is not None and ahead < n:
        raise ValueError(f'ahead must be at least n, to keep the {things} busy, got ahead={ahead} for {n} {things}')
    if name is not None and not isinstance(name, str):
        raise TypeError(f'name must be a string or None, got {code(name)}')
    return n, ahead
