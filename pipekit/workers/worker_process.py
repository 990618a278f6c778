"""A worker process as its parent sees it: started, sent items, listened to, ended."""

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
from pathlib import Path
from shutil import which
from typing import Any

from ..memory.file_descriptors import beyond_standard_streams
from ..memory.forks import in_child
from ..memory.shared import Arena, RemoteBlocks, SharedBlockPool
from .channels import Channel, Load
from .jobs import Job, WorkItem
from .pickling import Pickled
from .process_main import CurrentStep, main
from .remote_logs import current_levels, handle_record

MAX_MESSAGES = 100  # to take from a process at a time; it may log without end
# Closed standard streams are filled before anything is imported that may take their descriptors, as numpy may.
BOOT_SCRIPT = """import os, pickle, sys
while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2: pass
os.close(descriptor)
try:
    sys.path[:], sys.argv, environment = pickle.load(sys.stdin.buffer)
    os.environ.update(environment)
    connection = pickle.load(sys.stdin.buffer)
    main, arguments = pickle.load(sys.stdin.buffer)
except EOFError:
    sys.exit()  # its parent has ended
except Exception as error:
    from contextlib import suppress
    from multiprocessing.connection import Connection
    header = 'failed', 'imported'
    content = ImportError(f'{type(error).__name__}: {error}')
    with suppress(OSError):  # its parent has closed the connection
        Connection(connection).send_bytes(pickle.dumps((header, pickle.dumps(content), [], [])))
    sys.exit(1)
main(connection, *arguments)"""
# Memory freed by large arrays is kept for the next ones: fresh memory is several times slower.
MALLOC_VARIABLES = {'MALLOC_MMAP_THRESHOLD_': str(32 << 20), 'MALLOC_TRIM_THRESHOLD_': str(256 << 20)}
# Of all processes, also those that replace others: a class number that is made from a set is the same in each.
_given_seed = os.environ.get('PYTHONHASHSEED', '')
_is_number = _given_seed.isascii() and _given_seed.isdecimal() and int(_given_seed) < 1 << 32
HASH_SEED = _given_seed if _is_number else str(int.from_bytes(os.urandom(4), 'little'))
BLAS_PREFIXES = ('BLIS', 'MKL', 'NUMBA', 'NUMEXPR', 'OMP', 'OPENBLAS', 'VECLIB_MAXIMUM')


