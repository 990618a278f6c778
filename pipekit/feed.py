"""The thread that makes batches ahead of their use, and what it shares with their consumers."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Iterator
from itertools import islice, repeat, starmap
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias
from warnings import warn

from .cursors import START, Cursor, parts_of
from .metering import Meter
from .stalls import Stall, own_depth
from .streams import Context, Stream, passes
from .workers.pools import Pools

# The thread hands over batches with their cursors. In place of a cursor may be one of these.
END, END_OF_PASS, ERROR = (object() for _ in range(3))
Item: TypeAlias = tuple[Any, Any]

LOOKS = 10  # at who is busy, during a wait, until it is called a stall


class Feed:
    """The thread, and what it shares with the consumers."""

    # Were it to refer to its owner, that would never be collected. Every wait here ends although Ctrl-C, a signal
    # handler or a finalizer came between any two lines.
    def __init__(
        self,
        owner: object,
        items: Iterator[Item],
        pools: Pools,
        meter: Meter,
        buffer_size: int,
        stall_after: float | None,
    ):
        self.stopped = False
        self.first: deque[Item] = deque()  # the item to hand over next, if it has been waited for
        self._pools = pools
        self._meter = meter
        self._items: SimpleQueue[Item] = SimpleQueue()
        self._stall_after = stall_after
        patience = () if stall_after is None else (True, min(stall_after, threading.TIMEOUT_MAX) / LOOKS)
        self._arriving = starmap(self._items.get, repeat(patience))
        self._buffer_size = buffer_size
        self._full = False
        self._room: SimpleQueue[None] = SimpleQueue()
        self._thread = threading.Thread(target=self._fill, args=(items,), name='pipekit-prefetch', daemon=True)
        self._owner: weakref.ref[Any] | None = weakref.ref(owner, lambda _: self._forgotten())

    def start(self) -> None:
        """Let the thread begin."""
        running.add(self)
        self._thread.start()

    def wait_for_first(self) -> None:
        """Return when ``first`` has an item, or the thread has been stopped. Warns of a stall, once."""
        stall, looks, arriving = None, 0, self._arriving
        while not self.first and not self.stopped:
            self.tell_of_room()  # again: when the last item was taken, Ctrl-C may have come before this
            # From queue to queue in one call into C: Ctrl-C comes before or after it, and never loses an item.
            try:
                self.first.extend(islice(arriving, 1))
            except Empty:
                stall, looks = stall or Stall(self._thread, self._pools), looks + 1
                if looks < LOOKS:
                    stall.look()
                    continue
                arriving = starmap(self._items.get, repeat(()))
                assert self._stall_after is not None
                warn(stall.report(self._stall_after), RuntimeWarning, stacklevel=own_depth())

    def tell_of_room(self) -> None:
        """Wake the thread, if it waits for room."""
        if self._full:
            self._room.put(None)

    def stop(self) -> None:
        """Have the thread end, and whoever waits for it return; does not wait itself."""
        self.stopped = True
        self._room.put(None)
        self._items.put((None, END))
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

    def _fill(self, items: Iterator[Item]) -> None:
        # Room comes first: a batch is made when there is a place for it, and the thread holds none while it waits.
        try:
            while self._has_room():
                self._items.put(self._meter.batch(items))
        except StopIteration:
            pass
        except BaseException as error:
            if not self.stopped:  # else nobody takes it, and it leads back here
                self._items.put(([error], ERROR))
        finally:
            self._pools.close()

    def _has_room(self) -> bool:
        while not self.stopped:
            if self._items.qsize() + len(self.first) < self._buffer_size:
                self._full = False
                return True
            if self._full:
                self._room.get()
            self._full = True  # and look again: a consumer that made room either has been seen, or sees this
        return False


def items_one_after_another(stream: Stream[Any], cursor: Cursor, context: Context) -> Iterator[Item]:
    """The batches of a stream, and its end.

    Examples
    --------
    >>> from pipekit.iterables import source_of
    >>> [batch for batch, _ in items_one_after_another(source_of('ab'), START, Context())]
    ['a', 'b', None]
    """
    yield from stream.open(cursor, context)
    yield None, END


def items_in_passes(stream: Stream[Any], cursor: Cursor, context: Context) -> Iterator[Item]:
    """The batches of one pass after another, each pass followed by the cursor at which the next one begins.

    Examples
    --------
    >>> from pipekit.iterables import source_of
    >>> [batch for batch, _ in islice(items_in_passes(source_of('ab'), START, Context()), 4)]
    ['a', 'b', (1, 0), 'a']
    """
    first, before = parts_of(cursor, [int, None], stream)
    for next_pass, pairs in enumerate(passes(stream.open, first, before, context), first + 1):
        yield from pairs
        yield (next_pass, START), END_OF_PASS
    yield None, END


def is_batch(item: Item) -> bool:
    """Whether an item is a batch, and no mark.

    Examples
    --------
    >>> is_batch(('a', 1)), is_batch((None, END))
    (True, False)
    """
    return item[1] is not END and item[1] is not END_OF_PASS


running: weakref.WeakSet[Feed] = weakref.WeakSet()
