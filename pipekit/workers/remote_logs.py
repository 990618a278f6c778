"""Log records of worker processes, which are handed to the handlers of their parent."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from logging.handlers import QueueHandler
from typing import Any, TypeAlias

from ..describing.display import code
from .pickling import is_picklable

Levels: TypeAlias = tuple[int, dict[str, int]]  # the one that is disabled, and those of loggers
PLAIN = bool, int, float, str, type(None)
YIELD_SECONDS = 1e-4


class ForwardingHandler(QueueHandler):
    """Sends records to the parent, as text and plain values where they cannot be pickled.

    Parameters
    ----------
    send
        What to call with the attributes of a record: the plain ones, and the others.
    """

    def __init__(self, send: Callable[[dict[str, Any], dict[str, Any]], object]):
        super().__init__(None)  # type: ignore[arg-type]  # no queue
        self._send = send
        self._pid = os.getpid()
        self._in_a_fork = logging.lastResort

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record; in a fork of the process, which has no connection, print it."""
        if os.getpid() == self._pid:
            super().emit(record)
        elif self._in_a_fork is not None and record.levelno >= self._in_a_fork.level:
            self._in_a_fork.handle(record)

    def enqueue(self, record: logging.LogRecord) -> None:
        """Send a record that is prepared: its message is formatted."""
        plain, others = {}, {}
        for name, value in vars(record).items():
            if type(value) in PLAIN:
                plain[name] = value
            else:
                others[name] = value if is_picklable(value) else code(value)
        with suppress(OSError):  # the parent has closed the connection
            self._send(plain, others)
        if threading.current_thread() is not threading.main_thread():
            # A thread that writes without end lets go of the interpreter's lock again and again, but too shortly for
            # the main thread to get it while the machine is busy.
            time.sleep(YIELD_SECONDS)

    def install(self, levels: Levels) -> None:
        """Take over levels, and handle all records for which no other handler is set up."""
        disabled, of_loggers = levels
        logging.disable(disabled)
        for name, level in of_loggers.items():
            logging.getLogger(name).setLevel(level)
        logging.lastResort = self

    def stay(self) -> None:
        """Handle the records of libraries with handlers of their own, too, unless the root has one by now."""
        if not logging.root.handlers:
            logging.root.addHandler(self)


def current_levels() -> Levels:
    """The levels of this process's loggers."""
    root = logging.getLogger()
    # Loggers of other types are made by a library, in its own way.
    loggers = [logger for logger in list(root.manager.loggerDict.values()) if type(logger) is logging.Logger]
    levels = {logger.name: logger.level for logger in loggers if logger.level}
    return root.manager.disable, levels | {root.name: root.level}


def handle_record(plain: dict[str, Any], load_others: Callable[[], dict[str, Any]]) -> None:
    """Hand a record to the handlers of this process."""
    record = logging.makeLogRecord(plain)
    with suppress(Exception):  # a value whose class cannot be imported here
        vars(record).update(load_others())
    logging.getLogger(record.name).handle(record)
