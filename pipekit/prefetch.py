"""The end of a pipeline: a thread that makes batches ahead of their use, epochs, closing, and the state."""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Generic, NamedTuple, NoReturn, TypeAlias, TypeVar
from warnings import warn

from .arguments import positive_int
from .cursors import START, Cursor, cursor_of, parts_of
from .descriptions import ENTROPY, Description, described
from .display import Table, call_code, code
from .errors import Closed, Exhausted, StateMismatch
from .streams import Context, Stream, passes

T = TypeVar('T')

STATE_VERSION = 1
PATIENCE = 2.0  # seconds that closing waits for a user's function to return

# What the thread hands over besides batches, told apart from them by identity.
BATCH, END_OF_PASS, END, ERROR, CLOSED = (object() for _ in range(5))
Item: TypeAlias = 'tuple[object, Any, Cursor]'


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


class _Position(NamedTuple):
    """Where a ``BatchIterator`` is: all that a state has to say."""

    cursor: Cursor  # of the last batch handed over
    delivered: int  # batches handed over in all
    in_epoch: int | None  # batches handed over in this epoch; None between epochs


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
        self._position = _Position(START, 0, None)
        self._resumes_epoch = False
        self._closed = False
        self._feed: _Feed | None = None
        self._lock = threading.RLock()
        self._epochs = 0
        self._epoch: weakref.ref[_Epoch[T]] | None = None

    def __iter__(self) -> Iterator[T]:
        self._opened()
        delivered = (self._position.in_epoch or 0) if self._resumes_epoch else 0
        self._position = self._position._replace(in_epoch=delivered)
        self._epochs += 1
        epoch = _Epoch(self, self._epochs, resumed=self._resumes_epoch and delivered > 0)
        self._epoch = weakref.ref(epoch)
        self._resumes_epoch = False
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
        self._closed = True
        if not self._stop_feed(PATIENCE):
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
        cursor, delivered, in_epoch = self._position
        if self._epoch is None or self._epoch() is None:
            # The loop was left; but before the first one, a loaded state is still that of its epoch.
            in_epoch = in_epoch if self._resumes_epoch else None
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
        position = _checked(state, self.state_dict(), self)
        if self.pipeline.reopens:
            in_passes = self._per_epoch is None
            number, before = parts_of(position.cursor, [int, None], self) if in_passes else (0, position.cursor)
            self.pipeline.open(before, Context().in_pass(number))  # checks the cursor, here rather than in the thread
        self._stop_feed(PATIENCE)
        self._position = position
        self._resumes_epoch = True
        self._epochs += 1
        self._epoch = None

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
        if self._feed is not None and self._feed.pid != os.getpid():
            raise Closed('the prefetch thread stayed in the parent process; close() these batches and open them again')
        with self._lock:
            if epoch.over:
                raise StopIteration
            if epoch.number != self._epochs:
                raise Closed('this epoch has ended, because another one was begun on the same batches')
            while True:
                _, delivered, in_epoch = self._position
                assert in_epoch is not None
                if in_epoch == self._per_epoch:
                    self._end_epoch(epoch)
                mark, value, after = self._opened().get()
                if mark is BATCH:
                    self._position = _Position(after, delivered + 1, in_epoch + 1)
                    batch: T = value
                    return batch
                if mark is CLOSED:
                    raise Closed('the batches were closed while one was waited for')
                if mark is ERROR:
                    epoch.over = True
                    self._stop_feed()
                    try:
                        raise value
                    finally:
                        del value
                if mark is END_OF_PASS:
                    self._position = _Position(after, delivered, in_epoch)
                    if not (in_epoch or epoch.resumed):
                        continue
                if mark is END and not (in_epoch or epoch.resumed):
                    self._stop_feed()
                    raise Exhausted(f'the source ended after {delivered} batches; add repeat() to start it again')
                self._end_epoch(epoch)

    def _end_epoch(self, epoch: _Epoch[T]) -> NoReturn:
        epoch.over = True
        self._position = self._position._replace(in_epoch=None)
        raise StopIteration

    def _opened(self) -> _Feed:
        with self._lock:
            if self._closed:
                raise Closed('the batches are closed; `with batches:` opens them again from where they were')
            if self._feed is None:
                feed = self._feed = _Feed(self._end.buffer_size)
                self._finalizer = weakref.finalize(self, feed.stop)
                self._finalizer.atexit = False  # _stop_all waits for the threads, which this does not
                feed.start(self.pipeline, self._position.cursor, in_passes=self._per_epoch is None)
            return self._feed

    def _stop_feed(self, patience: float = 0.0) -> bool:
        feed = self._feed
        if feed is None:
            return True
        stopped = feed.stop(patience)
        if feed.pid != os.getpid():
            self._lock = threading.RLock()  # the parent process may have held the other one when it forked
        with self._lock:  # whoever waits for a batch has been woken, and leaves
            self._finalizer.detach()
            self._feed = None
        return stopped


