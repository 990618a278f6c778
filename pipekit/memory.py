"""Memory that is used again: blocks of it, each free again when nobody sees it any more."""

from __future__ import annotations

import mmap
import threading
import weakref
from collections import deque
from collections.abc import Callable
from itertools import count
from math import prod
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar('T')
Bytes = npt.NDArray[np.uint8]

WORTHWHILE = 1 << 20  # bytes: what is smaller gains nothing by memory of this process that was used before
SPARE = 32 << 20  # bytes of free memory that are always kept for use again
PATIENCE = 0.1  # seconds: in a fork, what another thread had locked stays locked
FADING = 16  # blocks taken or let go of, after which a peak of use counts for about a third


class NoRoom(MemoryError):
    """There is no memory for a block."""


class Supply(Protocol):
    """Where blocks come from."""

    def reserve(self, size: int) -> int:
        """Where a new piece of memory begins. Raises ``NoRoom``."""

    def view(self, start: int, size: int) -> Bytes:
        """An array of its own over a piece of memory: whatever views that array refers to it."""

    def give_back(self, start: int, size: int) -> None:
        """Return a piece to the system, with what it held."""


class Heap:
    """Memory of this process.

    Examples
    --------
    >>> heap = Heap()
    >>> heap.view(heap.reserve(100), 3).shape
    (3,)
    """

    def __init__(self) -> None:
        self._numbers = count()
        self._pieces: dict[int, memoryview] = {}

    def reserve(self, size: int) -> int:
        """The number of a new piece."""
        number = next(self._numbers)
        self._pieces[number] = np.empty(size, np.uint8).data
        return number

    def view(self, start: int, size: int) -> Bytes:
        """The first bytes of the piece of this number."""
        return np.frombuffer(self._pieces[start], np.uint8, size)

    def give_back(self, start: int, size: int) -> None:
        """Let go of the piece."""
        del self._pieces[start]


class Blocks:
    """Hands out blocks of memory, used ones first: fresh memory is several times slower to write.

    Memory is given back to the system when more is free than has been in use of late, and more than a little.

    Parameters
    ----------
    supply
        Where new blocks come from.
    worthwhile
        The size in bytes from which on ``empty`` takes a block.

    Examples
    --------
    >>> blocks = Blocks()
    >>> block = blocks.new(1000)
    >>> block.shape, block.dtype, blocks.in_use
    ((1000,), dtype('uint8'), 4096)
    >>> view = block[5:].view()
    >>> del block
    >>> blocks.new(1).base is view.base  # is somewhere else: the view still sees the first
    False
    """

    def __init__(self, supply: Supply | None = None, worthwhile: int = WORTHWHILE):
        self.worthwhile = worthwhile
        self.in_use = 0  # bytes
        self.spare = 0
        self._supply = Heap() if supply is None else supply
        self._lock = threading.Lock()
        self._unseen: deque[int] = deque()
        self._rooms: dict[int, int] = {}  # the sizes of the blocks in use
        self._used: dict[int, list[int]] = {}  # free, by size; the size last used is the last
        self._peak = 0  # of the bytes in use, of late

    def new(self, size: int) -> Bytes:
        """A block of ``size`` bytes, free again when the array and all that views it are gone.

        Raises
        ------
        NoRoom
            If there is no memory.
        """
        room = rounded(size)
        if not self._lock.acquire(timeout=PATIENCE):
            raise NoRoom('the blocks are in use elsewhere')
        try:
            self._sort_out()
            if self._used.get(room):
                start = self._used[room].pop()
                self.spare -= room
            else:
                start = self._reserved(room)
            self._rooms[start] = room
            self.in_use += room
            self._note_peak()
            block = self._supply.view(start, size)
            when_unseen(block, _came_out_of_sight, weakref.ref(self), start)
            return block
        finally:
            self._lock.release()

    def drop(self, start: int) -> None:
        """Take a block as free that nobody sees any more."""
        with self._lock:
            self._drop(start)

    def _drop(self, start: int) -> None:
        room = self._rooms.pop(start)
        free = self._used.pop(room, [])
        self._used[room] = free
        free.append(start)
        self.in_use -= room
        self.spare += room
        self._note_peak()
        while self.in_use + self.spare > self._peak + max(SPARE, self._peak // 2):
            self._give_back_one()

    def _note_peak(self) -> None:
        self._peak = max(self.in_use, self._peak - self._peak // FADING)

    def _give_back_one(self) -> None:
        room = next(size for size, starts in self._used.items() if starts)
        self._supply.give_back(self._used[room].pop(0), room)
        self.spare -= room

    def _reserved(self, room: int) -> int:
        while True:
            try:
                return self._supply.reserve(room)
            except NoRoom:
                if not self.spare:
                    raise
                self._give_back_one()

    def _sort_out(self) -> None:
        while self._unseen:
            self._drop(self._unseen.popleft())

    def came_out_of_sight(self, start: int) -> None:
        """Take note, anywhere and in any thread, that nobody sees a block any more."""
        self._unseen.append(start)
        # In the middle of another call, that of this thread perhaps, it stays for the next one.
        if self._lock.acquire(blocking=False):
            try:
                self._sort_out()
            finally:
                self._lock.release()


def gains(size: int) -> bool:
    """Whether there is memory that was used before, and so many bytes are enough to gain by it.

    Examples
    --------
    >>> gains(1 << 30)
    False
    """
    blocks = _current.blocks
    return blocks is not None and size >= blocks.worthwhile


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any] | None:
    """An array in memory that was used before, if there is such memory, and the array is large enough to gain by it.

    Examples
    --------
    >>> empty((2, 3), np.dtype('f4')) is None
    True
    """
    size = prod(shape) * dtype.itemsize
    blocks = _current.blocks
    if blocks is None or size < blocks.worthwhile or dtype.hasobject:
        return None
    try:
        return blocks.new(size).view(dtype).reshape(shape)
    except MemoryError:
        return None


def reusing(blocks: Blocks, function: Callable[..., T]) -> Callable[..., T]:
    """The function, with ``empty`` taking its arrays from blocks while it runs.

    Examples
    --------
    >>> reusing(Blocks(), lambda: gains(1 << 30))()
    True
    """

    def call(*args: Any) -> T:
        before = _current.blocks
        _current.blocks = blocks
        try:
            return function(*args)
        finally:
            _current.blocks = before

    return call


def use_again(blocks: Blocks | None) -> None:
    """Have ``empty`` take its arrays from these blocks, in this thread."""
    _current.blocks = blocks


def rounded(size: int) -> int:
    """A size in pages, and at most an eighth larger: sizes that differ a little share their blocks.

    Examples
    --------
    >>> rounded(1), rounded(1_000_000)
    (4096, 1048576)
    """
    step = max(mmap.PAGESIZE, 1 << max(0, size.bit_length() - 4))
    return -(-max(size, 1) // step) * step


class _Current(threading.local):
    blocks: Blocks | None = None


_current = _Current()


def when_unseen(array: Bytes, function: Callable[..., Any], *args: Any) -> None:
    """Call a function, in whichever thread, when an array and all that views it are gone."""
    weakref.finalize(array, function, *args).atexit = False


def _came_out_of_sight(blocks: weakref.ref[Blocks], start: int) -> None:
    alive = blocks()
    if alive is not None:
        alive.came_out_of_sight(start)
