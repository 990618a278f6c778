"""The worker processes that ``processes(n)`` describes: sent items in order, replaced when they die, ended."""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain, filterfalse
from multiprocessing.connection import wait
from time import monotonic, perf_counter
from typing import Any
from warnings import warn

from more_itertools import first

from ..describing.display import code, ordinal
from ..describing.progress import Progress
from ..errors import WorkerCrashed
from ..memory.blocks import Bytes, NoRoom
from ..memory.forks import forget_ended_forks
from ..memory.shared import Arena, SharedBlockPool
from .channels import Load, hold_in_shared_memory
from .jobs import Job, Work, WorkItem, regrouped, take_items
from .kinds import OnWait, Processes
from .pickling import Extent, Pickled, is_picklable, pickled, unpicklable_part
from .process_main import EXIT_GRACE_SECONDS
from .remote_errors import REMEDIES, loaded, noted
from .settings import Settings
from .worker_process import WorkerProcess, check_python, how_it_ended, oom_kills

CLOSE_TIMEOUT_SECONDS = EXIT_GRACE_SECONDS + 0.5  # after which a process that was asked to end is killed
MAX_GROUP_SIZE = 512
MIN_CONSTANT_BYTES = 1 << 20  # larger arrays of a function are in shared memory, once for all processes
MAX_CRASHES = 3  # in a row, at the same step of an item
MAX_FAILED_STARTS = 10  # in a row, times the number of processes
logger = logging.getLogger('pipekit')


