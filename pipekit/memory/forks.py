"""Forks of this process: what is called in the child, and which shared memory is kept while a child may read it."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from inspect import ismethod
from itertools import count
from typing import Any, NamedTuple, Protocol
from weakref import WeakMethod, WeakSet

NO_PIPE = -1  # in place of a descriptor: there is no way to see that the fork has ended


class SharesMemory(Protocol):
    """Something that has arrays in memory which other processes write to."""

    def arrays_in_use(self) -> Iterator[Any]:
        """The arrays that somebody still refers to."""


def in_child(call: Callable[[], object]) -> None:
    """Have a function called in every process that is forked from this one, in the order of these calls.

    A bound method does not keep its object alive, and is no longer called when that is gone.
    """
    number = next(_numbers)
    _calls[number] = WeakMethod(call, partial(_calls.pop, number)) if ismethod(call) else lambda: call


def keep_for_forks(owner: SharesMemory) -> None:
    """Whenever this process is forked, keep the owner's arrays that are in use until the child has ended."""
    _owners.add(owner)


def forget_ended_forks() -> None:
    """Drop the arrays that were kept for children which have ended, or have become another program."""
    for _ in range(len(_forks)):
        with suppress(IndexError):  # another thread does the same
            fork = _forks.popleft()
            if _is_alive(fork):
                _forks.append(fork)


class _Fork(NamedTuple):
    """The arrays that were in use at a fork, which its child still sees: their memory must not be written to.

    ``pipe`` is the reading end of a pipe. Its other end is open until the child, and all that were forked from it, have
    ended or have become another program.
    """

    pipe: int
    arrays: list[Any]


def _before_fork() -> None:
    forget_ended_forks()
    arrays = [array for owner in list(_owners) for array in owner.arrays_in_use()]
    _forking.pipe = ()
    if arrays:
        with suppress(OSError):
            _forking.pipe = os.pipe()
            os.set_blocking(_forking.pipe[0], False)
        _forks.append(_Fork(_forking.pipe[0] if _forking.pipe else NO_PIPE, arrays))


def _after_fork_in_parent() -> None:
    for descriptor in _forking.pipe[1:]:
        os.close(descriptor)


def _after_fork_in_child() -> None:
    with ExitStack() as stack:  # which calls them all, even if one of them raises
        stack.callback(_forget_all_forks)
        for ref in reversed(list(_calls.values())):
            if (call := ref()) is not None:
                stack.callback(call)


def _forget_all_forks() -> None:
    for fork in _forks:
        with suppress(OSError):
            os.close(fork.pipe)
    _forks.clear()


def _is_alive(fork: _Fork) -> bool:
    if fork.pipe == NO_PIPE:
        return True
    with suppress(BlockingIOError):
        os.read(fork.pipe, 1)
        os.close(fork.pipe)
        return False
    return True


class _Forking(threading.local):
    pipe: tuple[int, ...] = ()


_forking = _Forking()
_forks: deque[_Fork] = deque()
_owners: WeakSet[SharesMemory] = WeakSet()
_numbers = count()
_calls: dict[int, Callable[[], Callable[[], object] | None]] = {}

if sys.platform != 'win32':  # where there is no fork
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
