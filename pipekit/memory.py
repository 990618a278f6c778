"""Memory that is used again: blocks of it, each free again when nobody sees it any more."""

from __future__ import annotations

import mmap
import os
import threading
import weakref
from bisect import bisect_right
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from contextlib import suppress
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

WORTHWHILE = 1 << 16  # bytes: what is smaller gains nothing by used memory
SPARE = 32 << 20  # bytes of free memory that are always kept for use again
FADING = 256  # blocks after which a peak of use counts for about a third


class NoRoom(MemoryError):
    """A region is full, or the system has no memory for it."""


class Region:
    """Memory that processes share: an unnamed file in memory, gone with the last process that has it open.

    It is larger than the machine's memory, so that blocks of new sizes find a place, and takes of that what they need.

    Examples
    --------
    >>> region = Region()
    >>> region.memory[:3] = b'abc'
    >>> Region(region.descriptor).memory[:3]
    b'abc'
    """

    def __init__(self, descriptor: int | None = None, *, read_only: bool = False):
        self.descriptor = _new_file() if descriptor is None else descriptor
        try:
            self.memory = mmap.mmap(self.descriptor, 0, access=mmap.ACCESS_READ if read_only else mmap.ACCESS_WRITE)
        except BaseException:
            if descriptor is None:
                self.close_descriptor()
            raise
        self.size = min(len(self.memory), _memory())
        if hasattr(mmap, 'MADV_DONTDUMP'):  # the core of a process that crashes would fill all of it
            self.memory.madvise(mmap.MADV_DONTDUMP)

    def reserve(self, start: int, size: int) -> None:
        """Have the system set memory aside: without it, writing where there is none left ends the process."""
        if hasattr(os, 'posix_fallocate'):
            try:
                os.posix_fallocate(self.descriptor, start, size)
            except OSError as error:
                raise NoRoom(f'the system has no {size:,} bytes of shared memory: {error}') from error

    def give_back(self, start: int, size: int) -> None:
        """Return memory to the system, with what it held."""
        if hasattr(mmap, 'MADV_REMOVE'):
            with suppress(OSError):  # the file is in a folder that keeps what it has
                self.memory.madvise(mmap.MADV_REMOVE, start, size)

    def close_descriptor(self) -> None:
        """Close the file; the memory stays, for as long as somebody sees it."""
        os.close(self.descriptor)


