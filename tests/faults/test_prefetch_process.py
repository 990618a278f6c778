"""What a prefetch thread does to its process: at its exit, at a signal, at a fork. Each scenario is a process."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from textwrap import dedent

import pytest

SOON = 20.0  # seconds; far more than anything here takes
PATIENCE = 2.0  # what closing waits for a function that runs

PREAMBLE = """
import os, signal, sys, threading, time, warnings
from pipekit import Closed, apply, pipeline, prefetch

def threads():
    return [thread for thread in threading.enumerate() if thread.name == 'pipekit-prefetch']

def stuck(value, at=2):
    if value == at:
        print('stuck', flush=True)
        threading.Event().wait()
    return value

numbers = range(10**9)
"""

needs_fork = pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
needs_signals = pytest.mark.skipif(sys.platform == 'win32', reason='needs POSIX signals')


@contextmanager
def started(script):
    command = [sys.executable, '-W', 'error', '-c', PREAMBLE + dedent(script)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def finished(process):
    out, err = process.communicate(timeout=SOON)
    return process.returncode, out, err


def run(script):
    with started(script) as process:
        return finished(process)


def test_a_process_that_does_not_close_exits_in_silence():
    assert run("""
        batches = pipeline(numbers, prefetch(3))
        print(list(batches))
    """) == (0, '[0, 1, 2]\n', '')


def test_a_process_exits_from_inside_the_loop():
    assert run("""
        for batch in pipeline(numbers, prefetch(3)):
            sys.exit(7)
    """) == (7, '', '')


def test_an_exception_in_flight_is_all_that_is_printed():
    code, out, err = run("""
        for batch in pipeline(numbers, prefetch(3)):
            raise KeyError(batch)
    """)
    assert (code, out) == (1, '')
    assert err.startswith('Traceback')
    assert err.endswith('KeyError: 0\n')
    assert err.count('Traceback') == 1


def test_an_error_of_the_thread_ends_the_process_as_one_of_its_own():
    assert run("""
        def leaves(value):
            sys.exit(5)

        list(pipeline(numbers, apply(leaves), prefetch(3)))
    """) == (5, '', '')


def test_an_error_that_nobody_waits_for_is_not_printed():
    assert run("""
        def fails(value):
            raise SystemExit('never seen')

        with pipeline(numbers, apply(fails), prefetch(3)):
            for thread in threads():
                thread.join(10)
    """) == (0, '', '')


def test_an_exit_waits_for_the_function_that_runs():
    assert run("""
        running = threading.Event()

        def slow(value):
            running.set()
            time.sleep(0.2)
            print('returned', flush=True)
            return value

        batches = pipeline(numbers, apply(slow), prefetch(3))
        iter(batches)
        running.wait(10)
    """) == (0, 'returned\n', '')


def test_an_exit_does_not_wait_for_ever():
    begin = time.monotonic()
    assert run("""
        several = [pipeline(numbers, apply(stuck), prefetch(3)) for _ in range(3)]
        for batches in several:
            next(iter(batches))
    """)[::2] == (0, '')
    assert time.monotonic() - begin < PATIENCE + 3


def test_a_close_that_gave_up_is_not_repeated_by_the_exit():
    begin = time.monotonic()
    code, _, err = run("""
        batches = pipeline(numbers, apply(stuck), prefetch(3))
        next(iter(batches))
        batches.close()
    """)
    assert code == 1
    assert 'RuntimeWarning: closed while a function in' in err
    assert time.monotonic() - begin < 1.5 * PATIENCE + 1


def test_a_thread_that_consumes_at_the_exit_does_not_hold_it_up():
    code, _, err = run("""
        def consume():
            try:
                for batch in batches:
                    pass
            except Closed:
                pass

        batches = pipeline(numbers, prefetch(10**9, buffer_size=1))
        threading.Thread(target=consume, daemon=True).start()
    """)
    assert (code, err) == (0, '')


def test_forgotten_batches_leave_no_threads_and_no_files():
    assert run("""
        def files():
            return len(os.listdir('/dev/fd'))

        before = files()
        for _ in range(200):
            assert next(iter(pipeline(numbers, prefetch(3)))) == 0
        for thread in threads():
            thread.join(10)
        print(len(threads()), files() - before)
    """) == (0, '0 0\n', '')


def test_waiting_uses_no_time_of_the_processor():
    code, out, _ = run("""
        def idle(batches):
            begin = time.process_time()
            time.sleep(0.3)
            return time.process_time() - begin

        with pipeline(numbers, prefetch(3)) as full:
            empty = pipeline(numbers, apply(stuck), prefetch(3))
            epoch = iter(empty)
            next(epoch), next(epoch)
            threading.Thread(target=next, args=(epoch, None), daemon=True).start()
            time.sleep(0.1)
            print(idle(full), flush=True)
        os._exit(0)
    """)
    assert code == 0
    assert float(out.split()[-1]) < 0.03


@needs_signals
def test_ctrl_c_reaches_the_main_thread_at_once_while_it_waits():
    with started("""
        batches = pipeline(numbers, apply(stuck), prefetch(9))
        try:
            for batch in batches:
                pass
        except KeyboardInterrupt:
            print('interrupted', flush=True)
            os._exit(3)
    """) as process:
        assert process.stdout.readline() == 'stuck\n'
        time.sleep(0.05)  # so that it most likely waits by now; either way it must end
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert finished(process) == (3, 'interrupted\n', '')
        assert time.monotonic() - begin < 1


@needs_signals
def test_ctrl_c_prints_one_traceback():
    with started("""
        with pipeline(numbers, apply(stuck), prefetch(9)) as batches:
            warnings.simplefilter('ignore')
            for batch in batches:
                pass
    """) as process:
        assert process.stdout.readline() == 'stuck\n'
        process.send_signal(signal.SIGINT)
        code, _, err = finished(process)
        assert code == -signal.SIGINT
        assert err.count('Traceback') == 1
        assert err.endswith('KeyboardInterrupt\n')


@needs_signals
def test_after_ctrl_c_the_batches_go_on():
    with started("""
        let_through = threading.Event()

        def slow(value):
            if value == 2:
                print('waits', flush=True)
                let_through.wait(10)
            return value

        with pipeline(numbers, apply(slow), prefetch(9)) as batches:
            got = []
            try:
                for batch in batches:
                    got.append(batch)
            except KeyboardInterrupt:
                let_through.set()
                assert batches.state_dict()['in_epoch'] is None
            print(got, list(batches))
    """) as process:
        assert process.stdout.readline() == 'waits\n'
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert finished(process) == (0, '[0, 1] [2, 3, 4, 5, 6, 7, 8, 9, 10]\n', '')


@needs_signals
def test_after_ctrl_c_in_a_stall_the_batches_go_on():
    with started("""
        let_through = threading.Event()

        def slow(value):
            if value == 2:
                let_through.wait(10)
            return value

        warnings.simplefilter('always')
        warnings.showwarning = lambda *_: print('stalls', flush=True)
        with pipeline(range(5), apply(slow), prefetch(stall_after=0.1)) as batches:
            got = []
            try:
                for batch in batches:
                    got.append(batch)
            except KeyboardInterrupt:
                let_through.set()
            print(*got, *batches)
    """) as process:
        assert process.stdout.readline() == 'stalls\n'
        process.send_signal(signal.SIGINT)
        code, out, err = finished(process)
    assert (code, out.splitlines()[-1], err) == (0, '0 1 2 3 4', '')


@needs_signals
@pytest.mark.parametrize(
    ('stages', 'interval', 'fewest', 'lost_at_most'),
    [
        ('prefetch(50, buffer_size=1)', 0.00031, 100, 1.0),
        ('prefetch(50, buffer_size=3)', 0.00031, 100, 1.0),
        ('apply(slow), prefetch(20, stall_after=0.001)', 0.0011, 20, 0.1),  # between two looks for a stall
    ],
)
def test_a_storm_of_interrupts_neither_hangs_nor_doubles_a_batch(stages, interval, fewest, lost_at_most):
    code, out, err = run(f"""
        class Tick(Exception):
            pass

        def slow(value):
            time.sleep(0.002)
            return value

        warnings.simplefilter('ignore')  # of stalls
        ticks, armed = 0, False

        def tick(*_):
            global ticks, armed
            if armed:
                ticks, armed = ticks + 1, False
                raise Tick

        got = []
        batches = pipeline(numbers, {stages})
        iter(batches)  # not in the storm: an interrupt in Thread.start makes Python itself print
        signal.signal(signal.SIGALRM, tick)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, {interval})
        end = time.monotonic() + 2
        while time.monotonic() < end:
            try:
                armed = True
                for batch in batches:
                    got.append(batch)
                armed = False
            except Tick:
                pass
        signal.setitimer(signal.ITIMER_REAL, 0)
        got.extend(batches)
        batches.close()
        delivered = batches.state_dict()['delivered']
        lost = delivered - len(got)
        print(ticks > {fewest}, got == sorted(set(got)), lost <= {lost_at_most} * ticks, delivered == got[-1] + 1)
    """)
    # A batch is lost to the loop if the interrupt comes between the end of next() and its own first line.
    assert (code, err) == (0, '')
    assert out == 'True True True True\n'


@needs_signals
def test_a_storm_of_signals_that_look_and_close_breaks_nothing():
    assert run("""
        def handle(*_):
            batches.state_dict()
            batches.close()

        got = []
        batches = pipeline(numbers, prefetch(50, buffer_size=2))
        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0007)
        end = time.monotonic() + 2
        while time.monotonic() < end:
            try:
                with batches:
                    for batch in batches:
                        got.append(batch)
            except Closed:
                pass
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(len(got) > 100, got == list(range(len(got))), threads())
    """) == (0, 'True True []\n', '')


@needs_signals
def test_a_handler_may_take_batches_from_the_loop_that_it_interrupts():
    assert run("""
        def handle(*_):
            got.append(next(epoch))

        got = []
        batches = pipeline(numbers, prefetch(10**9, buffer_size=2))
        epoch = iter(batches)
        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0007)
        end = time.monotonic() + 1
        while time.monotonic() < end:
            got.append(next(epoch))
        signal.setitimer(signal.ITIMER_REAL, 0)
        batches.close()
        print(len(got) > 100, sorted(got) == list(range(len(got))))
    """) == (0, 'True True\n', '')


@needs_fork
def test_a_forked_child_gets_an_error_and_may_open_the_batches_again():
    assert run("""
        warnings.simplefilter('ignore')  # Python warns of forks with threads
        batches = pipeline(numbers, prefetch(3))
        epoch = iter(batches)
        first = next(epoch)
        child = os.fork()
        if not child:
            for touch in (lambda: next(epoch), lambda: iter(batches), batches.__enter__):
                try:
                    touch()
                except Closed as error:
                    assert 'parent' in str(error)
                else:
                    os._exit(1)
            batches.close()
            with batches:
                assert list(batches) == [1, 2, 3]
            assert not threads()
            sys.exit(0)
        _, status = os.waitpid(child, 0)
        print(status, first, list(epoch), list(batches))
        batches.close()
    """) == (0, '0 0 [1, 2] [3, 4, 5]\n', '')


@needs_fork
def test_a_child_forked_while_another_thread_waits_is_free():
    with started("""
        warnings.simplefilter('ignore')
        let_through = threading.Event()

        def slow(value):
            if value == 2:
                reached.set()
                let_through.wait(10)
            return value

        reached = threading.Event()
        batches = pipeline(numbers, apply(slow), prefetch(9))
        epoch = iter(batches)
        next(epoch), next(epoch)
        waiting = threading.Thread(target=next, args=(epoch,))
        waiting.start()
        reached.wait(10)
        time.sleep(0.05)
        child = os.fork()
        if not child:
            try:
                next(epoch)
            except Closed:
                state = batches.state_dict()
                let_through.set()
                batches.close()
                with batches:
                    assert next(iter(batches)) == 2
                sys.exit(0)
            sys.exit(1)
        _, status = os.waitpid(child, 0)
        let_through.set()
        waiting.join(10)
        print(status, next(epoch))
    """) as process:
        assert finished(process) == (0, '0 3\n', '')


@needs_fork
def test_a_child_forked_by_a_signal_handler_in_the_middle_of_a_wait_is_told_so():
    with started("""
        warnings.simplefilter('ignore')
        let_through = threading.Event()

        def slow(value):
            if value == 2:
                print('waits', flush=True)
                let_through.wait(10)
            return value

        def handle(*_):
            global child
            child = os.fork()
            let_through.set()

        child = None
        signal.signal(signal.SIGUSR1, handle)
        batches = pipeline(numbers, apply(slow), prefetch(5, stall_after=None))
        epoch = iter(batches)
        try:
            got = list(epoch)
        except Closed:
            os._exit(3)
        print(got, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """) as process:
        assert process.stdout.readline() == 'waits\n'
        time.sleep(0.05)  # so that it most likely waits by now; either way it must end
        process.send_signal(signal.SIGUSR1)
        assert finished(process) == (0, '[0, 1, 2, 3, 4] 3\n', '')


@needs_fork
def test_a_child_that_does_nothing_with_the_batches_exits_in_silence():
    assert run("""
        warnings.simplefilter('ignore')
        batches = pipeline(numbers, prefetch(3))
        next(iter(batches))
        child = os.fork()
        if child:
            print(os.waitpid(child, 0)[1], next(iter(batches)))
    """) == (0, '0 1\n', '')


@needs_signals
def test_a_killed_process_leaves_nothing():
    with started("""
        for batch in pipeline(numbers, apply(stuck), prefetch(3)):
            pass
    """) as process:
        assert process.stdout.readline() == 'stuck\n'
        process.kill()
        assert finished(process) == (-signal.SIGKILL, '', '')


def test_a_process_with_worker_threads_exits_in_silence():
    assert run("""
        from pipekit import threads
        for batch in pipeline(numbers, apply(float, workers=threads(3)), prefetch(3)):
            print(batch)
            sys.exit(5)
    """) == (5, '0.0\n', '')
