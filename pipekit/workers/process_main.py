"""What a worker process does: run functions on the items it is sent, and send back what they give."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache, partial
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, NoReturn

from ..memory.blocks import allocate_from
from ..memory.file_descriptors import reopen_closed_streams
from ..memory.forks import in_child
from ..memory.shared import Arena, RemoteBlocks, SharedBlockPool
from .channels import Channel, Load
from .pickling import Extent, Pickled, dumps, picklable, unpicklable_part
from .remote_errors import sendable_error

GRACE = 1.0  # seconds that the function which is running has to end in, when nobody waits for it any more
MARKS = 4096  # bytes at the beginning of a region, which say what the process is doing


class Marks:
    """Which item a process is at, and at which step of it: written by the process, read when it has died.

    Examples
    --------
    >>> region = Arena()
    >>> marks = Marks(region)
    >>> for item in marks.watched('ab', first=6):
    ...     marks.begin_step()
    ...     Marks(region).read()
    (6, 1)
    (7, 1)
    """

    def __init__(self, region: Arena | None):
        memory = region.memory if region is not None else bytearray(MARKS)
        self._marks = memoryview(memory)[:16].cast('q')

    def watched(self, items: Iterable[Any], first: int) -> Iterator[Any]:
        """The items, the number of each being noted when it begins."""
        for number, item in enumerate(items, first):
            self._marks[1] = 0  # first: a step is never taken for one of another item
            self._marks[0] = number
            yield item
        self._marks[1] = 0  # what goes wrong from now on may be the fault of any of them

    def begin_step(self) -> None:
        """Say that the next step of it begins."""
        self._marks[1] += 1

    def read(self) -> tuple[int, int]:
        """The number of the item, and of the step."""
        return self._marks[0], self._marks[1]


def main(connection: int, results: int | None, arguments: int | None) -> None:
    """Serve until the other end of the connection is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    reopen_closed_streams()
    pipe = Connection(connection)
    region = None if results is None else Arena(results, first=MARKS)
    blocks = None if region is None else SharedBlockPool(region)
    shared = None if arguments is None else Arena(arguments)
    constants = None if arguments is None else RemoteBlocks(Arena(arguments, read_only=True))
    allocate_from(blocks)
    # A fork of this process has none of it: neither the connection, which would not end with this process, nor the
    # blocks, which both would take.
    os.set_inheritable(connection, False)
    in_child(pipe.close)
    in_child(partial(allocate_from, None))
    channel = Channel(pipe, blocks, None if shared is None else RemoteBlocks(shared))
    messages: SimpleQueue[bytes | None] = SimpleQueue()
    threading.Thread(target=_receive, args=(channel, messages), daemon=True).start()
    with suppress(OSError):  # nobody waits for it any more
        channel.send(('started',))
        _serve(channel, iter(messages.get, None), constants, Marks(region))
    for stream in filter(None, (sys.stdout, sys.stderr)):  # those that are not closed
        with suppress(OSError, ValueError):
            stream.flush()
    _end()


def _end() -> NoReturn:
    # At once, and with what it has started itself: taking the interpreter down takes longer than all the rest.
    os.killpg(0, signal.SIGKILL)
    os._exit(0)


def _receive(channel: Channel, messages: SimpleQueue[bytes | None]) -> None:
    # All is received at once, whatever the process is doing: the other end never waits while it sends, and its end is
    # noticed in the middle of a function.
    with suppress(EOFError, OSError, MemoryError):
        while True:
            messages.put(channel.receive())
    messages.put(None)
    time.sleep(GRACE)  # the process ends meanwhile, unless a function or a thread of the user's goes on
    _end()


def _serve(channel: Channel, messages: Iterable[bytes], constants: RemoteBlocks | None, marks: Marks) -> None:
    functions: dict[int, Load] = {}
    current, work = None, None
    for message in messages:
        (kind, number, *rest), load, _ = channel.opened(message)
        if kind == 'function':
            body, places = load()
            functions[number] = lru_cache(partial(_function, body, places, constants))
            continue
        key, first = rest
        before = time.perf_counter()
        try:
            if current != (number, key):
                current, work = (number, key), functions[number]().keyed(key)
            content = _done(channel, work, load(), first, marks)
            kind = 'done'
        except BaseException as error:  # what is sent here cannot be made here
            kind, current, content = 'unmade', None, channel.pickled(([], sendable_error(error, dumps)))
        channel.send_pickled((kind, time.perf_counter() - before, channel.no_room and str(channel.no_room)), content)


def _function(body: bytes, places: list[Extent], constants: RemoteBlocks | None) -> Any:
    buffers = [constants.view(*place) for place in places] if constants is not None else []
    return pickle.loads(body, buffers=buffers)


def _done(channel: Channel, work: Any, items: list[Any], first: int, marks: Marks) -> Pickled:
    outcomes: list[Any] = []
    failure: BaseException | None = None
    try:
        outcomes.extend(work(item, marks.begin_step) for item in marks.watched(items, first))
    except BaseException as error:
        failure = sendable_error(error, dumps)
    try:
        return channel.pickled((outcomes, failure))
    except Exception as error:
        sound = next((number for number, outcome in enumerate(outcomes) if not picklable(outcome)), 0)
        part = unpicklable_part(work.value_of(outcomes[sound]), 'sample')
        doing = work.doing(items[sound], 0)
        failure = TypeError(f'cannot send the result of {doing} back: {part}, which cannot be pickled: {error}')
        failure.__cause__ = sendable_error(error, dumps)
        return channel.pickled((outcomes[:sound], failure))
