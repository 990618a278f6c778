"""The end of a pipeline: a thread that makes batches ahead of their use, epochs, closing, and the state."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import islice, repeat, starmap, zip_longest
from math import inf
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Generic, NoReturn, TypeAlias, TypeVar
from warnings import warn

from .arguments import positive_int
from .cursors import START, Cursor, cursor_of, parts_of
from .descriptions import ENTROPY, Description, described
from .display import Table, call_code, code
from .errors import Closed, Exhausted, NotResumable, PipekitError, StateMismatch
from .streams import Context, Stream, passes
from .workers import Pools

T = TypeVar('T')

STATE_VERSION = 1
PATIENCE = 2.0  # seconds that closing waits for a user's function to return

# The thread hands over batches with their cursors. In place of a cursor may be one of these.
END, END_OF_PASS, ERROR = (object() for _ in range(3))
Item: TypeAlias = 'tuple[Any, Any]'


class Prefetch(Description):
    """The description that ``prefetch`` returns: the last part of a pipeline, which makes it a ``BatchIterator``."""

    def __init__(self, batches_per_epoch: int | None, buffer_size: int):
        self.batches_per_epoch = batches_per_epoch
        self.buffer_size = buffer_size


@described
def prefetch(batches_per_epoch: int | None = None, *, buffer_size: int = 3) -> Prefetch:
    """Make batches in a background thread, ahead of their use. Always the last in a pipeline.

    Parameters
    ----------
    batches_per_epoch
        The number of batches in an epoch. By default, an epoch is one pass over a finite source, and random stages
        draw anew in every pass.
    buffer_size
        The largest number of batches made ahead.

    Examples
    --------
    >>> from pipekit import combine_batches, pipeline, sample
    >>> batches = pipeline(sample('abc', seed=0), combine_batches(2, ''.join), prefetch(3))
    >>> with batches:
    ...     list(batches), list(batches)
    (['aa', 'ba', 'bc'], ['ac', 'ba', 'ab'])
    """
    if batches_per_epoch is not None:
        batches_per_epoch = positive_int('batches_per_epoch', batches_per_epoch, 'a positive int or None')
    return Prefetch(batches_per_epoch, positive_int('buffer_size', buffer_size))


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
    >>> from pipekit import pipeline, repeat
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
        self._resumes_after: int | None = None  # batches of the epoch that a loaded state was taken in
        self._feed: _Feed | None = None
        self._closed = False
        self._forked = False  # whether the thread is in the parent process
        self._lock = threading.RLock()  # for the above; nobody waits while holding it
        self._turn = threading.RLock()  # for the one consumer that waits for a batch

    def __iter__(self) -> Iterator[T]:
        self._opened()
        with self._lock:
            epoch = _Epoch(self, self._position[1] - (self._resumes_after or 0))
            self._current_epoch = weakref.ref(epoch)
            self._resumes_after = None
            return epoch

    def __len__(self) -> int:
        if self._per_epoch is None:
            raise TypeError('an epoch here is one pass over the source; give prefetch batches_per_epoch for a length')
        return self._per_epoch

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
        >>> from pipekit import pipeline
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
            warn(message, RuntimeWarning, stacklevel=2)

    def state_dict(self) -> dict[str, Any]:
        """Where the batches are, as what JSON can hold: the cursor of the last batch handed over and a few numbers.

        What the thread has made ahead is not in it; it is made again.

        Examples
        --------
        >>> from pipekit import pipeline, sample
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
            'cursor': _as_lists(cursor),
            'delivered': delivered,
            'in_epoch': in_epoch,
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
        delivered, in_epoch = _checked(state, self.state_dict())
        cursor = self._checked_cursor(state['cursor'])
        with self._lock:
            feed = self._stop_feed()
            self._position, self._resumes_after = (cursor, delivered), in_epoch
            self._current_epoch, self._forked = _no_epoch, False
        if feed is not None:
            feed.ends_within(PATIENCE)

    def describe(self) -> Table:
        """``describe()`` of the pipeline."""
        return self.pipeline.describe()

    def _repr_html_(self) -> str:
        return self.pipeline._repr_html_()

    def __repr__(self) -> str:
        return call_code('pipeline', (self.pipeline.source, *self.pipeline.stages, self._end), {})

    def __reduce__(self) -> NoReturn:
        raise TypeError('a BatchIterator has a thread and cannot be pickled; pickle its pipeline and its state_dict()')

    def _next(self, epoch: _Epoch[T]) -> T:
        with self._turn:
            while True:
                feed = self._feed_for(epoch)
                feed.wait_for_first()
                with self._lock:
                    if feed.stopped or self._current_epoch() is not epoch or not feed.first:
                        continue  # something came between: _feed_for tells what
                    value, cursor = feed.first[0]
                    if cursor is END or cursor is END_OF_PASS or cursor is ERROR:
                        self._heed_mark(epoch, feed)
                        continue
                    # No call since the look at `first`: a signal handler would come there, and take this batch too. Nor
                    # between these two: a Ctrl-C would come there, and this batch a second time.
                    self._position = cursor, self._position[1] + 1
                    feed.first.clear()
                feed.tell_of_room()
                batch: T = value
                return batch

    def _feed_for(self, epoch: _Epoch[T]) -> _Feed:
        if epoch.over:
            raise StopIteration
        if self._current_epoch() is not epoch:
            raise Closed('this epoch has ended, because another one was begun on the same batches, or a state loaded')
        if self._position[1] - epoch.before == self._per_epoch:
            raise StopIteration
        feed = self._feed
        return self._opened() if feed is None or feed.stopped else feed

    def _heed_mark(self, epoch: _Epoch[T], feed: _Feed) -> None:
        value, mark = feed.first[0]
        _, delivered = self._position
        if mark is ERROR:
            epoch.over = True
            feed.first.clear()
            self._stop_feed()  # the next epoch opens it again at the position: the error may have been a passing one
            raise value.pop()  # popped: were it still in reach of its own traceback, it would stay in memory
        if mark is END_OF_PASS:
            self._position = value, delivered
            feed.first.clear()
        if delivered > epoch.before:
            raise StopIteration
        if mark is END:
            remedy = 'a pass over it gives none' if self._per_epoch is None else 'add repeat() to start it again'
            raise Exhausted(f'the source ended after {delivered} batches; {remedy}')

    def _checked_cursor(self, saved: Any) -> Cursor:
        try:
            cursor = cursor_of(saved)
            if not self.pipeline.reopens and cursor != START:
                raise NotResumable(
                    f'the source {self.pipeline.source!r} is an iterator and cannot go on from a state; '
                    'pass a sequence, or a function without arguments that makes a new iterator'
                )
            if self.pipeline.reopens:
                in_passes = self._per_epoch is None
                number, before = parts_of(cursor, [int, None], self) if in_passes else (0, cursor)
                self.pipeline.open(before, Context().in_pass(number))  # checks it, here rather than in the thread
        except ValueError as error:
            raise StateMismatch(f'the state is damaged: {error}') from error
        return cursor

    def _opened(self) -> _Feed:
        with self._lock:
            if self._closed:
                raise Closed('the batches are closed; `with batches:` opens them again from where they were')
            if self._forked:
                raise Closed('the thread stayed in the parent process; close() these batches and open them again')
            if self._feed is not None and not self._feed.stopped:
                return self._feed
            self._stop_feed()
            return self._open()

    def _open(self) -> _Feed:
        _started.add(self)
        position = self._position
        open_at = _items_in_passes if self._per_epoch is None else _items
        pools = Pools()
        items = open_at(self.pipeline, position[0], Context(pools=pools))
        feed = _Feed(self, items, pools, self._end.buffer_size)
        try:
            self._feed = feed
            feed.start()
            if self._closed or self._position is not position:
                feed.stop()  # a signal handler was here
        except BaseException:
            feed.stop()
            raise
        return feed

    def _stop_feed(self) -> _Feed | None:
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
            self._feed.stopped = True


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
        except BaseException:  # an epoch is over after an error, as a generator is
            self.over = True
            raise


