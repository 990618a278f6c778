"""What becomes of worker processes that die, raise, hang or are forgotten. Each scenario is a process of its own."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from textwrap import dedent

import pytest

import pipekit

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='looks into /proc')

SOON = 60.0  # seconds; far more than anything here takes
AT_ONCE = 2.0  # seconds after which an interrupt has ended everything
SLACK = 3.0  # for a machine that has other things to do

PREAMBLE = """
import gc, os, pickle, resource, signal, sys, threading, time, traceback, warnings
import numpy as np
from pipekit import *

warned = []
warnings.showwarning = lambda message, *_: warned.append(str(message))
numbers = range(10**9)

def once(name='once'):
    # Whether no process of this scenario has called it before.
    try:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, 'waited in vain'
        time.sleep(0.002)

def children():
    found = []
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{pid}/stat') as file:
                state, parent = file.read().rpartition(')')[2].split()[:2]
        except OSError:
            continue
        if int(parent) == os.getpid() and state != 'Z':
            found.append(int(pid))
    return found

def descriptors():
    found = {}
    for name in os.listdir('/proc/self/fd'):
        try:
            found[int(name)] = os.readlink(f'/proc/self/fd/{name}')
        except OSError:
            pass  # the one for the listing
    return found

def shared():
    with open('/proc/self/maps') as file:
        return [line for line in file if 'pipekit' in line or '/dev/shm' in line]

def left():
    # What there is more than at the beginning: threads, processes, descriptors, shared memory.
    try:
        until(lambda: threading.active_count() == 1, 5)
    except AssertionError:
        pass
    gc.collect()
    new = [f'{number} {name}' for number, name in descriptors().items() if number not in at_first]
    return [thread.name for thread in threading.enumerate()[1:]] + children() + new + shared()

def stuck(value, at=2):
    if value == at:
        os.write(1, b'stuck\\n')
        threading.Event().wait()
    return value

