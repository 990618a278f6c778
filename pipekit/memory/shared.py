"""Memory that processes share: arenas, the blocks in them, and the arrays over blocks of another process."""

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

SMALLEST_SHARED_BYTES = 1 << 16  # smaller arrays are sent through the pipe as fast


class Arena:
    """Memory that processes share: an unnamed file in memory, which is gone when the last process has closed it.

    Its address range is larger than the machine's memory, so that there is a place for blocks of new sizes; only
    reserved pieces take memory.

    Parameters
    ----------
    descriptor
        The file descriptor, if another process has created the file.
    read_only
        Whether this process only reads.
    first
        The offset of the first byte to reserve.
    """

    def __init__(self, descriptor: int | None = None, *, read_only: bool = False, first: int = 0):
        access = mmap.ACCESS_READ if read_only else mmap.ACCESS_WRITE
        with beyond_standard_streams():
            self.descriptor = _new_file() if descriptor is None else descriptor
            try:
                self.memory = mmap.mmap(self.descriptor, 0, access=access)  # duplicates the descriptor
            except BaseException:
                if descriptor is None:
                    self.close_descriptor()
                raise
        self.size = min(len(self.memory), _machine_bytes())
        self._address = np.frombuffer(self.memory, np.uint8).ctypes.data
        self._end = first
        self._starts: list[int] = []  # of all pieces that were ever reserved
        self._given_back: defaultdict[int, list[int]] = defaultdict(list)  # by size
        self._taken = 0  # bytes reserved now
        self._process = os.getpid()
        if hasattr(mmap, 'MADV_DONTDUMP'):  # or the core dump of a crash would be as large
            self.memory.madvise(mmap.MADV_DONTDUMP)

    def reserve(self, size: int) -> int:
        """Reserve a new piece of memory, and return its offset.

        Raises
        ------
        NoRoom
            If the arena is full, or the system out of memory.
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
        """Return a piece of memory to the system; what it held is lost."""
        self._given_back[size].append(start)
        self._taken -= size
        if hasattr(mmap, 'MADV_REMOVE') and self._process == os.getpid():  # a fork does not own it
            with suppress(OSError):  # not every file system can do it
                self.memory.madvise(mmap.MADV_REMOVE, start, size)

    def place_of(self, array: Bytes) -> tuple[int, int] | None:
        """The offsets of the piece that contains an array of bytes, and of the array; ``None`` if no piece does."""
        offset = array.ctypes.data - self._address
        number = bisect_right(self._starts, offset) - 1
        return None if number < 0 or offset >= self._end else (self._starts[number], offset)

    def close_descriptor(self) -> None:
        """Close the file; the memory stays as long as arrays refer to it."""
        os.close(self.descriptor)

    def _set_aside(self, start: int, size: int) -> None:
        # Without this, the first write to memory that the system does not have would kill the process.
        if hasattr(os, 'posix_fallocate'):
            try:
                os.posix_fallocate(self.descriptor, start, size)
            except OSError as error:
                raise NoRoom(f'the system has no {size:,} bytes of shared memory: {error}') from error


class SharedBlockPool(BlockPool):
    """Hands out blocks of an arena; another process may use them too."""

    def __init__(self, arena: Arena):
        super().__init__(arena, SMALLEST_SHARED_BYTES)
        self._arena = arena
        self._held: defaultdict[int, list[Bytes | None]] = defaultdict(list)
        keep_for_forks(self)

    def place_of(self, array: Bytes) -> tuple[int, int] | None:
        """The offsets of the block that contains an array of bytes, and of the array; ``None`` if no block does."""
        place = self._arena.place_of(array)
        return place if place is not None and self._block(place[0]) is not None else None

    def hold(self, start: int) -> None:
        """Keep a block that is in use from being freed until ``drop``, which each call needs once."""
        self._held[start].append(self._block(start))

    def drop(self, start: int) -> None:
        """Undo one ``hold`` of a block."""
        self._held[start].pop()

    def arrays_in_use(self) -> Iterator[Bytes]:
        """The blocks that are in use."""
        return (block for _, ref in list(self._refs.values()) if (block := ref()) is not None)

    def _block(self, start: int) -> Bytes | None:
        return self._refs[start][0]() if start in self._refs else None


class RemoteBlocks:
    """Arrays over the blocks that another process has written to an arena, and which of these arrays are gone."""

    def __init__(self, arena: Arena):
        self._memory = arena.memory
        self._refs: dict[int, BlockRef] = {}
        self._freed: deque[BlockRef] = deque()
        keep_for_forks(self)

    def view(self, block: int, start: int, size: int) -> Bytes:
        """An array over ``size`` bytes from ``start`` on, in the block that begins at ``block``."""
        view = np.frombuffer(self._memory, np.uint8, size, start)
        ref = BlockRef(view, self._freed.append)
        ref.start = block
        self._refs[id(ref)] = ref
        return view

    def take_freed(self) -> list[int]:
        """The blocks of the arrays that are gone since the last call, one entry for each array."""
        forget_ended_forks()
        return [self._refs.pop(id(self._freed.popleft())).start for _ in range(len(self._freed))]

    def arrays_in_use(self) -> Iterator[Bytes]:
        """The arrays that are in use."""
        return (view for ref in list(self._refs.values()) if (view := ref()) is not None)


def _new_file() -> int:
    if hasattr(os, 'memfd_create'):
        descriptor = os.memfd_create('pipekit')
    else:
        in_memory = '/dev/shm'
        import tempfile  # here, because it is slow to load and seldom needed

        with tempfile.TemporaryFile(dir=in_memory if os.path.isdir(in_memory) else None) as file:
            descriptor = os.dup(file.fileno())
    try:
        os.ftruncate(descriptor, _file_bytes())
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _file_bytes() -> int:
    import resource

    wanted = max(_machine_bytes(), min(16 * _machine_bytes(), 1 << 40))  # each worker process needs such a file, too
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return wanted if limit == resource.RLIM_INFINITY else min(wanted, limit // mmap.PAGESIZE * mmap.PAGESIZE)


def _machine_bytes() -> int:
    return os.sysconf('SC_PHYS_PAGES') * mmap.PAGESIZE
