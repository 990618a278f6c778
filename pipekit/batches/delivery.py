"""Hands batches from the prefetch thread to the loops over them, epoch by epoch, and keeps the position."""

from __future__ import annotations

import atexit
import logging
import weakref
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, Generic

from ..describing.tracebacks import hide_own_frames
from ..errors import Closed, Exhausted, NotResumable, PipekitError, StateMismatch, TooManyFailures
from ..memory.blocks import BlockPool
from ..memory.forks import in_child
from ..memory.locks import Lock
from ..streams.context import Context, Run
from ..streams.cursors import START, Cursor, Out_co, as_lists, cursor_of, split_cursor
from ..streams.error_notes import annotate
from ..streams.failures import Failures, Position
from ..streams.metering import Meter
from ..streams.nesting import open_stream
from ..streams.stream import Stream
from ..workers.pools import WorkerPools
from .generator_checks import check_seeded, warn_of_held_generators, warn_of_moved
from .prefetch import Prefetch
from .prefetch_thread import PrefetchThread, Signal, entries_in_passes, entries_of, stop_all
from .states import STATE_VERSION, checked_counts, checked_failures

if TYPE_CHECKING:
    from ..reports.report import Report

logger = logging.getLogger('pipekit')

ENDED = 'this epoch has ended, because another loop over the same batches has begun, or a state was loaded'
BATCHES_BETWEEN_POSITIONS = 64  # after so many, the counts of samples that lie before the position are let go of
CLOSE_TIMEOUT_SECONDS = 2.0  # closing waits so long for a user's function to return


