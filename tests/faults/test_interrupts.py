"""A signal before every single line of what a consumer runs: one that raises, and handlers that do something there."""

import ctypes
import signal
import sys
import threading
from contextlib import suppress

import pytest

from pipekit import memory
from pipekit.memory import Blocks

pytestmark = [
    pytest.mark.skipif(sys.platform == 'win32', reason='needs POSIX signals'),
    pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason='signals come there'),
    pytest.mark.timeout(120),
]

MIB = 1 << 20
SIGNAL = int(signal.SIGUSR1)


class Interrupt(Exception):
    pass


class Send:
    # Not by a call: that of a function ends with a look for signals, and this one is to be seen by what is traced.
    __getitem__ = ctypes.pythonapi.PyErr_SetInterruptEx


class SignalBefore:
    """Runs a function, with a signal before the n-th line of it that is in some files."""

    def __init__(self, n, files):
        self._n = n
        self._files = files
        self.passed = 0

    def run(self, function):
        sys.settrace(self._trace)
        try:
            return function()
        finally:
            sys.settrace(None)

    def _trace(self, frame, event, argument):
        if frame.f_code.co_filename not in self._files:
            return None
        if event != 'line':
            return self._trace
        self.passed += 1
        if self.passed < self._n:
            return self._trace
        sys.settrace(None)
        while frame is not None:
            frame.f_trace, frame = None, frame.f_back
        Send()[SIGNAL]
        return None


@pytest.fixture
def handle():
    before = signal.getsignal(SIGNAL)
    yield lambda handler: signal.signal(SIGNAL, handler)
    signal.signal(SIGNAL, before)


def before_each_line(files, scenario):
    """Run a scenario, which takes a function to run another one with, once for each line that it passes."""
    n = 1
    while True:
        signal_before = SignalBefore(n, files)
        scenario(signal_before.run)
        if signal_before.passed < n:
            assert n > 50  # else this looks at nothing
            return
        n += 1


def filled(blocks, size, mark):
    block = blocks.new(size)
    block[:16] = mark
    return mark, block


def intact(arrays):
    return all((array[:16] == mark).all() for mark, array in arrays)


def use(blocks):
    kept = [filled(blocks, 8 * MIB, mark) for mark in range(6)]
    del kept[:3]
    other = filled(blocks, 9 * MIB, 7)
    kept += [filled(blocks, 8 * MIB, 10 + mark) for mark in range(3)]
    assert intact([other, *kept])


def test_blocks_are_sound_after_an_interrupt_anywhere(handle, monkeypatch):
    monkeypatch.setattr(sys, 'unraisablehook', lambda _: None)  # in a finalizer, an interrupt goes no further

    def interrupt(*_):
        raise Interrupt

    def scenario(run):
        blocks = Blocks()
        with suppress(Interrupt):
            run(lambda: use(blocks))
        assert blocks.in_use <= 9 * MIB + MIB  # the one that was about to be handed out
        use(blocks)
        assert blocks.in_use <= 9 * MIB + MIB

    handle(interrupt)
    before_each_line([memory.__file__], scenario)


def test_a_signal_handler_may_use_the_blocks_that_are_being_used(handle):
    kept = []

    def use_them_here(*_):
        try:
            kept.append(filled(blocks, 8 * MIB, 20))
            filled(blocks, 3 * MIB, 21)
            filled(blocks, 40 * MIB, 22)
        except MemoryError:
            pass

    def scenario(run):
        nonlocal blocks
        blocks = Blocks()
        run(lambda: use(blocks))
        assert intact(kept)
        kept.clear()
        assert blocks.in_use == 0
        starts = [address(block) for _, block in [filled(blocks, 8 * MIB, mark) for mark in range(20)]]
        assert len(set(starts)) == 20

    def address(array):
        return array.ctypes.data

    blocks = None
    handle(use_them_here)
    before_each_line([memory.__file__], scenario)