def _no_epoch() -> None:
    return None


class _Feed:
    # The thread, and what it shares with the consumers. Were it to refer to the BatchIterator, that would never be
    # collected. Every wait here ends although Ctrl-C, a signal handler or a finalizer came between any two lines.
    def __init__(self, owner: object, items: Iterator[Item], pools: Pools, buffer_size: int):
        self.stopped = False
        self.first: deque[Item] = deque()  # the item to hand over next, if it has been waited for
        self._pools = pools
        self._items: SimpleQueue[Item] = SimpleQueue()
        self._arriving = starmap(self._items.get, repeat(()))
        self._buffer_size = buffer_size
        self._full = False
        self._room: SimpleQueue[None] = SimpleQueue()
        self._thread = threading.Thread(target=self._fill, args=(items,), name='pipekit-prefetch', daemon=True)
        self._owner: weakref.ref[Any] | None = weakref.ref(owner, lambda _: self.stop())  # stops a forgotten one

    def start(self) -> None:
        _running.add(self)
        self._thread.start()

    def wait_for_first(self) -> None:
        while not self.first and not self.stopped:
            self.tell_of_room()  # again: when the last item was taken, Ctrl-C may have come before this
            # From queue to queue in one call into C: Ctrl-C comes before or after it, and never loses an item.
            self.first.extend(islice(self._arriving, 1))

    def tell_of_room(self) -> None:
        if self._full:
            self._room.put(None)

    def stop(self) -> None:
        self.stopped = True
        self._room.put(None)
        self._items.put((None, END))
        self._owner = None  # which led back here: what is in the buffer need not wait for the garbage collector

    def ends_within(self, patience: float) -> bool:
        if self._thread is threading.current_thread():
            return True
        if self._thread.is_alive():
            self._pools.cancel()
            self._thread.join(patience)
            _running.discard(self)  # so that the exit does not wait for it again
        return not self._thread.is_alive()

    def _fill(self, items: Iterator[Item]) -> None:
        # Room comes first: a batch is made when there is a place for it, and the thread holds none while it waits.
        try:
            while self._has_room():
                self._items.put(next(items))
        except StopIteration:
            pass
        except BaseException as error:
            self._items.put(([error], ERROR))
        finally:
            self._pools.close()

    def _has_room(self) -> bool:
        while not self.stopped:
            if self._items.qsize() + len(self.first) < self._buffer_size:
                self._full = False
                return True
            if self._full:
                self._room.get()
            self._full = True  # and look again: a consumer that made room either has been seen, or sees this
        return False