class _Epoch(Iterator[T]):
    def __init__(self, batches: BatchIterator[T], number: int, resumed: bool):
        self._batches = batches
        self.number = number
        self.resumed = resumed
        self.over = False

    def __next__(self) -> T:
        return self._batches._next(self)


class _Feed:
    # What the thread and its consumers share. Were it to refer to the BatchIterator, that would never be collected.
    def __init__(self, buffer_size: int):
        self.pid = os.getpid()
        self._items: SimpleQueue[Item] = SimpleQueue()
        self._room: SimpleQueue[None] = SimpleQueue()
        self._stopped = False
        for _ in range(buffer_size):
            self._room.put(None)

    def start(self, stream: Stream[Any], cursor: Cursor, in_passes: bool) -> None:
        items = (_items_in_passes if in_passes else _items)(stream, cursor)
        self._thread = threading.Thread(target=self._fill, args=(items,), name='pipekit-prefetch', daemon=True)
        _running.add(self)
        self._thread.start()

    def get(self) -> Item:
        item = self._items.get()
        if self._stopped:
            self._items.put((CLOSED, None, START))  # for the next one who waits
            return CLOSED, None, START
        self._room.put(None)
        return item

    def stop(self, patience: float = 0.0) -> bool:
        self._stopped = True
        self._room.put(None)
        self._items.put((CLOSED, None, START))
        if self._thread is not threading.current_thread() and patience:
            self._thread.join(patience)
        return not self._thread.is_alive()

    def _fill(self, items: Iterator[Item]) -> None:
        # Room comes first: a batch is made when there is a place for it, and the thread holds none while it waits.
        try:
            while self._has_room():
                self._items.put(next(items))
        except StopIteration:
            pass
        except BaseException as error:
            self._items.put((ERROR, error, START))

    def _has_room(self) -> bool:
        self._room.get()
        return not self._stopped


def _items(stream: Stream[Any], cursor: Cursor) -> Iterator[Item]:
    yield from map(_item, stream.open(cursor, Context()))
    yield END, None, START


def _items_in_passes(stream: Stream[Any], cursor: Cursor) -> Iterator[Item]:
    first, before = parts_of(cursor, [int, None], stream)
    for next_pass, pairs in enumerate(passes(stream.open, first, before, Context()), first + 1):
        yield from map(_item, pairs)
        yield END_OF_PASS, None, (next_pass, START)
    yield END, None, START


def _item(pair: tuple[Any, Cursor]) -> Item:
    return BATCH, *pair


def _checked(state: Mapping[str, Any], own: Mapping[str, Any], owner: object) -> _Position:
    if not isinstance(state, Mapping) or state.keys() != own.keys():
        raise StateMismatch(f'expected what state_dict() returned, with the keys {list(own)}, got {code(state)}')
    for key in ('version', 'batches_per_epoch'):
        if state[key] != own[key]:
            raise StateMismatch(
                f'the state was saved with {key}={code(state[key])}, these batches have {code(own[key])}'
            )
    theirs, ours = state['pipeline'], own['pipeline']
    for number, (saved, present) in enumerate(zip_longest(theirs, ours)):
        if saved != present:
            raise StateMismatch(_difference(number, saved, present))
    position = _Position(cursor_of(state['cursor']), state['delivered'], state['in_epoch'])
    if not all(type(part) is int and part >= 0 for part in (position.delivered, position.in_epoch or 0)):
        raise StateMismatch(f'expected counts of batches in the state, got {code(state)}')
    return position


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


@atexit.register
def _stop_all() -> None:
    # The threads are daemons, which the interpreter does not wait for: one of them may be in a function that never
    # returns. The others are given the time to end in order.
    deadline = time.monotonic() + PATIENCE
    for feed in list(_running):
        feed.stop()
    for feed in list(_running):
        feed.stop(max(0.0, deadline - time.monotonic()))
