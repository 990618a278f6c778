"""Resources that each thread or process opens for itself, at first use, and closes at its end."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar, overload
from weakref import WeakValueDictionary, finalize

from ..describing.descriptions import Description, described
from ..describing.display import code

T = TypeVar('T')

logger = logging.getLogger('pipekit')


class PerWorker(Description, Generic[T]):
    """The description that ``per_worker`` returns; calling it gives the resource of the calling thread."""

    def __init__(self, make: Callable[[], Any]):
        self.make = make
        self.__setstate__(os.urandom(16))

    def __call__(self) -> T:
        opened: Opened | None = getattr(self._here, 'opened', None)
        if opened is None or opened.pid != os.getpid():  # a fork opens its own
            opened = self._here.opened = Opened(self.make(), repr(self))
        resource: T = opened.resource
        return resource

    def __setstate__(self, key: bytes) -> None:
        # Copies have the same key: two functions, sent to a process one by one, share what it opens.
        self._key = key
        self._here = _threads_of.setdefault(key, threading.local())

    def __reduce__(self) -> tuple[Any, ...]:
        return (*super().__reduce__(), self._key)


class Opened:
    """A resource that a thread has opened. It is closed when this is collected: with the thread, or the description."""

    def __init__(self, made: Any, name: str):
        self.pid = os.getpid()
        closes = getattr(made, 'close', None)
        is_entered = not callable(closes) and isinstance(made, AbstractContextManager)
        self.resource = made.__enter__() if is_entered else made
        if is_entered or callable(closes):
            close = finalize(self, _close, made, name, self.pid, is_entered)
            close.atexit = False  # a thread may be using it
            _here.closes = [*(other for other in _here.closes if other.alive), close]


@overload
def per_worker(make: Callable[[], AbstractContextManager[T]]) -> PerWorker[T]: ...
@overload
def per_worker(make: Callable[[], T]) -> PerWorker[T]: ...
@described
def per_worker(make: Callable[[], Any]) -> PerWorker[Any]:
    """A resource that each thread or process opens for itself, at first use: an archive, a connection, a model.

    Call it in your function to get the resource of the thread that the function runs in. It can be sent to processes,
    because it is opened there. Unlike with ``threading.local`` or ``functools.cache``, the resource is closed with the
    batches, and opened again if they go on.

    The thread or process that has opened a resource calls its ``close()`` when it ends. A context manager without that
    method is entered and left, as by ``with``. What was opened outside the threads of ``prefetch`` and its workers is
    closed with its thread, in the main thread at the end of the program; or before, when nothing refers to the
    ``per_worker`` any more.

    Parameters
    ----------
    make
        A function without arguments that opens the resource. Its errors are those of the function that calls this.

    Examples
    --------
    >>> from pipekit import apply, per_worker, pipeline, prefetch, threads
    >>> import sqlite3
    >>> database = per_worker(lambda: sqlite3.connect(':memory:'))
    >>> def double(number):
    ...     return database().execute('select 2 * ?', [number]).fetchone()[0]
    >>> with pipeline([1, 2, 3], apply(double, workers=threads(2)), prefetch()) as batches:
    ...     list(batches)
    [2, 4, 6]
    """
    if not callable(make):
        raise TypeError(f'make must be a function that opens a resource, got {code(make)}; did you mean a lambda?')
    return PerWorker(make)


@atexit.register
def close_opened() -> None:
    """Close what the calling thread has opened, the last first, because it ends."""
    while _here.closes:
        if (alive := _here.closes.pop().detach()) is not None:  # a call of it does nothing at the end of the program
            _, close, args, _ = alive
            close(*args)


def _close(made: Any, name: str, pid: int, is_entered: bool) -> None:
    if pid != os.getpid():  # it is the parent's, who may be using it
        return
    try:
        if is_entered:
            made.__exit__(None, None, None)
        else:
            made.close()
    except Exception:
        logger.exception('closing what %s has opened failed', name)


class _Here(threading.local):
    def __init__(self) -> None:
        self.closes: list[finalize[Any, Any]] = []


_here = _Here()
_threads_of: WeakValueDictionary[bytes, threading.local] = WeakValueDictionary()