at_first = descriptors()
"""

ROOT = str(Path(pipekit.__file__).parents[1])
FLAGS = ['-W', 'error', '-W', 'always::RuntimeWarning', '-W', 'ignore:This process:DeprecationWarning']


@contextmanager
def started(folder, script, flags=FLAGS):
    path = os.pathsep.join(filter(None, [ROOT, os.environ.get('PYTHONPATH')]))
    process = subprocess.Popen(
        [sys.executable, *flags, '-c', PREAMBLE + dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=os.environ | {'PYTHONPATH': path},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        for pid in in_session(process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def finished(process):
    """The exit code, stdout and stderr, once nothing that it started is left."""
    out, err = process.communicate(timeout=SOON)
    # Who ends now has up to a second to end in; the pipes say the same, as the workers have them open.
    deadline = time.monotonic() + AT_ONCE + SLACK
    while in_session(process.pid):
        assert time.monotonic() < deadline, 'a process is left'
        time.sleep(0.01)
    assert not list(Path('/dev/shm').glob('*pipekit*'))
    return process.returncode, out, err


def in_session(session):
    found = []
    for path in Path('/proc').glob('[0-9]*/stat'):
        try:
            state, _, _, of = path.read_text().rpartition(')')[2].split()[:4]
        except OSError:
            continue
        if int(of) == session and state != 'Z':
            found.append(int(path.parent.name))
    return found


@pytest.fixture
def run(tmp_path):
    def run(script, flags=FLAGS):
        with started(tmp_path, script, flags) as process:
            return finished(process)

    return run


@pytest.fixture
def start(tmp_path):
    return lambda script, flags=FLAGS: started(tmp_path, script, flags)


# Killed


def test_a_killed_worker_changes_nothing_but_a_warning(run):
    assert run("""
        def double(value):
            if value == 50 and once():
                die()
            return value * 2

        with pipeline(range(200), apply(double, workers=processes(2)), prefetch()) as batches:
            print(list(batches) == [value * 2 for value in range(200)])
        print(warned, left())
    """) == (
        0,
        "True\n['a process of processes(2) was killed by SIGKILL during double of 50 (cursor 51); "
        "a new one repeats its work'] []\n",
        '',
    )


@pytest.mark.parametrize('shape', ['apply(load, workers=p)', 'apply(load, workers=p), combine_batches(3)'])
def test_all_workers_killed_at_once_again_and_again_change_nothing(run, shape):
    assert run(f"""
        def load(number):
            return np.full((60, 1000), number, np.float32), number

        p = processes(3)
        stages = {shape},
        expected = list(pipeline(range(60), *stages))
        with pipeline(range(60), *stages, prefetch()) as batches:
            got = []
            for batch in batches:
                got.append(batch)
                if len(got) in (1, 2, 5, 9, 15):
                    for pid in children():
                        os.kill(pid, signal.SIGKILL)
        print(len(got) == len(expected), all(
            np.array_equal(one, other) for ones, others in zip(got, expected) for one, other in zip(ones, others)
        ), len(warned))
        del got, batch
        print(left())
    """) == (0, 'True True 1\n[]\n', '')


def test_a_worker_killed_while_it_writes_a_shared_block_changes_nothing(run):
    assert run("""
        class Deadly:
            # What comes before it in a sample is in the block already when this is pickled.
            def __init__(self, value):
                self.value = value

            def __reduce__(self):
                if self.value in (3, 7) and once(f'block {self.value}'):
                    die()
                return Deadly, (self.value,)

        def load(number):
            return np.full(1_000_000, number), Deadly(number)

        with pipeline(range(12), apply(load, workers=processes(2)), prefetch()) as batches:
            got = [(int(array.sum()), value.value) for array, value in batches]
        print(got == [(n * 1_000_000, n) for n in range(12)])
        print(left(), os.path.exists('block 3'), os.path.exists('block 7'))
    """) == (0, 'True\n[] True True\n', '')


def test_a_worker_killed_in_the_middle_of_a_batch_changes_nothing(run):
    assert run("""
        def load(number):
            return np.full(100_000, number)

        def combine(samples):
            batch = combine_to_arrays(samples)  # into a shared block
            if samples[0][0] == 8 and once():
                die()
            return batch

        stages = apply(load, workers=processes(2)), combine_batches(4, combine)
        with pipeline(range(30), *stages, prefetch()) as batches:
            print([batch[:, 0].tolist() for batch in batches] == [list(range(30))[at:at + 4] for at in range(0, 30, 4)])
        print(warned, left())
    """) == (
        0,
        "True\n['a process of processes(2) was killed by SIGKILL during combine of the batch up to the cursor 12; "
        "a new one repeats its work'] []\n",
        '',
    )


WRAPPED = """
def python(text):
    with open('python', 'w') as file:
        file.write(text + f'\\nexec {sys.executable} "$@"\\n')
    os.chmod('python', 0o755)
    sys.executable = os.path.abspath('python')
