"""What workers do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


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