class WorkerProcess:
    """A process, and the groups of items that it has been sent."""

    def __init__(
        self, blas_threads: int | None, shared: Arena | None, outgoing: SharedBlockPool | None, results: Arena | None
    ):
        arenas = [None if arena is None else arena.descriptor for arena in (results, shared)]
        flags, environment, kept = _settings(blas_threads)
        with beyond_standard_streams(), ExitStack() as on_exit, ExitStack() as on_error:
            if results is not None:
                on_exit.callback(results.close_descriptor)
            self._socket, other = socket.socketpair()
            on_exit.enter_context(other)
            on_error.enter_context(self._socket)
            self.connection = on_error.enter_context(Connection(os.dup(self._socket.fileno())))
            boot_data = pickle.dumps(([*map(_absolute, sys.path)], sys.argv, kept))
            boot_data += pickle.dumps(other.fileno()) + pickle.dumps((main, arenas))
            self._process = subprocess.Popen(
                [sys.executable, *flags, '-P', '-c', BOOT_SCRIPT],  # -P: no modules from the current directory
                stdin=subprocess.PIPE,
                pass_fds=[other.fileno(), *(descriptor for descriptor in arenas if descriptor is not None)],
                env=environment,
                process_group=0,  # a Ctrl-C in the terminal does not reach it
            )
            on_error.pop_all()
            with suppress(BrokenPipeError), self._process.stdin as pipe:  # type: ignore[union-attr]
                pipe.write(boot_data)
            self._pidfd = _open_pidfd(self._process.pid)
        self.channel = Channel(self.connection, outgoing, None if results is None else RemoteBlocks(results))
        self.groups: deque[tuple[Job, list[WorkItem]]] = deque()
        self._known_functions: set[int] = set()
        self.started = False
        self.failures: list[BaseException] = []  # why it has not started
        self.n_groups_sent = 0
        self._current_step = CurrentStep(results)
        self._numbers = count(1)
        in_child(self.detach)

    @property
    def waitables(self) -> list[Any]:
        """What is ready when the process has sent something or ended."""
        return [self.connection] if self._pidfd is None else [self.connection, self._pidfd]

    def set_up(self, initializer: Pickled) -> None:
        """Send it what it calls before anything else. If it has ended, the next ``messages`` raises, not this."""
        with suppress(OSError):
            self.channel.send((current_levels(),), initializer)

    def send(self, job: Job, items: list[WorkItem], content: Pickled) -> None:
        """Send it items. If it has ended, the next ``messages`` raises, not this."""
        for item in items:
            item.number = next(self._numbers)
        self.groups.append((job, items))
        self.n_groups_sent += 1
        with suppress(OSError):
            if job.number not in self._known_functions:
                self._known_functions.add(job.number)
                self.channel.send(('function', job.number), job.function)
            self.channel.send_pickled(('items', job.number, job.work.key, items[0].number), content)

    def messages(self) -> Iterator[tuple[Any, Load, int]]:
        """What it has sent until now, parsed; log records are handled.

        Raises
        ------
        EOFError, OSError
            If it has ended.
        """
        for _ in range(MAX_MESSAGES):  # others have sent something as well
            if not self.connection.poll():
                if not self._has_ended():
                    return
                if not self.connection.poll():  # it may have sent something and ended since the first look
                    raise EOFError
            header, load, n_bytes = self.channel.parsed(self.channel.receive())
            if header[0] == 'record':
                handle_record(header[1], load)
            else:
                yield header, load, n_bytes

    def current_step(self) -> tuple[int, int]:
        """The number of the item that it is at, or was at when it died, and the step of it."""
        return self._current_step.read()

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def request_end(self) -> None:
        """Have it end after what it is doing. May be called in any thread."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def end(self, timeout: float) -> int:
        """Wait for its end, kill it after ``timeout`` seconds, and return its exit code."""
        self.request_end()
        with suppress(Exception):  # EOFError after the last record; and whatever a handler of them raises
            while True:
                list(self.messages())
        if self._pidfd is not None:
            wait([self._pidfd], max(timeout, 0))
        else:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(max(timeout, 0))
        with suppress(ProcessLookupError, PermissionError):  # no process of its group is left
            os.killpg(self._process.pid, signal.SIGKILL)  # with the processes that it has started
        self._process.wait()
        if self._pidfd is not None:
            os.close(self._pidfd)
        self._socket.close()
        self.channel.close()
        return self._process.returncode

    def detach(self) -> None:
        """Close the connection in a fork of the parent, so that the process still ends with the parent."""
        self._socket.close()
        self.connection.close()

    def _has_ended(self) -> bool:
        return self._process.poll() is not None if self._pidfd is None else bool(wait([self._pidfd], 0))


def check_python(workers: str) -> None:
    """Check that processes can be started.

    Raises
    ------
    RuntimeError
        If ``sys.executable`` is none, so that to start it would, for one, start the training again.
    """
    path = which(sys.executable) if sys.executable else None
    if getattr(sys, 'frozen', False):
        reason = f'this program is frozen, so that sys.executable, {sys.executable!r}, starts it again'
    elif path is None:
        reason = f'sys.executable is {sys.executable!r}, which is no program'
    elif 'py' not in os.path.basename(path).lower() and b'Py_BytesMain' not in Path(path).read_bytes():
        reason = f'sys.executable is {sys.executable!r}, which is not Python'
    else:
        return
    remedy = 'use threads(n), or set sys.executable to a Python with the same packages'
    raise RuntimeError(f'cannot start {workers}: {reason}; {remedy}')


def how_it_ended(exit_code: int, oom_kills_before: int) -> str:
    """How a process ended, in words; the second argument is ``oom_kills()`` from before it began."""
    if exit_code >= 0:
        return f'exited with code {exit_code}'
    with suppress(ValueError):
        name = signal.Signals(-exit_code).name
        is_out_of_memory = exit_code == -signal.SIGKILL and oom_kills() > oom_kills_before
        return f'was killed by {name}' + (' because the system ran out of memory' if is_out_of_memory else '')
    return f'was killed by signal {-exit_code}'


def oom_kills() -> int:
    """How many processes the system has killed because it ran out of memory; 0 where that is not known."""
    with suppress(OSError, ValueError), open('/proc/vmstat', encoding='ascii') as file:
        return int(next((line.split()[1] for line in file if line.startswith('oom_kill ')), 0))
    return 0


def _settings(blas_threads: int | None) -> tuple[list[str], dict[str, str], dict[str, str]]:
    """The options and the environment of a new Python, and what it adds to that environment after its start."""
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    environment, kept = MALLOC_VARIABLES | os.environ, {}
    if sys.flags.ignore_environment:  # as -E and -I have it, which would ignore the hash seed as well
        flags = ['-s' if flag == '-I' else flag for flag in flags if flag != '-E']
        kept = {name: environment.pop(name) for name in list(environment) if name.startswith('PYTHON')}
    if blas_threads is not None:
        environment |= {f'{name}_NUM_THREADS': str(blas_threads) for name in BLAS_PREFIXES}
    return flags, environment | {'PYTHONHASHSEED': HASH_SEED}, kept


def _absolute(entry: str) -> str:
    """An entry of ``sys.path`` as it was found when this process first imported from it, wherever that was."""
    with suppress(OSError, TypeError):  # the current directory is gone, or the entry is none
        path = os.path.abspath(getattr(sys.path_importer_cache.get(entry), 'path', entry))
        return path if os.path.exists(path) else entry
    return entry


def _open_pidfd(pid: int) -> int | None:
    # Ready when the process has ended, even if a process that it started still holds its end of the connection.
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # not on this system
        return None
