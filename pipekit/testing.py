"""Checks whether a stage obeys the laws that pipekit's own stages obey."""

from __future__ import annotations

import gc
import json
import os
import pickle
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count, islice, pairwise
from typing import Any, TypeAlias

from more_itertools import chunked, flatten

from .composition import pipeline
from .describing.arguments import natural_number, optional, positive_int
from .describing.descriptions import FactoryCall, same
from .describing.display import code
from .plans.pipeline import Pipeline
from .stages.batching import combine_batches
from .stages.ordering import take
from .stages.purity import check_function
from .streams.context import Context, Run
from .streams.cursors import START, Cursor, Pairs, cursor_of
from .streams.iterables import source_of
from .streams.stream import Source, Stream
from .workers.kinds import Processes, Threads
from .workers.pools import WorkerPools

LEAK_CHECKS, SECONDS_BETWEEN_CHECKS = 10, 0.05
GLOBAL_BATCH_SIZE, WORLD_SIZES = 6, (2, 4)
INLINE = Context()
ONE_BY_ONE = Context(run=Run(fuses=False))

__all__ = ['check_function', 'check_stage']

Iterates: TypeAlias = Iterable[Any] | Callable[[], Iterable[Any]]


def check_stage(
    stage: Callable[[Iterable[Any]], Iterable[Any]],
    source: Iterates = range(20),
    *,
    limit: int = 30,
    reads_at_most: int | None = None,
    fresh_process: bool = False,
) -> None:
    """Check that a stage obeys the laws, on a source.

    The stage must be re-iterable (1), resumable at every cursor after a round trip through JSON (2), indifferent to
    workers (3), lazy (4), associative (5), transparent to errors (6) and clean (7). It must not hold values that its
    consumer has dropped (9), must yield the same whether or not it runs together with its neighbours (10), and be
    indifferent to ranks that share batches of its values (11), unless it skips samples or shares batches itself.

    Parameters
    ----------
    stage
        A stage, several as ``pipeline(*stages)``, or a function from an iterable to an iterator.
    source
        Any source of a pipeline except an iterator. Law 9 is checked only if it is a function that makes new values,
        which nothing else holds.
    limit
        The number of values of the stage to check. Resuming is tried at each, so the time grows with its square.
    reads_at_most
        The number of values of the source that the stage may read for one of its own.
    fresh_process
        Whether to resume in a new process too. This needs a stage that can be pickled.

    Raises
    ------
    AssertionError
        If a law is broken; the message names the law and shows the values.

    Examples
    --------
    >>> from pipekit import combine_batches
    >>> check_stage(combine_batches(3, list), 'abcdefgh', reads_at_most=3)
    >>> count = 0
    >>> def numbered(iterable):
    ...     global count
    ...     for value in iterable:
    ...         yield count, value
    ...         count += 1
    >>> check_stage(numbered, 'abcdefgh')
    Traceback (most recent call last):
    AssertionError: law 1, re-iterable: numbered gave (0, 'a') as value 0, and (8, 'a') when iterated again
    """
    limit = positive_int('limit', limit)
    reads_at_most = optional(natural_number, 'reads_at_most', reads_at_most, 'a non-negative int')
    stream = source_of(source)
    if not stream.reopens:
        raise TypeError(f'check_stage needs a source that can be opened again, got the iterator {code(source)}')
    whole = pipeline(stream, stage)
    if not isinstance(whole, Pipeline):
        raise TypeError(f'check_stage needs a stage, got {code(stage)}')
    name = code(stage)
    pairs = _pairs(whole, limit)
    _compare(pairs, _pairs(whole, limit), 1, f're-iterable: {name}', 'when iterated again')
    _check_indifferent(whole, pairs, limit, name)
    with _leaving_nothing(name, borrows=_borrows(whole)):
        _check_resumable(whole, pairs, limit, name)
        if fresh_process:
            _check_resumable_elsewhere(whole, pairs, limit, name)
        reads = _check_lazy(stream, stage, limit, reads_at_most, name)
        _check_associative(stream, stage, pairs, limit, name)
        _check_transparent(stream, stage, pairs, reads, name)
        if callable(source):
            _check_not_held(whole, limit, name)
        _check_fusion(whole, pairs, limit, name)
        _check_ranks(whole, pairs, limit, name)
        del whole, pairs  # the values may hold resources


def _borrows(whole: Stream[Any]) -> bool:
    return any(
        stage.workers is not None and not isinstance(stage.workers, Threads | Processes) for stage in whole.stages
    )


