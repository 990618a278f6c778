"""Measurements of a running pipeline: a record of every batch, and of the function calls in some of them."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter, thread_time
from typing import Any, NamedTuple, TypeAlias, TypeVar

from more_itertools import repeatfunc

from .global_generators import global_states, moved_since, others_may_draw

T = TypeVar('T')

MAX_RECORDS = 1000  # batches, and calls of each stage: older records are dropped
FAST_BATCH_SECONDS = 0.002  # if batches take less than this on average, one in SAMPLING_INTERVAL is sampled
SAMPLING_INTERVAL = 127  # batches; prime, so that periodic work, such as refilling a shuffle window, is sampled too


class StageRow(NamedTuple):
    """A source or stage as a report lists it.

    Attributes
    ----------
    path
        Its position among all stages, 1 for the source; within a mix, the branches come first: ``'0.2'``.
    name
        Its code without ``workers``, ``on_error`` and ``seed``.
    workers
        Where it may run: its own workers, or those of a stage before it; ``None`` if neither has any.
    calls_function
        Whether it calls a user's function on single samples or batches.
    """

    path: str
    name: str
    workers: Any
    calls_function: bool


class CallRecord(NamedTuple):
    """One call of a user's function: its stage, the thread or process, begin and end, and its seconds of CPU time."""

    path: str
    lane: str
    begin: float
    end: float
    computing: float


class BatchRecord(NamedTuple):
    """How a batch was made: begin and end, and the seconds spent waiting for workers and calling functions.

    ``is_sampled`` says whether the calls in the prefetch thread itself were recorded.
    """

    begin: float
    end: float
    waiting: float
    calling: float
    is_sampled: bool


class WaitRecord(NamedTuple):
    """How a consumer got a batch: when it asked, when it got it, and whether it was the first of an epoch."""

    begin: float
    end: float
    is_first: bool


class Moved(NamedTuple):
    """A function of a stage has drawn from the generators that whole programs share, of these libraries."""

    path: str
    libraries: list[str]


# The fields of a record as a plain tuple, which is faster to make and smaller to pickle.
RawRecord: TypeAlias = tuple[Any, ...]


class Recorder:
    """Calls functions, and records the calls while ``is_recording``.

    Parameters
    ----------
    lane
        The thread or process in which the calls happen.
    watched
        The paths of the stages whose functions have been called before.
    """

    def __init__(self, lane: str, *, is_recording: bool, watched: set[str] | None = None):
        self.lane = lane
        self.is_recording = is_recording
        self.calls: list[RawRecord] = []
        self.recorded_seconds = 0.0
        self._watched = set() if watched is None else watched

    def call(self, path: str, function: Any, *args: Any) -> Any:
        """Call a function of a stage and record the call."""
        if path not in self._watched:
            self._watched.add(path)
            function = partial(self._call_watched, path, function)
        begin, computed = perf_counter(), thread_time()
        try:
            return function(*args)
        finally:
            end = perf_counter()
            self.recorded_seconds += end - begin
            self.calls.append((path, self.lane, begin, end, thread_time() - computed))

    def _call_watched(self, path: str, function: Any, *args: Any) -> Any:
        is_known = not others_may_draw()
        before = global_states()
        result = function(*args)
        moved = moved_since(before)
        if moved and not (is_known and not others_may_draw()):
            self._unknown(path)
        elif moved:
            self.calls.append(Moved(path, moved))
        return result

    def _unknown(self, path: str) -> None:
        """It is not known whether a function of this path has moved a global generator, or another thread has."""


