"""A lock that no interrupt leaves held, wherever the interpreter looks for signals."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from itertools import repeat


class Lock:
    """A reentrant lock: ``for _ in lock.held():`` runs its body once, in place of ``with``.

    Between what ``with`` does to take a lock and its body, a signal handler may raise, and the lock is held for ever.

    Examples
    --------
    >>> lock = Lock()
    >>> for _ in lock.held():
    ...     print(lock.is_mine())
    True
    >>> lock.is_mine()
    False
    """

    # The lock is released by the death of what `held` returns. That is on the stack of the loop's frame and in no
    # variable: the interpreter drops it however the loop is left, and a traceback keeps variables, but not the stack.
    # To take the lock and make what releases it is one call into C, and so is the release: nothing comes in between.
    def __init__(self) -> None:
        lock = threading.RLock()
        once = type('Held', (repeat,), {'__slots__': (), '__del__': lock.release})
        self.held: Callable[[], Iterable[None]] = map(once, repeat(None), map(lock.acquire, repeat(True))).__next__
        self.is_mine: Callable[[], bool] = lock._is_owned  # type: ignore[attr-defined]  # as threading.Condition has it
