"""What worker processes are given: a function, and items in groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Protocol

from .pickling import Pickled

TARGET_GROUP_SECONDS, TARGET_GROUP_BYTES = 0.01, 8 << 20  # groups grow until they reach one of these


class Work(Protocol):
    """A function of one item that runs in steps, so that a crash can be traced to the step that caused it."""

    key: Any  # differs between uses of the same functions and is sent with each group; everything else is sent once

    @property
    def identity(self) -> Any:
        """Equal for two works that differ in their key only."""

    @property
    def functions(self) -> list[Any]:
        """The user's functions that it calls."""

    def __call__(self, item: Any, /, begin: Callable[[], object] = ...) -> Any:
        """Process an item, calling ``begin`` before each step."""

    def keyed(self, key: Any, /) -> Work:
        """The same work with another key."""

    def values(self, item: Any, /) -> Any:
        """The user's values in an item."""

    def value_of(self, result: Any, /) -> Any:
        """The user's value in a result."""

    def doing(self, item: Any, step: int, /) -> str:
        """Describe a step for a message: the first is 1, and 0 stands for the last."""

    def after_crash(self, item: Any, step: int, error: Exception, /) -> Any:
        """What to send in place of an item that processes died at in a step; ``None`` to raise the error."""


class WorkItem:
    """A value to call the function with, then its result or error."""

    __slots__ = ('crash_step', 'crashes', 'done', 'error', 'number', 'result', 'value')

    def __init__(self, value: Any):
        self.value = value
        self.number = 0  # counts the items that its process has been sent
        self.crash_step = self.crashes = 0  # processes that died in a row at this step of it
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = False

    def finish(self, result: Any = None, error: BaseException | None = None) -> None:
        """Set the result or the error."""
        self.result, self.error, self.value, self.done = result, error, None, True

    def take_error(self) -> BaseException:
        """Remove and return the error: if kept, it would be in a reference cycle with its own traceback."""
        error, self.error = self.error, None
        assert error is not None
        return error

    def count_crash(self, step: int) -> int:
        """Count a process that died at this step; returns how many have done so in a row."""
        self.crashes = self.crashes + 1 if self.crash_step == step else 1
        self.crash_step = step
        return self.crashes

    def start_again(self, value: Any) -> None:
        """Process another value instead."""
        self.value, self.crash_step, self.crashes = value, 0, 0


class Job:
    """A function that processes call, and the number of items to send at a time.

    Parameters
    ----------
    work
        The function.
    number
        Identifies the function in messages to the processes.
    function
        The pickled function, which is sent once to each process.
    max_group_size
        The most items to send at a time.
    """

    def __init__(self, work: Any, number: int, function: Pickled, max_group_size: int):
        self.work = work
        self.number = number
        self.function = function
        self.group_size = 1
        self._max_group_size = max_group_size

    def update_group_size(self, n_items: int, seconds: float, n_bytes: int) -> None:
        """Choose the size of the next groups by the time and the bytes that a group has taken."""
        by_time = TARGET_GROUP_SECONDS / max(seconds / n_items, 1e-9)
        by_bytes = TARGET_GROUP_BYTES / max(n_bytes / n_items, 1)
        self.group_size = max(1, min(round(min(by_time, by_bytes)), 2 * self.group_size, self._max_group_size))


def take_items(values: Iterator[Any], n: int) -> tuple[list[WorkItem], BaseException | None]:
    """The next ``n`` items, and the exception that ended the values if there are fewer."""
    items: list[WorkItem] = []
    try:
        items.extend(map(WorkItem, islice(values, n)))
    except BaseException as error:
        return items, error
    return items, None if len(items) == n else StopIteration()


def regrouped(items: list[WorkItem], number: int, step: int) -> tuple[list[list[WorkItem]], WorkItem | None, int]:
    """How to send items again after a crash at the item of this number: the groups, the suspect, and its step.

    If it is not known at which item the process died, every item is a group of its own.
    """
    numbers = [item.number for item in items]
    if step and number in numbers:
        at = numbers.index(number)  # alone, so that the others are processed even if it crashes again
        return [items[:at], items[at : at + 1], items[at + 1 :]], items[at], step
    return [[item] for item in items], items[0] if len(items) == 1 else None, 0
