"""What workers are given to do: calls on one value, or on the values of a batch and on the list of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..describing.display import brief, code
from ..memory.blocks import BlockPool, allocating_from
from ..streams.activities import runs_task
from ..streams.calls import Call, Located, Pause, function_of_calls
from ..streams.metering import OFF, Recorder
from ..streams.randomness import Key
from .operations import PendingBatch


class Task:
    """A function of a located value that may be called in any thread, and be pickled where its functions may.

    Examples
    --------
    >>> Task([Call(abs)], key=())((-3, 1, 0))
    (3, 1)
    """

    def __init__(self, calls: Sequence[Call], key: Key, *, is_measured: bool = False):
        self._calls = calls
        self.is_measured = is_measured
        self.key = key
        # These stay in this process: how to wait before a function is called again, and what to write batches into.
        self.pause: Pause = None
        self.memory: BlockPool | None = None
        self._local = threading.local()  # a generator serves one thread

    @runs_task
    def __call__(self, located: Located, begin: Callable[[], object] = int) -> Any:
        begin()
        value, cursor, before = located
        local = self._local
        if not hasattr(local, 'function'):
            local.recorder = Recorder(_lane(), is_recording=True) if self.is_measured else OFF
            function = function_of_calls(self._calls, self.key, recorder=local.recorder, pause=self.pause)
            local.function = function if self.memory is None else allocating_from(self.memory, function)
        result = local.function((value, cursor), before)
        if not self.is_measured:
            return result
        calls, local.recorder.calls = local.recorder.calls, []
        return result, calls

    def keyed(self, key: Key) -> Task:
        """The same with another key."""
        return Task(self._calls, key, is_measured=self.is_measured)

    @property
    def identity(self) -> tuple[Any, ...]:
        """What is equal for tasks that differ in their key alone."""
        return tuple((id(call.function), *call[1:]) for call in self._calls)

    @property
    def functions(self) -> list[Callable[..., Any]]:
        """The users' functions in it."""
        return [call.function for call in self._calls]

    def values(self, located: Located) -> Any:
        """The value, without its cursors."""
        return located[0]

    def value_of(self, outcome: Any) -> Any:
        """The value in what it returns."""
        return (outcome[0] if self.is_measured else outcome)[0]

    def doing(self, located: Located, step: int) -> str:
        """What is done to a value, in words.

        Examples
        --------
        >>> Task([Call(abs), Call(float)], key=()).doing((-3, 1, 0), step=1)
        'abs, float of -3 (cursor 1)'
        """
        value, cursor, _ = located
        return f'{", ".join(map(code, self.functions))} of {brief(value)} (cursor {cursor})'

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Task, is_measured=self.is_measured), (self._calls, self.key)


class BatchTask:
    """One task of several: of each of some pairs, and of the list that these make.

    Examples
    --------
    >>> task = BatchTask(Task([Call(abs)], ()), Task([Call(sum)], ()))
    >>> task(PendingBatch([(-3, 1), (4, 2)], before=0, is_whole=True))
    (7, 2)
    """

    def __init__(self, each: Task, whole: Task):
        self._each = each
        self._whole = whole
        self._is_measured = each.is_measured
        self.key = each.key

    def __call__(self, pending: PendingBatch, begin: Callable[[], object] = int) -> Any:
        made = [self._each(located, begin) for located in pending.located]
        calls: list[Any] = []
        if self._is_measured:
            calls = [call for _, some in made for call in some]
            made = [pair for pair, _ in made]
        values = [value for value, _ in made]
        del made
        whole = self._whole((values, pending.pairs[-1][1], pending.before), begin) if pending.is_whole else None
        if not self._is_measured:
            return whole
        return (whole[0], calls + whole[1]) if whole else (None, calls)

    def keyed(self, key: Key) -> BatchTask:
        """The same with another key."""
        return BatchTask(self._each.keyed(key), self._whole.keyed(key))

    @property
    def identity(self) -> tuple[Any, ...]:
        """What is equal for tasks that differ in their key alone."""
        return self._each.identity, self._whole.identity

    @property
    def functions(self) -> list[Callable[..., Any]]:
        """The functions of all parts."""
        return self._each.functions + self._whole.functions

    def values(self, pending: PendingBatch) -> list[Any]:
        """The values, without their cursors."""
        return [value for value, _ in pending.pairs]

    def value_of(self, outcome: Any) -> Any:
        """The batch in what it returns."""
        return self._whole.value_of(outcome)

    def doing(self, pending: PendingBatch, step: int) -> str:
        """What is done in a step, in words."""
        if 0 < step <= len(pending.pairs):
            return self._each.doing(pending.located[step - 1], 1)
        whole = ', '.join(map(code, self._whole.functions))
        return f'{whole} of the batch up to the cursor {pending.pairs[-1][1]}'

    def __reduce__(self) -> tuple[Any, ...]:
        return BatchTask, (self._each, self._whole)


def _lane() -> str:
    thread = threading.current_thread()
    return f'process {os.getpid()}' if thread is threading.main_thread() else thread.name
