"""Where a user's functions run: in threads, in processes, or in an executor of the user's own."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from importlib.util import find_spec
from inspect import iscoroutinefunction, signature
from typing import Any, Protocol, TypeAlias, TypeVar

from ..describing.arguments import boolean, function, optional, positive_int
from ..describing.descriptions import Description, described
from ..describing.display import code
from ..errors import needs

T = TypeVar('T')
Initializer: TypeAlias = Callable[..., object]


@dataclass(eq=False, repr=False)
class Threads(Description):
    """The description that ``threads`` returns."""

    n: int
    ahead: int
    initializer: Initializer | None
    initargs: tuple[Any, ...]


@described
def threads(
    n: int,
    *,
    name: str | None = None,
    ahead: int | None = None,
    initializer: Initializer | None = None,
    initargs: tuple[Any, ...] = (),
) -> Threads:
    """Run a function in ``n`` threads: for functions that wait for a disk or a network, or that release the GIL.

    ``prefetch`` starts and stops the threads; without it, the function runs in the calling thread. Stages of one
    pipeline with equal workers share the same threads.

    Parameters
    ----------
    n
        The number of threads.
    name
        Workers with different names share no threads, even if they are equal otherwise.
    ahead
        The largest number of samples in flight, at least ``n``: those that wait for a thread, are being processed, or
        are done and not yet passed on. By default ``2 * n``.
    initializer, initargs
        A function, and its arguments, that each thread calls once, before its first sample: as in
        ``concurrent.futures``. Its errors are raised in the loop over the batches. Without ``prefetch`` there are no
        threads, and it is not called.

    Examples
    --------
    >>> from pipekit import apply, pipeline, prefetch
    >>> with pipeline('abc', apply(str.upper, workers=threads(2)), prefetch()) as letters:
    ...     list(letters)
    ['A', 'B', 'C']
    """
    n, ahead = _checked_options('threads', n, name, ahead)
    _check_initializer(initializer, initargs)
    return Threads(n, 2 * n if ahead is None else ahead, initializer, initargs)


@dataclass(eq=False, repr=False)
class Processes(Description):
    """The description that ``processes`` returns."""

    n: int
    ahead: int | None
    blas_threads: int | None
    initializer: Initializer | None
    initargs: tuple[Any, ...]


@described
def processes(
    n: int,
    *,
    name: str | None = None,
    ahead: int | None = None,
    blas_threads: int | None = 1,
    initializer: Initializer | None = None,
    initargs: tuple[Any, ...] = (),
) -> Processes:
    """Run a function in ``n`` processes: for functions that compute in Python. Needs the extra ``processes``.

    ``prefetch`` starts and stops the processes; without it, the function runs in the calling thread. Stages of one
    pipeline with equal workers share the same processes. The processes are not forked. Lambdas, closures and functions
    defined in a notebook can be used.

    A function is sent to each process once, with the variables it closes over as they are when the batches are opened.
    Its arrays of 1 MiB and more are not sent: all processes read the same copy in shared memory, and cannot write to
    it. Samples are sent and returned in groups that take about 10 ms each. If ``combine_batches`` with a fixed size
    follows directly, a process makes whole batches. Large arrays are returned in shared memory, without a copy.

    A process that dies is replaced and its work repeated, with one warning. If three processes in a row die at the same
    sample, ``WorkerCrashed`` is raised.

    Parameters
    ----------
    n
        The number of processes.
    name
        Workers with different names share no processes, even if they are equal otherwise.
    ahead
        The largest number of samples in flight, or of batches if a process makes whole ones, at least ``n``: those that
        wait for a process, are being processed, or are done and not yet passed on. By default two groups per process.
    blas_threads
        The number of threads that a numerical library may start in each process; ``None`` for the library's default.
    initializer, initargs
        A function that each process calls once before its first sample, and its arguments: for settings of modules that
        your script has made, such as a default type or a registered decoder. A process that replaces another one calls
        it too. An error in it is raised for the samples that the process was to work on.

    Raises
    ------
    ModuleNotFoundError
        If the extra is not installed.
    NotImplementedError
        On Windows. An executor of processes can be passed as ``workers`` there.

    Examples
    --------
    >>> from pipekit import apply, pipeline, prefetch
    >>> with pipeline([1, 2, 3], apply(lambda x: x**2, workers=processes(2)), prefetch()) as squares:
    ...     list(squares)
    [1, 4, 9]

    >>> import mimetypes
    >>> with_raw = processes(2, initializer=mimetypes.add_type, initargs=('image/x-raw', '.rawimage'))
    >>> guess = apply(mimetypes.guess_type, workers=with_raw)
    >>> with pipeline(['a.png', 'b.rawimage'], guess, prefetch()) as types:
    ...     list(types)
    [('image/png', None), ('image/x-raw', None)]
    """
    n, ahead = _checked_options('processes', n, name, ahead)
    _check_initializer(initializer, initargs)
    blas_threads = optional(positive_int, 'blas_threads', blas_threads, 'a positive int')
    if os.name != 'posix':
        raise NotImplementedError('processes(n) needs a POSIX system; pass an executor of processes as workers instead')
    with needs('processes', 'processes(n)'):
        for module in ('cloudpickle', 'tblib'):
            if find_spec(module) is None:
                raise ModuleNotFoundError(name=module)
    return Processes(n, ahead, blas_threads, initializer, initargs)


class SupportsSubmit(Protocol):
    """An executor, as far as pipekit uses it."""

    def submit(self, function: Callable[..., T], /, *args: Any) -> Future[T]: ...


@dataclass(eq=False, repr=False)
class Executor(Description):
    """The description that ``executor`` returns."""

    borrowed: SupportsSubmit
    ahead: int | None
    whole_batches: bool | None


@described
def executor(borrowed: SupportsSubmit, *, ahead: int | None = None, whole_batches: bool | None = None) -> Executor:
    """Run a function in an executor of your own, such as a pool of ``concurrent.futures`` or a cluster.

    Of the executor, only ``submit`` is called, and it is never shut down. The executor alone, ``workers=pool``, is the
    same as ``workers=executor(pool)``.

    Parameters
    ----------
    borrowed
        Anything with ``submit(function, *args)`` that returns a future, which has ``result``, ``cancel`` and
        ``add_done_callback``.
    ahead
        The largest number of tasks in flight: those that wait, are being processed, or are done and not yet passed on.
        By default ``2 * n + 2`` for the ``n`` cores of this machine. For a cluster, pass twice its number of workers.
    whole_batches
        Whether a task makes a whole batch, if ``combine_batches`` with a fixed size follows directly; otherwise it is a
        sample. By default, it does unless the executor is a ``ThreadPoolExecutor``: to hand over a task to a process or
        another machine takes longer than many functions.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> from pipekit import apply, combine_batches, pipeline, prefetch
    >>> with ThreadPoolExecutor(2) as pool:
    ...     workers = executor(pool, ahead=4, whole_batches=True)
    ...     with pipeline('abcd', apply(str.upper, workers=workers), combine_batches(2, list), prefetch()) as letters:
    ...         list(letters)
    [['A', 'B'], ['C', 'D']]
    """
    if isinstance(borrowed, type) or not callable(getattr(borrowed, 'submit', None)):
        raise TypeError(f'borrowed must be an executor, something with submit, got {code(borrowed)}')
    ahead = optional(positive_int, 'ahead', ahead, 'a positive int')
    return Executor(borrowed, ahead, None if whole_batches is None else boolean('whole_batches', whole_batches))


Workers: TypeAlias = Threads | Processes | Executor | SupportsSubmit
OnWait: TypeAlias = Callable[[Workers, float], object]  # called after each wait: the workers, and when it began


def runs_in_threads(workers: Workers | None) -> bool:
    """Whether functions run in threads of this process: without workers, in that of ``prefetch``."""
    if isinstance(workers, Executor):
        return runs_in_threads(workers.borrowed)
    if workers is None or isinstance(workers, Threads | Processes):
        return not isinstance(workers, Processes)
    from concurrent.futures import ThreadPoolExecutor  # loaded on first use

    return isinstance(workers, ThreadPoolExecutor)


def makes_whole_batches(workers: Workers | None) -> bool:
    """Whether a task for these workers is a batch where possible, and not a sample."""
    if isinstance(workers, Executor) and workers.whole_batches is not None:
        return workers.whole_batches
    return not runs_in_threads(workers)


def checked_workers(workers: Any) -> Workers | None:
    """The argument ``workers`` of a stage; ``TypeError`` if functions cannot run in it."""
    kinds = 'threads(n), processes(n), an executor (something with submit), or None'
    if isinstance(workers, type):
        name = code(workers)
        raise TypeError(f'workers must be {kinds}, got the class {name}; did you mean {name}(...)?')
    is_ours = isinstance(workers, Threads | Processes | Executor)
    if workers is None or is_ours or callable(getattr(workers, 'submit', None)):
        checked: Workers | None = workers
        return checked
    raise TypeError(f'workers must be {kinds}, got {code(workers)}')


def _checked_options(kind: str, n: Any, name: Any, ahead: Any) -> tuple[int, int | None]:
    n = positive_int('n', n)
    ahead = optional(positive_int, 'ahead', ahead, 'a positive int')
    if ahead is not None and ahead < n:
        raise ValueError(f'ahead must be at least n, to keep the {kind} busy, got ahead={ahead} for {n} {kind}')
    if name is not None and not isinstance(name, str):
        raise TypeError(f'name must be a string or None, got {code(name)}')
    return n, ahead


def _check_initializer(initializer: Any, initargs: Any) -> None:
    if not isinstance(initargs, tuple):
        raise TypeError(f'initargs must be a tuple, got {code(initargs)}; write ({code(initargs)},) for one argument')
    if initializer is None:
        if initargs:
            raise ValueError(f'initargs are arguments for an initializer, and there is none, got {code(initargs)}')
        return
    function('initializer', initializer, 'a function or None')
    if iscoroutinefunction(initializer):
        raise TypeError(f'initializer must be a plain function, not async def, got {code(initializer)}')
    try:
        parameters = signature(initializer)
    except (TypeError, ValueError):  # of a function in C
        return
    try:
        parameters.bind(*initargs)
    except TypeError as error:
        text = f'initializer cannot be called with initargs: {error}, got {code(initializer)} and {code(initargs)}'
        raise TypeError(text) from error
