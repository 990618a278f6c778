"""The progress of long work, for whoever looks: in a terminal or a notebook, by tqdm where that is installed."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar('T')

DELAY = 1.0  # seconds, after which work is long


class Progress:
    """So many steps of a work. A bar appears when they take long, if there is somebody to see it.

    Examples
    --------
    >>> progress = Progress('starting', 2)
    >>> progress.step(), progress.step()
    (None, None)
    """

    def __init__(self, doing: str, total: int):
        self._left = total
        make = _maker()
        self._bar = None if make is None else make(desc=doing, total=total, delay=DELAY, leave=False)

    def step(self) -> None:
        """Say that one step more is done; after the last one, the bar is gone."""
        self._left -= 1
        if self._bar is not None:
            self._bar.update()
            if self._left == 0:
                self.close()

    def close(self) -> None:
        """Take the bar away."""
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()


def stepwise(values: Iterable[T], doing: str, total: int) -> Iterator[T]:
    """Values that are a step each.

    Examples
    --------
    >>> list(stepwise('ab', 'spelling', 2))
    ['a', 'b']
    """
    make = _maker()
    if make is None:
        return iter(values)
    return iter(make(values, desc=doing, total=total, delay=DELAY, leave=False))


def _maker() -> Any:
    in_notebook = _is_in_notebook()
    if not in_notebook and not _is_terminal(sys.stderr):
        return None
    with suppress(ImportError):
        return _tqdm(in_notebook)
    return None


def _is_terminal(stream: Any) -> bool:
    with suppress(Exception):  # it may be closed, or None, or whatever has been put in its place
        return bool(stream.isatty())
    return False


def _is_in_notebook() -> bool:
    ipython = sys.modules.get('IPython')
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, 'get_ipython') else None
    return 'IPKernelApp' in getattr(shell, 'config', ())


def _tqdm(in_notebook: bool) -> Any:
    if in_notebook:
        with suppress(ImportError):
            import ipywidgets  # type: ignore[import-not-found]  # noqa: F401  # without it, tqdm.auto warns, and shows nothing
            from tqdm.auto import tqdm as tqdm_for_notebooks

            return _quiet(tqdm_for_notebooks)
    from tqdm import tqdm

    return _quiet(tqdm)


def _quiet(tqdm: Any) -> Any:
    # Without a thread of its own, which would outlive the work. And without the lock that it makes by default, from
    # multiprocessing, whose start method could not be chosen any more.
    quiet = type('Progress', (tqdm,), {'monitor_interval': 0})
    if not hasattr(tqdm, '_lock'):
        quiet.set_lock(threading.RLock())  # type: ignore[attr-defined]
    return quiet
