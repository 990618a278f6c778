"""The thread that makes batches ahead of their use, and what it shares with their consumers."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import Any
from warnings import warn

from ..streams.cursors import START, Cursor, QueueEntry, Signal, parts_of
from ..streams.metering import Meter
from ..streams.stream import Context, Stream, passes
from ..workers.pools import WorkerPools
from .stalls import Stall, own_depth

LOOKS = 10  # at who is busy, during a wait, until it is called a stall


class PrefetchThread:
    """The thread, and what it shares with the consumers: ``items``, in order, the first of which they take."""

    # Were it to refer to its owner, that would never be collected. Every wait here ends although Ctrl-C, a signal
    # handler or a finalizer came between any two lines.
    #
    # Who waits for the other side says so, and looks again before it waits: what the other side did before it could see
    # that, it sees itself. A bell that rings for nothing wakes somebody who looks and waits again.
    def __init__(
        self,
        owner: object,
        made: Iterator[QueueEntry],
        pools: WorkerPools,
        meter: Meter,
        buffer_size: int,
        stall_after: float | None,
    ):
        self.stopped = False
        self.items: deque[QueueEntry] = deque()
        self._pools = pools
        self._meter = meter
        self._stall_after = stall_after
        self._buffer_size = buffer_size
        self._is_awaited = self.is_full = False
        self._arrival: SimpleQueue[None] = SimpleQueue()
        self._room: SimpleQueue[None] = SimpleQueue()
        self._thread = threading.Thread(target=self._fill, args=(made,), name='pipekit-prefetch', daemon=True)
        self._owner: weakref.ref[Any] | None = weakref.ref(owner, lambda _: self._forgotten())

    def start(self) -> None:
        """Let the thread begin."""
        running.add(self)
        self._thread.start()

    def wait(self) -> None:
        """Return when there is an item, or the thread has been stopped. Warns of a stall, once."""
        in_handler, self._is_awaited = self._is_awaited, True
        try:
            self._wait()
        finally:
            self._is_awaited = in_handler
            if in_handler and self._arrival.empty():  # of a signal, which came between a wait and what rings for it
                self._arrival.put(None)

    def _wait(self) -> None:
        patience = None if self._stall_after is None else min(self._stall_after, threading.TIMEOUT_MAX) / LOOKS
        stall, looks = None, 0
        while not self.items and not self.stopped:
            self.tell_of_room()  # in any case: when the last item was taken, Ctrl-C may have come before this
            try:
                self._arrival.get(timeout=patience)
            except Empty:
                stall, looks = stall or Stall(self._thread, self._pools), looks + 1
                if looks < LOOKS:
                    stall.look()
                    continue
                patience = None
                assert self._stall_after is not None
                warn(stall.report(self._stall_after), RuntimeWarning, stacklevel=own_depth())

    def tell_of_room(self) -> None:
        """Wake the thread, which has said that it waits for room."""
        self.is_full = False
        if self._room.empty():  # else it looks again anyway; and a thread that never waits leaves its bells behind
            self._room.put(None)

    def stop(self) -> None:
        """Have the thread end, and whoever waits for it return; does not wait itself."""
        self.stopped = True
        self._room.put(None)
        self._arrival.put(None)
        self._owner = None  # which led back here: what is in the buffer need not wait for the garbage collector

    def _forgotten(self) -> None:
        self.stop()
        self._pools.cancel()

    def ends_within(self, patience: float) -> bool:
        """Wait for the thread to end, for some seconds, and say whether it has."""
        if self._thread is threading.current_thread():
            return True
        if self._thread.is_alive():
            self._pools.cancel()
            self._thread.join(patience)
            running.discard(self)  # so that the exit does not wait for it again
        return not self._thread.is_alive()

    def _fill(self, made: Iterator[QueueEntry]) -> None:
        try:
            while not self.stopped:
                # Room comes first: a batch is made when there is a place for it, and the thread holds none meanwhile.
                if len(self.items) < self._buffer_size:
                    self._hand_over(self._meter.batch(made))
                else:
                    self._wait_for_room()
        except StopIteration:
            pass
        except BaseException as error:
            if not self.stopped:  # else nobody takes it, and it leads back here
                self._hand_over(([error], Signal.ERROR))
        finally:
            self._pools.close()

    def _hand_over(self, item: QueueEntry) -> None:
        self.items.append(item)
        if self._is_awaited and self._arrival.empty():
            self._arrival.put(None)

    def _wait_for_room(self) -> None:
        self.is_full = True
        if len(self.items) >= self._buffer_size and not self.stopped:
            self._room.get()


def items_one_after_another(stream: Stream[Any], cursor: Cursor, context: Context) -> Iterator[QueueEntry]:
    """The batches of a stream, and its end.

    Examples
    --------
    >>> from pipekit.streams.iterables import source_of
    >>> [batch for batch, _ in items_one_after_another(source_of('ab'), START, Context())]
    ['a', 'b', None]
    """
    yield from stream.open(cursor, context)
    yield None, Signal.END


def items_in_passes(stream: Stream[Any], cursor: Cursor, context: Context) -> Iterator[QueueEntry]:
    """The batches of one pass after another, each pass followed by the cursor at which the next one begins.

    Examples
    --------
    >>> from itertools import islice
    >>> from pipekit.streams.iterables import source_of
    >>> [batch for batch, _ in islice(items_in_passes(source_of('ab'), START, Context()), 4)]
    ['a', 'b', (1, 0), 'a']
    """
    first, before = parts_of(cursor, [int, None], stream)
    for next_pass, pairs in enumerate(passes(stream.open, first, before, context), first + 1):
        yield from pairs
        yield (next_pass, START), Signal.END_OF_PASS
    yield None, Signal.END


def is_batch(item: QueueEntry) -> bool:
    """Whether an item is a batch, and no mark.

    Examples
    --------
    >>> is_batch(('a', 1)), is_batch((None, Signal.END))
    (True, False)
    """
    return type(item[1]) is not Signal


running: weakref.WeakSet[PrefetchThread] = weakref.WeakSet()
