"""Where functions run: threads that prefetch starts and stops, or an executor that the user lends."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeAlias, TypeVar

from .arguments import positive_int
from .descriptions import Description, described
from .display import code

A = TypeVar('A')
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


class Pools:
    """What the workers of one pipeline run in, while it is open: threads of its own, and what was lent to it."""

    def __init__(self) -> None:
        self._own: dict[Threads, ThreadPoolExecutor] = {}
        self._pending: set[Future[Any]] = set()

    def map(self, workers: Workers, function: Callable[[A], B], values: Iterator[A]) -> Iterator[B]:
        """The function's results, in the order of the values; some values ahead of them are worked on."""
        executor, ahead = self._executor(workers)
        waiting: deque[Future[B]] = deque()
        ends: list[BaseException] = []
        try:
            while True:
                while not ends and len(waiting) < ahead:
                    try:
                        waiting.append(self._submit(executor, workers, function, next(values)))
                    except BaseException as error:  # the end, too: it comes after the results that are on their way
                        ends.append(error)
                if not waiting:
                    break
                yield self._result(waiting.popleft(), workers)
        finally:
            for future in waiting:
                future.cancel()
        if not isinstance(ends[0], StopIteration):
            raise ends.pop()

    def cancel(self) -> None:
        """Give up what has not begun: whoever waits for it is told so."""
        for future in list(self._pending):
            future.cancel()

    def close(self) -> None:
        """Let the threads end, without waiting for them. What was lent is left as it is."""
        for executor in self._own.values():
            executor.shutdown(wait=False, cancel_futures=True)

    def _executor(self, workers: Workers) -> tuple[Submits, int]:
        if not isinstance(workers, Threads):
            return workers, 2 * (os.cpu_count() or 1) + 2
        if workers not in self._own:
            self._own[workers] = ThreadPoolExecutor(workers.n, thread_name_prefix=f'pipekit-{workers!r}')
        return self._own[workers], workers.ahead

    def _submit(self, executor: Submits, workers: Workers, function: Callable[[A], B], value: A) -> Future[B]:
        try:
            future = executor.submit(function, value)
        except BaseException as error:
            error.add_note(f'raised by submit of workers={code(workers)}')
            raise
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return future

    def _result(self, future: Future[B], workers: Workers) -> B:
        try:
            return future.result()
        except BrokenExecutor as error:
            error.add_note(f'raised by workers={code(workers)}, which was lent and is not replaced')
            raise