"""


def test_workers_killed_as_they_start_change_nothing(run):
    script = """
        python('#!/bin/sh\\nfor n in 1 2 3 4 5 6 7 8 9; do mkdir start$n 2>/dev/null && kill -9 $$; done')
        with pipeline(range(100), apply(float, workers=processes(2)), prefetch()) as batches:
            print(list(batches) == list(range(100)))
        print(warned, left())
    """
    warning = 'a process of processes(2) was killed by SIGKILL; a new one repeats its work'
    assert run(WRAPPED + dedent(script)) == (0, f'True\n[{warning!r}] []\n', '')


def test_workers_that_never_start_are_an_error(run):
    script = """
        python('#!/bin/sh\\nexit 3')
        batches = pipeline(range(100), apply(float, workers=processes(4)), prefetch())
        try:
            list(batches)
        except WorkerCrashed as error:
            print(error, error.exit_code)
        batches.close()
        print(left())
    """
    text = 'a process of processes(4) exited with code 3 while starting, for the 40th time in a row'
    assert run(WRAPPED + dedent(script)) == (0, f'{text} 3\n[]\n', '')


@pytest.mark.parametrize(
    ('leave', 'how'),
    [
        ('os._exit(7)', 'exited with code 7'),
        ('os.abort()', 'was killed by SIGABRT'),
        ('os.closerange(3, 100)', 'exited with code'),
    ],
)
def test_a_worker_that_leaves_is_replaced(run, leave, how):
    code, out, err = run(f"""
        def load(value):
            if value == 30 and once():
                {leave}
            return value

        with pipeline(range(100), apply(load, workers=processes(2)), prefetch()) as batches:
            print(list(batches) == list(range(100)), len(warned))
        print(left(), warned)
    """)
    assert (code, out.splitlines()[0], out.splitlines()[1][:2]) == (0, 'True 1', '[]')
    assert how in out or leave.startswith('os.closerange')
    assert err == '' or leave == 'os.abort()'


def test_a_killed_worker_takes_along_what_it_has_started(run):
    assert run("""
        import subprocess

        def load(value):
            if value == 3 and once():
                with open('started', 'w') as file:
                    print(subprocess.Popen(['sleep', '100']).pid, file=file)
                die()
            return value

        with pipeline(range(9), apply(load, workers=processes(1)), prefetch()) as batches:
            print(list(batches) == list(range(9)))
        with open('started') as file:
            print(os.path.exists(f'/proc/{int(file.read())}') and 'orphan', left())
    """)[1].startswith('True\n')


# Killed by a sample


@pytest.mark.parametrize('shared_memory', [True, False])
@pytest.mark.parametrize('ahead', ['', ', ahead=4'])
def test_a_sample_that_kills_its_workers_is_found_in_its_group(run, shared_memory, ahead):
    code, out, err = run(f"""
        if not {shared_memory}:
            del os.posix_fallocate  # an old system
            def none(name):
                raise OSError('no memory files')
            os.memfd_create = none
        def load(value):
            if value == 300:
                die()
            return value

        got = []
        batches = pipeline(numbers, apply(load, workers=processes(2{ahead})), prefetch())
        try:
            for batch in batches:
                got.append(batch)
        except WorkerCrashed as error:
            print(error)
            print(error.exit_code)
        batches.close()
        print(got == list(range(300)), left())
    """)
    assert code == 0
    assert err == ''
    message, exit_code, rest = out.splitlines()
    assert message == (
        f'a process of processes(2{ahead}) was killed by SIGKILL during load of 300 (cursor 301), '
        'for the 3rd time in a row'
    )
    assert (exit_code, rest) == ('-9', 'True []')


@pytest.mark.parametrize('guilty', ['load', 'combine'])
def test_a_sample_that_kills_its_workers_is_found_in_its_batch(run, guilty):
    code, out, err = run(f"""
        def load(value):
            if value == 30 and {guilty == 'load'}:
                die()
            return value

        def combine(samples):
            if samples[0] == 28 and {guilty == 'combine'}:
                os._exit(5)
            return samples

        got = []
        stages = apply(load, workers=processes(2)), combine_batches(4, combine)
        batches = pipeline(range(100), *stages, prefetch())
        try:
            for batch in batches:
                got += batch
        except WorkerCrashed as error:
            print(error)
        batches.close()
        print(got == list(range(28)), left())
    """)
    message, rest = out.splitlines()
    assert (code, rest, err) == (0, 'True []', '')
    assert (
        message
        == 'a process of processes(2) '
        + {
            'load': 'was killed by SIGKILL during load of 30 (cursor 31), for the 3rd time in a row',
            'combine': 'exited with code 5 during combine of the batch up to the cursor 32, for the 3rd time in a row',
        }[guilty]
    )


def test_after_a_crash_the_next_epoch_goes_on_from_where_it_was(run):
    assert run("""
        def load(value):
            if value == 30 and not os.path.exists('enough'):
                die()
            return value

        batches = pipeline(range(60), apply(load, workers=processes(2)), prefetch(60))
        got = []
        try:
            for batch in batches:
                got.append(batch)
        except WorkerCrashed:
            once('enough')
        got += batches
        batches.close()
        print(got == list(range(60)), left())
    """) == (0, 'True []\n', '')


@pytest.mark.parametrize('way', ['there', 'back'])
def test_a_value_that_kills_as_it_is_sent_is_found(run, way):
    code, out, err = run(f"""
        class Deadly:
            def __reduce__(self):
                if {way == 'back'}:
                    die()
                return die, ()

        def values():
            for value in range(100):
                yield Deadly() if value == 60 and {way == 'there'} else value

        def load(value):
            return Deadly() if value == 60 else value

        got = []
        batches = pipeline(values, apply(load, workers=processes(2)), prefetch())
        try:
            for batch in batches:
                got.append(batch)
        except WorkerCrashed as error:
            print(error)
        batches.close()
        print(got == list(range(60)), left())
    """)
    message, rest = out.splitlines()
    assert (code, rest, err) == (0, 'True []', '')
    value = '<Deadly>' if way == 'there' else '60'
    assert f'was killed by SIGKILL during load of {value} (cursor 61), for the 3rd time in a row' in message


# Errors


ERRORS = {
    "OSError(2, 'No such file', 'a.png')": "FileNotFoundError ('a.png', 2)",
    "UnicodeDecodeError('utf-8', b'ab', 0, 1, 'why')": "UnicodeDecodeError (b'ab', 'why')",
    'Unusual(1, b=2)': 'Unusual (1, 2)',
    "ExceptionGroup('two', [KeyError(1), OSError(3, 'x')])": 'ExceptionGroup (KeyError(1), 3)',
    'KeyboardInterrupt()': 'KeyboardInterrupt ()',
    'SystemExit(4)': 'SystemExit (4,)',
    'StopIteration(4)': 'RuntimeError StopIteration(4)',
    'Unpicklable()': "RemoteError ('Unpicklable', ['1'])",
    'caused()': 'ValueError (KeyError(7),)',
}


@pytest.mark.parametrize('error', ERRORS)
def test_an_error_arrives_as_it_is_after_what_comes_before_it(run, error):
    code, out, err = run(f"""
        class Unusual(Exception):
            def __init__(self, a, *, b):
                super().__init__(f'{{a}} and {{b}}')
                self.a, self.b = a, b

        class Unpicklable(Exception):
            def __init__(self):
                super().__init__(1)
                self.lock = threading.Lock()

        def caused():
            try:
                raise KeyError(7)
            except KeyError as error:
                try:
                    raise ValueError(8) from error
                except ValueError as other:
                    return other

        def what(error):
            match error:
                case RuntimeError():
                    return repr(error.__cause__)
                case OSError():
                    return error.filename, error.errno
                case UnicodeError():
                    return error.object, error.reason
                case Unusual():
                    return error.a, error.b
                case ExceptionGroup():
                    return error.exceptions[0], error.exceptions[1].errno
                case RemoteError():
                    return error.type_name, error.arguments
                case ValueError():
                    return (error.__cause__,)
            return error.args

        def load(value):
            if value == 40:
                raise {error}
            return value

        got = []
        batches = pipeline(numbers, apply(load, workers=processes(2)), prefetch())
        try:
            for batch in batches:
                got.append(batch)
        except BaseException as error:
            text = ''.join(traceback.format_exception(error))
            print(type(error).__name__, what(error), got == list(range(40)), 'in load' in text)
            error = None
        batches.close()
        print(left())
    """)
    assert (code, out, err) == (0, f'{ERRORS[error]} True True\n[]\n', '')


def test_what_cannot_be_sent_is_named(run):
    assert run("""
        def first(value):
            return {'image': value, 'lines': (line for line in 'ab') if value == 30 else 1}

        def values():
            yield from range(30)
            yield threading.Lock()

        lock = threading.Lock()
        for source, function in [(numbers, first), (values, float), (numbers, lambda value: lock)]:
            got = []
            batches = pipeline(source, apply(function, workers=processes(2)), prefetch())
            try:
                for batch in batches:
                    got.append(batch)
            except TypeError as error:
                print(len(got), str(error).partition(': cannot')[0])
            batches.close()
        print(left())
    """) == (
        0,
        "30 cannot send the result of first of 30 (cursor 31) back: sample['lines'] is <generator>, "
        'which cannot be pickled\n'
        '30 cannot send the input of float of <lock> (cursor 31) to processes(2): sample is <lock>, '
        'which cannot be pickled\n'
        '0 cannot send <lambda> to processes(2), because it cannot be pickled\n[]\n',
        '',
    )


@pytest.mark.parametrize('way', ['there', 'back'])
def test_what_cannot_be_made_again_at_the_other_end_comes_after_what_is_before_it(run, way):
    assert run(f"""
        def refuse():
            raise ImportError('not here')

        class Refused:
            def __reduce__(self):
                return refuse, ()

        def values():
            for value in range(100):
                yield Refused() if value == 60 and {way == 'there'} else value

        def load(value):
            return Refused() if value == 60 else value

        got = []
        batches = pipeline(values, apply(load, workers=processes(2)), prefetch())
        try:
            for batch in batches:
                got.append(batch)
        except ImportError as error:
            print(error, got == list(range(60)))
        batches.close()
        print(left())
    """) == (0, 'not here True\n[]\n', '')


# Ended in the middle


def test_closing_does_not_wait_for_a_function_that_hangs(run):
    begin = time.monotonic()
    assert run(f"""
        batches = pipeline(numbers, apply(stuck, workers=processes(2)), prefetch())
        epoch = iter(batches)
        print(next(epoch), next(epoch))
        begin = time.monotonic()
        batches.close()
        print(time.monotonic() - begin < {AT_ONCE + SLACK}, left())
    """) in [(0, f'{lines}True []\n', '') for lines in ('stuck\n0 1\n', '0 1\nstuck\n')]
    assert time.monotonic() - begin < SOON / 2


def test_a_function_may_finish_what_it_does_when_the_batches_are_closed(start):
    with start("""
        def load(value):
            if value == 2:
                print('begun', flush=True)
                time.sleep(0.3)
                print('done')
            return value

        batches = pipeline(numbers, apply(load, workers=processes(1)), prefetch())
        iter(batches)
        until(lambda: os.path.exists('go'))
        batches.close()
        print(left())
    """) as process:
        assert process.stdout.readline() == 'begun\n'
        Path(f'/proc/{process.pid}/cwd/go').touch()
        assert finished(process) == (0, 'done\n[]\n', '')


@pytest.mark.parametrize(
    ('function', 'how', 'expected'),
    [
        ('stuck', 'pass', 0),
        ('stuck', 'sys.exit(7)', 7),
        ('busy', 'os._exit(7)', 7),
        ('stuck', 'die()', -9),
        ('busy', 'die()', -9),
        ('float', 'batches = epoch = None; print(left())', 0),
        ('busy', 'epoch = None; batches.close(); print(left())', 0),
        ('stuck', 'raise KeyError(1)', 1),
    ],
)
def test_however_it_is_left_nothing_is_left(start, how, expected, function):
    with start(f"""
        def busy(value):
            while value > 2:
                pass
            return value

        batches = pipeline(numbers, apply({function}, workers=processes(2)), prefetch())
        epoch = iter(batches)
        assert next(epoch) == 0
        for _ in epoch:
            break
        os.write(1, b'ready\\n')
        {how}
    """) as process:
        begin = time.monotonic()
        code, out, err = finished(process)
        assert code == expected
        assert err == '' or 'KeyError: 1' in err
        assert err.count('Traceback') == (expected == 1)
        assert set(out.splitlines()) <= {'ready', 'stuck', '[]'}
        assert time.monotonic() - begin < SOON / 2


@pytest.mark.parametrize('to', ['the main process', 'its group'])
@pytest.mark.parametrize('function', ['stuck', 'slow'])
def test_an_interrupt_ends_everything_without_noise(start, to, function):
    with start(f"""
        def slow(value):
            if value == 2:
                print('stuck', flush=True)
            time.sleep(0.05)
            return value

        for batch in pipeline(numbers, apply({function}, workers=processes(2)), prefetch()):
            pass
    """) as process:
        assert process.stdout.readline() == 'stuck\n'
        begin = time.monotonic()
        if to == 'its group':
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.send_signal(signal.SIGINT)
        code, _, err = finished(process)
        assert time.monotonic() - begin < AT_ONCE + SLACK
        assert code == -signal.SIGINT
        assert err.count('Traceback') == 1
        assert err.endswith('KeyboardInterrupt\n')


@pytest.mark.parametrize('delay', [0.0, 0.2])
@pytest.mark.parametrize('sent', [signal.SIGINT, signal.SIGKILL])
def test_an_interrupt_as_it_starts_ends_everything_without_noise(start, delay, sent):
    with start(f"""
        batches = pipeline(numbers, apply(float, workers=processes(4)), prefetch(10**9))
        with batches:
            print('starts', flush=True)
            threading.Timer({delay}, os.kill, [os.getpid(), {int(sent)}]).start()
            for batch in batches:
                pass
    """) as process:
        assert process.stdout.readline() == 'starts\n'
        code, _, err = finished(process)
        assert code == -sent
        assert err.count('Traceback') == (sent == signal.SIGINT)


def test_a_forgotten_worker_that_hangs_ends_with_the_process_at_the_latest(start):
    with start("""
        batches = pipeline(numbers, apply(stuck, workers=processes(2)), prefetch())
        iter(batches)
        until(lambda: os.path.exists('go'))
        del batches
    """) as process:
        assert process.stdout.readline() == 'stuck\n'
        Path(f'/proc/{process.pid}/cwd/go').touch()
        assert finished(process) == (0, '', '')


# Memory


def test_without_shared_memory_the_values_are_the_same_with_a_warning(run):
    assert run("""
        def none(name):
            raise OSError(24, 'no memory files')

        os.memfd_create = none
        data = np.arange(300_000)
        stage = apply(lambda array: array[::2] + data[0], workers=processes(2))
        with pipeline([data] * 9, stage, prefetch()) as batches:
            print([np.array_equal(batch, data[::2]) for batch in batches] == [True] * 9)
        print(warned, left())
    """) == (
        0,
        "True\n['large arrays go through a pipe to and from processes(2), which is several times slower: "
        "[Errno 24] no memory files'] []\n",
        '',
    )


@pytest.mark.parametrize(
    ('limit', 'figures'),
    [
        ('resource.setrlimit(resource.RLIMIT_FSIZE, (5 << 20, 5 << 20))', 'bytes of shared memory are left'),
        (
            'os.posix_fallocate = lambda *_: (_ for _ in ()).throw(OSError(28, "No space"))',
            'bytes of shared memory: [Errno 28] No space',
        ),
    ],
)
def test_too_little_shared_memory_changes_nothing_but_a_warning(run, limit, figures):
    code, out, err = run(f"""
        {limit}
        def load(array):
            return array + 1, 'x' * 5_000_000

        kept = []
        with pipeline([np.arange(524_288)] * 8, apply(load, workers=processes(2, ahead=4)), prefetch()) as batches:
            kept.extend(batches)
        print(all(np.array_equal(array, np.arange(524_288) + 1) for array, _ in kept), len(warned))
        print(warned[0])
        kept.clear()
        print(left())
    """)
    lines = out.splitlines()
    assert (code, lines[0], lines[2:], err) == (0, 'True 1', ['[]'], '')
    assert lines[1].startswith('large arrays go through a pipe to and from processes(2, ahead=4)')
    assert lines[1].endswith(figures)


def test_a_warning_that_is_an_error_is_one_and_hangs_nothing(run):
    assert run(
        """
        def load(value):
            if value == 30 and once():
                die()
            return value

        workers = processes(2)
        batches = pipeline(numbers, apply(load, workers=workers), shuffle(1), apply(abs, workers=workers), prefetch())
        try:
            for batch in batches:
                pass
        except RuntimeWarning as warning:
            print(warning)
            warning = None
        batches.close()
        print(left())
        """,
        ['-W', 'error'],
    ) == (
        0,
        'a process of processes(2) was killed by SIGKILL during load of 30 (cursor 31); '
        'a new one repeats its work\n[]\n',
        '',
    )


def test_kept_batches_stay_valid_and_take_no_descriptors(run):
    assert run("""
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        kept = []
        batches = pipeline(numbers, apply(lambda n: np.full(20_000, n), workers=processes(2)), prefetch(300))
        with batches:
            kept.extend(batches)
            print(len(descriptors()) - len(at_first) < 20)
        print(all((batch == number).all() for number, batch in enumerate(kept)), kept[7].flags.writeable)
        gc.collect()
        print(len(descriptors()) - len(at_first) <= 2, children())
        kept.clear()
        del batches
        print(left())
    """) == (0, 'True\nTrue True\nTrue []\n[]\n', '')


def test_too_few_descriptors_are_an_error_that_leaves_nothing(run):
    assert run("""
        resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))
        batches = pipeline(numbers, apply(abs, workers=processes(16)), prefetch(300))
        try:
            list(batches)
        except OSError as error:
            print(error.errno)
            error = None
        batches.close()
        print(left())
    """) == (0, '24\n[]\n', '')


def test_what_is_big_in_both_directions_at_once_does_not_block(run):
    assert run("""
        def swap(pair):
            text, array = pair
            return text[::-1], array * 2, list(range(100_000))

        values = [('ab' * 2_500_000, np.ones(1 << 20)) for _ in range(8)]
        with pipeline(values, apply(swap, workers=processes(2, ahead=8)), prefetch(buffer_size=1)) as batches:
            print(all(text == 'ba' * 2_500_000 and (array == 2).all() for text, array, _ in batches))
        print(left())
    """) == (0, 'True\n[]\n', '')


# What functions do


def test_what_a_function_prints_is_printed(run):
    code, out, err = run("""
        def load(value):
            print('value', value)
            print('error', value, file=sys.stderr)
            return value

        with pipeline(range(5), apply(load, workers=processes(1)), prefetch(5)) as batches:
            list(batches)
        print(left())
    """)
    assert code == 0
    assert sorted(out.splitlines()) == ['[]', *(f'value {value}' for value in range(5))]
    assert sorted(err.splitlines()) == [f'error {value}' for value in range(5)]


@pytest.mark.parametrize('then', ['batches.close(); print(left())', 'die()'])
def test_threads_that_a_function_starts_hold_nothing_up(start, then):
    with start(f"""
        def load(value):
            threading.Thread(target=threading.Event().wait).start()
            return value

        batches = pipeline(numbers, apply(load, workers=processes(2, ahead=2)), prefetch())
        next(iter(batches))
        {then}
    """) as process:
        code, out, err = finished(process)
    assert (code, out, err) in [(0, '[]\n', ''), (-signal.SIGKILL, '', '')]


@pytest.mark.parametrize('killed', [False, True])
def test_a_function_may_fork(run, killed):
    assert run(
        f"""
        import multiprocessing

        def part(value):
            return combine_to_arrays([np.full(50_000, value)] * 2)

        def load(value):
            fork = multiprocessing.get_context('fork')
            queue = fork.SimpleQueue()
            child = fork.Process(target=lambda: queue.put(part(value)))
            child.start()
            mine = part(value + 1)  # in a block of this process, which the other must not take
            sums = [int(array.sum()) // 100_000 for array in (queue.get(), mine)]
            if value == 2 and {killed} and once():
                die()
            child.join()
            return sums

        with pipeline(range(6), apply(load, workers=processes(2)), prefetch()) as batches:
            print(list(batches) == [[value, value + 1] for value in range(6)], len(warned))
        print(left())
    """,
        [*FLAGS[:4], '-W', 'ignore::DeprecationWarning'],
    ) == (0, f'True {int(killed)}\n[]\n', '')


# Several


def test_two_pipelines_with_processes_at_once(run):
    assert run("""
        stage = apply(lambda value: np.full(50_000, value), workers=processes(2))
        with pipeline(range(40), stage, prefetch()) as first, pipeline(range(40), stage, prefetch()) as second:
            pairs = zip(first, second, strict=True)
            print(all((one == number).all() and (one == other).all() for number, (one, other) in enumerate(pairs)))
            print(len(children()))
        del pairs
        print(left())
    """) == (0, 'True\n4\n[]\n', '')


@pytest.mark.parametrize(('name', 'count'), [('', 2), (", name='other'", 4)])
def test_two_stages_of_processes_with_kills(run, name, count):
    assert run(f"""
        stages = (
            apply(lambda value: value + 1, workers=processes(2)),
            shuffle(5, seed=0),
            apply(lambda value: value * 2, workers=processes(2{name})),
        )
        expected = list(pipeline(range(500), *stages))
        seen = set()
        with pipeline(range(500), *stages, prefetch()) as batches:
            got = []
            for batch in batches:
                if not len(got) % 100:
                    seen.add(len(children()))
                    for pid in children()[:1]:
                        os.kill(pid, signal.SIGKILL)
                got.append(batch)
        print(got == expected, max(seen))
        print(left())
    """) == (0, f'True {count}\n[]\n', '')


def test_an_error_between_two_stages_comes_after_what_is_before_it(run):
    script = """
        def values():
            for value in range(100):
                if value == 50:
                    for pid in children():
                        os.kill(pid, signal.SIGKILL)
                    sys.executable = '/nowhere/python'
                yield value

        workers = processes(2)
        batches = pipeline(values, apply(float, workers=workers), shuffle(1), apply(abs, workers=workers), prefetch())
        got = []
        try:
            for batch in batches:
                got.append(batch)
        except FileNotFoundError as error:
            print(got == list(range(len(got))), error.filename)
            error = None
        batches.close()
        print(left())
    """
    assert run(script) == (0, 'True /nowhere/python\n[]\n', '')


def test_consumers_in_threads_share_the_batches(run):
    assert run("""
        def consume():
            with pipeline(range(50), apply(lambda value: value * 3, workers=processes(1)), prefetch()) as batches:
                results.append(list(batches))

        results = []
        threads_ = [threading.Thread(target=consume) for _ in range(4)]
        for thread in threads_:
            thread.start()
        for thread in threads_:
            thread.join()
        print(results == [[value * 3 for value in range(50)]] * 4, left())
    """) == (0, 'True []\n', '')


def test_a_fork_of_the_main_process_neither_disturbs_nor_keeps_anything(start):
    with start("""
        batches = pipeline(numbers, apply(float, workers=processes(2)), prefetch(5))
        epoch = iter(batches)
        next(epoch)
        child = os.fork()
        if not child:
            try:
                next(epoch)
            except Closed:
                batches.close()
                sys.exit(0)
            os._exit(1)
        print(os.waitpid(child, 0)[1], list(epoch), list(batches), flush=True)
        os.setpgid(0, 0) if os.getpid() != os.getpgid(0) else None
        if not os.fork():
            os.setsid()  # a daemon, which lives on
            os.close(1), os.close(2)
            until(lambda: os.path.exists('go'))
            os._exit(0)
        die()
    """) as process:
        cwd = os.readlink(f'/proc/{process.pid}/cwd')
        assert finished(process) == (-signal.SIGKILL, '0 [1.0, 2.0, 3.0, 4.0] [5.0, 6.0, 7.0, 8.0, 9.0]\n', '')
        Path(cwd, 'go').touch()


def test_a_storm_of_signals_that_close_does_not_block(run):
    assert run("""
        def handle(*_):
            batches.close()

        got = []
        batches = pipeline(numbers, apply(float, workers=processes(1)), prefetch(50, buffer_size=2))
        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.2, 0.23)
        end = time.monotonic() + 2
        while time.monotonic() < end:
            try:
                with batches:
                    for batch in batches:
                        got.append(batch)
            except Closed:
                pass
        signal.setitimer(signal.ITIMER_REAL, 0)
        batches.close()
        print(got == list(range(len(got))), left())
    """) == (0, 'True []\n', '')


def test_a_module_in_the_current_directory_is_not_taken_for_one_of_pythons(run):
    assert run("""
        for name in ('pickle', 'socket', 'numpy'):
            with open(f'{name}.py', 'w') as file:
                print('raise ImportError', file=file)
        sys.path.remove('')
        with pipeline(range(3), apply(float, workers=processes(1)), prefetch()) as batches:
            print(list(batches))
        print(left())
    """) == (0, '[0.0, 1.0, 2.0]\n[]\n', '')
