"""Messages between two processes. What is big stays out of the pipe: it lies in memory that both see."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

import numpy as np

from ..memory.blocks import Bytes, NoRoom
from ..memory.shared import RemoteBlocks, SharedBlockPool
from .pickling import OUT_OF_PIPE, Extent, Pickled, pickled

Load: TypeAlias = Callable[[], Any]


class Channel:
    """One end of a connection between two processes.

    Parameters
    ----------
    connection
        What goes through the pipe.
    outgoing
        Where this end puts big arrays. With none, or when it is full, they go through the pipe.
    incoming
        Where the other end puts them.
    """

    def __init__(self, connection: Connection, outgoing: SharedBlockPool | None, incoming: RemoteBlocks | None):
        self._connection = connection
        self._outgoing = outgoing
        self._incoming = incoming
        self._lent: Counter[int] = Counter()  # blocks that the other end sees
        self.no_room: NoRoom | None = None  # why an array had to go through the pipe

    def send(self, header: Any, content: Any = None) -> None:
        """Send a message: a header that is small and plain, and any content."""
        self.send_pickled(header, self.pickled(content))

    def pickled(self, content: Any) -> Pickled:
        """Content as it can be sent to the other end, with its big arrays where that can see them."""
        held: list[Extent] = []
        try:
            body, places = pickled(content, lambda array: self._placed(array, held))
            # Many small things are large together.
            place = self._placed(np.frombuffer(body, np.uint8), held) if len(body) >= OUT_OF_PIPE else None
        except BaseException:
            self._return(block for block, _, _ in held)
            raise
        return (body, places) if place is None else (b'', [*places, place])

    def send_pickled(self, header: Any, content: Pickled) -> None:
        """Send content that has been pickled."""
        unseen = [] if self._incoming is None else self._incoming.take_freed()
        self._connection.send_bytes(pickle.dumps((header, *content, unseen)))

    def receive(self) -> bytes:
        """Wait for a message.

        Raises
        ------
        EOFError, OSError
            If the other end is gone.
        """
        return self._connection.recv_bytes()

    def opened(self, message: bytes) -> tuple[Any, Load, int]:
        """The header of a message, a function that gives its content, and the size of that in bytes."""
        header, body, places, unseen = pickle.loads(message)
        self._return(unseen)
        incoming = self._incoming
        buffers: list[Any] = [incoming.view(*place) for place in places] if incoming is not None else []
        size = len(body) + sum(size for _, _, size in places)
        stream = body or buffers.pop()
        return header, lambda: pickle.loads(stream, buffers=buffers), size

    def close(self) -> None:
        """Give the other end up: what it saw may be used again."""
        self._connection.close()
        self._return(self._lent.elements())
        self._lent.clear()

    def _placed(self, array: Bytes, held: list[Extent]) -> Extent | None:
        if self._outgoing is None:
            return None
        try:
            held.append(placed(array, self._outgoing))
        except NoRoom as error:
            self.no_room = error
            return None
        self._lent[held[-1][0]] += 1
        return held[-1]

    def _return(self, blocks: Iterable[int]) -> None:
        if self._outgoing is not None:
            for block in list(blocks):
                self._lent[block] -= 1
                self._outgoing.drop(block)


def placed(array: Bytes, blocks: SharedBlockPool) -> Extent:
    """Hold the bytes of an array for another process, where they are if they are in a block, copied into one if not.

    Examples
    --------
    >>> from pipekit.memory.shared import Arena
    >>> placed(np.zeros(5, np.uint8), SharedBlockPool(Arena()))
    (0, 0, 5)
    """
    found = blocks.place_of(array)
    if found is None:
        block = blocks.new(array.nbytes)
        block[...] = array
        found = blocks.place_of(block)
        assert found is not None
    blocks.hold(found[0])
    return (*found, array.nbytes)
