"""The tasks of workers: calls on one value, or on the samples of a batch and then on their list."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..describing.display import brief, code
from ..memory.blocks import BlockPool, allocating_from
from ..streams.activities import runs_task
from ..streams.calls import Call, Crashed, Located, Pause, function_of_calls, uncrashed
from ..streams.metering import OFF, Moved, Recorder
from ..streams.randomness import Key
from .operations import PendingBatch

FIRST_SECONDS = 0.1  # that other threads wait, at most, while the first value is processed


class Task:
    """Calls on a value with its cursor and the one before it, in any thread; picklable if its functions are."""

    def __init__(
        self,
        calls: Sequence[Call],
        key: Key,
        *,
        is_measured: bool = False,
        pause: Pause = None,
        memory: BlockPool | None = None,
    ):
        self._calls = calls
        self.key = key
        self.is_measured = is_measured
        self._pause, self._memory = pause, memory  # for this process only: not pickled
        self._local = threading.local()  # random generators must not be shared between threads
        self._watched: set[str] = set()
        self._first, self._is_done = [None], threading.Event()  # the first value is processed alone
        self._is_alone, self._is_settled = True, not is_measured

    @runs_task
    def __call__(self, located: Located, begin: Callable[[], object] = int) -> Any:
        begin()
        value, cursor, before = located
        local = self._local
        if not hasattr(local, 'function'):
            local.recorder = Recorder(_lane(), is_recording=True, watched=self._watched) if self.is_measured else OFF
            function = function_of_calls(self._calls, self.key, recorder=local.recorder, pause=self._pause)
            local.function = function if self._memory is None else allocating_from(self._memory, function)
        result = local.function((value, cursor), before) if self._is_settled else self._first_result(*located)
        if not self.is_measured:
            return result
        calls, local.recorder.calls = local.recorder.calls, []
        return result, calls

    def _first_result(self, value: Any, cursor: Any, before: Any) -> Any:
        # Alone: only then is it known which function moves a generator that all threads share.
        local = self._local
        try:
            self._first.pop()
        except IndexError:  # another thread is at it
            self._is_alone = self._is_done.wait(FIRST_SECONDS) and self._is_alone
            return local.function((value, cursor), before)
        try:
            result = local.function((value, cursor), before)
        finally:
            self._is_settled = True
            self._is_done.set()
        if not self._is_alone:
            local.recorder.calls = [call for call in local.recorder.calls if not isinstance(call, Moved)]
        return result

    def keyed(self, key: Key) -> Task:
        """The same task with another key."""
        return Task(self._calls, key, is_measured=self.is_measured)

    @property
    def identity(self) -> tuple[Any, ...]:
        """Equal for tasks that differ in their keys only."""
        return tuple((id(call.function), *call[1:]) for call in self._calls)

    @property
    def functions(self) -> list[Callable[..., Any]]:
        """The user's functions that it calls."""
        return [call.function for call in self._calls]

    def values(self, located: Located) -> Any:
        """The value, without its cursors."""
        return uncrashed(located[0])

    def value_of(self, outcome: Any) -> Any:
        """The value in its outcome."""
        return (outcome[0] if self.is_measured else outcome)[0]

    def doing(self, located: Located, step: int) -> str:
        """What is done to a value, in words."""
        value, cursor, _ = located
        return f'{", ".join(map(code, self.functions))} of {brief(uncrashed(value))} (cursor {cursor})'

    def after_crash(self, located: Located, step: int, error: Exception) -> Located | None:
        """What to send in place of a value at which processes died, if the call's ``on_error`` handles that."""
        crashed = Crashed.once_more(located[0], error)
        return (crashed, *located[1:]) if crashed.handled_by(self._calls) else None

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Task, is_measured=self.is_measured), (self._calls, self.key)


class BatchTask:
    """A task for a whole batch: one task for each of its samples, then one for the list of their results."""

    def __init__(self, of_sample: Task, of_batch: Task):
        self._of_sample = of_sample
        self._of_batch = of_batch
        self._is_measured = of_sample.is_measured
        self.key = of_sample.key

    def __call__(self, pending: PendingBatch, begin: Callable[[], object] = int) -> Any:
        results = [self._of_sample(located, begin) for located in pending.with_previous_cursors]
        calls: list[Any] = []
        if self._is_measured:
            calls = [call for _, some in results for call in some]
            results = [pair for pair, _ in results]
        values = [value for value, _ in results]
        del results
        value = values if pending.crash is None else pending.crash._replace(value=values)
        before, after = pending.cursors
        located = value, after, before
        batch = self._of_batch(located, begin) if pending.makes_batch else None
        if not self._is_measured:
            return batch
        return (batch[0], calls + batch[1]) if batch else (None, calls)

    def keyed(self, key: Key) -> BatchTask:
        """The same task with another key."""
        return BatchTask(self._of_sample.keyed(key), self._of_batch.keyed(key))

    @property
    def identity(self) -> tuple[Any, ...]:
        """Equal for tasks that differ in their keys only."""
        return self._of_sample.identity, self._of_batch.identity

    @property
    def functions(self) -> list[Callable[..., Any]]:
        """The user's functions that it calls."""
        return self._of_sample.functions + self._of_batch.functions

    def values(self, pending: PendingBatch) -> list[Any]:
        """The samples, without their cursors."""
        return [uncrashed(value) for value, _ in pending.pairs]

    def value_of(self, outcome: Any) -> Any:
        """The batch in its outcome."""
        return self._of_batch.value_of(outcome)

    def doing(self, pending: PendingBatch, step: int) -> str:
        """What is done in a step, in words: the samples count from 1, and the batch is made in the last step."""
        if 0 < step <= len(pending.pairs):
            return self._of_sample.doing(pending.with_previous_cursors[step - 1], 1)
        functions = ', '.join(map(code, self._of_batch.functions))
        return f'{functions} of the batch up to the cursor {pending.cursors[1]}'

    def after_crash(self, pending: PendingBatch, step: int, error: Exception) -> PendingBatch | None:
        """What to send in place of a batch at which processes died, if the ``on_error`` of a call handles that."""
        if not 0 < step <= len(pending.pairs):
            before, after = pending.cursors
            batch = self._of_batch.after_crash((pending.crash, after, before), 1, error)
            return batch and pending._replace(crash=batch[0])
        sample = self._of_sample.after_crash(pending.with_previous_cursors[step - 1], 1, error)
        return sample and pending._replace(pairs=[*pending.pairs[: step - 1], sample[:2], *pending.pairs[step:]])

    def __reduce__(self) -> tuple[Any, ...]:
        return BatchTask, (self._of_sample, self._of_batch)


def _lane() -> str:
    thread = threading.current_thread()
    return f'process {os.getpid()}' if thread is threading.main_thread() else thread.name
