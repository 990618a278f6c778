"""What a pipeline with an end is: batches from a thread, epoch by epoch, with closing and a state."""

from __future__ import annotations

import atexit
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from time import perf_counter
from types import TracebackType
from typing import Any, Generic, NoReturn, TypeVar
from warnings import warn

from ..describing.arguments import positive_int
from ..describing.display import call_code
from ..describing.tables import Table
from ..describing.tracebacks import hide_own_frames
from ..errors import Closed, Exhausted, NotResumable, PipekitError, StateMismatch
from ..memory.blocks import BlockPool
from ..memory.forks import in_child
from ..reports.report import Headroom, Report, report_on
from ..streams.cursors import START, Cursor, Signal, cursor_of, parts_of
from ..streams.failures import Failure, Failures
from ..streams.metering import Meter
from ..streams.stream import Context, Stream, annotate
from ..workers.pools import WorkerPools
from .prefetch import Prefetch
from .prefetch_thread import PrefetchThread, is_batch, items_in_passes, items_one_after_another, running
from .stalls import own_depth
from .states import STATE_VERSION, as_lists, checked_counts, checked_failures

T = TypeVar('T')

logger = logging.getLogger('pipekit')

CACHED = 4  # batches
ENDED = 'this epoch has ended, because another one was begun on the same batches, or a state loaded'
PATIENCE = 2.0  # seconds that closing waits for a user's function to return


