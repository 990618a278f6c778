"""File descriptors beyond those of the standard streams."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def take_closed_streams() -> list[int]:
    """Have standard streams that are closed lead nowhere, and return the descriptors that this has opened.

    Examples
    --------
    >>> take_closed_streams()
    []
    """
    opened = [os.open(os.devnull, os.O_RDWR)]
    while opened[-1] <= 2:
        opened.append(os.open(os.devnull, os.O_RDWR))
    os.close(opened.pop())
    return opened


@contextmanager
def beyond_standard_streams() -> Iterator[None]:
    """What is opened in here has none of the descriptors 0 to 2, although they are free where a stream is closed.

    Whatever is printed goes there, and a process that is started has its own streams there.

    Examples
    --------
    >>> with beyond_standard_streams():
    ...     file = open(os.devnull)
    >>> with file:
    ...     file.fileno() > 2
    True
    """
    taken = take_closed_streams()
    try:
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
