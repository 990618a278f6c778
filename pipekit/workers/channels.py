"""Messages between two processes; large arrays are passed in shared memory instead of the pipe."""

from __future__ import annotations

import pickle
from collections import Counter, deque
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from threading import RLock
from typing import Any, TypeAlias

import numpy as np

from ..memory.blocks import Bytes, NoRoom
from ..memory.shared import RemoteBlocks, SharedBlockPool
from .pickling import MIN_OUT_OF_BAND_BYTES, Extent, Pickled, pickled

Load: TypeAlias = Callable[[], Any]  # unpickles the content of a message


class Channel:
    """One end of a connection between two processes.

    Parameters
    ----------
    connection
        The pipe.
    outgoing
        Shared memory for the large arrays that this end sends. If there is none or it is full, they go through the
        pipe.
    incoming
        The shared memory of the other end.
    """

    def __init__(self, connection: Connection, outgoing: SharedBlockPool | None, incoming: RemoteBlocks | None):
        self._connection = connection
        self._outgoing = outgoing
        self._incoming = incoming
        self._in_use: Counter[int] = Counter()  # outgoing blocks that the other end has not released
        self._to_write: deque[bytes] = deque()
        self._lock = RLock()
        self._is_writing = False
        self.no_room: NoRoom | None = None  # why an array had to go through the pipe

    def send(self, header: Any, content: Any = None) -> None:
        """Send a message: a header, which is small and plain, and any content."""
        self.send_pickled(header, self.pickled(content))

    def pickled(self, content: Any) -> Pickled:
        """Pickle content for the other end, with large arrays in shared memory."""
        placed: list[Extent] = []
        try:
            body, extents = pickled(content, lambda buffer: self._place(buffer, placed))
            # Many small values are large together.
            large = len(body) >= MIN_OUT_OF_BAND_BYTES
            extent = self._place(np.frombuffer(body, np.uint8), placed) if large else None
        except BaseException:
            self._release(block for block, _, _ in placed)
            raise
        return (body, extents) if extent is None else (b'', [*extents, extent])

    def send_pickled(self, header: Any, content: Pickled) -> None:
        """Send content that is already pickled."""
        released = [] if self._incoming is None else self._incoming.take_freed()
        self._write(pickle.dumps((header, *content, released)))

    def send_from_anywhere(self, header: Any, content: Any) -> None:
        """Send a message in any thread, even in a finalizer that interrupts another message; all of it in the pipe."""
        self._write(pickle.dumps((header, *pickled(content, lambda buffer: None), [])))

    def receive(self) -> bytes:
        """Wait for a message.

        Raises
        ------
        EOFError, OSError
            If the other end is closed.
        """
        return self._connection.recv_bytes()

    def parsed(self, message: bytes) -> tuple[Any, Load, int]:
        """The header of a message, a function that unpickles its content, and the size of the content in bytes."""
        header, body, extents, released = pickle.loads(message)
        self._release(released)
        incoming = self._incoming
        buffers: list[Any] = [incoming.view(*extent) for extent in extents] if incoming is not None else []
        n_bytes = len(body) + sum(size for _, _, size in extents)
        stream = body or buffers.pop()
        return header, lambda: pickle.loads(stream, buffers=buffers), n_bytes

    def close(self) -> None:
        """Close the connection; the blocks that the other end has not released are free again."""
        self._connection.close()
        self._release(self._in_use.elements())
        self._in_use.clear()

    def _write(self, message: bytes) -> None:
        # Whoever writes, in this thread or in another one, writes this message as well.
        self._to_write.append(message)
        while self._to_write and self._lock.acquire(blocking=False):
            try:
                if self._is_writing:
                    return
                self._write_all()
            finally:
                self._lock.release()

    def _write_all(self) -> None:
        try:
            self._is_writing = True
            while self._to_write:
                self._connection.send_bytes(self._to_write.popleft())
        except OSError:
            raise
        except BaseException:  # one that a signal handler raises may have cut a message off
            self._connection.close()
            raise
        finally:
            self._is_writing = False

    def _place(self, buffer: Bytes, placed: list[Extent]) -> Extent | None:
        if self._outgoing is None:
            return None
        try:
            placed.append(hold_in_shared_memory(buffer, self._outgoing))
        except NoRoom as error:
            self.no_room = error
            return None
        self._in_use[placed[-1][0]] += 1
        return placed[-1]

    def _release(self, blocks: Iterable[int]) -> None:
        if self._outgoing is not None:
            for block in list(blocks):
                self._in_use[block] -= 1
                self._outgoing.drop(block)


def hold_in_shared_memory(array: Bytes, blocks: SharedBlockPool) -> Extent:
    """Hold the bytes of an array for another process: in place if they are in a block, else copied into a new one."""
    place = blocks.place_of(array)
    if place is None:
        block = blocks.new(array.nbytes)
        block[...] = array
        place = blocks.place_of(block)
        assert place is not None
    blocks.hold(place[0])
    return (*place, array.nbytes)
