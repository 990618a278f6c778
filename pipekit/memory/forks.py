"""What a fork of this process sees of shared memory: it stays as it is for as long as the fork is there."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

NEVER = -1  # in place of a descriptor: no end of the fork will be seen


class Sighted(Protocol):
    """What knows the arrays in shared memory that somebody sees."""

    def in_sight(self) -> Iterator[Any]:
        """These arrays."""


def keep_for_forks(shared: Sighted) -> None:
    """Have what is in sight when this process is forked kept, as long as the fork may see it."""
    _shared.add(shared)


def let_go_after_forks() -> None:
    """Let go of what was kept for forks that are no more, or have become another program."""
    for _ in range(len(_forks)):
        with suppress(IndexError):  # another thread looks, too
            fork = _forks.popleft()
            if _is_open(fork.end):
                _forks.append(fork)


class _Fork(NamedTuple):
    """What was in sight when this process was forked: its child sees it where it is, so that it is to stay as it is.

    ``end`` is one end of a pipe. The other one is open until the child, and what that has forked, is no more, or has
    become another program.
    """

    end: int
    seen: list[Any]


def _before_fork() -> None:
    let_go_after_forks()
    seen = [array for one in list(_shared) for array in one.in_sight()]
    _forking.ends = ()
    if seen:
        with suppress(OSError):
            _forking.ends = os.pipe()
            os.set_blocking(_forking.ends[0], False)
        _forks.append(_Fork(_forking.ends[0] if _forking.ends else NEVER, seen))


def _after_fork_in_parent() -> None:
    for end in _forking.ends[1:]:
        os.close(end)


def _after_fork_in_child() -> None:
    for fork in _forks:
        with suppress(OSError):
            os.close(fork.end)
    _forks.clear()


def _is_open(end: int) -> bool:
    if end == NEVER:
        return True
    with suppress(BlockingIOError):
        os.read(end, 1)
        os.close(end)
        return False
    return True


class _Forking(threading.local):
    ends: tuple[int, ...] = ()


_forking = _Forking()
_forks: deque[_Fork] = deque()
_shared: weakref.WeakSet[Sighted] = weakref.WeakSet()

if sys.platform != 'win32':
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