@contextmanager
def _leaving_nothing(name: str, *, borrows: bool) -> Iterator[None]:
    gc.collect()
    before = _open_things()
    yield
    gc.collect()
    left = set() if borrows else _open_things() - before  # a borrowed executor closes what it opens
    for _ in range(LEAK_CHECKS if left else 0):  # another thread may have opened something for a moment
        time.sleep(SECONDS_BETWEEN_CHECKS)
        left &= _open_things()
    _require(not left, 7, f'clean: {name} left {sorted(left)}')


def _check_indifferent(whole: Stream[Any], pairs: list[Any], limit: int, name: str) -> None:
    pools = WorkerPools()
    try:
        worked = _pairs(whole, limit, context=Context(run=Run(pools)))
    finally:
        pools.close()
    _compare(pairs, worked, 3, f'indifferent to workers: {name}', 'when run in its workers')


def _check_resumable(whole: Stream[Any], pairs: list[Any], limit: int, name: str) -> None:
    _require(len({repr(cursor) for _, cursor in pairs}) == len(pairs), 2, f'resumable: {name} repeats a cursor')
    for number, (_, cursor) in enumerate(pairs, 1):
        text = json.dumps(cursor)
        rest = _pairs(whole, limit - number, cursor_of(json.loads(text)))
        _compare(pairs[number:], rest, 2, f'resumable: {name}', f'when resumed at the cursor {text}', number)


def _check_resumable_elsewhere(whole: Stream[Any], pairs: list[Any], limit: int, name: str) -> None:
    numbers = sorted({1, len(pairs) // 2, len(pairs)} - {0})
    resumed = [(limit - number, pairs[number - 1][1]) for number in numbers]
    done = subprocess.run(
        [sys.executable, '-c', f'from {__name__} import _resume_here; _resume_here()'],
        input=pickle.dumps((whole, resumed)),
        capture_output=True,
        timeout=60,
        env=os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)},
        check=False,
    )
    _require(done.returncode == 0, 2, f'resumable: {name} failed in a new process: {done.stderr.decode()}')
    for number, rest in zip(numbers, pickle.loads(done.stdout), strict=True):
        where = f'when resumed in a new process at the cursor {code(pairs[number - 1][1])}'
        _compare(pairs[number:], rest, 2, f'resumable: {name}', where, number)


def _resume_here() -> None:
    whole, resumed = pickle.load(sys.stdin.buffer)
    pickle.dump([_pairs(whole, n, cursor) for n, cursor in resumed], sys.stdout.buffer)


def _check_lazy(stream: Stream[Any], stage: Any, limit: int, reads_at_most: int | None, name: str) -> list[int]:
    # For each value of the stage: how many values of the source had been read when it was yielded.
    read = count()
    values = iter(pipeline(_watched(stream, lambda: next(read)), stage))
    _require(repr(read) == 'count(0)', 4, f'lazy: {name} reads its source before a value is asked for')
    reads = [int(repr(read)[6:-1]) for _ in islice(values, limit)]
    steps = [after - before for before, after in pairwise([0, *reads])]
    if reads_at_most is not None:
        most = max(steps, default=0)
        _require(
            most <= reads_at_most, 4, f'lazy: {name} reads {most} values of its source for one, not {reads_at_most}'
        )
    return reads


def _check_associative(stream: Stream[Any], stage: Any, pairs: list[Any], limit: int, name: str) -> None:
    flat = pipeline(stream, stage, take(limit))
    ways = [pipeline(pipeline(stream, stage), take(limit)), pipeline(stream, pipeline(stage, take(limit)))]
    for way in ways:
        _compare([value for value, _ in pairs], list(way), 5, f'associative: {name}', f'as {way!r}')
        _require(way == flat, 5, f'associative: {way!r} does not equal {flat!r}')


def _check_transparent(stream: Stream[Any], stage: Any, pairs: list[Any], reads: list[int], name: str) -> None:
    for n_read in sorted({0, 1, 2, 3, *reads}):
        error = RuntimeError(f'raised by the source after {n_read} values')
        read = count()

        def raise_after(n_read: int = n_read, read: Iterator[int] = read, error: Exception = error) -> None:
            if next(read) == n_read:
                raise error

        delivered, caught = _until_error(pipeline(_watched(stream, raise_after), stage), len(pairs))
        due = [value for (value, _), needed in zip(pairs, reads, strict=True) if needed <= n_read]
        where = f'where the source raised after {n_read} values'
        _compare(due, delivered[: len(due)], 6, f'transparent to errors: {name}', where)
        _require(caught in (None, error), 6, f'transparent to errors: {name} raised {caught!r} in place of {error!r}')


