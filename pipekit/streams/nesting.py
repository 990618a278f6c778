"""Streams that are nested more deeply than the limit of recursion allows, named in the error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Protocol, TypeAlias

from ..describing.display import brief
from .cursors import Cursor, Out_co, Pairs

Stream: TypeAlias = Any  # its module, as that of its context, is above this one
Context: TypeAlias = Any

DEEP = 30  # levels or stages: with fewer, something else has reached the limit
FRAMES_PER_ITERATOR = 4  # on the stack, for each iterator on an iterator


class Opens(Protocol[Out_co]):
    """A stream, as far as it is opened here."""

    def open(self, cursor: Cursor, context: Context) -> Pairs[Out_co]: ...


def open_stream(stream: Opens[Out_co], cursor: Cursor, context: Context) -> Pairs[Out_co]:
    """Open a stream.

    Raises
    ------
    RecursionError
        If it is nested too deeply; says what is.
    """
    if sum(1 for _ in _iterated_within(stream)) * FRAMES_PER_ITERATOR > sys.getrecursionlimit():
        raise RecursionError(_what_is_deep(stream))
    try:
        return stream.open(cursor, context)
    except RecursionError as error:
        text = _what_is_deep(stream)
        if text is None:
            raise
        raise RecursionError(text) from error


def streams_within(stream: Stream) -> Iterator[Stream]:
    """A stream and the branches of its source, those of their sources, and so on, each once."""
    found, pending = {id(stream)}, [stream]
    while pending:
        each = pending.pop()
        yield each
        for branch in each.source.branches:
            if id(branch) not in found:
                found.add(id(branch))
                pending.append(branch)


def _what_is_deep(stream: Stream) -> str | None:
    levels, longest = 0, stream
    level = {id(stream): stream}
    while level:
        levels += 1
        longest = max(longest, *level.values(), key=lambda each: len(each.stages))
        level = {id(inner): inner for each in level.values() for inner in _inner_streams(each)}
    stages = longest.stages
    if max(levels, len(stages)) < DEEP:
        return None
    limit = f'the limit of recursion, {sys.getrecursionlimit()}, allows; '
    if levels >= len(stages):
        remedy = 'put the sources into one mix(...), or the stages into one pipeline(...)'
        return f'{levels} sources are nested in one another, more than {limit}{remedy}, or call sys.setrecursionlimit'
    return (
        f'{len(stages)} stages, from {brief(stages[0])} to {brief(stages[-1])}, are more than {limit}'
        'let one stage do the work of several, or call sys.setrecursionlimit'
    )


def _inner_streams(stream: Stream) -> Iterator[Stream]:
    source = stream.source
    call = getattr(source, '_call', None)
    for part in [*source.branches, *([] if call is None else call.args[:1])]:
        inner = getattr(part, 'stream', part)  # of an iterator over it
        if hasattr(inner, 'source') and hasattr(inner, 'stages'):
            yield inner


def _iterated_within(stream: Stream) -> Iterator[Stream]:
    while not stream.reopens:
        call = getattr(stream.source, '_call', None)
        inner = getattr(call.args[0], 'stream', None) if call is not None and call.args else None
        if inner is None:
            return
        yield inner
        stream = inner
