"""What worker processes are given to do: a function, and items in groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Protocol

from .pickling import Pickled

SECONDS, BYTES = 0.01, 8 << 20  # items are grouped until a group takes so long, or is so large


class Work(Protocol):
    """A function of one item, done in steps, so that one can tell at which of them a process has died."""

    key: Any  # the little that differs from one use to the next; all else travels once

    @property
    def identity(self) -> Any:
        """What is equal for what differs in its key alone."""

    @property
    def functions(self) -> list[Any]:
        """The user's functions in it."""

    def __call__(self, item: Any, /, begin: Callable[[], object] = ...) -> Any:
        """Do it, calling ``begin`` before each step."""

    def keyed(self, key: Any, /) -> Work:
        """The same with another key."""

    def values(self, item: Any, /) -> Any:
        """What of an item the user knows."""

    def value_of(self, outcome: Any, /) -> Any:
        """What of its outcome the user knows."""

    def doing(self, item: Any, step: int, /) -> str:
        """What is done in a step, counted from 1, or at the end, which is 0, in words."""


class WorkItem:
    """One value that a function is to be called with, and what came of it."""

    __slots__ = ('crashes', 'done', 'error', 'number', 'outcome', 'step', 'value')

    def __init__(self, value: Any):
        self.value = value
        self.number = 0  # among those that its process has been given
        self.step = self.crashes = 0  # processes that died in a row at this step of it
        self.outcome: Any = None
        self.error: BaseException | None = None
        self.done = False

    def finish(self, outcome: Any = None, error: BaseException | None = None) -> None:
        """Set what came of it."""
        self.outcome, self.error, self.value, self.done = outcome, error, None, True

    def take_error(self) -> BaseException:
        """The error, to be raised: an error that is in reach of its own traceback stays in memory."""
        error, self.error = self.error, None
        assert error is not None
        return error

    def count_crash(self, step: int) -> int:
        """Take note of a process that died at this step of it; how many have in a row."""
        self.crashes = self.crashes + 1 if self.step == step else 1
        self.step = step
        return self.crashes


class Job:
    """A function that processes call, and how many items of its are sent at a time.

    Parameters
    ----------
    work
        The function.
    number
        What the processes know it by.
    function
        The function as it is sent, once to each process.
    largest_group
        The most items to send at a time.

    Examples
    --------
    A millisecond each: the groups grow until they take about ten.

    >>> job = Job(None, 0, (b'', []), largest_group=100)
    >>> for _ in range(5):
    ...     job.learn(job.group_size, 0.001 * job.group_size, 0)
    >>> job.group_size
    10
    """

    def __init__(self, work: Any, number: int, function: Pickled, largest_group: int):
        self.work = work
        self.number = number
        self.function = function
        self.group_size = 1
        self._largest_group = largest_group

    def learn(self, items: int, seconds: float, n_bytes: int) -> None:
        """Choose the size of the next groups from what a group has taken."""
        fitting = min(SECONDS / max(seconds / items, 1e-9), BYTES / max(n_bytes / items, 1))
        self.group_size = max(1, min(round(fitting), 2 * self.group_size, self._largest_group))


def taken(values: Iterator[Any], n: int) -> tuple[list[WorkItem], BaseException | None]:
    """So many items, and what has ended the values if there are fewer.

    Examples
    --------
    >>> items, end = taken(iter('abc'), 4)
    >>> [item.value for item in items], end
    (['a', 'b', 'c'], StopIteration())
    """
    items: list[WorkItem] = []
    try:
        items.extend(map(WorkItem, islice(values, n)))
    except BaseException as error:
        return items, error
    return items, None if len(items) == n else StopIteration()


def suspected(items: list[WorkItem], number: int, step: int) -> tuple[list[list[WorkItem]], WorkItem | None, int]:
    """What to send again together, the item during which a process has died if that is known, and the step of it.

    ``number`` and ``step`` are where the process was, with these items.
    """
    numbers = [item.number for item in items]
    if step and number in numbers:
        at = numbers.index(number)  # the others are to be done, whatever becomes of this one
        return [items[:at], items[at : at + 1], items[at + 1 :]], items[at], step
    return [[item] for item in items], items[0] if len(items) == 1 else None, 0
