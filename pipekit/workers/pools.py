"""The threads, processes and borrowed executors that the stages of one open pipeline run functions in."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Future
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from time import perf_counter
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from ..describing.display import code
from .borrowed import BorrowedExecutor, SentWork
from .kinds import Executor, OnWait, Processes, SupportsSubmit, Threads, Workers
from .settings import Settings
from .thread_pool import PendingCall, ThreadPool

if TYPE_CHECKING:
    from .jobs import Work
    from .process_pool import ProcessPool


class WorkerPools:
    """What the workers of one open pipeline run in: threads and processes of its own, and borrowed executors.

    The threads and processes have the settings of the thread that makes this.
    """

    def __init__(self, on_wait: OnWait | None = None) -> None:
        self.settings = Settings()
        self._running_modules = list(_running_modules())
        self._on_wait = on_wait
        self._thread_pools: dict[Threads, ThreadPool] = {}
        self._process_pools: dict[Processes, ProcessPool] = {}
        self._pending: set[Future[Any]] = set()
        self._is_cancelled = False
        self._cancellation: SimpleQueue[None] = SimpleQueue()  # reentrant, for finalizers, where an Event is not
        self.works: WeakSet[Work] = WeakSet()  # given to threads: a frame that calls one of them belongs to this object

    def map(self, workers: Workers, work: Work, values: Iterator[Any]) -> Iterator[Any]:
        """The results in the order of the values; later values are processed in the meantime."""
        if isinstance(workers, Processes):
            return self._process_pool(workers).map(work, values)
        return self._map(workers, work, values)

    def _map(self, workers: Threads | Executor | SupportsSubmit, work: Work, values: Iterator[Any]) -> Iterator[Any]:
        self.works.add(work)
        submit, ahead = self._submit_of(workers, work)
        waiting: deque[Future[Any] | PendingCall] = deque()
        ends: list[BaseException] = []
        try:
            while True:
                while not ends and len(waiting) < ahead:
                    try:
                        waiting.append(submit(next(values)))
                    except BaseException as error:  # also StopIteration: raised after the results before it
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
        """Cancel what has not begun: whoever waits for it gets a ``CancelledError``. May be called in any thread."""
        self._is_cancelled = True
        self._cancellation.put(None)
        for future in list(self._pending):
            future.cancel()
        for pool in self._pools():
            pool.cancel()

    def doing(self) -> Iterator[tuple[int, Hashable, Callable[[], str]]]:
        """What each process is doing: its id, a key of the item and step, and a description. For any thread."""
        for pool in list(self._process_pools.values()):
            yield from pool.doing()

    def pause(self, seconds: float) -> None:
        """Wait; ``CancelledError`` as soon as the pools are cancelled."""
        with suppress(Empty):
            self._cancellation.get(timeout=seconds)
            self._cancellation.put(None)  # for other threads that wait
            raise CancelledError

    def close(self) -> None:
        """End the threads and processes, and wait for them. Borrowed executors are left as they are."""
        self.cancel()
        for pool in self._pools():
            pool.close()

    def _pools(self) -> list[ThreadPool | ProcessPool]:
        return [*self._process_pools.values(), *self._thread_pools.values()]

    def _process_pool(self, workers: Processes) -> ProcessPool:
        if workers not in self._process_pools:
            import cloudpickle  # as this, it needs the extra `processes`

            from .process_pool import ProcessPool

            for module in self._running_modules:
                with suppress(ValueError):  # it is gone: what it defines is found by no name
                    cloudpickle.register_pickle_by_value(module)
            self._process_pools[workers] = ProcessPool(workers, self.settings, self._on_wait)
            if self._is_cancelled:  # by another thread, which may not have seen the new pool
                self._process_pools[workers].cancel()
        return self._process_pools[workers]

    def _submit_of(
        self, workers: Threads | Executor | SupportsSubmit, work: Work
    ) -> tuple[Callable[[Any], Future[Any] | PendingCall], int]:
        """A function that has workers process an item, and how many items may be in flight."""
        if isinstance(workers, Threads):
            return partial(self._thread_pool(workers).submit, work), workers.ahead
        executor = BorrowedExecutor(workers)
        return partial(self._submit, executor, SentWork(work)), executor.ahead

    def _thread_pool(self, workers: Threads) -> ThreadPool:
        if workers not in self._thread_pools:
            self._thread_pools[workers] = ThreadPool(workers, self.settings)
            if self._is_cancelled:  # as above
                self._thread_pools[workers].cancel()
        return self._thread_pools[workers]

    def _submit(self, executor: BorrowedExecutor, work: SentWork, item: Any) -> Future[Any]:
        future = executor.submit(work, item)
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return future

    def _result(self, future: Future[Any] | PendingCall, workers: Workers) -> Any:
        begin = perf_counter()
        try:
            return future.result()
        except BrokenExecutor as error:
            error.add_note(f'raised by workers={code(workers)}; pass a new executor: a borrowed one is not replaced')
            raise
        finally:
            if self._on_wait is not None:
                self._on_wait(workers, begin)


def _running_modules() -> Iterator[ModuleType]:
    """The modules whose code has led here: those that are being imported, if they train at their top level.

    What they define is sent to processes by value, as that of a script is. By name it would be imported there, which
    would train there too; and here, finding it by its name would wait for the end of the import, which waits for it.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        name = frame.f_globals.get('__name__', '')
        module = sys.modules.get(name) if frame.f_code.co_name == '<module>' and name != '__main__' else None
        if module is not None and frame.f_globals is vars(module):
            yield module
        frame = frame.f_back


def awaited(frame: FrameType) -> str | None:
    """What a frame of ``WorkerPools.map`` waits for, as "a result of load from threads(4)"; ``None`` for others."""
    if frame.f_code is not WorkerPools._map.__code__:
        return None
    variables = frame.f_locals
    return f'a result of {", ".join(map(code, variables["work"].functions))} from {code(variables["workers"])}'
