"""How processes end, in words."""

from __future__ import annotations

import signal
from contextlib import suppress


def how_it_ended(exit_code: int, times_before: int) -> str:
    """How a process has ended, which began when the system had run out of memory so many times.

    Examples
    --------
    >>> how_it_ended(3, times_out_of_memory())
    'ended with the exit code 3'
    >>> how_it_ended(-6, times_out_of_memory())
    'was killed by SIGABRT'
    """
    if exit_code >= 0:
        return f'ended with the exit code {exit_code}'
    with suppress(ValueError):
        name = signal.Signals(-exit_code).name
        of_memory = exit_code == -signal.SIGKILL and times_out_of_memory() > times_before
        return f'was killed by {name}' + (', as the system had run out of memory,' if of_memory else '')
    return f'was killed by the signal {-exit_code}'


def times_out_of_memory() -> int:
    """How many times the system has ended a process because memory had run out, as far as it tells.

    Examples
    --------
    >>> times_out_of_memory() >= 0
    True
    """
    with suppress(OSError, ValueError), open('/proc/vmstat', encoding='ascii') as file:
        return int(next((line.split()[1] for line in file if line.startswith('oom_kill ')), 0))
    return 0