def _check_not_held(whole: Stream[Any], limit: int, name: str) -> None:
    values = iter(whole)
    alive: list[tuple[int, weakref.ref[Any]]] = []
    for number in range(2 * limit):
        try:
            value = next(values)
            reference = weakref.ref(value)
        except StopIteration:
            break
        except TypeError:  # an int, a tuple
            continue
        # A value that the stage yields again had to be kept.
        alive = [(first, other) for first, other in alive if other() is not value]
        del value
        if reference() is not None and number < limit:
            alive.append((number, reference))
    text = f'not held: {name} kept value {alive[0][0] if alive else ""} after its consumer had dropped it'
    _require(not alive, 9, text)


def _check_fusion(whole: Stream[Any], pairs: list[Any], limit: int, name: str) -> None:
    apart = _pairs(whole, limit, context=ONE_BY_ONE)
    _compare(pairs, apart, 10, f'fusion is invisible: {name}', 'when its parts are run one by one')


def _check_ranks(whole: Stream[Any], pairs: list[Any], limit: int, name: str) -> None:
    batches = [batch for batch in chunked(pairs, GLOBAL_BATCH_SIZE) if len(batch) == GLOBAL_BATCH_SIZE]
    expected = [([value for value, _ in batch], batch[-1][1]) for batch in batches]
    for n in WORLD_SIZES:
        try:
            parts = [
                pipeline(whole, combine_batches(GLOBAL_BATCH_SIZE, list, rank=rank, world_size=n, uneven=True))
                for rank in range(n)
            ]
        except ValueError:  # it skips samples, shares batches itself, or has no seed
            return
        shares = [_pairs(part, len(batches)) for part in parts]
        where = f'joined from {n} ranks'
        steps = list(zip(*shares, strict=True))
        joined = [(list(flatten(share for share, _ in step)), step[0][1]) for step in steps]
        _compare(expected, joined, 11, f'indifferent to ranks: batches of {name}', where)
        for of_rank in shares:
            cursors = [cursor for _, cursor in of_rank]
            _compare([cursor for _, cursor in expected], cursors, 11, f'indifferent to ranks: cursors of {name}', where)


def _until_error(stream: Stream[Any], limit: int) -> tuple[list[Any], Exception | None]:
    delivered: list[Any] = []
    try:
        delivered.extend(islice(stream, limit))
    except Exception as error:
        return delivered, error
    return delivered, None


def _watched(stream: Stream[Any], on_read: Callable[[], object]) -> Stream[Any]:
    def open_at(cursor: Cursor, context: Context) -> Pairs[Any]:
        def watched(pair: Any) -> Any:
            on_read()
            return pair

        return map(watched, stream.open(cursor, context))

    source: Source[Any] = Source(open_at, seeds=stream.seeds)
    source._call = FactoryCall(source_of, (stream,), {})
    return source


def _pairs(stream: Stream[Any], n: int, cursor: Cursor = START, context: Context = INLINE) -> list[Any]:
    return list(islice(stream.open(cursor, context), n))


def _compare(expected: list[Any], got: list[Any], law: int, what: str, where: str, first: int = 0) -> None:
    for number, (ours, theirs) in enumerate(zip(expected, got, strict=False), first):
        if not same(ours, theirs):
            _require(False, law, f'{what} gave {_shown(ours)} as value {number}, and {_shown(theirs)} {where}')
    lengths = first + len(expected), first + len(got)
    _require(len(set(lengths)) == 1, law, f'{what} gave {lengths[0]} values, and {lengths[1]} {where}')


def _shown(value: Any) -> str:
    return code(value[0] if isinstance(value, tuple) and len(value) == 2 else value)


def _require(holds: bool, law: int, message: str) -> None:
    if not holds:
        raise AssertionError(f'law {law}, {message}')


def _open_things() -> set[str]:
    things = {f'the thread {thread.name}' for thread in threading.enumerate()}
    descriptors = '/proc/self/fd'
    for name in os.listdir(descriptors) if os.path.isdir(descriptors) else ():
        with suppress(OSError):  # the descriptor of the listing itself is closed by now
            things.add(f'the descriptor {name} of {os.readlink(os.path.join(descriptors, name))}')
    return things
