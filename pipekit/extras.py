"""What needs more than the core's dependencies says which extra to install."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """Around an import: if the module is missing, the error names the extra that brings it.

    Examples
    --------
    >>> with needs('plot', 'a picture of a report'):
    ...     import no_such_module
    Traceback (most recent call last):
    ModuleNotFoundError: a picture of a report needs no_such_module: pip install "pipekit-batches[plot]"
    """
    try:
        yield
    except ModuleNotFoundError as error:
        text = f'{what} needs {error.name}: pip install "pipekit-batches[{extra}]"'
        raise ModuleNotFoundError(text, name=error.name) from error
