"""Memory that processes share: regions of it, the blocks that lie there, and what the other process sees of them."""

from __future__ import annotations

import mmap
import os
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from .blocks import BlockPool, BlockRef, Bytes, NoRoom
from .file_descriptors import beyond_standard_streams
from .forks import forget_ended_forks, keep_for_forks

WORTHWHILE = 1 << 16  # bytes: what is smaller is sent as fast as it is


class Arena:
    """Memory that processes share: an unnamed file in memory, gone with the last process that has it open.

    It is larger than the machine's memory, so that blocks of new sizes find a place, and takes of that what they need.

    Parameters
    ----------
    descriptor
        That of the file, if another process has made it.
    read_only
        Whether it is only looked at.
    first
        The byte from which on it is handed out.

    Examples
    --------
    >>> region = Arena()
    >>> region.memory[:3] = b'abc'
    >>> Arena(region.descriptor).memory[:3]
    b'abc'
    """

    def __init__(self, descriptor: int | None = None, *, read_only: bool = False, first: int = 0):
        access = mmap.ACCESS_READ if read_only else mmap.ACCESS_WRITE
        with beyond_standard_streams():
            self.descriptor = _new_file() if descriptor is None else descriptor
            try:
                self.memory = mmap.mmap(self.descriptor, 0, access=access)  # which has a descriptor of its own
            except BaseException:
                if descriptor is None:
                    self.close_descriptor()
                raise
        self.size = min(len(self.memory), _memory())
        self._address = np.frombuffer(self.memory, np.uint8).ctypes.data
        self._end = first
        self._starts: list[int] = []  # of the pieces that were ever handed out
        self._given_back: defaultdict[int, list[int]] = defaultdict(list)  # by size
        self._taken = 0  # bytes
        self._process = os.getpid()
        if hasattr(mmap, 'MADV_DONTDUMP'):  # the core of a process that crashes would fill all of it
            self.memory.madvise(mmap.MADV_DONTDUMP)

    def reserve(self, size: int) -> int:
        """Where a new piece of memory begins, which the system has set aside.

        Raises
        ------
        NoRoom
            If the region is full, or the system out of memory.
        """
        if self._given_back[size]:
            start = self._given_back[size][-1]
            self._set_aside(start, size)
            self._given_back[size].pop()
        else:
            start = self._end
            left = min(self.size - self._taken, len(self.memory) - start)
            if size > left:
                there_is = f'{left:,} of {self.size:,} bytes of shared memory are left'
                raise NoRoom(f'{size:,} bytes are needed, and {there_is}')
            self._set_aside(start, size)
            self._end += size
            self._starts.append(start)
        self._taken += size
        return start

    def view(self, start: int, size: int) -> Bytes:
        """The bytes of a piece, as an array."""
        return np.frombuffer(self.memory, np.uint8, size, start)

    def give_back(self, start: int, size: int) -> None:
        """Return a piece to the system, with what it held."""
        self._given_back[size].append(start)
        self._taken -= size
        if hasattr(mmap, 'MADV_REMOVE') and self._process == os.getpid():  # and not in a fork, which does not own it
            with suppress(OSError):  # the file is in a folder that keeps what it has
                self.memory.madvise(mmap.MADV_REMOVE, start, size)

    def place_of(self, array: Bytes) -> tuple[int, int] | None:
        """Where the piece begins that an array of bytes lies in, and where the array does, if it lies in one."""
        offset = array.ctypes.data - self._address
        number = bisect_right(self._starts, offset) - 1
        return None if number < 0 or offset >= self._end else (self._starts[number], offset)

    def close_descriptor(self) -> None:
        """Close the file; the memory stays, for as long as somebody sees it."""
        os.close(self.descriptor)

    def _set_aside(self, start: int, size: int) -> None:
        # Without it, writing where there is no memory left ends the process.
        if hasattr(os, 'posix_fallocate'):
            try:
                os.posix_fallocate(self.descriptor, start, size)
            except OSError as error:
                raise NoRoom(f'the system has no {size:,} bytes of shared memory: {error}') from error


class SharedBlockPool(BlockPool):
    """Blocks of a region, which another process may see, too.

    Examples
    --------
    >>> blocks = SharedBlockPool(Arena())
    >>> block = blocks.new(1000)
    >>> blocks.place_of(block[5:])
    (0, 5)
    >>> blocks.hold(0)
    >>> del block
    >>> blocks.in_use
    4096
    """

    def __init__(self, region: Arena):
        super().__init__(region, WORTHWHILE)
        self._region = region
        self._held: defaultdict[int, list[Bytes | None]] = defaultdict(list)
        keep_for_forks(self)

    def place_of(self, array: Bytes) -> tuple[int, int] | None:
        """Where the block begins that an array of bytes lies in, and where the array does, if it lies in one."""
        place = self._region.place_of(array)
        return place if place is not None and self._block(place[0]) is not None else None

    def hold(self, start: int) -> None:
        """Keep a block, which somebody sees, from being used again, once more, until it is dropped."""
        self._held[start].append(self._block(start))

    def drop(self, start: int) -> None:
        """Let go of a block that was held."""
        self._held[start].pop()

    def arrays_in_use(self) -> Iterator[Bytes]:
        """The blocks that are in use."""
        return (block for _, sight in list(self._sights.values()) if (block := sight()) is not None)

    def _block(self, start: int) -> Bytes | None:
        return self._sights[start][0]() if start in self._sights else None


class RemoteBlocks:
    """What another process has written to a region, as arrays; and which blocks of it nobody sees any more.

    Examples
    --------
    >>> region = Arena()
    >>> region.memory[4096:4099] = b'abc'
    >>> views = RemoteBlocks(region)
    >>> view = views.of(4096, 4097, 2)
    >>> view.tobytes(), views.take_unseen()
    (b'bc', [])
    >>> del view
    >>> views.take_unseen()
    [4096]
    """

    def __init__(self, region: Arena):
        self._memory = region.memory
        self._sights: dict[int, BlockRef] = {}
        self._unseen: deque[BlockRef] = deque()
        keep_for_forks(self)

    def of(self, block: int, start: int, size: int) -> Bytes:
        """``size`` bytes from ``start`` on, in the block that begins at ``block``."""
        view = np.frombuffer(self._memory, np.uint8, size, start)
        sight = BlockRef(view, self._unseen.append)
        sight.start = block
        self._sights[id(sight)] = sight
        return view

    def take_unseen(self) -> list[int]:
        """The blocks that have come out of sight since the last call: one entry for each view."""
        forget_ended_forks()
        return [self._sights.pop(id(self._unseen.popleft())).start for _ in range(len(self._unseen))]

    def arrays_in_use(self) -> Iterator[Bytes]:
        """The views that somebody sees."""
        return (view for sight in list(self._sights.values()) if (view := sight()) is not None)


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