class Delivery(Generic[Out_co]):
    """Opens the pipeline in a thread, hands its batches to one epoch at a time, and knows the position."""

    def __init__(self, pipeline: Stream[Out_co], end: Prefetch):
        self.pipeline = pipeline
        self.end = end
        self.position: tuple[Cursor, int] = START, 0  # the last cursor handed over, and the number of batches
        self.failures = self._new_failures()
        self.meter = Meter()
        self._logged = perf_counter()
        self._skips = pipeline.skips
        self._moved: set[str] = set()  # libraries whose global generators a function has been found to draw from
        self._current_epoch: Callable[[], Epoch[Out_co] | None] = _nothing
        self._resumes_after: int | None = None  # the position in the epoch in which a loaded state was taken
        self._thread: PrefetchThread | None = None
        self._threads: list[weakref.ref[PrefetchThread]] = []  # each from before its start until it is waited for
        self._closed = False
        self._forked = False  # whether the thread is in the parent process
        self._lock = Lock()  # for the above; no thread waits for a batch while holding it
        self._turn = Lock()  # for the one consumer that waits for a batch
        in_child(self._leave_thread_in_parent)

    def begin_epoch(self) -> Epoch[Out_co]:
        """Begin an epoch, which ends the one before."""
        if self.end.restart and self.position[0] != START and self._resumes_after is None:
            self._go_to((START, self.position[1]), self._new_failures())
        self.open()
        for _ in self._lock.held():
            position = None
            while self.position is not position:  # again, if a signal handler has loaded a state meanwhile
                position = self.position
                epoch = Epoch(self, position[1] - (self._resumes_after or 0))
                current = weakref.ref(epoch)
            self._current_epoch = current
            self._resumes_after = None
        return epoch

    def open(self) -> None:
        """Start the thread, unless it is running.

        Raises
        ------
        Closed
            If the batches are closed, or the thread is in the parent process.
        """
        for _ in self._lock.held():
            if self._closed:
                raise Closed('the batches are closed; `with batches:` opens them again from where they were')
            if self._forked:
                raise Closed('the prefetch thread is in the parent process; close() these batches and open them again')
            if self._thread is None or self._thread.stopped:
                self._stop_threads()
                self._start_thread()

    def reopen(self) -> None:
        """Open the batches again after a close."""
        self._closed = False
        self.open()

    def close(self) -> bool:
        """Stop the thread, and say whether it has ended in time."""
        for _ in self._lock.held():
            self._closed, self._forked = True, False
            threads = self._stop_threads()
        return self._join(threads)

    def next(self, epoch: Epoch[Out_co]) -> Out_co:
        """The next batch of an epoch."""
        asked = got = perf_counter()
        taken = False
        while not taken:
            for _ in self._lock.held():
                thread = self._thread_for(epoch)
                if thread.entries:
                    value, cursor = thread.entries[0]
                    if cursor.__class__ is Signal:
                        self._handle(epoch, thread)
                    else:
                        # No call since the look at `entries`: a signal handler may run there, and take this batch.
                        taken = cursor is not self.position[0]  # else an interrupt came between the next two lines
                        if taken:
                            self.position = cursor, self.position[1] + 1
                        thread.entries.popleft()
            if not taken:
                for _ in self._turn.held():
                    thread.wait()
                got = perf_counter()
        if thread.is_full:
            thread.report_room()
        self.meter.waits.append((asked, got, self.position[1] == epoch.before + 1))
        if self._skips and self.position[1] % BATCHES_BETWEEN_POSITIONS == 0:
            self.failures.passed = self.stage_positions()
        if self.end.report_every is not None:
            self._log_report(self.end.report_every)
        batch: Out_co = value
        return batch

    def report(self) -> Report:
        """A report on the time since the thread was started."""
        from ..reports.report import report_on  # loaded on first use

        return report_on(self.meter, self.pipeline.rows(), self.end.buffer_size)

    def state_dict(self) -> dict[str, Any]:
        """The position as a dict that can be saved as JSON."""
        for _ in self._lock.held():
            cursor, delivered = self.position
            epoch = self._current_epoch()
            # Before the first loop, the position in the epoch is still the loaded one.
            in_epoch = self._resumes_after if epoch is None or epoch.over else delivered - epoch.before
        return {
            'version': STATE_VERSION,
            'cursor': as_lists(cursor),
            'delivered': delivered,
            'in_epoch': in_epoch,
            'failures': self.failures.counts_at(self.stage_positions()),
            'batches_per_epoch': self.end.batches_per_epoch,
            'pipeline': self.pipeline.fingerprint(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        delivered, in_epoch = checked_counts(state, self.state_dict())
        counts = checked_failures(state, self.pipeline.stage_paths())
        cursor = self._checked_cursor(state['cursor'])
        self._go_to((cursor, delivered), self._new_failures().rewound_to(counts), in_epoch)

    def _go_to(self, position: tuple[Cursor, int], failures: Failures, in_epoch: int | None = None) -> None:
        for _ in self._lock.held():
            threads = self._stop_threads()
            self.position, self.failures, self._resumes_after = position, failures, in_epoch
            self._current_epoch, self._forked = _nothing, False
        self._join(threads)

    def stage_positions(self) -> dict[str, Position]:
        """Where each stage that may skip would go on from, for the batches after the position."""
        if not self.pipeline.skips or not self.pipeline.reopens:
            return {}
        probe = Failures()
        cursor, context = self.in_pass(self.position[0])
        # This opens the stages, and runs nothing.
        open_stream(self.pipeline, cursor, context._replace(run=Run(failures=probe)))
        return probe.opened_at

    def in_pass(self, cursor: Cursor) -> tuple[Cursor, Context]:
        """Convert a cursor of the batches to one of the pipeline, with the context of its pass."""
        if self.end.batches_per_epoch is not None:
            return cursor, Context()
        number, before = split_cursor(cursor, [int, None], self.pipeline)
        return before, Context().in_pass(number)

    def _leave_thread_in_parent(self) -> None:
        # Other threads of the parent may have held the locks when it forked.
        self._lock, self._turn = Lock(), Lock()
        self._forked = self._thread is not None
        if self._thread is not None:
            self._thread.stop()  # a signal handler may have forked in the middle of a wait

    def mark_closed(self) -> None:
        """Hand over no more batches, because the interpreter exits."""
        self._closed = True

    def _thread_for(self, epoch: Epoch[Out_co]) -> PrefetchThread:
        while True:
            if epoch.over:
                raise StopIteration
            if self._current_epoch() is not epoch:
                raise Closed(ENDED)
            if self.position[1] - epoch.before == self.end.batches_per_epoch:
                raise StopIteration
            thread = self._thread
            if thread is not None and not thread.stopped:
                return thread
            self.open()  # and check again: a signal handler may have closed the batches, or loaded a state

    def _handle(self, epoch: Epoch[Out_co], thread: PrefetchThread) -> None:
        value, signal = thread.entries[0]
        _, delivered = self.position
        # An error of the user's comes at a batch; what has been tried after that depends on what was made ahead.
        over_budget = signal is Signal.ERROR and isinstance(value[0], TooManyFailures)
        self.failures.has_ended = signal is Signal.END or over_budget
        if signal is Signal.ERROR:
            epoch.over = True
            self._stop_threads()  # the next epoch opens it again at the position: the error may have been a passing one
            thread.entries.popleft()  # after that: an interrupt in between must not leave a thread that makes nothing
            annotate(value[0], 'batches', self.position[0])
            raise value.pop()  # popped, because its traceback leads to `value`: the cycle would keep it in memory
        if signal is Signal.END_OF_PASS:
            self.position = value, delivered
            thread.entries.popleft()
        if delivered > epoch.before:
            raise StopIteration
        if signal is Signal.END:
            raise Exhausted(f'the source ended after {delivered} batches; {self.end.remedy(self.pipeline, delivered)}')

    def _log_report(self, every_seconds: float) -> None:
        if perf_counter() - self._logged > every_seconds:
            self._logged = perf_counter()
            logger.info(self.report().verdict)

    def _new_failures(self) -> Failures:
        stages = self.pipeline.stages
        replaying = max((number for number, stage in enumerate(stages, 2) if stage.replays), default=0)
        return Failures(has_consumer=True, replaying_stage=replaying)

    def _checked_cursor(self, saved: Any) -> Cursor:
        try:
            cursor = cursor_of(saved)
            if not self.pipeline.reopens and cursor != START:
                raise NotResumable(
                    f'the source {self.pipeline.source!r} is an iterator and cannot continue from a state; '
                    'pass a sequence, or a function without arguments that makes a new iterator'
                )
            if self.pipeline.sets and cursor != START:
                name = repr(self.pipeline.sets[0])
                raise NotResumable(
                    f'the source {name} is a set, whose order differs between processes; pass sorted(...)'
                )
            if self.pipeline.reopens:
                open_stream(self.pipeline, *self.in_pass(cursor))  # checks the cursor now rather than in the thread
        except ValueError as error:
            raise StateMismatch(f'the state is damaged: {error}') from error
        return cursor

    def _start_thread(self) -> None:
        check_seeded(self.pipeline)
        warn_of_held_generators(self.pipeline)
        _started.add(self)
        position, end = self.position, self.end
        open_at = entries_in_passes if end.batches_per_epoch is None else entries_of
        meter = Meter(is_exact=end.profile, on_moved=partial(warn_of_moved, self.pipeline, self._moved))
        pools = WorkerPools(meter.add_wait)
        failures = self.failures.rewound_to(self.failures.counts_at(self.stage_positions()))
        context = Context(run=Run(pools, meter, BlockPool(), failures))
        entries = open_at(self.pipeline, position[0], context)
        from .stalls import Stall  # here, because it takes a while to load; not in a wait, which signals interrupt

        thread = PrefetchThread(self, entries, pools, meter, end.buffer_size, end.stall_after, partial(Stall, pools))
        self._threads.append(weakref.ref(thread, partial(_remove, self._threads)))
        try:
            thread.start()
            if self._thread is None and self.position is position and not self._closed:
                self.meter, self.failures, self._thread = meter, failures, thread
                return
        except BaseException:
            thread.stop()
            raise
        # A signal handler has opened or closed the batches, or loaded a state, without knowing of this thread.
        thread.stop()
        self._join([thread])

    def _stop_threads(self) -> list[PrefetchThread]:
        # Not one alone: an error ends a thread, and an interrupt may come between a start and the assignment.
        threads = [thread for ref in self._threads.copy() if (thread := ref()) is not None]
        for thread in threads:
            if not thread.stopped:
                thread.stop()
        self._thread = None
        return threads

    def _join(self, threads: list[PrefetchThread]) -> bool:
        # Each once: a signal handler may come here again and again, in the middle of a wait.
        mine = [thread for thread in threads if _remove(self._threads, weakref.ref(thread))]
        have_ended = [thread.join(CLOSE_TIMEOUT_SECONDS) for thread in mine]
        return all(have_ended)


class Epoch(Iterator[Out_co]):
    """The batches of one epoch."""

    def __init__(self, delivery: Delivery[Out_co], before: int):
        self._delivery = delivery
        self.before = before  # batches handed over before this epoch
        self.over = False

    def __next__(self) -> Out_co:
        try:
            return self._delivery.next(self)
        except PipekitError:
            raise
        except StopIteration:
            self.over = True
            raise
        except BaseException as error:  # an epoch is over after an error, as a generator is
            self.over = True
            hide_own_frames(error)
            raise


def _nothing() -> None:
    return None


def _remove(refs: list[Any], ref: Any) -> bool:
    try:
        refs.remove(ref)
    except ValueError:
        return False
    return True


_started: weakref.WeakSet[Delivery[Any]] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    for delivery in list(_started):
        delivery.mark_closed()
    stop_all(CLOSE_TIMEOUT_SECONDS)
