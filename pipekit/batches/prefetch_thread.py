"""The thread that makes batches ahead of their use, and the queue through which consumers take them."""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum, auto
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeAlias
from warnings import warn

from ..describing.tracebacks import own_depth
from ..streams.context import Context, passes
from ..streams.cursors import START, Cursor, split_cursor
from ..streams.global_generators import WAITING
from ..streams.metering import Meter
from ..streams.nesting import open_stream
from ..streams.stream import Stream
from ..workers.pools import WorkerPools
from ..workers.resources import close_opened

LOOKS_PER_STALL = 10  # how often a wait looks at what is running before it is reported as a stall


class Signal(Enum):
    """Takes the place of a cursor in a queue entry that is not a batch."""

    END = auto()
    END_OF_PASS = auto()
    ERROR = auto()


QueueEntry: TypeAlias = tuple[Any, Any]  # a batch and its cursor, or a value and a signal


def is_batch(entry: QueueEntry) -> bool:
    """Whether an entry is a batch with its cursor."""
    return entry[1].__class__ is not Signal


class ReportsStall(Protocol):
    """Looks at what is running during a wait, and describes it when the wait takes too long."""

    def look(self) -> None: ...
    def report(self, waited: float) -> str: ...


class PrefetchThread:
    """The thread, and ``entries``, the queue that it shares with the consumers. They take the first entry.

    It holds no reference to its owner, so that the owner can be collected.
    """

    # Every wait here ends, even if Ctrl-C, a signal handler or a finalizer runs between any two lines.
    #
    # Before one side waits for the other, it sets a flag and then checks once more: the check sees what the other side
    # did before it saw the flag. A spurious wake-up is harmless: the waiter checks again.
    def __init__(
        self,
        owner: object,
        entries: Iterator[QueueEntry],
        pools: WorkerPools,
        meter: Meter,
        buffer_size: int,
        stall_after: float | None,
        new_stall: Callable[[threading.Thread], ReportsStall],
    ):
        self.stopped = False
        self.entries: deque[QueueEntry] = deque()
        self._pools = pools
        self._meter = meter
        self._stall_after = stall_after
        self._new_stall = new_stall
        self._buffer_size = buffer_size
        self._is_awaited = self.is_full = False
        self._arrival: SimpleQueue[None] = SimpleQueue()  # wakes a consumer
        self._room: SimpleQueue[None] = SimpleQueue()  # wakes the thread
        self._thread = threading.Thread(
            target=pools.settings.run, args=(self._fill, entries), name='pipekit-prefetch', daemon=True
        )
        self._owner: weakref.ref[Any] | None = weakref.ref(owner, lambda _: self._give_up())

    def start(self) -> None:
        """Start the thread."""
        _running.add(self)
        self._thread.start()

    def wait(self) -> None:
        """Wait for an entry, or until the thread is stopped. Warns of a stall, once."""
        in_handler, self._is_awaited = self._is_awaited, True
        try:
            WAITING.add(self)
            self._wait()
        finally:
            WAITING.discard(self)
            self._is_awaited = in_handler
            if in_handler and self._arrival.empty():  # in a signal handler, between a wait and its wake-up
                self._arrival.put(None)

    def _wait(self) -> None:
        timeout = None if self._stall_after is None else min(self._stall_after, threading.TIMEOUT_MAX) / LOOKS_PER_STALL
        stall, looks = None, 0
        while not self.entries and not self.stopped:
            self.report_room()  # in any case: Ctrl-C may have come after the last entry was taken and before this call
            try:
                self._arrival.get(timeout=timeout)
            except Empty:
                stall, looks = stall or self._new_stall(self._thread), looks + 1
                if looks < LOOKS_PER_STALL:
                    stall.look()
                    continue
                timeout = None
                assert self._stall_after is not None
                warn(stall.report(self._stall_after), RuntimeWarning, stacklevel=own_depth())

    def report_room(self) -> None:
        """Wake the thread, which waits for room in the queue."""
        self.is_full = False
        # Otherwise it checks again anyway, and wake-ups of a thread that does not wait must not pile up.
        if self._room.empty():
            self._room.put(None)

    def stop(self) -> None:
        """Let the thread end and a waiting consumer return, without waiting for them."""
        self.stopped = True
        self._room.put(None)
        self._arrival.put(None)
        self._owner = None  # its callback refers to this object: the cycle would keep the entries until a collection

    def _give_up(self) -> None:
        self.stop()
        self._pools.cancel()

    def join(self, timeout_seconds: float) -> bool:
        """Wait for the thread to end, and return whether it has."""
        if self._thread is threading.current_thread():
            return True
        if self._thread.is_alive():
            self._pools.cancel()
            self._thread.join(timeout_seconds)
            _running.discard(self)  # so that the interpreter's exit does not wait for it again
        return not self._thread.is_alive()

    def _fill(self, entries: Iterator[QueueEntry]) -> None:
        try:
            while not self.stopped:
                # A batch is made only when there is room for it, so that the thread holds no batch while it waits.
                if len(self.entries) < self._buffer_size:
                    self.entries.append(self._meter.next_entry(entries, is_batch))
                    if self._is_awaited:
                        self._wake_consumer()
                else:
                    self._wait_for_room()
        except StopIteration:
            pass
        except BaseException as error:
            if not self.stopped:  # otherwise nobody takes it, and its traceback refers to this object
                self.entries.append(([error], Signal.ERROR))
                self._wake_consumer()
        finally:
            self._pools.close()
            close_opened()

    def _wake_consumer(self) -> None:
        if self._arrival.empty():
            self._arrival.put(None)

    def _wait_for_room(self) -> None:
        self.is_full = True
        if len(self.entries) >= self._buffer_size and not self.stopped:
            self._room.get()


def entries_of(stream: Stream[Any], cursor: Cursor, context: Context) -> Iterator[QueueEntry]:
    """The batches of a stream, followed by a signal of its end."""
    yield from open_stream(stream, cursor, context)
    yield None, Signal.END


def entries_in_passes(stream: Stream[Any], cursor: Cursor, context: Context) -> Iterator[QueueEntry]:
    """The batches of all passes, each pass followed by the cursor at which the next one begins.

    Examples
    --------
    >>> from itertools import islice
    >>> from pipekit.streams.iterables import source_of
    >>> [batch for batch, _ in islice(entries_in_passes(source_of('ab'), START, Context()), 4)]
    ['a', 'b', (1, 0), 'a']
    """
    first, before = split_cursor(cursor, [int, None], stream)
    for next_pass, pairs in enumerate(passes(partial(open_stream, stream), first, before, context), first + 1):
        yield from pairs
        yield (next_pass, START), Signal.END_OF_PASS
    yield None, Signal.END


def stop_all(timeout_seconds: float) -> None:
    """Let all threads end, and wait for them.

    They are daemon threads, which the interpreter does not wait for, because a user's function may never return.
    """
    deadline = time.monotonic() + timeout_seconds
    threads = list(_running)
    for thread in threads:
        thread.stop()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


_running: weakref.WeakSet[PrefetchThread] = weakref.WeakSet()