class Meter(Recorder):
    """The measurements of one prefetch thread, which makes the batches, and of the consumers of its batches.

    Parameters
    ----------
    is_exact
        Whether to sample every batch, and to measure what happens outside users' functions too: sources, shuffles.
    on_moved
        Called with what a function has moved.
    """

    def __init__(self, *, is_exact: bool = False, on_moved: Callable[[Moved], object] = bool) -> None:
        super().__init__('prefetch', is_recording=is_exact)
        self.is_exact = is_exact
        self._on_moved = on_moved
        self.batches = _records()
        self.waits = _records()
        self.n_batches = self.n_sampled = 0
        self.calls_of: defaultdict[str, deque[RawRecord]] = defaultdict(_records)  # by path, as are the next three
        self.n_calls: Counter[str] = Counter()
        self.overhead_of: defaultdict[str, deque[RawRecord]] = defaultdict(_records)  # outside users' functions
        self.n_pulls: Counter[str] = Counter()  # how often the overhead was measured: whenever a value was pulled
        self.waited_for: defaultdict[Any, float] = defaultdict(float)  # seconds, by kind of workers
        self.delays: defaultdict[Any, deque[float]] = defaultdict(_records)  # between the end of a call and its result
        self._last_wait: tuple[Any, float, float] = None, 0.0, 0.0  # the kind of workers, begin and end
        self._waiting_seconds = 0.0  # for workers, in this batch
        self._making_seconds = 0.0  # for all batches
        self._next_sampled = 0  # the number of a batch

    def _unknown(self, path: str) -> None:
        self._watched.discard(path)  # look again at its next call

    def next_entry(self, entries: Iterator[T], is_batch: Callable[[T], bool]) -> T:
        """The next entry, measured if it is a batch.

        Whether its calls are sampled depends on how long batches take on average, not on the last one: periodic work
        would be missed, or sampled too often.
        """
        begin = perf_counter()
        n = self.n_batches
        self.is_recording = is_sampled = n >= self._next_sampled
        self._waiting_seconds = self.recorded_seconds = 0.0
        entry = next(entries)
        end = perf_counter()
        if is_batch(entry):
            self.batches.append((begin, end, self._waiting_seconds, self.recorded_seconds, is_sampled))
            self.n_batches = n + 1
            self._making_seconds += end - begin
            if is_sampled:
                self.n_sampled += 1
                is_slow = self._making_seconds > n * FAST_BATCH_SECONDS
                is_next = self.is_exact or n < SAMPLING_INTERVAL or is_slow
                self._next_sampled = n + 1 if is_next else n - n % SAMPLING_INTERVAL + SAMPLING_INTERVAL
        if self.calls:
            self.add_calls(self.calls)
            self.calls.clear()
        return entry

    def add_calls(self, calls: list[RawRecord]) -> None:
        """Add records of calls, which may come from a worker."""
        for call in calls:
            if isinstance(call, Moved):
                self._on_moved(call)
            else:
                self.calls_of[call[0]].append(call)
                self.n_calls[call[0]] += 1

    def unpacked(self, measured: tuple[Any, list[RawRecord]]) -> Any:
        """The result that a worker sent together with records of its calls, which are added."""
        result, calls = measured
        self.add_calls(calls)
        workers, begin, end = self._last_wait
        if calls and begin < (made := calls[-1][3]) < end:
            self.delays[workers].append(end - made)
        return result

    def add_wait(self, workers: Any, begin: float) -> None:
        """Add a wait for workers that ends now."""
        end = perf_counter()
        self.waited_for[workers] += end - begin
        self._waiting_seconds += end - begin
        self._last_wait = workers, begin, end

    def profiled(self, pairs: Iterator[T], path: str) -> Iterator[T]:
        """The pairs of a stage; measures the overhead of each: the time not recorded as a call, a wait or overhead."""
        return repeatfunc(partial(self._next_profiled, pairs, path))  # until there is no next one: StopIteration

    def _next_profiled(self, pairs: Iterator[T], path: str) -> T:
        recorded, computed, begin = self.recorded_seconds + self._waiting_seconds, thread_time(), perf_counter()
        try:
            value = next(pairs)
        finally:
            end = perf_counter()
            overhead = end - begin - (self.recorded_seconds + self._waiting_seconds - recorded)
            self.recorded_seconds += overhead
        computing = min(overhead, thread_time() - computed)
        self.overhead_of[path].append((path, self.lane, end - overhead, end, computing))
        self.n_pulls[path] += 1
        return value


def _records() -> deque[Any]:
    return deque(maxlen=MAX_RECORDS)


OFF = Recorder('', is_recording=False)
