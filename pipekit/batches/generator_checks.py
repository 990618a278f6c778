"""Checks what functions draw from where they run: generators that threads share, or that processes copy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from warnings import warn

from ..describing.display import code
from ..describing.tracebacks import own_depth
from ..stages.held_generators import held_generators, values_within
from ..stages.seeding import Seeded, draws_message, shared_message
from ..streams.metering import Moved
from ..streams.nesting import streams_within
from ..streams.stream import Stream
from ..workers.kinds import Processes, Threads, Workers, runs_in_threads


def warn_of_held_generators(stream: Stream[Any]) -> None:
    """Warn of each random generator that a function with workers holds on to, without running code of the user's."""
    messages: list[str] = []
    with suppress(Exception):
        messages.extend(_messages(stream, set()))
    for message in messages:
        warn(message, RuntimeWarning, stacklevel=own_depth())


def _messages(stream: Stream[Any], told: set[Any]) -> Iterator[str]:
    for each, workers in _maps_within(stream):
        if workers is None:
            continue
        function, part = each.operation.function, each.place.part
        for found in held_generators(function, takes_rng=each.operation.seed is not None):
            variable = id(part), id(found.owner), *found.path.removeprefix('self.').replace('[', '.').split('.')[:1]
            if not told & {id(found.value), variable}:
                holds = f'{code(found.owner)} holds the random generator `{found.path}`, {_use_in(workers)}'
                yield f'{" ".join(code(part).split())}: {holds}; let the function take the argument rng= instead'
            told |= {id(found.value), variable}


def _use_in(workers: Workers) -> str:
    if isinstance(workers, Processes):
        return 'of which each process has a copy, so that random numbers repeat'
    if isinstance(workers, Threads):
        return 'which the threads share and draw from in no fixed order'
    return 'which the workers of the executor copy or share'


def check_seeded(stream: Stream[Any]) -> None:
    """Check that the seeded functions of a stream run where no other thread draws.

    Raises
    ------
    ValueError
        If one does not.
    """
    for each, workers in _maps_within(stream):
        if runs_in_threads(workers):
            for found in values_within(each.operation.function, (Seeded,)):
                raise ValueError(f'{code(each.place.part)}: {shared_message(found.value)}')


def warn_of_moved(stream: Stream[Any], told: set[str], moved: Moved) -> None:
    """Warn of a stage whose function draws from a global generator; of each library once.

    While such a function runs in a thread, others are not to blame.
    """
    if not told.issuperset(moved.libraries):
        told.update(moved.libraries)
        name = next((row.name for row in stream.rows() if row.path == moved.path), 'a stage')
        warn(f'{name} {draws_message(moved.libraries)}', RuntimeWarning, stacklevel=own_depth())


def _maps_within(stream: Stream[Any]) -> Iterator[tuple[Any, Workers | None]]:
    for each in streams_within(stream):
        yield from each.maps_with_workers
