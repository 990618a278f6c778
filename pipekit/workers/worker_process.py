"""A worker process as its parent sees it: started, given items, heard, ended."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import count
from multiprocessing.connection import Connection, wait
from typing import Any

from ..memory.file_descriptors import beyond_standard_streams
from ..memory.forks import in_child
from ..memory.shared import Arena, RemoteBlocks, SharedBlockPool
from .channels import Channel
from .jobs import Job, WorkItem
from .pickling import Pickled
from .process_main import Marks, main

BOOT = """import pickle, sys
try:
    sys.path[:], sys.argv = pickle.load(sys.stdin.buffer)
    main, arguments = pickle.load(sys.stdin.buffer)
except EOFError:
    sys.exit()  # its parent is no more
main(*arguments)"""
# What large arrays leave behind is for the next ones, not for the system: fresh memory is several times slower.
KEEPS_MEMORY = {'MALLOC_MMAP_THRESHOLD_': str(32 << 20), 'MALLOC_TRIM_THRESHOLD_': str(256 << 20)}
BLAS = ('BLIS', 'MKL', 'NUMBA', 'NUMEXPR', 'OMP', 'OPENBLAS', 'VECLIB_MAXIMUM')


class WorkerProcess:
    """A process, and the items that it has been given."""

    def __init__(
        self, shared: Arena | None, outgoing: SharedBlockPool | None, results: Arena | None, threads: int | None
    ):
        regions = [None if region is None else region.descriptor for region in (results, shared)]
        limits = {} if threads is None else {f'{library}_NUM_THREADS': str(threads) for library in BLAS}
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        with beyond_standard_streams(), ExitStack() as theirs, ExitStack() as ours:
            if results is not None:
                theirs.callback(results.close_descriptor)
            self._socket, other = socket.socketpair()
            theirs.enter_context(other)
            ours.enter_context(self._socket)
            self.connection = ours.enter_context(Connection(os.dup(self._socket.fileno())))
            first_words = pickle.dumps((sys.path, sys.argv)) + pickle.dumps((main, (other.fileno(), *regions)))
            self._process = subprocess.Popen(
                [sys.executable, *flags, '-P', '-c', BOOT],  # -P: what is imported is not to come from this directory
                stdin=subprocess.PIPE,
                pass_fds=[other.fileno(), *(descriptor for descriptor in regions if descriptor is not None)],
                env=KEEPS_MEMORY | os.environ | limits,
                process_group=0,  # a Ctrl-C in the terminal is not meant for it
            )
            ours.pop_all()
            with suppress(BrokenPipeError), self._process.stdin as pipe:  # type: ignore[union-attr]
                pipe.write(first_words)
            self._sentinel = _sentinel(self._process.pid)
        self.channel = Channel(self.connection, outgoing, None if results is None else RemoteBlocks(results))
        self.groups: deque[tuple[Job, list[WorkItem]]] = deque()
        self._known: set[int] = set()  # the functions that it has been sent
        self.started = False
        self.n_given = 0  # groups, in all
        self._marks = Marks(results)
        self._numbers = count(1)
        in_child(self.leave_to_parent)

    @property
    def signs(self) -> list[Any]:
        """What there is to wait for."""
        return [self.connection] if self._sentinel is None else [self.connection, self._sentinel]

    def give(self, job: Job, items: list[WorkItem], content: Pickled) -> None:
        """Send it items; if it is no more, that shows when it is heard next."""
        for item in items:
            item.number = next(self._numbers)
        self.groups.append((job, items))
        self.n_given += 1
        with suppress(OSError):
            if job.number not in self._known:
                self._known.add(job.number)
                self.channel.send(('function', job.number), job.function)
            self.channel.send_pickled(('items', job.number, job.work.key, items[0].number), content)

    def messages(self) -> Iterator[bytes]:
        """What it has sent, up to now or to its end.

        Raises
        ------
        EOFError, OSError
            If it is no more.
        """
        while self.connection.poll():
            yield self.channel.receive()
        if self._has_ended():
            raise EOFError

    def at(self) -> tuple[int, int]:
        """The number of the item that it is at, or was when it died, and the step of it."""
        return self._marks.read()

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def tell_to_end(self) -> None:
        """Let it end after what it is doing. May be called in any thread."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def end(self, patience: float) -> int:
        """Wait for its end, kill it if that takes too long, and return its exit code."""
        self.tell_to_end()
        if self._sentinel is not None:
            wait([self._sentinel], max(patience, 0))
        else:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(max(patience, 0))
        with suppress(ProcessLookupError, PermissionError):  # nothing of it is left
            os.killpg(self._process.pid, signal.SIGKILL)  # what it has started itself, too
        self._process.wait()
        if self._sentinel is not None:
            os.close(self._sentinel)
        self._socket.close()
        self.channel.close()
        return self._process.returncode

    def leave_to_parent(self) -> None:
        """In a fork of its parent: let go of it, so that it still ends when the parent does."""
        self._socket.close()
        self.connection.close()

    def _has_ended(self) -> bool:
        if self._sentinel is None:
            return self._process.poll() is not None
        return bool(wait([self._sentinel], 0))


def _sentinel(pid: int) -> int | None:
    # Ready when the process is no more, although one that it has started itself may still hold its end of the pipe.
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # not on this system
        return None
