"""How batches get from the prefetch thread to the loops over them, epoch by epoch, and where they are."""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, Generic

from ..describing.tracebacks import hide_own_frames
from ..errors import Closed, Exhausted, NotResumable, PipekitError, StateMismatch
from ..memory.blocks import BlockPool
from ..memory.forks import in_child
from ..streams.context import Context, Run
from ..streams.cursors import START, Cursor, Out_co, as_lists, cursor_of, split_cursor
from ..streams.error_notes import annotate
from ..streams.failures import Failures
from ..streams.metering import Meter
from ..streams.stream import Stream
from ..workers.pools import WorkerPools
from .prefetch import Prefetch
from .prefetch_thread import PrefetchThread, Signal, entries_in_passes, entries_of, is_batch, stop_all
from .states import STATE_VERSION, checked_counts, checked_failures

if TYPE_CHECKING:
    from ..reports.report import Report
    from .stalls import Stall

logger = logging.getLogger('pipekit')

ENDED = 'this epoch has ended, because another one was begun on the same batches, or a state loaded'
CLOSE_TIMEOUT_SECONDS = 2.0  # that closing waits for a user's function to return


class Delivery(Generic[Out_co]):
    """Opens the pipeline in a thread, hands its batches to one epoch at a time, and knows the position."""

    def __init__(self, pipeline: Stream[Out_co], end: Prefetch):
        self.pipeline = pipeline
        self.end = end
        self.position: tuple[Cursor, int] = START, 0  # the cursor of the last batch handed over, and how many were
        self.failures = Failures()
        self.meter = Meter()
        self._logged = perf_counter()
        self._current_epoch: Callable[[], Epoch[Out_co] | None] = _no_epoch
        self._resumes_after: int | None = None  # batches of the epoch that a loaded state was taken in
        self._thread: PrefetchThread | None = None
        self._closed = False
        self._forked = False  # whether the thread is in the parent process
        self._lock = threading.RLock()  # for the above; nobody waits for a batch while holding it
        self._turn = threading.RLock()  # for the one consumer that waits for a batch
        in_child(self._leave_thread_in_parent)

    def begin_epoch(self) -> Epoch[Out_co]:
        """Begin an epoch; the one before has ended."""
        self.open()
        with self._lock:
            while True:
                position = self.position
                epoch = Epoch(self, position[1] - (self._resumes_after or 0))
                current = weakref.ref(epoch)
                if self.position is position:  # else a signal handler has loaded a state meanwhile
                    self._current_epoch = current
                    self._resumes_after = None
                    return epoch

    def open(self) -> None:
        """Start the thread, unless it runs.

        Raises
        ------
        Closed
            If the batches are closed, or the thread is in the parent process.
        """
        with self._lock:
            if self._closed:
                raise Closed('the batches are closed; `with batches:` opens them again from where they were')
            if self._forked:
                raise Closed('the thread stayed in the parent process; close() these batches and open them again')
            if self._thread is None or self._thread.stopped:
                self._stop_thread()
                self._start_thread()

    def reopen(self) -> None:
        """Open again what was closed."""
        self._closed = False
        self.open()

    def close(self) -> bool:
        """Stop the thread, and say whether it has ended in time."""
        with self._lock:
            self._closed, self._forked = True, False
            thread = self._stop_thread()
        return thread is None or thread.join(CLOSE_TIMEOUT_SECONDS)

    def next(self, epoch: Epoch[Out_co]) -> Out_co:
        """The next batch of an epoch."""
        asked = got = perf_counter()
        while True:
            with self._lock:
                thread = self._thread_for(epoch)
                if thread.entries:
                    value, cursor = thread.entries[0]
                    if cursor.__class__ is not Signal:
                        # No call since the look at `entries`: a signal handler may run there, and take this batch.
                        # Nor between these two: a Ctrl-C would come there, and this batch a second time.
                        self.position = cursor, self.position[1] + 1
                        thread.entries.popleft()
                        break
                    self._handle(epoch, thread)
                    continue
            with self._turn:
                thread.wait()
            got = perf_counter()
        if thread.is_full:
            thread.report_room()
        self.meter.waits.append((asked, got, self.position[1] == epoch.before + 1))
        if self.end.report_every is not None:
            self._log_report(self.end.report_every)
        batch: Out_co = value
        return batch

    def report(self) -> Report:
        """What the meter has measured since the thread was started."""
        from ..reports.report import report_on  # loaded on first use

        return report_on(self.meter, self.pipeline.rows(), self.end.buffer_size)

    def state_dict(self) -> dict[str, Any]:
        """The position, as what JSON can hold."""
        with self._lock:
            cursor, delivered = self.position
            epoch = self._current_epoch()
            # Before the first loop, a loaded state is still that of its epoch.
            in_epoch = self._resumes_after if epoch is None or epoch.over else delivered - epoch.before
        return {
            'version': STATE_VERSION,
            'cursor': as_lists(cursor),
            'delivered': delivered,
            'in_epoch': in_epoch,
            'failures': self.failures.counts_at(self.counted()),
            'batches_per_epoch': self.end.batches_per_epoch,
            'pipeline': self.pipeline.fingerprint(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        delivered, in_epoch = checked_counts(state, self.state_dict())
        counts = checked_failures(state, self.pipeline.stage_paths())
        cursor = self._checked_cursor(state['cursor'])
        with self._lock:
            thread = self._stop_thread()
            self.position, self._resumes_after = (cursor, delivered), in_epoch
            self.failures = Failures().rewound_to(counts)
            self._current_epoch, self._forked = _no_epoch, False
        if thread is not None:
            thread.join(CLOSE_TIMEOUT_SECONDS)

    def counted(self) -> float:
        """The number of batches handed over; a half more between passes."""
        cursor, delivered = self.position
        is_between_passes = self.end.batches_per_epoch is None and isinstance(cursor, tuple) and cursor[1] == START
        return delivered + 0.5 if is_between_passes else delivered

    def in_pass(self, cursor: Cursor) -> tuple[Cursor, Context]:
        """The cursor of the pipeline at a cursor of the batches, and the context of its pass."""
        if self.end.batches_per_epoch is not None:
            return cursor, Context()
        number, before = split_cursor(cursor, [int, None], self.pipeline)
        return before, Context().in_pass(number)

    def _leave_thread_in_parent(self) -> None:
        # Other threads of the parent may have held the locks when it forked.
        self._lock, self._turn = threading.RLock(), threading.RLock()
        self._forked = self._thread is not None
        if self._thread is not None:
            self._thread.stop()  # the fork may have come in the middle of a wait, in a signal handler

    def mark_closed(self) -> None:
        """Hand over nothing more, because the interpreter exits."""
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
            self.open()  # and look again: a signal handler may have closed them, or loaded a state

    def _handle(self, epoch: Epoch[Out_co], thread: PrefetchThread) -> None:
        value, signal = thread.entries[0]
        _, delivered = self.position
        self.failures.has_ended = signal is not Signal.END_OF_PASS
        if signal is Signal.ERROR:
            epoch.over = True
            thread.entries.popleft()
            self._stop_thread()  # the next epoch opens it again at the position: the error may have been a passing one
            annotate(value[0], 'batches', self.position[0])
            raise value.pop()  # popped: were it still in reach of its own traceback, it would stay in memory
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

    def _checked_cursor(self, saved: Any) -> Cursor:
        try:
            cursor = cursor_of(saved)
            if not self.pipeline.reopens and cursor != START:
                raise NotResumable(
                    f'the source {self.pipeline.source!r} is an iterator and cannot go on from a state; '
                    'pass a sequence, or a function without arguments that makes a new iterator'
                )
            if self.pipeline.reopens:
                self.pipeline.open(*self.in_pass(cursor))  # checks it, here rather than in the thread
        except ValueError as error:
            raise StateMismatch(f'the state is damaged: {error}') from error
        return cursor

    def _start_thread(self) -> None:
        _started.add(self)
        position, end = self.position, self.end
        open_at = entries_in_passes if end.batches_per_epoch is None else entries_of
        meter = Meter(is_exact=end.profile)
        pools = WorkerPools(meter.add_wait)
        failures = self.failures.rewound_to(self.failures.counts_at(self.counted()))
        context = Context(run=Run(pools, meter, BlockPool(), failures))
        entries = open_at(self.pipeline, position[0], context)
        if self.pipeline.skips:
            entries = failures.recording_history(entries, position[1], is_batch, end.buffer_size + 3)
        new_stall = partial(_new_stall, pools)
        thread = PrefetchThread(self, entries, pools, meter, end.buffer_size, end.stall_after, new_stall)
        try:
            thread.start()
            if self._thread is None and self.position is position and not self._closed:
                self._thread, self.meter, self.failures = thread, meter, failures
                return
        except BaseException:
            thread.stop()
            raise
        # A signal handler ran here, and has opened or closed them, or loaded a state: it did not see this thread.
        thread.stop()
        thread.join(CLOSE_TIMEOUT_SECONDS)

    def _stop_thread(self) -> PrefetchThread | None:
        thread = self._thread
        if thread is not None:
            thread.stop()
            self._thread = None
        return thread


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


def _no_epoch() -> None:
    return None


def _new_stall(pools: WorkerPools, thread: threading.Thread) -> Stall:
    from .stalls import Stall  # loaded on first use

    return Stall(thread, pools)


_started: weakref.WeakSet[Delivery[Any]] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    for delivery in list(_started):
        delivery.mark_closed()
    stop_all(CLOSE_TIMEOUT_SECONDS)