class BatchIterator(Generic[T]):
    """Batches from a background thread, epoch by epoch. Made by ``pipeline(..., prefetch(...))``.

    ``for batch in batches`` is one epoch; the next loop goes on where it ended. The thread starts with the first epoch,
    or with ``with``, and makes batches ahead across the ends of epochs. ``close()`` stops it, and keeps the position.

    Several threads may share one epoch: each batch goes to exactly one of them.

    Attributes
    ----------
    pipeline
        What the thread iterates over; iterate over it yourself to run everything in the calling thread.

    Examples
    --------
    >>> from pipekit import pipeline, prefetch, repeat
    >>> batches = pipeline('abc', repeat(), prefetch(2))
    >>> list(batches), list(batches)
    (['a', 'b'], ['c', 'a'])
    >>> batches.close()
    >>> with batches:
    ...     list(batches)
    ['b', 'c']
    """

    def __init__(self, pipeline: Stream[T], end: Prefetch):
        self.pipeline = pipeline
        self._end = end
        self._per_epoch = end.batches_per_epoch
        self._position: tuple[Cursor, int] = START, 0  # the last batch handed over: its cursor, and the how-manieth
        self._current_epoch: Callable[[], _Epoch[T] | None] = _no_epoch
        self._failures = Failures()
        self._meter = Meter()
        self._logged = perf_counter()
        self._resumes_after: int | None = None  # batches of the epoch that a loaded state was taken in
        self._feed: PrefetchThread | None = None
        self._closed = False
        self._forked = False  # whether the thread is in the parent process
        self._lock = threading.RLock()  # for the above; nobody waits for a batch while holding it
        self._turn = threading.RLock()  # for the one consumer that waits for a batch
        in_child(self._leave_thread_in_parent)

    def __iter__(self) -> Iterator[T]:
        self._opened()
        with self._lock:
            while True:
                position = self._position
                epoch = _Epoch(self, position[1] - (self._resumes_after or 0))
                current = weakref.ref(epoch)
                if self._position is position:  # else a signal handler has loaded a state meanwhile
                    self._current_epoch = current
                    self._resumes_after = None
                    return epoch

    def __len__(self) -> int:
        if self._per_epoch is None:
            raise TypeError('an epoch here is one pass over the source; give prefetch batches_per_epoch for a length')
        return self._per_epoch

    def __bool__(self) -> bool:
        return True  # where there is no length, too

    def __enter__(self) -> BatchIterator[T]:
        self._closed = False
        self._opened()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the thread; the position is kept, and ``with`` opens it again from there.

        May be called twice, and from any thread. A user's function that is running is waited for, two seconds at most:
        it cannot be interrupted, and the thread ends when it returns.

        Examples
        --------
        >>> from pipekit import pipeline, prefetch
        >>> batches = pipeline('ab', prefetch(1))
        >>> batches.close()
        >>> next(iter(batches))
        Traceback (most recent call last):
        pipekit.errors.Closed: the batches are closed; `with batches:` opens them again from where they were
        """
        with self._lock:
            self._closed, self._forked = True, False
            feed = self._stop_feed()
        if feed is not None and not feed.ends_within(PATIENCE):
            message = f'closed while a function in {self!r} runs; the prefetch thread ends when that returns'
            warn(message, RuntimeWarning, stacklevel=own_depth())

    def state_dict(self) -> dict[str, Any]:
        """Where the batches are, as what JSON can hold: the cursor of the last batch handed over and a few numbers.

        What the thread has made ahead is not in it; it is made again.

        Examples
        --------
        >>> from pipekit import pipeline, prefetch, sample
        >>> batches = pipeline(sample('abc', seed=0), prefetch(3))
        >>> for batch in batches:
        ...     state = batches.state_dict()
        ...     break
        >>> state['cursor'], state['in_epoch']
        (1, 1)
        >>> batches.load_state_dict(state)
        >>> list(batches)
        ['a', 'b']
        >>> batches.close()
        """
        with self._lock:
            cursor, delivered = self._position
            epoch = self._current_epoch()
            # Before the first loop, a loaded state is still that of its epoch.
            in_epoch = self._resumes_after if epoch is None or epoch.over else delivered - epoch.before
        return {
            'version': STATE_VERSION,
            'cursor': as_lists(cursor),
            'delivered': delivered,
            'in_epoch': in_epoch,
            'failures': self._failures.at(self._counted(cursor, delivered)),
            'batches_per_epoch': self._per_epoch,
            'pipeline': self.pipeline.fingerprint(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        The next loop yields the rest of the epoch in which the state was taken: nothing, if that was inside the loop
        after its last batch; all of the next epoch, if it was between epochs.

        Raises
        ------
        StateMismatch
            If the state is none, or that of another pipeline; says what differs.
        NotResumable
            If the pipeline's source is an iterator.
        """
        delivered, in_epoch = checked_counts(state, self.state_dict())
        counts = checked_failures(state)
        cursor = self._checked_cursor(state['cursor'])
        with self._lock:
            feed = self._stop_feed()
            self._position, self._resumes_after = (cursor, delivered), in_epoch
            self._failures = Failures().back_at(counts)
            self._current_epoch, self._forked = _no_epoch, False
        if feed is not None:
            feed.ends_within(PATIENCE)

    def replay(self, cursor: Any, *, stage: int | None = None, key: tuple[Any, ...] = ()) -> Any:
        """Make the batch after a cursor again, in the calling thread: the batch that followed a state, from its cursor.

        Parameters
        ----------
        cursor
            The ``'cursor'`` of a ``state_dict()``, or the one in the note on an error.
        stage, key
            As for ``replay`` of a pipeline.

        Examples
        --------
        >>> from pipekit import combine_batches, pipeline, prefetch, sample
        >>> with pipeline(sample('abc', seed=0), combine_batches(2, ''.join), prefetch(3)) as batches:
        ...     states = [batches.state_dict() for batch in batches]
        >>> batches.replay(states[0]['cursor'])
        'ba'
        """
        before = cursor_of(cursor)
        if isinstance(before, tuple) and not key:
            before, context = self._in_pass(before)
            key = context.key
        return self.pipeline.replay(before, stage=stage, key=key)

    @property
    def failures(self) -> list[Failure]:
        """The last 100 samples that ``skip`` or ``replace`` was for: stage, cursor, sample and exception of each.

        Examples
        --------
        >>> from pipekit import apply, pipeline, prefetch, skip
        >>> with pipeline('12x4', apply(int, on_error=skip(ValueError)), prefetch()) as batches:
        ...     list(batches), [failure.sample for failure in batches.failures]
        ([1, 2, 4], ['x'])
        """
        return self._failures.seen(self._counted(*self._position))

    def report(self) -> Report:
        """Where the time goes: what each stage takes, who waits for whom, and one sentence on what to change.

        Of the last thousand batches since the thread was started.

        Examples
        --------
        >>> import time
        >>> from pipekit import apply, pipeline, prefetch
        >>> def load(number):
        ...     time.sleep(0.002)
        >>> with pipeline(range(20), apply(load), prefetch()) as batches:
        ...     for batch in batches:
        ...         time.sleep(0.0005)
        >>> batches.report().bottleneck
        'apply(load)'
        """
        return report_on(self._meter, self.pipeline, self._end.buffer_size)

    def describe(self) -> Table:
        """``describe()`` of the pipeline."""
        return self.pipeline.describe()

    def headroom(self, times: int = 100) -> Headroom[T]:
        """A few batches again and again, at no cost: to see how fast training could be if batches took no time.

        They are made here, in the calling thread, as those that come next; the position stays where it is.

        Parameters
        ----------
        times
            How many batches the loop is to have.

        Examples
        --------
        >>> from pipekit import combine_batches, pipeline, prefetch, sample
        >>> batches = pipeline(sample(range(9), seed=0), combine_batches(3), prefetch(10))
        >>> headroom = batches.headroom(5)
        >>> for batch in headroom:
        ...     pass  # train
        >>> headroom.n_batches
        5
        """
        pairs = self.pipeline.open(*self._in_pass(self._position[0]))
        cached = [batch for batch, _ in islice(pairs, CACHED)]
        return Headroom(cached, positive_int('times', times), self.report())

    def _repr_html_(self) -> str:
        measured = self.report()._repr_html_() if self._meter.waits else ''
        return self.pipeline._repr_html_() + measured

    def __repr__(self) -> str:
        return call_code('pipeline', (self.pipeline.source, *self.pipeline.stages, self._end), {})

    def __reduce__(self) -> NoReturn:
        raise TypeError('a BatchIterator has a thread and cannot be pickled; pickle its pipeline and its state_dict()')

    def _next(self, epoch: _Epoch[T]) -> T:
        asked = got = perf_counter()
        while True:
            with self._lock:
                feed = self._feed_for(epoch)
                if feed.items:
                    value, cursor = feed.items[0]
                    if cursor.__class__ is not Signal:
                        # No call since the look at `items`: a signal handler would come there, and take this batch too.
                        # Nor between these two: a Ctrl-C would come there, and this batch a second time.
                        self._position = cursor, self._position[1] + 1
                        feed.items.popleft()
                        break
                    self._handle_signal(epoch, feed)
                    continue
            with self._turn:
                feed.wait()
            got = perf_counter()
        if feed.is_full:
            feed.tell_of_room()
        self._meter.waits.append((asked, got, self._position[1] == epoch.before + 1))
        if self._end.report_every is not None:
            self._log_report(self._end.report_every)
        batch: T = value
        return batch

    def _log_report(self, every: float) -> None:
        if perf_counter() - self._logged > every:
            self._logged = perf_counter()
            logger.info(self.report().verdict)

    def _feed_for(self, epoch: _Epoch[T]) -> PrefetchThread:
        while True:
            if epoch.over:
                raise StopIteration
            if self._current_epoch() is not epoch:
                raise Closed(ENDED)
            if self._position[1] - epoch.before == self._per_epoch:
                raise StopIteration
            feed = self._feed
            if feed is not None and not feed.stopped:
                return feed
            self._opened()  # and look again: a signal handler may have closed them, or loaded a state

    def _handle_signal(self, epoch: _Epoch[T], feed: PrefetchThread) -> None:
        value, mark = feed.items[0]
        _, delivered = self._position
        self._failures.has_ended = mark is not Signal.END_OF_PASS
        if mark is Signal.ERROR:
            epoch.over = True
            feed.items.popleft()
            self._stop_feed()  # the next epoch opens it again at the position: the error may have been a passing one
            annotate(value[0], 'batches', self._position[0])
            raise value.pop()  # popped: were it still in reach of its own traceback, it would stay in memory
        if mark is Signal.END_OF_PASS:
            self._position = value, delivered
            feed.items.popleft()
        if delivered > epoch.before:
            raise StopIteration
        if mark is Signal.END:
            remedy = 'a pass over it gives none' if self._per_epoch is None else 'add repeat() to start it again'
            raise Exhausted(f'the source ended after {delivered} batches; {remedy}')

    def _counted(self, cursor: Cursor, delivered: int) -> float:
        is_between_passes = self._per_epoch is None and isinstance(cursor, tuple) and cursor[1] == START
        return delivered + 0.5 if is_between_passes else delivered

    def _in_pass(self, cursor: Cursor) -> tuple[Cursor, Context]:
        if self._per_epoch is not None:
            return cursor, Context()
        number, before = parts_of(cursor, [int, None], self)
        return before, Context().in_pass(number)

    def _checked_cursor(self, saved: Any) -> Cursor:
        try:
            cursor = cursor_of(saved)
            if not self.pipeline.reopens and cursor != START:
                raise NotResumable(
                    f'the source {self.pipeline.source!r} is an iterator and cannot go on from a state; '
                    'pass a sequence, or a function without arguments that makes a new iterator'
                )
            if self.pipeline.reopens:
                self.pipeline.open(*self._in_pass(cursor))  # checks it, here rather than in the thread
        except ValueError as error:
            raise StateMismatch(f'the state is damaged: {error}') from error
        return cursor

    def _opened(self) -> None:
        with self._lock:
            if self._closed:
                raise Closed('the batches are closed; `with batches:` opens them again from where they were')
            if self._forked:
                raise Closed('the thread stayed in the parent process; close() these batches and open them again')
            if self._feed is None or self._feed.stopped:
                self._stop_feed()
                self._open()

    def _open(self) -> None:
        _started.add(self)
        position = self._position
        open_at = items_in_passes if self._per_epoch is None else items_one_after_another
        meter = Meter(is_exact=self._end.profile)
        pools = WorkerPools(meter)
        failures = self._failures.back_at(self._failures.at(self._counted(*position)))
        context = Context(pools=pools, failures=failures, meter=meter, memory=BlockPool())
        items = open_at(self.pipeline, position[0], context)
        if self.pipeline.skips:
            items = failures.noted(items, position[1], is_batch, self._end.buffer_size + 3)
        feed = PrefetchThread(self, items, pools, meter, self._end.buffer_size, self._end.stall_after)
        try:
            feed.start()
            if self._feed is None and self._position is position and not self._closed:
                self._feed, self._meter, self._failures = feed, meter, failures
                return
        except BaseException:
            feed.stop()
            raise
        # A signal handler was here, and has opened or closed them, or loaded a state: it did not see this thread.
        feed.stop()
        feed.ends_within(PATIENCE)

    def _stop_feed(self) -> PrefetchThread | None:
        feed = self._feed
        if feed is not None:
            feed.stop()
            self._feed = None
        return feed

    def _leave_thread_in_parent(self) -> None:
        # Other threads of the parent may have held the locks when it forked.
        self._lock, self._turn = threading.RLock(), threading.RLock()
        self._forked = self._feed is not None
        if self._feed is not None:
            self._feed.stop()  # the fork may have come in the middle of a wait, in a signal handler


class _Epoch(Iterator[T]):
    def __init__(self, batches: BatchIterator[T], before: int):
        self._batches = batches
        self.before = before  # batches handed over before this epoch
        self.over = False

    def __next__(self) -> T:
        try:
            return self._batches._next(self)
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


_started: weakref.WeakSet[BatchIterator[Any]] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    # The threads are daemons, which the interpreter does not wait for: one of them may be in a function that never
    # returns. The others are given the time to end in order.
    deadline = time.monotonic() + PATIENCE
    for batches in list(_started):
        batches._closed = True
    feeds = list(running)
    for feed in feeds:
        feed.stop()
    for feed in feeds:
        feed.ends_within(max(0.0, deadline - time.monotonic()))
