"""The warning about a long wait for a batch: what is busy, on which sample, since when, and where in the code."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from time import monotonic
from types import FrameType
from typing import NamedTuple

from more_itertools import first

from ..describing.tracebacks import LIBRARIES, without_own
from ..streams.activities import activity_in, task_in
from ..workers.pools import WorkerPools, awaited

MOST_DESCRIBED = 4  # busy threads and processes; the others are counted
STANDARD = (('threading.py',), ('selectors.py',), ('multiprocessing', 'connection.py'))
# Files whose frames start pipekit's threads, or wait in them.
WAITING = (*LIBRARIES, *(os.path.join(os.path.dirname(os.__file__), *path) for path in STANDARD))


class Busy(NamedTuple):
    """A busy thread or process: the identity of its work, and a description of it."""

    identity: Hashable
    description: Callable[[], str]


class Stall:
    """A wait for a batch, and the threads and processes that were busy during it.

    It reads the frames of the threads, so it costs nothing when there is no wait.

    Parameters
    ----------
    pools
        The pools of the stages' workers.
    thread
        The thread that makes the batches.

    Examples
    --------
    >>> stall = Stall(WorkerPools(), threading.current_thread())
    >>> stall.look()
    >>> print(stall.report(60.0))
    no batch for 60 s, and still waiting
    """

    def __init__(self, pools: WorkerPools, thread: threading.Thread):
        self._thread = thread
        self._pools = pools
        self._seen: dict[Hashable, float] = {}

    def look(self) -> None:
        """Note what is busy now, so that a later look knows for how long."""
        now = monotonic()
        self._seen = {busy.identity: self._seen.get(busy.identity, now) for busy in self._busy(self._stacks())}

    def report(self, waited: float) -> str:
        """Describe what is busy, the longest first, and show the stacks of the threads."""
        stacks = self._stacks()
        now = monotonic()
        busy = sorted(self._busy(stacks), key=lambda one: self._seen.get(one.identity, now))
        described = [self._described(one, now) for one in busy[:MOST_DESCRIBED]]
        lines = [f'no batch for {waited:g} s, and still waiting', *described]
        if len(busy) > MOST_DESCRIBED:
            lines.append(f'and {len(busy) - MOST_DESCRIBED} more are busy')
        result = first(filter(None, map(awaited, reversed(stacks.get(self._thread.ident, [])))), None)
        if result is not None:
            lines.append(f'the prefetch thread waits for {result}')
        is_known = bool(busy) or result is not None
        if not is_known and stacks:
            lines.append('the prefetch thread is in the source, or in a stage that calls no function on single samples')
        return '\n'.join([*lines, *_shown(stacks, is_known)])

    def _described(self, busy: Busy, now: float) -> str:
        seconds = round(now - self._seen.get(busy.identity, now), 1)
        return (f'for at least {seconds:g} s, ' if seconds else '') + busy.description()

    def _stacks(self) -> dict[int | None, list[FrameType]]:
        # The frames of each of pipekit's threads, outermost first. This thread's frames would keep themselves alive.
        this = threading.get_ident()
        frames = {ident: frame for ident, frame in sys._current_frames().items() if ident != this}
        stacks = {ident: [part for part, _ in traceback.walk_stack(frame)][::-1] for ident, frame in frames.items()}
        return {
            ident: stack
            for ident, stack in stacks.items()
            if ident == self._thread.ident or any(self._is_own(frame) for frame in stack)
        }

    def _is_own(self, frame: FrameType) -> bool:
        task = task_in(frame)
        return task is not None and task in self._pools.works

    def _busy(self, stacks: dict[int | None, list[FrameType]]) -> list[Busy]:
        in_threads = (_busy_thread(ident, stack) for ident, stack in stacks.items())
        return [*filter(None, in_threads), *self._busy_processes()]

    def _busy_processes(self) -> Iterator[Busy]:
        for pid, at, doing in self._pools.doing():
            yield Busy((pid, at), partial(_of_process, pid, doing))


def _busy_thread(ident: int | None, stack: Sequence[FrameType]) -> Busy | None:
    activity = first(filter(None, map(activity_in, stack)), None)
    if activity is None:
        return None
    identity = ident, activity.location.path, activity.cursor
    return Busy(identity, lambda: f'the thread {_name(ident)} is {activity.note}')


def _of_process(pid: int, doing: Callable[[], str]) -> str:
    return f'the process {pid} is busy with {doing()}'


def _shown(stacks: dict[int | None, list[FrameType]], is_known: bool) -> Iterator[str]:
    threads: dict[str, list[str]] = {}  # by their stack
    for ident, stack in stacks.items():
        users = list(without_own(stack, lambda frame: frame, WAITING, from_own=False))
        shown = users or ([] if is_known else stack)  # pipekit's own frames are better than none
        text = ''.join(traceback.StackSummary.extract((frame, frame.f_lineno) for frame in shown).format())
        threads.setdefault(text.rstrip(), []).append(_name(ident))
    for text, (name, *others) in threads.items():
        if text:
            yield f'the stack of the thread {name}{f" and {len(others)} others" if others else ""}:\n{text}'


def _name(ident: int | None) -> str:
    return next((thread.name for thread in threading.enumerate() if thread.ident == ident), str(ident))
