"""What a process has that it should not leave behind: threads, processes, descriptors and shared memory. For Linux."""

import gc
import os
import threading
from contextlib import suppress
from pathlib import Path

from running import children

OURS = '/memfd:pipekit', '/dev/shm/'  # how the names of shared memory begin


def descriptors():
    """The open files, except for the one that libffi keeps from its first use on, as Debian builds it."""
    found = {}
    for name in os.listdir('/proc/self/fd'):
        with suppress(OSError):  # the one for the listing
            found[int(name)] = os.readlink(f'/proc/self/fd/{name}')
    return {number: name for number, name in found.items() if 'libffi' not in name}


def shared():
    """The names of the shared memory that this process sees."""
    # Five fields come before a name, and what has a name is a file of any folder, too.
    lines = Path('/proc/self/maps').read_text().splitlines()
    names = [name for line in lines for name in line.split(maxsplit=5)[5:]]
    return [name for name in names if name.startswith(OURS)]


def left():
    """What there is more than at the beginning."""
    for thread in threading.enumerate()[1:]:
        thread.join(5)
    gc.collect()
    new = [f'{number} {name}' for number, name in descriptors().items() if number not in descriptors_at_first]
    mapped = [name for name in shared() if name not in shared_at_first]
    return [thread.name for thread in threading.enumerate()[1:]] + children() + new + mapped


descriptors_at_first, shared_at_first = descriptors(), shared()