class ProcessPool:
    """The processes, from the first item to ``close``."""

    def __init__(self, kind: Processes, settings: Settings, on_wait: OnWait | None = None):
        self._kind = kind
        self._settings = settings
        self._on_wait = on_wait
        self._name = kind.short_code()
        check_python(self._name)
        self._workers: list[WorkerProcess] = []
        self._is_cancelled = False
        self._functions: dict[Any, tuple[int, Pickled, Work]] = {}
        self._setup: Pickled | None = None  # the initializer
        self._constants: dict[tuple[int, int], tuple[Extent, Bytes]] = {}  # arrays of functions, by address and size
        self._warned: set[str] = set()
        self._oom_kills_before = oom_kills()
        self._no_room: NoRoom | None = None  # why an array of a function is not in shared memory
        self._failed_starts = 0
        self._progress: Progress | None = None
        self._shared = self._new_arena()
        self._blocks = None if self._shared is None else SharedBlockPool(self._shared)

    def map(self, work: Work, values: Iterator[Any]) -> Iterator[Any]:
        """The results in the order of the values; later values are processed in the meantime."""
        n, ahead = self._kind.n, self._kind.ahead
        job = self._job(work, MAX_GROUP_SIZE if ahead is None else max(1, ahead // (2 * n)))
        waiting: deque[WorkItem] = deque()
        ends: list[BaseException] = []
        try:
            while True:
                while not ends and len(waiting) + job.group_size <= (ahead or 2 * n * job.group_size):
                    items, end = take_items(values, job.group_size)
                    ends += [] if end is None else [end]  # raised after the results of the values before it
                    waiting.extend(items)
                    self._submit(job, items)
                    del items
                if not waiting:
                    break
                yield self._result(waiting.popleft())
        finally:
            for item in waiting:
                item.finish(error=CancelledError())
        if not isinstance(ends[0], StopIteration):
            raise ends.pop()

    def doing(self) -> Iterator[tuple[int, Hashable, Callable[[], str]]]:
        """What each process is doing: its id, a key of the item and step, and a description. For any thread."""
        for worker in list(self._workers):
            if not worker.started:
                yield worker.pid, None, partial(str, 'its start')
            for job, items in list(worker.groups)[: int(worker.started)]:
                number, step = worker.current_step()
                value = next((item.value for item in items if item.number == number), None)
                if step and value is not None:  # else it is between two items, or at the end of the group
                    yield worker.pid, (number, step), partial(job.work.doing, value, step)
                else:
                    yield worker.pid, (items[0].number, 0), partial(_doing_group, job.work, len(items))

    def cancel(self) -> None:
        """Have the processes end, and whoever waits for them get a ``CancelledError``. For any thread."""
        # Without a lock, for this may run in a signal handler or a finalizer, while the same thread holds it. A worker
        # that is started meanwhile is in the list or sees the flag: `_start` adds it first, and then looks.
        self._is_cancelled = True
        for worker in list(self._workers):
            worker.request_end()

    def close(self) -> None:
        """End the processes. What is running may finish within a second; after that they are killed."""
        self.cancel()
        if self._progress is not None:
            self._progress.close()
        deadline = monotonic() + CLOSE_TIMEOUT_SECONDS
        for worker in self._workers:
            worker.end(deadline - monotonic())
        self._workers.clear()
        if self._shared is not None:
            self._shared.close_descriptor()
        self._shared = self._blocks = None
        forget_ended_forks()

    def _job(self, work: Work, max_group_size: int) -> Job:
        if work.identity not in self._functions:
            function = self._pickled(work.keyed(()), work.functions)
            self._functions[work.identity] = len(self._functions), function, work
            self._warn_about_pipe(self._no_room)
        number, function, _ = self._functions[work.identity]
        return Job(work, number, function, max_group_size)

    def _pickled(self, function: Any, parts: list[Any]) -> Pickled:
        try:
            return pickled(function, self._share_constant, MIN_CONSTANT_BYTES, reopen_views=True)
        except Exception as error:
            culprit = first(filterfalse(is_picklable, parts), function)
            text = f'cannot send {code(culprit)} to {self._name}, because it cannot be pickled: {error}'
            raise TypeError(text) from error

    def _share_constant(self, array: Bytes) -> Extent | None:
        if self._blocks is None:
            return None
        key = array.ctypes.data, array.nbytes
        try:
            if key not in self._constants:
                self._constants[key] = hold_in_shared_memory(array, self._blocks), array
        except NoRoom as error:
            self._no_room = error
            return None
        return self._constants[key][0]

    def _submit(self, job: Job, items: list[WorkItem]) -> None:
        if not items:
            return
        if self._progress is None:
            self._progress = Progress(f'starting {self._name}', self._kind.n)
        with self._timed():
            self._receive(0)
        while len(self._workers) < self._kind.n:
            self._start()
        with self._timed():
            self._send(min(self._workers, key=lambda worker: (len(worker.groups), worker.n_groups_sent)), job, items)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        begin = perf_counter()
        yield
        if self._on_wait is not None:
            self._on_wait(self._kind, begin)

    def _send(self, worker: WorkerProcess, job: Job, items: list[WorkItem]) -> None:
        try:
            content = worker.channel.pickled([item.value for item in items])
        except Exception as error:
            if len(items) > 1:
                self._send_one_by_one(worker, job, items)
            else:
                items[0].finish(error=self._unsendable(job.work, items[0].value, error))
        else:
            worker.send(job, items, content)
        self._warn_about_pipe(worker.channel.no_room)

    def _send_one_by_one(self, worker: WorkerProcess, job: Job, items: list[WorkItem]) -> None:
        for item in items:  # so that only the one that is at fault fails
            self._send(worker, job, [item])

    def _unsendable(self, work: Work, value: Any, cause: Exception) -> TypeError:
        part = unpicklable_part(work.values(value), 'sample')
        text = f'cannot send the input of {work.doing(value, 1)} to {self._name}'
        error = TypeError(f'{text}: {part}, which cannot be pickled: {cause}')
        error.__cause__ = cause
        return error

    def _result(self, item: WorkItem) -> Any:
        while not item.done:
            with self._timed():
                self._receive(None)
        if item.error is not None:
            raise item.take_error()
        return item.result

    def _receive(self, timeout: float | None) -> None:
        owners = {waitable: worker for worker in self._workers for waitable in worker.waitables}
        for worker in {owners[waitable] for waitable in wait(owners, timeout)}:
            is_alive = False
            with suppress(EOFError, OSError):
                for message in worker.messages():
                    self._handle(worker, *message)
                is_alive = True
            if not is_alive:
                self._replace(worker)

    def _handle(self, worker: WorkerProcess, header: Any, load: Load, n_bytes: int) -> None:
        if header[0] == 'started':
            worker.started, self._failed_starts = True, 0
            if self._progress is not None:
                self._progress.step()
        elif header[0] == 'failed':
            what = 'pipekit' if header[1] == 'imported' else f'the initializer {code(self._kind.initializer)}'
            note = f'raised in a worker process when {what} was {header[1]}'
            worker.failures.append(noted(loaded(load), note, REMEDIES[header[1]]))
        else:
            self._finish(worker, load, n_bytes, *header)

    def _finish(
        self, worker: WorkerProcess, load: Load, n_bytes: int, kind: str, seconds: float, no_room: str | None
    ) -> None:
        job, items = worker.groups.popleft()
        job.update_group_size(len(items), seconds, n_bytes)
        names = ', '.join(map(code, job.work.functions))
        errors: list[BaseException] = []  # a variable would be a reference cycle: error, traceback, frame, error
        try:
            results, failure = load()
            errors += [] if failure is None else [failure]
            del failure
            note = f'raised in a worker process when {names} or its input was unpickled'
        except BaseException as error:  # such as a result whose class cannot be imported here
            kind, results = 'not_loaded', []
            errors.append(error)
            note = f'raised in the main process when a result of {names} was unpickled'
        if kind == 'not_loaded' and len(items) > 1:
            self._send_one_by_one(worker, job, items)
            errors.clear()
        else:
            if kind == 'not_loaded':
                noted(errors[0], note, REMEDIES['unpickled'])
            for item, result in zip(items, results, strict=False):
                item.finish(result)
            for number, item in enumerate(items[len(results) :]):
                item.finish(error=CancelledError() if number else errors.pop())
        self._warn_about_pipe(no_room)

    def _start(self) -> WorkerProcess:
        setup = self._setup = self._setup or self._pickled_initializer()
        worker = WorkerProcess(self._kind.blas_threads, self._shared, self._blocks, self._new_arena())
        self._workers.append(worker)
        if self._is_cancelled:
            worker.request_end()
        worker.set_up(setup)
        return worker

    def _pickled_initializer(self) -> Pickled:
        initializer, arguments = self._kind.initializer or int, self._kind.initargs
        # The settings come before the initializer, which may change them.
        setup = self._settings.sent_with(partial(initializer, *arguments))
        return self._pickled(setup, [initializer, *arguments])

    def _replace(self, worker: WorkerProcess) -> None:
        if self._is_cancelled:
            raise CancelledError
        self._workers.remove(worker)
        exit_code = worker.end(CLOSE_TIMEOUT_SECONDS)
        ended = how_it_ended(exit_code, self._oom_kills_before)
        groups = [(job, [item for item in items if not item.done]) for job, items in worker.groups]
        failures = worker.failures
        try:
            successor = worker if failures else self._successor(worker, ended, exit_code)
        except BaseException as error:
            failures = [error.with_traceback(None)]
        if failures:  # errors of these items, whichever one is being waited for
            for item in chain.from_iterable(items for _, items in groups):
                item.finish(error=failures[0])
            return
        during = ''
        if worker.started and groups:
            job, items = groups.pop(0)  # the process died at one of these
            parts, suspect, step = regrouped(items, *worker.current_step())
            groups = [(job, part) for part in parts] + groups
            if suspect is not None:
                during = f' during {job.work.doing(suspect.value, step)}'
                self._count_crash(job.work, suspect, step, ended + during, exit_code)
        for job, items in groups:
            unfinished = [item for item in items if not item.done]
            if unfinished:
                self._send(successor, job, unfinished)
        self._warn_once('crash', f'a process of {self._name} {ended}{during}; a new one repeats its work')

    def _successor(self, worker: WorkerProcess, ended: str, exit_code: int) -> WorkerProcess:
        self._failed_starts += not worker.started
        limit = MAX_FAILED_STARTS * self._kind.n
        if self._failed_starts >= limit:
            text = f'a process of {self._name} {ended} while starting, for the {ordinal(limit)} time in a row'
            note = f'raised in a worker process that was to run {sys.executable}'
            raise noted(WorkerCrashed(text, exit_code), note, REMEDIES['started'])
        return self._start()

    def _count_crash(self, work: Work, item: WorkItem, step: int, ended: str, exit_code: int) -> None:
        if item.count_crash(step) < MAX_CRASHES:
            return
        text = f'a process of {self._name} {ended}, for the {ordinal(MAX_CRASHES)} time in a row'
        error = WorkerCrashed(text, exit_code)
        value = work.after_crash(item.value, step, error)
        if value is None:
            item.finish(error=error)
        else:
            item.start_again(value)

    def _new_arena(self) -> Arena | None:
        try:
            return Arena()
        except (OSError, ValueError) as error:
            self._warn_about_pipe(error)
            return None

    def _warn_about_pipe(self, reason: Exception | str | None) -> None:
        if reason is not None:
            text = f'large arrays go through a pipe to and from {self._name}, which is several times slower: {reason}'
            self._warn_once('pipe', text)

    def _warn_once(self, topic: str, text: str) -> None:
        if topic in self._warned:
            logger.info(text)
        else:
            self._warned.add(topic)
            warn(text, RuntimeWarning, stacklevel=2)


def _doing_group(work: Work, n: int) -> str:
    return f'{", ".join(map(code, work.functions))} of one of {n} items'
