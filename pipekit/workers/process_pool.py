"""The processes that ``processes(n)`` asks for: fed in order, replaced when they die, stopped."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain
from multiprocessing.connection import wait
from time import monotonic, perf_counter
from typing import Any
from warnings import warn

from ..describing.display import code, ordinal
from ..describing.progress import Progress
from ..errors import WorkerCrashed
from ..memory.blocks import Bytes, NoRoom
from ..memory.forks import forget_ended_forks
from ..memory.shared import Arena, SharedBlockPool
from ..streams.metering import Meter
from .channels import placed
from .endings import how_it_ended, times_out_of_memory
from .jobs import Job, WorkItem, suspected, taken
from .kinds import Processes
from .pickling import Extent, Pickled, picklable, pickled, unpicklable_part
from .process_main import GRACE
from .work import Work
from .worker_process import WorkerProcess

PATIENCE = GRACE + 0.5  # seconds after which a process that was told to end is killed
LARGEST_GROUP = 512
SHARED_ONCE = 1 << 20  # bytes: a function's larger arrays are not sent, but seen by all processes
CRASHES, FAILED_STARTS = 3, 10  # in a row, which are an error; the latter for each process

logger = logging.getLogger('pipekit')


class ProcessPool:
    """The processes, from the first item on to ``close``."""

    def __init__(self, kind: Processes, meter: Meter | None = None):
        self._kind = kind
        self._meter = meter
        self._workers: list[WorkerProcess] = []
        self._cancelled = False
        self._lock = threading.RLock()  # for these two: a signal handler or a finalizer may cancel anywhere
        self._functions: dict[Any, tuple[int, Pickled, Work]] = {}
        self._constants: dict[tuple[int, int], tuple[Extent, Bytes]] = {}  # what all see, by its address and size here
        self._warned: set[str] = set()
        self._times_out_of_memory = times_out_of_memory()
        self._no_room: NoRoom | None = None  # for what all see
        self._failed_starts = 0
        self._starting: Progress | None = None
        self._shared = self._region()
        self._blocks = None if self._shared is None else SharedBlockPool(self._shared)

    def map(self, work: Work, values: Iterator[Any]) -> Iterator[Any]:
        """The results, in the order of the values; some values ahead of them are worked on."""
        n, ahead = self._kind.n, self._kind.ahead
        job = self._job(work, LARGEST_GROUP if ahead is None else max(1, ahead // (2 * n)))
        waiting: deque[WorkItem] = deque()
        ends: list[BaseException] = []
        try:
            while True:
                while not ends and len(waiting) + job.group_size <= (ahead or 2 * n * job.group_size):
                    items, end = taken(values, job.group_size)
                    ends += [] if end is None else [end]  # it comes after the results that are on their way
                    waiting.extend(items)
                    self._give(job, items)
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
        """What each process is at: its id, what tells the item from others, and the words. In any thread."""
        for worker in list(self._workers):
            if not worker.started:
                yield worker.pid, None, partial(str, 'its start')
            for job, items in list(worker.groups)[: int(worker.started)]:
                number, step = worker.at()
                value = next((item.value for item in items if item.number == number), None)
                if step and value is not None:  # else it has only begun with them, or has just ended
                    yield worker.pid, (number, step), partial(job.work.doing, value, step)
                else:
                    yield worker.pid, (items[0].number, 0), partial(_of_any, job.work, len(items))

    def cancel(self) -> None:
        """Let the processes end, and whoever waits for them be told so. May be called in any thread."""
        with self._lock:
            self._cancelled = True
            for worker in self._workers:
                worker.tell_to_end()

    def close(self) -> None:
        """End the processes: they may finish what they are doing, for a second, and are killed after that."""
        self.cancel()
        if self._starting is not None:
            self._starting.close()
        deadline = monotonic() + PATIENCE
        for worker in self._workers:
            worker.end(deadline - monotonic())
        self._workers.clear()
        if self._shared is not None:
            self._shared.close_descriptor()
        self._shared = self._blocks = None
        forget_ended_forks()

    def _job(self, work: Work, largest_group: int) -> Job:
        if work.identity not in self._functions:
            try:
                function = pickled(work.keyed(()), self._placed_once, SHARED_ONCE, maps=True)
            except Exception as error:
                culprit = next((function for function in work.functions if not picklable(function)), work)
                text = f'cannot send {code(culprit)} to {code(self._kind)}, because it cannot be pickled: {error}'
                raise TypeError(text) from error
            self._functions[work.identity] = len(self._functions), function, work
            self._warn_of_pipe(self._no_room)
        number, function, _ = self._functions[work.identity]
        return Job(work, number, function, largest_group)

    def _placed_once(self, array: Bytes) -> Extent | None:
        if self._blocks is None:
            return None
        address = array.ctypes.data, array.nbytes
        try:
            if address not in self._constants:
                self._constants[address] = placed(array, self._blocks), array
        except NoRoom as error:
            self._no_room = error
            return None
        return self._constants[address][0]

    def _give(self, job: Job, items: list[WorkItem]) -> None:
        if not items:
            return
        if self._starting is None:
            self._starting = Progress(f'starting {code(self._kind)}', self._kind.n)
        with self._on_the_meter():
            self._listen(0)
        while len(self._workers) < self._kind.n:
            self._start()
        with self._on_the_meter():
            self._give_to(min(self._workers, key=lambda worker: (len(worker.groups), worker.n_given)), job, items)

    @contextmanager
    def _on_the_meter(self) -> Iterator[None]:
        begin = perf_counter()
        yield
        if self._meter is not None:
            self._meter.waited(self._kind, begin)

    def _give_to(self, worker: WorkerProcess, job: Job, items: list[WorkItem]) -> None:
        try:
            content = worker.channel.pickled([item.value for item in items])
        except Exception as error:
            self._give_one_by_one(worker, job, items, error)
        else:
            worker.give(job, items, content)
        self._warn_of_pipe(worker.channel.no_room)

    def _give_one_by_one(self, worker: WorkerProcess, job: Job, items: list[WorkItem], error: Exception) -> None:
        if len(items) > 1:
            for item in items:
                self._give_to(worker, job, [item])
            return
        part = unpicklable_part(job.work.values(items[0].value), 'sample')
        doing = job.work.doing(items[0].value, 1)
        raised = TypeError(f'cannot send to {code(self._kind)}: {part}, which cannot be pickled, for {doing}: {error}')
        raised.__cause__ = error
        items[0].finish(error=raised)

    def _result(self, item: WorkItem) -> Any:
        while not item.done:
            with self._on_the_meter():
                self._listen(None)
        if item.error is not None:
            raise item.take_error()
        return item.outcome

    def _listen(self, timeout: float | None) -> None:
        owners = {sign: worker for worker in self._workers for sign in worker.signs}
        for worker in {owners[sign] for sign in wait(owners, timeout)}:
            is_alive = False
            with suppress(EOFError, OSError):
                for message in worker.messages():
                    self._handle(worker, message)
                is_alive = True
            if not is_alive:
                self._replace(worker)

    def _handle(self, worker: WorkerProcess, message: bytes) -> None:
        (kind, *rest), load, size = worker.channel.opened(message)
        if kind == 'started':
            worker.started, self._failed_starts = True, 0
            if self._starting is not None:
                self._starting.step()
            return
        seconds, no_room = rest
        job, items = worker.groups.popleft()
        job.learn(len(items), seconds, size)
        errors: list[BaseException] = []  # not a variable: an error is not to be in reach of its own traceback
        try:
            outcomes, failure = load()
            errors += [] if failure is None else [failure]
            del failure
        except BaseException as error:  # the class of a result may not be importable here
            kind, outcomes = 'unmade', []
            errors.append(error)
        if kind == 'unmade' and len(items) > 1:
            for item in items:  # only the one whose fault it is, is to fail
                self._give_to(worker, job, [item])
            errors.clear()
        else:
            for item, outcome in zip(items, outcomes, strict=False):
                item.finish(outcome)
            for number, item in enumerate(items[len(outcomes) :]):
                item.finish(error=CancelledError() if number else errors.pop())
        self._warn_of_pipe(no_room)

    def _start(self) -> WorkerProcess:
        worker = WorkerProcess(self._shared, self._blocks, self._region(), self._kind.blas_threads)
        with self._lock:
            self._workers.append(worker)
            if self._cancelled:
                worker.tell_to_end()
        return worker

    def _replace(self, worker: WorkerProcess) -> None:
        if self._cancelled:
            raise CancelledError
        with self._lock:
            self._workers.remove(worker)
        exit_code = worker.end(PATIENCE)
        ended = how_it_ended(exit_code, self._times_out_of_memory)
        groups = [(job, [item for item in items if not item.done]) for job, items in worker.groups]
        try:
            successor = self._successor(worker, ended, exit_code)
        except BaseException as error:  # of this work, whatever is being waited for
            for item in chain.from_iterable(items for _, items in groups):
                item.finish(error=error.with_traceback(None))
            return
        doing = ''
        if worker.started and groups:
            job, items = groups.pop(0)  # it was at these
            parts, suspect, step = suspected(items, *worker.at())
            groups = [(job, part) for part in parts] + groups
            if suspect is not None:
                doing = f' during {job.work.doing(suspect.value, step)}'
                self._count_crash(suspect, step, ended + doing, exit_code)
        for job, items in groups:
            unfinished = [item for item in items if not item.done]
            if unfinished:
                self._give_to(successor, job, unfinished)
        self._warn_once('crash', f'a process of {code(self._kind)} {ended}{doing}; another one does its work again')

    def _successor(self, worker: WorkerProcess, ended: str, exit_code: int) -> WorkerProcess:
        self._failed_starts += not worker.started
        too_many = FAILED_STARTS * self._kind.n
        if self._failed_starts >= too_many:
            text = f'a process of {code(self._kind)} {ended} as it started, for the {ordinal(too_many)} time in a row'
            raise WorkerCrashed(text, exit_code)
        return self._start()

    def _count_crash(self, item: WorkItem, step: int, ended: str, exit_code: int) -> None:
        if item.count_crash(step) == CRASHES:
            text = f'a process of {code(self._kind)} {ended}, for the {ordinal(CRASHES)} time in a row'
            item.finish(error=WorkerCrashed(text, exit_code))

    def _region(self) -> Arena | None:
        try:
            return Arena()
        except (OSError, ValueError) as error:
            self._warn_of_pipe(error)
            return None

    def _warn_of_pipe(self, reason: Exception | str | None) -> None:
        if reason is not None:
            text = (
                f'big arrays go through a pipe to and from {code(self._kind)}, which is several times slower: {reason}'
            )
            self._warn_once('pipe', text)

    def _warn_once(self, topic: str, text: str) -> None:
        if topic in self._warned:
            logger.info(text)
        else:
            self._warned.add(topic)
            warn(text, RuntimeWarning, stacklevel=2)


def _of_any(work: Work, n: int) -> str:
    return f'{", ".join(map(code, work.functions))} of one of {n} items'
