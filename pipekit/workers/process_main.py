"""What a worker process does: call functions with the items it is sent, and send back the results."""

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
from ..memory.forks import in_child
from ..memory.shared import Arena, RemoteBlocks, SharedBlockPool
from .channels import Channel, Load
from .pickling import Extent, Pickled, dumps, is_picklable, unpicklable_part
from .remote_errors import sendable_error
from .remote_logs import ForwardingHandler
from .resources import close_opened

EXIT_GRACE_SECONDS = 1.0  # for a running function to return after the other end of the connection is closed
CURRENT_STEP_BYTES = 4096  # at the start of an arena, reserved for a ``CurrentStep``


class CurrentStep:
    """The item and the step that a process is at: written by the process, read by its parent even after a crash.

    Parameters
    ----------
    arena
        The shared memory to keep it in. If there is none, the parent does not see it.
    """

    def __init__(self, arena: Arena | None):
        memory = arena.memory if arena is not None else bytearray(CURRENT_STEP_BYTES)
        self._numbers = memoryview(memory)[:16].cast('q')

    def watched(self, items: Iterable[Any], first: int) -> Iterator[Any]:
        """The items, each with its number written when it begins; ``first`` is that of the first one."""
        for number, item in enumerate(items, first):
            self._numbers[1] = 0  # before the number: the step of the last item must not be read as one of this item
            self._numbers[0] = number
            yield item
        self._numbers[1] = 0  # any of the items may cause a crash from now on

    def begin_step(self) -> None:
        """Count a step of the item."""
        self._numbers[1] += 1

    def read(self) -> tuple[int, int]:
        """The number of the item, and of the step; step 0 is before the first one or after the last one."""
        return self._numbers[0], self._numbers[1]


def main(connection: int, results: int | None, arguments: int | None) -> None:
    """Serve until the other end of the connection is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe = Connection(connection)
    arena = None if results is None else Arena(results, first=CURRENT_STEP_BYTES)
    blocks = None if arena is None else SharedBlockPool(arena)
    shared = None if arguments is None else Arena(arguments)
    constants = None if arguments is None else RemoteBlocks(Arena(arguments, read_only=True))
    allocate_from(blocks)
    # A fork of this process inherits neither the connection, which would stay open after this process has ended, nor
    # the blocks, which both would write to.
    os.set_inheritable(connection, False)
    in_child(pipe.close)
    in_child(partial(allocate_from, None))
    channel = Channel(pipe, blocks, None if shared is None else RemoteBlocks(shared))
    messages: SimpleQueue[bytes | None] = SimpleQueue()
    threading.Thread(target=_receive, args=(channel, messages), daemon=True).start()
    received = iter(messages.get, None)
    with suppress(OSError):  # the other end is closed
        if _set_up(channel, received, constants):
            _serve(channel, received, constants, CurrentStep(arena))
    close_opened()
    for stream in filter(None, (sys.stdout, sys.stderr)):  # either is None if it is closed
        with suppress(OSError, ValueError):
            stream.flush()
    _end()


def _end() -> NoReturn:
    # With the processes that the functions have started, and without finalizing the interpreter, which is slow.
    os.killpg(0, signal.SIGKILL)
    os._exit(0)


def _receive(channel: Channel, messages: SimpleQueue[bytes | None]) -> None:
    # In a thread of its own, so that the other end never blocks when it sends, and its closing is noticed while a
    # function runs.
    with suppress(EOFError, OSError, MemoryError):
        while True:
            messages.put(channel.receive())
    messages.put(None)
    time.sleep(EXIT_GRACE_SECONDS)  # the process ends in the meantime, unless a function or a thread of its runs on
    _end()


def _set_up(channel: Channel, messages: Iterator[bytes], constants: RemoteBlocks | None) -> bool:
    """Send log records to the parent and call the initializer; whether that has gone well."""
    for message in messages:
        (levels,), load, _ = channel.parsed(message)
        handler = ForwardingHandler(lambda plain, others: channel.send_from_anywhere(('record', plain), others))
        handler.install(levels)
        verb = 'unpickled'
        try:
            body, extents = load()
            function = _load_function(body, extents, constants)
            verb = 'called'
            function()
        except BaseException as error:
            channel.send(('failed', verb), sendable_error(error, dumps))
            return False
        handler.stay()
        channel.send(('started',))
        return True
    return False


def _serve(channel: Channel, messages: Iterable[bytes], constants: RemoteBlocks | None, current: CurrentStep) -> None:
    functions: dict[int, Load] = {}
    loaded, work = None, None
    for message in messages:
        (kind, number, *rest), load, _ = channel.parsed(message)
        if kind == 'function':
            body, extents = load()
            functions[number] = lru_cache(partial(_load_function, body, extents, constants))
            continue
        key, first = rest
        begin = time.perf_counter()
        try:
            if loaded != (number, key):
                loaded, work = (number, key), functions[number]().keyed(key)
            content = _process(channel, work, load(), first, current)
            kind = 'done'
        except BaseException as error:  # the function or the items cannot be unpickled here
            kind, loaded, content = 'not_loaded', None, channel.pickled(([], sendable_error(error, dumps)))
        channel.send_pickled((kind, time.perf_counter() - begin, channel.no_room and str(channel.no_room)), content)


def _load_function(body: bytes, extents: list[Extent], constants: RemoteBlocks | None) -> Any:
    buffers = [constants.view(*extent) for extent in extents] if constants is not None else []
    return pickle.loads(body, buffers=buffers)


def _process(channel: Channel, work: Any, items: list[Any], first: int, current: CurrentStep) -> Pickled:
    results: list[Any] = []
    failure: BaseException | None = None
    try:
        results.extend(work(item, current.begin_step) for item in current.watched(items, first))
    except BaseException as error:
        failure = sendable_error(error, dumps)
    try:
        return channel.pickled((results, failure))
    except Exception as error:
        n_good = next((number for number, result in enumerate(results) if not is_picklable(result)), 0)
        part = unpicklable_part(work.value_of(results[n_good]), 'sample')
        doing = work.doing(items[n_good], 0)
        failure = TypeError(f'cannot send the result of {doing} back: {part}, which cannot be pickled: {error}')
        failure.__cause__ = sendable_error(error, dumps)
        return channel.pickled((results[:n_good], failure))
