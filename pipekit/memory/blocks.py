"""Blocks of memory that are reused: a block is free again when nothing refers to its array any more."""

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
from .locks import Lock

T = TypeVar('T')
Bytes = npt.NDArray[np.uint8]

SMALLEST_POOLED_BYTES = 1 << 20  # smaller arrays gain nothing from memory of this process that was used before
SPARE_BYTES = 32 << 20  # free memory that is always kept for reuse
PEAK_DECAY_BLOCKS = 16  # after so many blocks were taken or freed, a peak of use counts for about a third


class NoRoom(MemoryError):
    """There is no memory for another block."""


class Supply(Protocol):
    """Where a pool gets its memory."""

    def reserve(self, size: int) -> int:
        """Reserve a new piece of memory, and return where it begins. Raises ``NoRoom``."""

    def view(self, start: int, size: int) -> Bytes:
        """A new array over a piece of memory, which is the base of all its views."""

    def give_back(self, start: int, size: int) -> None:
        """Return a piece of memory to the system; what it held is lost."""


class Heap:
    """Memory of this process; a piece begins at its number."""

    def __init__(self) -> None:
        self._numbers = count()
        self._pieces: dict[int, memoryview] = {}

    def reserve(self, size: int) -> int:
        """Allocate a new piece, and return its number."""
        number = next(self._numbers)
        self._pieces[number] = np.empty(size, np.uint8).data
        return number

    def view(self, start: int, size: int) -> Bytes:
        """The first bytes of the piece with this number."""
        return np.frombuffer(self._pieces[start], np.uint8, size)

    def give_back(self, start: int, size: int) -> None:
        """Free the piece."""
        del self._pieces[start]


class BlockRef(weakref.ref[Bytes]):
    """A weak reference to an array that knows where its block begins.

    Its callback is the ``append`` of a list or a deque: a function in C, which nothing can interrupt.
    """

    __slots__ = ('start',)

    start: int


class BlockPool:
    """Hands out blocks of memory, used ones first: writing to fresh memory is several times slower.

    Memory is returned to the system when much more of it is free than was in use recently.

    Parameters
    ----------
    supply
        Where new blocks come from.
    smallest_bytes
        The smallest size that ``pooled_empty`` takes from here.
    """

    # A collected block puts itself on the free list, by one call into C: a signal handler, a finalizer or another
    # thread may run between any two lines here, and none of them takes a block twice.
    def __init__(self, supply: Supply | None = None, smallest_bytes: int = SMALLEST_POOLED_BYTES):
        self.smallest_bytes = smallest_bytes
        self._supply = Heap() if supply is None else supply
        self._lock = Lock()  # for the supply, and what was taken from it
        self._taken = 0  # bytes taken from the supply
        self._peak = 0  # bytes in use at the most, recently
        self._refs: dict[int, tuple[weakref.ref[Bytes], BlockRef]] = {}  # to each block, by where it begins
        self._free: dict[int, list[BlockRef]] = {}  # by capacity
        self._last_used: dict[int, int] = {}  # when each capacity was asked for
        self._uses = count()
        self._trim_later = partial(_trim, weakref.ref(self))
        in_child(self._renew_lock)

    @property
    def spare(self) -> int:
        """The bytes that are free."""
        return sum([capacity * len(free) for capacity, free in list(self._free.items())])

    @property
    def in_use(self) -> int:
        """The bytes in use."""
        return self._taken - self.spare

    def new(self, size: int) -> Bytes:
        """A block of ``size`` bytes, which is free again when the array and all its views are gone.

        Raises
        ------
        NoRoom
            If there is no memory.
        """
        capacity = rounded(size)
        self._last_used[capacity] = next(self._uses)
        free = self._free.setdefault(capacity, [])
        try:
            start = free.pop().start
        except IndexError:
            start = self._reserve(capacity)
        block = self._supply.view(start, size)
        self._refs[start] = self._refs_to(block, start, free)
        self._peak = max(self.in_use, self._peak - self._peak // PEAK_DECAY_BLOCKS)
        return block

    def _refs_to(self, block: Bytes, start: int, free: list[BlockRef]) -> tuple[weakref.ref[Bytes], BlockRef]:
        trims = weakref.ref(block, self._trim_later)
        ref = BlockRef(block, free.append)  # made last, it is called back first
        ref.start = start
        return trims, ref

    def trim(self) -> None:
        """Return memory to the system, if much more is free than was in use recently."""
        self._peak -= self._peak // PEAK_DECAY_BLOCKS
        if self._has_excess() and not self._lock.is_mine():  # this may interrupt what holds the lock in this thread
            self._peak = max(self.in_use, self._peak)
            for _ in self._lock.held():
                while self._has_excess() and self._give_back_one():
                    pass

    def _has_excess(self) -> bool:
        return self._taken > self._peak + max(SPARE_BYTES, self._peak // 2)

    def _reserve(self, capacity: int) -> int:
        if self._lock.is_mine():
            raise NoRoom('a block was requested while this thread is allocating another one')
        for _ in self._lock.held():
            start = self._from_supply(capacity)
        return start

    def _from_supply(self, capacity: int) -> int:
        while True:
            try:
                start = self._supply.reserve(capacity)
            except NoRoom:
                if not self._give_back_one():
                    raise
            else:
                self._taken += capacity
                return start

    def _give_back_one(self) -> bool:
        for capacity in sorted(self._free, key=self._last_used.__getitem__):
            try:
                start = self._free[capacity].pop(0).start
            except IndexError:
                continue
            del self._refs[start]
            self._supply.give_back(start, capacity)
            self._taken -= capacity
            return True
        return False

    def _renew_lock(self) -> None:
        self._lock = Lock()  # another thread may have held the lock at the fork


def is_worth_pooling(size: int) -> bool:
    """Whether this thread allocates from a pool, and an array of this many bytes is large enough to gain by it."""
    pool = _current.pool
    return pool is not None and size >= pool.smallest_bytes


def pooled_empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any] | None:
    """An array as from ``np.empty`` in reused memory; ``None`` where that is impossible or gains nothing."""
    size = prod(shape) * dtype.itemsize
    pool = _current.pool
    if pool is None or size < pool.smallest_bytes or dtype.hasobject:
        return None
    try:
        return pool.new(size).view(dtype).reshape(shape)
    except MemoryError:
        return None


def allocating_from(pool: BlockPool, function: Callable[..., T]) -> Callable[..., T]:
    """The function, with ``pooled_empty`` allocating from this pool while it runs."""

    def call(*args: Any) -> T:
        before = _current.pool
        _current.pool = pool
        try:
            return function(*args)
        finally:
            _current.pool = before

    return call


def allocate_from(pool: BlockPool | None) -> None:
    """Let ``pooled_empty`` allocate from this pool in this thread."""
    _current.pool = pool


def rounded(size: int) -> int:
    """A size in whole pages, larger by an eighth at most, so that similar sizes share their blocks."""
    step = max(mmap.PAGESIZE, 1 << max(0, size.bit_length() - 4))
    return -(-max(size, 1) // step) * step


class _Current(threading.local):
    pool: BlockPool | None = None


_current = _Current()


def _trim(pool: weakref.ref[BlockPool], _: object) -> None:
    alive = pool()
    if alive is not None:
        alive.trim()
