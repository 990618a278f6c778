"""Executors of the user's own: how work is sent to them."""

from __future__ import annotations

import os
import pickle
from concurrent.futures import Future
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ..describing.display import code
from ..describing.tracebacks import notes_of, set_notes
from .kinds import Executor, SupportsSubmit, executor

if TYPE_CHECKING:
    from .jobs import Work

FUTURE_METHODS = 'result', 'cancel', 'add_done_callback'
MAX_RECEIVED = 8  # works that a process keeps


class SentWork:
    """Work that is pickled once, however often an executor sends it, and unpickled once in each process."""

    def __init__(self, work: Work):
        self._work = work
        self._pickled: bytes | None = None

    def __call__(self, item: Any) -> Any:
        return self._work(item)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._pickled is None:
            self._pickled = _dumps(self._work)
        return _received, (self._pickled,)


@lru_cache(MAX_RECEIVED)
def _received(pickled: bytes) -> SentWork:
    return SentWork(pickle.loads(pickled))


def _dumps(work: Work) -> bytes:
    try:
        from .pickling import dumps
    except ModuleNotFoundError:  # without the extra `processes`
        return pickle.dumps(work)
    return dumps(work)


class BorrowedExecutor:
    """An executor of the user's, of which only ``submit`` is called."""

    def __init__(self, workers: Executor | SupportsSubmit):
        self._workers = workers
        described = workers if isinstance(workers, Executor) else executor(workers)
        self._executor = described.borrowed
        self.ahead = 2 * (os.cpu_count() or 1) + 2 if described.ahead is None else described.ahead

    def submit(self, work: SentWork, item: Any) -> Future[Any]:
        """Have the executor process an item."""
        try:
            future = self._executor.submit(work, item)
        except BaseException as error:
            set_notes(error, [*notes_of(error), f'raised by submit of workers={code(self._workers)}'])
            raise
        if not all(callable(getattr(future, method, None)) for method in FUTURE_METHODS):
            raise TypeError(
                f'submit of workers={code(self._workers)} must return a future, '
                f'with result, cancel and add_done_callback, got {code(future)}'
            )
        return future
