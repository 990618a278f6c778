"""Memory that is used again: blocks of it, each free again when nobody sees it any more."""

from __future__ import annotations

import mmap
import threading
import weakref
from collections.abc import Callable
from functools import partial
from itertools import count
from math import prod
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from .forks import in_child

T = TypeVar('T')
Bytes = npt.NDArray[np.uint8]

WORTHWHILE = 1 << 20  # bytes: what is smaller gains nothing by memory of this process that was used before
SPARE = 32 << 20  # bytes of free memory that are always kept for use again
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


class BlockRef(weakref.ref[Bytes]):
    """Sees an array for as long as anybody does, and calls a function with itself at the end.

    Such as the ``append`` of a list: a function in C, which nothing can interrupt.

    Examples
    --------
    >>> ended = []
    >>> sight = BlockRef(np.frombuffer(b'abc', np.uint8), ended.append)
    >>> ended == [sight]
    True
    """

    __slots__ = ('start',)

    start: int  # where what it sees begins


class BlockPool:
    """Hands out blocks of memory, used ones first: fresh memory is several times slower to write.

    Memory is given back to the system when more is free than has been in use of late, and more than a little.

    Parameters
    ----------
    supply
        Where new blocks come from.
    worthwhile
        The size in bytes from which on ``pooled_empty`` takes a block.

    Examples
    --------
    >>> blocks = BlockPool()
    >>> block = blocks.new(1000)
    >>> block.shape, block.dtype, blocks.in_use
    ((1000,), dtype('uint8'), 4096)
    >>> view = block[5:].view()
    >>> del block
    >>> blocks.new(1).base is view.base  # is somewhere else: the view still sees the first
    False
    """

    # What is free, is written down by the block itself when it dies, in one call into C: an interrupt, a signal handler
    # or a finalizer may come in the middle of anything here, in this thread or another one, and nothing is seen twice.
    def __init__(self, supply: Supply | None = None, worthwhile: int = WORTHWHILE):
        self.worthwhile = worthwhile
        self._supply = Heap() if supply is None else supply
        self._lock = threading.Lock()  # for the supply, and what it has given
        self._owner: int | None = None  # the thread that holds it
        self._taken = 0  # bytes from the supply
        self._peak = 0  # of the bytes in use, of late
        self._sights: dict[int, tuple[weakref.ref[Bytes], BlockRef]] = {}  # of each block, by where it begins
        self._free: dict[int, list[BlockRef]] = {}  # by size
        self._last_used: dict[int, int] = {}  # when each size was
        self._uses = count()
        self._trim_later = partial(_trim, weakref.ref(self))
        in_child(self._renew_lock)

    @property
    def spare(self) -> int:
        """The bytes that are free."""
        return sum([room * len(free) for room, free in list(self._free.items())])

    @property
    def in_use(self) -> int:
        """The bytes in use."""
        return self._taken - self.spare

    def new(self, size: int) -> Bytes:
        """A block of ``size`` bytes, free again when the array and all that views it are gone.

        Raises
        ------
        NoRoom
            If there is no memory.
        """
        room = rounded(size)
        self._last_used[room] = next(self._uses)
        free = self._free.setdefault(room, [])
        try:
            start = free.pop().start
        except IndexError:
            start = self._reserved(room)
        block = self._supply.view(start, size)
        self._sights[start] = self._sights_of(block, start, free)
        self._peak = max(self.in_use, self._peak - self._peak // FADING)
        return block

    def _sights_of(self, block: Bytes, start: int, free: list[BlockRef]) -> tuple[weakref.ref[Bytes], BlockRef]:
        trims = weakref.ref(block, self._trim_later)
        sight = BlockRef(block, free.append)  # of the two, what was made last is called first
        sight.start = start
        return trims, sight

    def trim(self) -> None:
        """Give memory back, if much more is free than has been in use of late."""
        self._peak -= self._peak // FADING
        if self._is_too_much() and not self._lock.locked():  # by this thread perhaps, in the middle of what it does
            self._peak = max(self.in_use, self._peak)
            this = threading.get_ident()
            with self._lock:
                self._owner = this
                try:
                    while self._is_too_much() and self._give_back_one():
                        pass
                finally:
                    self._owner = None

    def _is_too_much(self) -> bool:
        return self._taken > self._peak + max(SPARE, self._peak // 2)

    def _reserved(self, room: int) -> int:
        this = threading.get_ident()
        if self._owner == this:
            raise NoRoom('more blocks are needed in the middle of a search for one')
        with self._lock:
            self._owner = this
            try:
                return self._from_supply(room)
            finally:
                self._owner = None

    def _from_supply(self, room: int) -> int:
        while True:
            try:
                start = self._supply.reserve(room)
            except NoRoom:
                if not self._give_back_one():
                    raise
            else:
                self._taken += room
                return start

    def _give_back_one(self) -> bool:
        for room in sorted(self._free, key=self._last_used.__getitem__):
            try:
                start = self._free[room].pop(0).start
            except IndexError:
                continue
            del self._sights[start]
            self._supply.give_back(start, room)
            self._taken -= room
            return True
        return False

    def _renew_lock(self) -> None:
        self._lock, self._owner = threading.Lock(), None  # another thread may have held the lock at the fork


def is_worth_pooling(size: int) -> bool:
    """Whether there is memory that was used before, and so many bytes are enough to gain by it.

    Examples
    --------
    >>> is_worth_pooling(1 << 30)
    False
    """
    blocks = _current.blocks
    return blocks is not None and size >= blocks.worthwhile


def pooled_empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any] | None:
    """An array in memory that was used before, if there is such memory, and the array is large enough to gain by it.

    Examples
    --------
    >>> pooled_empty((2, 3), np.dtype('f4')) is None
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


def allocating_from(blocks: BlockPool, function: Callable[..., T]) -> Callable[..., T]:
    """The function, with ``pooled_empty`` taking its arrays from blocks while it runs.

    Examples
    --------
    >>> allocating_from(BlockPool(), lambda: is_worth_pooling(1 << 30))()
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


def allocate_from(blocks: BlockPool | None) -> None:
    """Have ``pooled_empty`` take its arrays from these blocks, in this thread."""
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
    blocks: BlockPool | None = None


_current = _Current()


def _trim(blocks: weakref.ref[BlockPool], _: object) -> None:
    alive = blocks()
    if alive is not None:
        alive.trim()