def _items(stream: Stream[Any], cursor: Cursor, context: Context) -> Iterator[Item]:
    yield from stream.open(cursor, context)
    yield None, END


def _items_in_passes(stream: Stream[Any], cursor: Cursor, context: Context) -> Iterator[Item]:
    first, before = parts_of(cursor, [int, None], stream)
    for next_pass, pairs in enumerate(passes(stream.open, first, before, context), first + 1):
        yield from pairs
        yield (next_pass, START), END_OF_PASS
    yield None, END


def _checked(state: Mapping[str, Any], own: Mapping[str, Any]) -> tuple[int, int | None]:
    if not isinstance(state, Mapping) or state.keys() != own.keys():
        raise StateMismatch(f'expected what state_dict() returned, with the keys {list(own)}, got {code(state)}')
    for key in ('version', 'batches_per_epoch'):
        if state[key] != own[key]:
            raise StateMismatch(
                f'the state was saved with {key}={code(state[key])}, these batches have {code(own[key])}'
            )
    lines, per_epoch = state['pipeline'], own['batches_per_epoch']
    if not isinstance(lines, list):
        raise _damaged('pipeline', lines)
    for number, (saved, present) in enumerate(zip_longest(map(str, lines), own['pipeline'])):
        if saved != present:
            raise StateMismatch(_difference(number, saved, present))
    delivered = _count(state, 'delivered', inf)
    if state['in_epoch'] is None:
        return delivered, None
    return delivered, _count(state, 'in_epoch', delivered if per_epoch is None else min(delivered, per_epoch))


def _count(state: Mapping[str, Any], key: str, most: float) -> int:
    count = state[key]
    if type(count) is not int or not 0 <= count <= most:
        raise _damaged(key, count)
    return count


def _damaged(key: str, value: object) -> StateMismatch:
    return StateMismatch(f'the state is damaged: {key} is {code(value)}')


def _difference(number: int, saved: str | None, present: str | None) -> str:
    what = f'stage {number}' if number else 'the source'
    if saved and present and ENTROPY in saved and saved.split(ENTROPY)[0] == present.split(ENTROPY)[0]:
        return (
            f'{what} is {present.split(ENTROPY)[0]}, unseeded: it draws anew in each process; pass seed= to continue it'
        )
    return f'{what} was {saved or "absent"} when the state was saved, and is {present or "absent"} here'


def _as_lists(cursor: Cursor) -> Any:
    return [_as_lists(part) for part in cursor] if isinstance(cursor, tuple) else cursor


_running: weakref.WeakSet[_Feed] = weakref.WeakSet()
_started: weakref.WeakSet[BatchIterator[Any]] = weakref.WeakSet()


def _leave_threads_in_parent() -> None:
    for batches in list(_started):
        batches._leave_thread_in_parent()


if sys.platform != 'win32':
    os.register_at_fork(after_in_child=_leave_threads_in_parent)


@atexit.register
def _stop_all() -> None:
    # The threads are daemons, which the interpreter does not wait for: one of them may be in a function that never
    # returns. The others are given the time to end in order.
    deadline = time.monotonic() + PATIENCE
    for batches in list(_started):
        batches._closed = True
    feeds = list(_running)
    for feed in feeds:
        feed.stop()
    for feed in feeds:
        feed.ends_within(max(0.0, deadline - time.monotonic()))
