"""Checks saved states when they are loaded."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Mapping
from itertools import zip_longest
from typing import Any

from ..describing.descriptions import ENTROPY
from ..describing.display import code
from ..errors import StateMismatch

STATE_VERSION = 1
PATH = re.compile(r'\d+(\.\d+)*')


def checked_counts(state: Mapping[str, Any], own: Mapping[str, Any]) -> tuple[int, int | None]:
    """Compare a saved state with the state of the batches; return its counts of batches, in all and in the epoch.

    The latter is ``None`` between two epochs.

    Examples
    --------
    >>> own = {'version': 1, 'delivered': 2, 'in_epoch': 2, 'batches_per_epoch': 5, 'failures': {}}
    >>> own['pipeline'] = ['take(3)']
    >>> checked_counts(own, own)
    (2, 2)
    >>> checked_counts(own, own | {'pipeline': ['take(4)']})
    Traceback (most recent call last):
    pipekit.StateMismatch: the source was take(3) when the state was saved, and is take(4) here
    """
    if not isinstance(state, Mapping) or state.keys() != own.keys():
        raise StateMismatch(f'expected what state_dict() returned, with the keys {list(own)}, got {code(state)}')
    for key in ('version', 'batches_per_epoch'):
        if state[key] != own[key]:
            raise StateMismatch(
                f'the state was saved with {key}={code(state[key])}, these batches have {code(own[key])}'
            )
    lines, per_epoch = state['pipeline'], own['batches_per_epoch']
    if not isinstance(lines, list):
        raise _damaged('pipeline', lines)
    for number, (saved, present) in enumerate(zip_longest(map(str, lines), own['pipeline']), 1):
        if saved != present:
            raise StateMismatch(_difference(number, saved, present))
    delivered = _count(state, 'delivered', sys.maxsize)
    if state['in_epoch'] is None:
        return delivered, None
    in_epoch = _count(state, 'in_epoch', delivered if per_epoch is None else min(delivered, per_epoch))
    # Of an epoch of fixed length nothing is left after its last batch: whoever loads that state is in the next one.
    return delivered, None if in_epoch == per_epoch else in_epoch


def checked_failures(state: Mapping[str, Any], paths: Collection[str] | None = None) -> dict[str, list[int]]:
    """The numbers of samples tried and failed at each stage, from a state.

    Examples
    --------
    >>> checked_failures({'failures': {'2': [1000, 3]}})
    {'2': [1000, 3]}
    """
    failures = state['failures']
    if not isinstance(failures, Mapping) or not all(map(_are_counts, failures.values())):
        raise _damaged('failures', failures)
    unknown = [path for path in failures if not (PATH.fullmatch(str(path)) if paths is None else str(path) in paths)]
    if unknown:
        raise StateMismatch(f'the state is damaged: failures has {code(unknown[0])}, which is no stage here')
    return {str(stage): list(counts) for stage, counts in failures.items()}


def _are_counts(counts: Any) -> bool:
    are_ints = isinstance(counts, list | tuple) and all(type(count) is int and count >= 0 for count in counts)
    return are_ints and len(counts) >= 2 and sum(counts[1:]) <= counts[0]


def _count(state: Mapping[str, Any], key: str, most: float) -> int:
    count = state[key]
    if type(count) is not int or not 0 <= count <= most:
        raise _damaged(key, count)
    return count


def _damaged(key: str, value: object) -> StateMismatch:
    return StateMismatch(f'the state is damaged: {key} is {code(value)}')


def _difference(number: int, saved: str | None, present: str | None) -> str:
    what = 'the source' if number == 1 else f'stage {number}'  # counted as in the notes on errors
    if saved and present and ENTROPY in saved and saved.split(ENTROPY)[0] == present.split(ENTROPY)[0]:
        described = f'{what} is {present.split(ENTROPY)[0]}, unseeded'
        return f'{described}: it draws other numbers in each process; pass seed= to continue it'
    return f'{what} was {saved or "absent"} when the state was saved, and is {present or "absent"} here'