class Blocks:
    """Hands out blocks of a region, used ones first: fresh memory is several times slower to write.

    Memory is given back to the system when more is free than has been in use of late, and more than a little.

    Examples
    --------
    >>> blocks = Blocks(Region())
    >>> block = blocks.new(1000)
    >>> block.shape, block.dtype, blocks.in_use
    ((1000,), dtype('uint8'), 4096)
    >>> view = block[5:].view()
    >>> del block
    >>> blocks.new(1).base is view.base  # is somewhere else: the view still sees the first
    False
    """

    def __init__(self, region: Region, start: int = 0):
        self._region = region
        self._end = start
        self._address = np.frombuffer(region.memory, np.uint8).ctypes.data
        self._starts: list[int] = []
        self._sizes: dict[int, int] = {}
        self._holders: Counter[int] = Counter()
        self._unseen: deque[int] = deque()
        self._used: dict[int, list[int]] = {}  # free, and in the hands of the process; the size last used is the last
        self._given_back: defaultdict[int, list[int]] = defaultdict(list)
        self._peak = 0  # of the bytes in use, of late
        self.in_use = 0  # bytes
        self.spare = 0

    def new(self, size: int) -> Bytes:
        """A block of ``size`` bytes, free again when the array and what views it are gone and nobody holds it.

        Raises
        ------
        NoRoom
            If the region is full, or the system out of memory.
        """
        while self._unseen:
            self.drop(self._unseen.popleft())
        room = _rounded(size)
        if self._used.get(room):
            start = self._used[room].pop()
            self.spare -= room
        else:
            start = self._reserved(room)
        self._holders[start] = 1
        self.in_use += room
        self._peak = max(self.in_use, self._peak - self._peak // FADING)
        block = np.frombuffer(self._region.memory, np.uint8, size, start)
        when_unseen(block, self._unseen.append, start)
        return block

    def start_of(self, array: Bytes) -> tuple[int, int] | None:
        """Where the block begins that an array of bytes lies in, and where the array does, if it lies in one."""
        offset = array.ctypes.data - self._address
        number = bisect_right(self._starts, offset) - 1
        if number < 0 or offset >= self._end or not self._holders[self._starts[number]]:
            return None
        return self._starts[number], offset

    def hold(self, start: int) -> None:
        """Keep a block from being used again, once more."""
        self._holders[start] += 1

    def drop(self, start: int) -> None:
        """Take one ``hold`` back."""
        self._holders[start] -= 1
        if self._holders[start]:
            return
        room = self._sizes[start]
        free = self._used.pop(room, [])
        self._used[room] = free
        free.append(start)
        self.in_use -= room
        self.spare += room
        while self.in_use + self.spare > self._peak + max(SPARE, self._peak // 2):
            room = next(size for size, starts in self._used.items() if starts)
            start = self._used[room].pop(0)
            self._region.give_back(start, room)
            self._given_back[room].append(start)
            self.spare -= room

    def _reserved(self, room: int) -> int:
        if self._given_back[room]:
            start = self._given_back[room][-1]
            self._region.reserve(start, room)
            return self._given_back[room].pop()
        start, size = self._end, self._region.size
        left = min(size - self.in_use, len(self._region.memory) - start)
        if room > left:
            raise NoRoom(f'{room:,} bytes are needed, and {left:,} of {size:,} bytes of shared memory are left')
        self._region.reserve(start, room)
        self._end += room
        self._starts.append(start)
        self._sizes[start] = room
        return start


class Views:
    """What another process has written to a region, as arrays; and which blocks of it nobody sees any more.

    Examples
    --------
    >>> region = Region()
    >>> region.memory[4096:4099] = b'abc'
    >>> views = Views(region)
    >>> view = views.of(4096, 4097, 2)
    >>> view.tobytes(), views.take_unseen()
    (b'bc', [])
    >>> del view
    >>> views.take_unseen()
    [4096]
    """

    def __init__(self, region: Region):
        self._memory = region.memory
        self._unseen: deque[int] = deque()

    def of(self, block: int, start: int, size: int) -> Bytes:
        """``size`` bytes from ``start`` on, in the block that begins at ``block``."""
        view = np.frombuffer(self._memory, np.uint8, size, start)
        when_unseen(view, self._unseen.append, block)
        return view

    def take_unseen(self) -> list[int]:
        """The blocks that have come out of sight since the last call: one entry for each view."""
        return [self._unseen.popleft() for _ in range(len(self._unseen))]


def gains(size: int) -> bool:
    """Whether there is memory that was used before, and so many bytes are enough to gain by it.

    Examples
    --------
    >>> gains(1 << 30)
    False
    """
    return _used.blocks is not None and size >= WORTHWHILE


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any] | None:
    """An array in memory that was used before, if there is such memory, and the array is large enough to gain by it.

    Examples
    --------
    >>> empty((2, 3), np.dtype('f4')) is None
    True
    """
    size = prod(shape) * dtype.itemsize
    if _used.blocks is None or not gains(size) or dtype.hasobject:
        return None
    try:
        return _used.blocks.new(size).view(dtype).reshape(shape)
    except NoRoom:
        return None


def use_again(blocks: Blocks | None) -> None:
    """Have ``empty`` take its arrays from these blocks, in this thread."""
    _used.blocks = blocks


class _Used(threading.local):
    blocks: Blocks | None = None


_used = _Used()


def when_unseen(array: Bytes, function: Callable[[int], Any], start: int) -> None:
    """Call a function, in whichever thread, when an array and all that views it are gone."""
    weakref.finalize(array, function, start).atexit = False


def _rounded(size: int) -> int:
    # To pages, and at most an eighth more: sizes that differ a little share their blocks.
    step = max(mmap.PAGESIZE, 1 << max(0, size.bit_length() - 4))
    return -(-max(size, 1) // step) * step


def _new_file() -> int:
    if hasattr(os, 'memfd_create'):
        descriptor = os.memfd_create('pipekit')
    else:
        in_memory = '/dev/shm'
        import tempfile  # which takes a while to load, and is seldom needed

        with tempfile.TemporaryFile(dir=in_memory if os.path.isdir(in_memory) else None) as file:
            descriptor = os.dup(file.fileno())
    try:
        os.ftruncate(descriptor, _largest())
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _largest() -> int:
    import resource

    addresses = max(_memory(), min(16 * _memory(), 1 << 40))  # there is one region for each process, too
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return addresses if limit == resource.RLIM_INFINITY else min(addresses, limit // mmap.PAGESIZE * mmap.PAGESIZE)


def _memory() -> int:
    return os.sysconf('SC_PHYS_PAGES') * mmap.PAGESIZE
