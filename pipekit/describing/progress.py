"""Progress bars for slow work, in a terminal or a notebook, if tqdm is installed."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar('T')

DELAY_SECONDS = 1.0  # before a bar appears


class Progress:
    """Counts steps; a bar appears if they take long and somebody can see it."""

    def __init__(self, doing: str, total: int):
        self._left = total
        make = _maker()
        self._bar = None if make is None else make(desc=doing, total=total, delay=DELAY_SECONDS, leave=False)

    def step(self) -> None:
        """Count a step; the bar disappears after the last one."""
        self._left -= 1
        if self._bar is not None:
            self._bar.update()
            if self._left == 0:
                self.close()

    def close(self) -> None:
        """Remove the bar."""
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()


def with_progress(values: Iterable[T], doing: str, total: int) -> Iterator[T]:
    """The values, each of which counts as a step."""
    make = _maker()
    if make is None:
        return iter(values)
    return iter(make(values, desc=doing, total=total, delay=DELAY_SECONDS, leave=False))


def _maker() -> Any:
    in_notebook = _is_in_notebook()
    if not in_notebook and not _is_terminal(sys.stderr):
        return None
    with suppress(ImportError):
        return _tqdm(in_notebook)
    return None


def _is_terminal(stream: Any) -> bool:
    with suppress(Exception):  # it may be closed, or None, or replaced by anything
        return bool(stream.isatty())
    return False


def _is_in_notebook() -> bool:
    ipython = sys.modules.get('IPython')
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, 'get_ipython') else None
    return 'IPKernelApp' in getattr(shell, 'config', ())


def _tqdm(in_notebook: bool) -> Any:
    if in_notebook:
        with suppress(ImportError):
            import ipywidgets  # type: ignore[import-not-found]  # noqa: F401  # without it, tqdm.auto warns and shows nothing
            from tqdm.auto import tqdm as tqdm_for_notebooks

            return _quiet(tqdm_for_notebooks)
    from tqdm import tqdm

    return _quiet(tqdm)


def _quiet(tqdm: Any) -> Any:
    # No monitoring thread, which would outlive the bar. And not the default lock, which is one of multiprocessing:
    # after it is made, the user can no longer choose a start method.
    quiet = type('Progress', (tqdm,), {'monitor_interval': 0})
    if not hasattr(tqdm, '_lock'):
        quiet.set_lock(threading.RLock())  # type: ignore[attr-defined]
    return quiet
