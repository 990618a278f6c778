"""A signal before every single line of what a consumer runs: one that raises, and handlers that do something there.

And an interrupt before every single instruction, wherever this interpreter looks for signals.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import CancelledError
from contextlib import suppress
from dis import opname
from importlib import import_module
from itertools import islice
from time import monotonic, sleep

import pytest

from pipekit import Closed, pipeline, prefetch
from pipekit.batches import prefetch_thread as feed
from pipekit.memory import blocks as memory
from pipekit.memory.blocks import BlockPool
from pipekit.memory.locks import Lock
from pipekit.streams import metering
from pipekit.workers.pools import WorkerPools

delivery = import_module('pipekit.batches.delivery')

pytestmark = [
    pytest.mark.skipif(sys.platform == 'win32', reason='needs POSIX signals'),
    pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason='signals come there'),
    pytest.mark.timeout(120),
]

MIB = 1 << 20
SOON = 10.0  # seconds; far more than anything here takes
SIGNAL = int(signal.SIGUSR1)


SENDER = """if True:  # a process, because a thread would send only where this one lets go of the interpreter's lock
    import os, sys, time
    while True:
        os.kill(int(sys.argv[1]), int(sys.argv[2]))
        time.sleep(0.0002)
"""


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


class InterruptBefore:
    """Runs a function, and raises before the n-th instruction of it that is in some files."""

    def __init__(self, n, files):
        self._n = n
        self._files = files
        self.passed = 0

    def run(self, function):
        sys._getframe().f_trace_opcodes = True  # before the tracing begins: 3.12 looks at that only then
        sys.settrace(self._trace)
        try:
            # A generator has a note of its own of the error that is being handled: the interpreter does not
            # always tidy it up after an error from a trace function, and later errors would have that context.
            return next(function() for _ in 'x')
        finally:
            sys.settrace(None)

    def _trace(self, frame, event, argument):
        if frame.f_code.co_filename not in self._files:
            return None
        frame.f_trace_opcodes = True
        if event == 'opcode' and not self._ends_handling(frame):
            self.passed += 1
            if self.passed == self._n:
                raise Interrupt  # which ends the tracing
        return self._trace

    def _ends_handling(self, frame):
        # Here the interpreter can't be interrupted: its own state would keep the error that was handled.
        return frame.f_lineno is None or opname[frame.f_code.co_code[frame.f_lasti]] == 'POP_EXCEPT'


@pytest.fixture
def handle():
    before = signal.getsignal(SIGNAL)
    yield lambda handler: signal.signal(SIGNAL, handler)
    signal.signal(SIGNAL, before)


def before_each_line(files, scenario, fewest=50, kind=SignalBefore):
    """Run a scenario, which takes a function to run another one with, once for each line that it passes."""
    n = 1
    while True:
        before = kind(n, files)
        scenario(before.run)
        if before.passed < n:
            assert n > fewest  # else this looks at nothing
            return
        n += 1


def before_each_instruction(files, scenario, fewest=100):
    """Run a scenario, which takes a function to run another one with, once for each instruction that it passes."""
    before_each_line(files, scenario, fewest, InterruptBefore)


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
        blocks = BlockPool()
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
        blocks = BlockPool()
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


class Scenario:
    """Two epochs, from the opening on, in which a signal is handled somewhere."""

    def __init__(self, handle, buffer_size):
        self._handle = handle
        self.batches = pipeline(range(10**9), prefetch(5, buffer_size=buffer_size))
        self.epoch = None
        self.got = []
        self.loaded_at = None

    def __call__(self, run):
        signal.signal(SIGNAL, lambda *_: self._handle(self))
        with suppress(Interrupt, Closed):
            run(self._first_epoch)
        with self.batches:
            for batch in self.batches:
                self.got.append(batch)
        assert self.batches.state_dict()['delivered'] == self.got[-1] + 1

    def _first_epoch(self):
        self.epoch = iter(self.batches)
        for batch in self.epoch:
            self.got.append(batch)

    def interrupt(self):
        raise Interrupt

    def take(self):
        if self.epoch is not None:
            self.got.extend(islice(self.epoch, 1))

    def begin_another(self):
        self.got.append(next(iter(self.batches)))

    def close(self):
        self.batches.close()

    def close_and_open(self):
        self.batches.close()
        self.batches.__enter__()

    def load(self):
        self.batches.load_state_dict({**self.batches.state_dict(), 'cursor': 100, 'delivered': 100, 'in_epoch': None})
        self.loaded_at = len(self.got)


def threads():
    return [thread for thread in threading.enumerate() if thread.name == 'pipekit-prefetch']


@pytest.mark.parametrize('buffer_size', [1, 3])
@pytest.mark.parametrize('name', ['interrupt', 'take', 'begin_another', 'close', 'close_and_open', 'load'])
@pytest.mark.usefixtures('handle')
def test_whatever_a_signal_handler_does_in_an_epoch_each_batch_comes_once(name, buffer_size):
    def scenario(run):
        epochs = Scenario(getattr(Scenario, name), buffer_size)
        epochs(run)
        got, loaded_at = epochs.got, epochs.loaded_at
        if loaded_at is not None:
            first, got = got[:loaded_at], got[loaded_at:]
            got = [batch for batch in got if batch >= 100 or batch != len(first)]  # that one was on its way
            assert first == list(range(len(first)))
            assert got == list(range(100, 100 + len(got)))
        else:
            lost = name == 'interrupt'  # a batch, if the interrupt comes between the end of next() and the loop
            assert len(set(range(max(got) + 1)) - set(got)) <= lost
            assert sorted(set(got)) == sorted(got)
        for thread in threads():
            thread.join(SOON)
        assert not threads()

    before_each_line([feed.__file__, delivery.__file__, metering.__file__], scenario)


def test_a_finalizer_may_cancel_what_is_being_cancelled_or_waited_for(handle):
    def scenario(run):
        nonlocal pools
        pools = WorkerPools()
        with suppress(CancelledError):
            run(lambda: [pools.pause(0), pools.cancel(), pools.pause(SOON)])

    pools = None
    handle(lambda *_: pools.cancel())
    before_each_line([sys.modules[WorkerPools.__module__].__file__, threading.__file__], scenario, fewest=10)


def test_no_interrupt_leaves_a_lock_held():
    def section(way):
        for _ in lock.held():
            for _ in lock.held():
                assert lock.is_mine()
            if way == 'return':
                return
            if way == 'break':
                break
            if way == 'error':
                raise Interrupt

    def sections():
        for way in ['end', 'return', 'break']:
            section(way)
        with suppress(Interrupt):
            section('error')

    def scenario(run):
        error = None
        try:
            run(sections)
        except Interrupt as interrupt:
            error = interrupt  # its traceback keeps the frames
        assert not lock.is_mine(), error

    lock = Lock()
    before_each_instruction([__file__], scenario)


def test_blocks_are_sound_after_an_interrupt_before_any_instruction(monkeypatch):
    monkeypatch.setattr(sys, 'unraisablehook', lambda _: None)

    def scenario(run):
        blocks = BlockPool()
        with suppress(Interrupt):
            run(lambda: use(blocks))
        use(blocks)
        assert blocks.in_use <= 9 * MIB + MIB

    before_each_instruction([memory.__file__], scenario)


@pytest.mark.usefixtures('handle')
def test_after_an_interrupt_before_any_instruction_the_batches_go_on():
    def scenario(run):
        epochs = Scenario(None, 2)
        epochs(run)
        got = epochs.got
        assert len(set(range(max(got) + 1)) - set(got)) <= 1  # the one that was about to be handed out
        assert sorted(set(got)) == sorted(got)
        for thread in threads():
            thread.join(SOON)
        assert not threads()

    before_each_instruction([feed.__file__, delivery.__file__], scenario)


def test_a_storm_of_interrupts_does_not_keep_the_state_from_other_threads(handle):
    raised = asked = 0
    over = False
    files = [feed.__file__, delivery.__file__]

    def interrupt(_, frame):
        nonlocal raised
        if frame.f_code.co_filename in files and not over:
            raised += 1
            raise Interrupt

    def ask():
        nonlocal asked
        while not over:
            batches.state_dict()
            asked += 1
            sleep(0.0005)

    batches = pipeline(range(10**9), prefetch(10**6, buffer_size=1000))  # so that it seldom waits, outside of the locks
    handle(interrupt)
    other = threading.Thread(target=ask, daemon=True)
    with batches, subprocess.Popen([sys.executable, '-c', SENDER, str(os.getpid()), str(SIGNAL)]) as sender:
        other.start()
        end = monotonic() + SOON
        while raised < 500 and monotonic() < end:
            try:
                for _ in batches:
                    pass
            except Interrupt:
                pass
        over = True
        sender.kill()
        other.join(SOON)
    assert raised > 50
    assert not other.is_alive()
    assert asked > 10
