"""What the workers of one open pipeline run in."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import perf_counter
from types import FrameType
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from ..describing.display import code
from .kinds import OnWait, Processes, SupportsSubmit, Threads, Workers

if TYPE_CHECKING:
    from .jobs import Work
    from .process_pool import ProcessPool


class WorkerPools:
    """What the workers of one pipeline run in, while it is open: threads of its own, and what was lent to it."""

    def __init__(self, on_wait: OnWait | None = None) -> None:
        self._on_wait = on_wait
        self._own: dict[Threads, ThreadPoolExecutor] = {}
        self._own_processes: dict[Processes, ProcessPool] = {}
        self._pending: set[Future[Any]] = set()
        self._is_cancelled = False
        self._cancellation: SimpleQueue[None] = SimpleQueue()  # an Event locks out a finalizer that comes in its middle
        self.works: WeakSet[Work] = WeakSet()  # what is done in threads, by which one knows a thread that is at it

    def map(self, workers: Workers, work: Work, values: Iterator[Any]) -> Iterator[Any]:
        """The function's results, in the order of the values; some values ahead of them are worked on."""
        if isinstance(workers, Processes):
            return self._processes(workers).map(work, values)
        return self._map(workers, work, values)

    def _map(self, workers: Threads | SupportsSubmit, work: Work, values: Iterator[Any]) -> Iterator[Any]:
        self.works.add(work)
        executor, ahead = self._executor(workers)
        waiting: deque[Future[Any]] = deque()
        ends: list[BaseException] = []
        try:
            while True:
                while not ends and len(waiting) < ahead:
                    try:
                        waiting.append(self._submit(executor, workers, work, next(values)))
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
        self._is_cancelled = True
        self._cancellation.put(None)
        for future in list(self._pending):
            future.cancel()
        for processes in list(self._own_processes.values()):
            processes.cancel()

    def doing(self) -> Iterator[tuple[int, Hashable, Callable[[], str]]]:
        """What each process is at: its id, what tells the item from others, and the words. In any thread."""
        for processes in list(self._own_processes.values()):
            yield from processes.doing()

    def pause(self, seconds: float) -> None:
        """Wait, unless the work is given up meanwhile."""
        with suppress(Empty):
            self._cancellation.get(timeout=seconds)
            self._cancellation.put(None)  # others may wait, too
            raise CancelledError

    def close(self) -> None:
        """Let the threads end, end the processes, and wait for both. What was lent is left as it is."""
        for executor in self._own.values():
            executor.shutdown(wait=False, cancel_futures=True)
        for processes in self._own_processes.values():
            processes.close()
        for executor in self._own.values():
            executor.shutdown()

    def _processes(self, workers: Processes) -> ProcessPool:
        if workers not in self._own_processes:
            from .process_pool import ProcessPool  # needs the extra `processes`

            self._own_processes[workers] = ProcessPool(workers, self._on_wait)
            if self._is_cancelled:  # in the meantime
                self._own_processes[workers].cancel()
        return self._own_processes[workers]

    def _executor(self, workers: Threads | SupportsSubmit) -> tuple[SupportsSubmit, int]:
        if not isinstance(workers, Threads):
            return workers, 2 * (os.cpu_count() or 1) + 2
        if workers not in self._own:
            self._own[workers] = ThreadPoolExecutor(workers.n, thread_name_prefix=f'pipekit-{workers!r}')
        return self._own[workers], workers.ahead

    def _submit(self, executor: SupportsSubmit, workers: Workers, work: Work, value: Any) -> Future[Any]:
        try:
            future = executor.submit(work, value)
        except BaseException as error:
            error.add_note(f'raised by submit of workers={code(workers)}')
            raise
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return future

    def _result(self, future: Future[Any], workers: Workers) -> Any:
        begin = perf_counter()
        try:
            return future.result()
        except BrokenExecutor as error:
            error.add_note(f'raised by workers={code(workers)}, which was lent and is not replaced')
            raise
        finally:
            if self._on_wait is not None:
                self._on_wait(workers, begin)


def awaited(frame: FrameType) -> str | None:
    """What is waited for in a frame, if it is one of ``WorkerPools.map``: a result of which functions, from where."""
    if frame.f_code is not WorkerPools._map.__code__:
        return None
    variables = frame.f_locals
    return f'a result of {", ".join(map(code, variables["work"].functions))} from {code(variables["workers"])}'
