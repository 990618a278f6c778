"""The most memory that this process, and each that it has started, has had."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def peaks() -> list[int]:
    """The most bytes that this process has had, and those that it has started: of this one alone but on Linux.

    Memory that several of them see counts once for all.

    Examples
    --------
    >>> all(peak > 0 for peak in peaks())
    True
    """
    found = list(_peaks_from(os.getpid()))
    if not found and sys.platform != 'win32':
        import resource  # which Windows has not

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found.append(peak if sys.platform == 'darwin' else peak << 10)
    return found


def _peaks_from(pid: int | str) -> Iterator[int]:
    # What it has now, and by how much it had more at its peak: the peaks that the system knows count memory that
    # several processes see for each.
    with suppress(OSError, KeyError):  # it has ended, or the system does not tell
        told = b''.join(Path(f'/proc/{pid}/{name}').read_bytes() for name in ('status', 'smaps_rollup'))
        kib = {name: int(amount) for name, amount in re.findall(rb'(\w+):\s+(\d+) kB', told)}
        yield 1024 * (kib[b'Pss'] + kib[b'VmHWM'] - kib[b'VmRSS'])
        for children in Path(f'/proc/{pid}/task').glob('*/children'):
            for child in children.read_text(encoding='ascii').split():
                yield from _peaks_from(child)
