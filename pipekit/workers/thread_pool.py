"""The threads that ``threads(n)`` describes: daemons, which do not hold up the end of the interpreter."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from ..describing.display import code
from .kinds import Threads
from .resources import close_opened
from .settings import Settings


class ThreadPool:
    """The threads, from the first item to ``close``: one is started with each item, until there are ``n``."""

    def __init__(self, kind: Threads, settings: Settings):
        self._kind = kind
        self._settings = settings
        self._is_cancelled = False
        self._calls: SimpleQueue[PendingCall | None] = SimpleQueue()  # None is the end: a thread leaves it for the next
        self._unstarted = deque(range(kind.n))
        self._threads: list[Thread] = []

    def submit(self, function: Callable[[Any], Any], value: Any) -> PendingCall:
        """Have a thread call a function. May be called in any thread."""
        if self._unstarted:
            self._start()
        call = PendingCall(function, value)
        self._calls.put(call)
        if self._is_cancelled:  # by another thread, which may not have seen this call
            self.cancel()
        return call

    def cancel(self) -> None:
        """Have the threads end, and whoever waits for what they have not begun get a ``CancelledError``. As submit."""
        self._is_cancelled = True
        with suppress(Empty):
            while True:
                if (call := self._calls.get_nowait()) is not None:
                    call.cancel()
        self._calls.put(None)

    def close(self) -> None:
        """End the threads, and wait for them."""
        self.cancel()
        for thread in self._threads:
            thread.join()

    def _start(self) -> None:
        try:
            number = self._unstarted.popleft()
        except IndexError:  # another thread has started the last one
            return
        thread = Thread(
            target=self._settings.run, args=(self._serve,), name=f'pipekit-{self._kind!r}_{number}', daemon=True
        )
        thread.start()
        self._threads.append(thread)

    def _serve(self) -> None:
        is_initialized = False
        while (call := self._calls.get()) is not None:
            function = call.function
            try:
                if function is None or self._is_cancelled:
                    call.cancel()
                    continue
                if not is_initialized:
                    self._initialize()
                    is_initialized = True
                call.finish(function(call.value))
            except BaseException as error:
                call.finish(error=error)
            finally:
                del call, function  # the value, or the error whose traceback leads here, is not held during the wait
        self._calls.put(None)
        close_opened()

    def _initialize(self) -> None:
        if (initializer := self._kind.initializer) is not None:
            try:
                initializer(*self._kind.initargs)
            except BaseException as error:
                error.add_note(f'raised by initializer={code(initializer)} of workers={code(self._kind)}')
                raise


class PendingCall:
    """A function that a thread is to call with a value, then the result or the error."""

    __slots__ = ('_error', '_is_done', '_result', '_wake', 'function', 'value')

    def __init__(self, function: Callable[[Any], Any], value: Any):
        self.function: Callable[[Any], Any] | None = function
        self.value = value
        self._result: Any = None
        self._error: BaseException | None = None
        self._is_done = False
        self._wake: SimpleQueue[None] | None = None

    def finish(self, result: Any = None, error: BaseException | None = None) -> None:
        """Set the result or the error."""
        self._result, self._error, self.function, self.value = result, error, None, None
        self._is_done = True
        if self._wake is not None:
            self._wake.put(None)

    def cancel(self) -> None:
        """Have whoever waits for it get a ``CancelledError``."""
        self.finish(error=CancelledError())

    def result(self) -> Any:
        """Wait for the result, or for the error and raise it, once."""
        if not self._is_done:
            self._wake = SimpleQueue()
            if not self._is_done:  # the thread may have finished before it could see the queue
                self._wake.get()
        if self._error is None:
            return self._result
        error, self._error = self._error, None  # which would be in a cycle with its own traceback
        try:
            raise error
        finally:
            del error
