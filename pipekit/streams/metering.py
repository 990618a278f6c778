"""What the parts of a running pipeline take: measured at every batch, and in detail at some of them."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from time import perf_counter, thread_time
from typing import Any, NamedTuple, TypeVar

T = TypeVar('T')

REMEMBERED = 1000  # batches, and calls of each stage
FAST_SECONDS = 0.002  # where batches are made faster than this on average, only one in ONE_IN is sampled
ONE_IN = 127  # a prime number, so that periodic work, such as refilling a shuffle window, is sampled in each phase


class StageRow(NamedTuple):
    """A source or stage as a report lists it.

    Attributes
    ----------
    path
        Its position among all stages, 1 for the source; within a mix, the branches come first: ``'0.2'``.
    name
        Its code without ``workers``, ``on_error`` and ``seed``.
    workers
        What it may run in: its own workers, or those of a stage before it; ``None`` if neither has any.
    calls_function
        Whether it calls a user's function on single samples or batches.
    """

    path: str
    name: str
    workers: Any
    calls_function: bool


class CallRecord(NamedTuple):
    """One call of a user's function: at which stage, where, from when to when, and how much of that it computed."""

    path: str
    lane: str
    begin: float
    end: float
    computing: float


class Recorder:
    """Takes note of calls, while it is on.

    Examples
    --------
    >>> recorder = Recorder('main', on=True)
    >>> recorder.call('2', abs, -3)
    3
    >>> [call[:2] for call in recorder.calls]
    [('2', 'main')]
    """

    def __init__(self, lane: str, *, on: bool):
        self.lane = lane
        self.on = on
        self.calls: list[
            tuple[Any, ...]
        ] = []  # plain ones, of what is in a ``CallRecord``: many travel between processes
        self.spent = 0.0  # seconds in calls

    def call(self, path: str, function: Any, *args: Any) -> Any:
        """Call a function and take note of it."""
        begin, computed = perf_counter(), thread_time()
        try:
            return function(*args)
        finally:
            end = perf_counter()
            self.spent += end - begin
            self.calls.append((path, self.lane, begin, end, thread_time() - computed))


class Batch(NamedTuple):
    """How a batch was made: from when to when, how long the thread waited for workers, how much it spent in calls.

    ``is_sampled`` says whether the calls in the thread itself were looked at.
    """

    begin: float
    end: float
    waiting: float
    calling: float
    is_sampled: bool


class Wait(NamedTuple):
    """How a consumer got a batch: when it asked, when it got it, and whether it was the first of an epoch."""

    begin: float
    end: float
    is_first: bool


class Meter(Recorder):
    """What is measured while batches are made: by the thread that makes them, and the one that takes them.

    Parameters
    ----------
    is_exact
        Whether to look at every sample, and at what is no call of a user's function too: the source, a shuffle.
    """

    def __init__(self, *, is_exact: bool = False) -> None:
        super().__init__('prefetch', on=is_exact)
        self.is_exact = is_exact
        # Tuples, as they are made at each batch: ``Batch`` and ``Wait``.
        self.batches: deque[tuple[Any, ...]] = deque(maxlen=REMEMBERED)
        self.waits: deque[tuple[Any, ...]] = deque(maxlen=REMEMBERED)
        self.calls_of: dict[str, deque[tuple[Any, ...]]] = {}
        self.n_calls: Counter[str] = Counter()
        # What else the stages do, each time that they are asked for a value.
        self.beside: defaultdict[str, deque[tuple[Any, ...]]] = defaultdict(_remembered)
        self.n_beside: Counter[str] = Counter()
        self.n_batches = self.n_sampled = 0
        self.waited_for: defaultdict[Any, float] = defaultdict(float)  # seconds, for each kind of workers
        self.delays: defaultdict[Any, deque[float]] = defaultdict(_remembered)  # of results that were waited for
        self._wait: tuple[Any, float, float] = None, 0.0, 0.0  # the last: for what, from when to when
        self._waiting = 0.0  # seconds that this batch has waited for workers
        self._making = 0.0  # seconds, for all batches
        self._next_sampled = 0  # the number of a batch

    def timed(self, entries: Iterator[T], is_batch: Callable[[T], bool]) -> T:
        """The next entry, measured if it is a batch.

        Whether its calls are sampled depends on how long batches take on average, not on the last one: periodic work
        would be missed, or sampled too often.
        """
        begin = perf_counter()
        n = self.n_batches
        self.on = is_sampled = n >= self._next_sampled
        self._waiting = self.spent = 0.0
        entry = next(entries)
        end = perf_counter()
        if is_batch(entry):
            self.batches.append((begin, end, self._waiting, self.spent, is_sampled))
            self.n_batches = n + 1
            self._making += end - begin
            if is_sampled:
                self.n_sampled += 1
                is_next = self.is_exact or n < ONE_IN or self._making > n * FAST_SECONDS
                self._next_sampled = n + 1 if is_next else n - n % ONE_IN + ONE_IN
        if self.calls:
            self.note_calls(self.calls)
            self.calls.clear()
        return entry

    def note_calls(self, calls: list[tuple[Any, ...]]) -> None:
        """Take note of calls, made elsewhere perhaps."""
        for call in calls:
            path = call[0]
            known = self.calls_of.get(path)
            if known is None:
                known = self.calls_of[path] = deque(maxlen=REMEMBERED)
            known.append(call)
            self.n_calls[path] += 1

    def unpacked(self, measured: tuple[Any, list[tuple[Any, ...]]]) -> Any:
        """What a worker has given back, after a note of the calls that come with it."""
        result, calls = measured
        self.note_calls(calls)
        workers, begin, end = self._wait
        if calls and begin < (made := calls[-1][3]) < end:
            self.delays[workers].append(end - made)
        return result

    def waited(self, workers: Any, begin: float) -> None:
        """Take note of a wait for workers that ends now."""
        end = perf_counter()
        self.waited_for[workers] += end - begin
        self._waiting += end - begin
        self._wait = workers, begin, end

    def watched(self, pairs: Iterator[T], path: str) -> Iterator[T]:
        """The pairs of a stage, with a note of what each takes beside what has been taken note of within it."""
        return _Watched(self, pairs, path)

    def counted(self) -> float:
        """The seconds of this batch that have been taken note of."""
        return self.spent + self._waiting


def _remembered() -> deque[Any]:
    return deque(maxlen=REMEMBERED)


class _Watched(Iterator[T]):
    def __init__(self, meter: Meter, pairs: Iterator[T], path: str):
        self._meter = meter
        self._pairs = pairs
        self._path = path

    def __next__(self) -> T:
        meter = self._meter
        before, computed, begin = meter.counted(), thread_time(), perf_counter()
        try:
            value = next(self._pairs)
        finally:
            end = perf_counter()
            own = end - begin - (meter.counted() - before)
            meter.spent += own
        computing = min(own, thread_time() - computed)
        meter.beside[self._path].append((self._path, meter.lane, end - own, end, computing))
        meter.n_beside[self._path] += 1
        return value


OFF = Recorder('', on=False)
