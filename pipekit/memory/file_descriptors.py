"""File descriptors other than those of the standard streams."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def reopen_closed_streams() -> list[int]:
    """Open standard streams that are closed on ``os.devnull``, and return their descriptors."""
    opened = [os.open(os.devnull, os.O_RDWR)]
    while opened[-1] <= 2:
        opened.append(os.open(os.devnull, os.O_RDWR))
    os.close(opened.pop())
    return opened


@contextmanager
def beyond_standard_streams() -> Iterator[None]:
    """What is opened inside gets none of the descriptors 0 to 2, not even where a standard stream is closed.

    Otherwise text that is printed could end up in it, and a child process would replace it by a stream of its own.
    """
    reopened = reopen_closed_streams()
    try:
        yield
    finally:
        for descriptor in reopened:
            os.close(descriptor)
