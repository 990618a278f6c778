"""processes(n): what can be sent to them and back, and where their functions run."""

import ctypes
import functools
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from pipekit import RemoteError, apply, pipeline, prefetch, processes, repeat, shuffle, threads
from pipekit.describing.descriptions import same
from pipekit.describing.display import code
from pipekit.streams.context import Context, Run
from pipekit.streams.cursors import START
from pipekit.workers.pools import WorkerPools
from pipekit.workers.remote_errors import REMEDIES

TIMEOUT_SECONDS = 100
TWO = processes(2, ahead=8)
MIB = 1 << 20
PROGRAMS = Path(__file__).parent / 'programs'

needs_proc = pytest.mark.skipif(not os.path.isdir('/proc/self'), reason='needs /proc')


@pytest.fixture(scope='module')
def pools():
    pools = WorkerPools()
    yield pools
    pools.cancel()
    pools.close()


def opened(stream, pools, cursor=START):
    return stream.open(cursor, Context(run=Run(pools)))


def through(pools, function, values, workers=TWO):
    return [value for value, _ in opened(pipeline(values, apply(function, workers=workers)), pools)]


def run(*arguments, text=None):
    """What a program prints that raises no error, and no warning."""
    done = subprocess.run(
        [sys.executable, '-W', 'error', *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, '')
    return done.stdout


class Point(NamedTuple):
    x: float
    y: float


@dataclass
class Image:
    pixels: np.ndarray
    name: str = ''


class Scale:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, value):
        return value * self.factor

    def divide(self, value):
        return value / self.factor


def shifted(shift):
    return lambda value: value + shift


def scaled(factor, value, offset=0):
    return value * factor + offset


ARRAY = np.arange(99_999)
VALUES = {
    'nothing': None,
    'text': 'a',
    'a dict': {'a': np.zeros(3), 5: [1, {2}]},
    'a named tuple': Point(1.5, np.ones(2)),
    'a dataclass': Image(np.zeros((200, 300)), 'a'),
    'a class': Scale,
    'an error': ValueError('a', 1),
    'a numpy scalar': np.float32(3),
    'a large number': 1 << 100,
    'one array twice': (ARRAY, ARRAY, ARRAY[3:]),
}


@pytest.mark.parametrize('name', VALUES)
def test_a_value_is_returned_unchanged(name, pools):
    value = VALUES[name]
    (got,) = through(pools, lambda value: value, [value])
    assert same(got, value) or (type(got), str(got)) == (type(value), str(value))


SHIFT = 5
FUNCTIONS = {
    'a builtin': abs,
    'a lambda': lambda x: x + 1,
    'a closure': shifted(3),
    'a function with a global': lambda x: x + SHIFT,
    'a partial': functools.partial(scaled, 3, offset=1),
    'an object': Scale(3),
    'a bound method': Scale(3).divide,
    'a class': Scale,
    'a cached function': functools.lru_cache(lambda x: x + 1),
    'a numpy function': np.sqrt,
    'a method of a type': float.hex,
}


@pytest.mark.parametrize('name', FUNCTIONS)
def test_any_function_runs_in_processes(name, pools):
    function, values = FUNCTIONS[name], [1.0, 2.0, 3.0]
    got, expected = through(pools, function, values), list(map(function, values))
    assert [vars(value) if isinstance(value, Scale) else value for value in got] == [
        vars(value) if isinstance(value, Scale) else value for value in expected
    ]


TRAVEL = PROGRAMS / 'travel.py'
OUTPUT = "[10, 11, 12, 13] 4\n[('Point', [10, 11]), ('Point', [12, 13])]\n"


def test_a_script_needs_no_main_guard_and_its_classes_can_be_sent():
    assert run(TRAVEL) == OUTPUT


def test_a_script_may_come_from_an_argument_or_from_standard_input():
    code = TRAVEL.read_text(encoding='utf-8')
    assert run('-c', code) == OUTPUT
    assert run('-', text=code) == OUTPUT


@pytest.mark.parametrize('closed', ['0', '1', '2', '01', '02', '12', '012'])
def test_standard_streams_may_be_closed(closed, tmp_path):
    program, result = PROGRAMS / 'closed_streams.py', tmp_path / 'result'
    closing = ' '.join(f'{stream}{"<" if stream == "0" else ">"}&-' for stream in closed)
    done = subprocess.run(
        ['sh', '-c', f'exec "$0" "$@" {closing}', sys.executable, program, result, *closed],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr.strip(b'x')) == (0, b'')
    assert result.read_text() == '[0, 1] [2, 3] [4, 5]' + ' same' * len(closed) + '\n'


def test_a_class_that_is_sent_keeps_its_state_here():
    assert run(PROGRAMS / 'class_that_changes.py') == 'Image(name=19) 20 True\n'


def test_functions_and_classes_of_a_notebook_can_be_sent(capsys):
    exec(TRAVEL.read_text(encoding='utf-8'), {'__name__': 'a_notebook'})
    assert capsys.readouterr().out == OUTPUT


class Counting:
    """A function that counts how often it is pickled, and says how often it was made again in its process."""

    pickled = 0
    made = 0

    def __getstate__(self):
        Counting.pickled += 1
        return {'anything': 1}

    def __setstate__(self, state):
        Counting.made += 1

    def __call__(self, value):
        return os.getpid(), Counting.made


def test_a_function_is_sent_once_to_each_process(pools):
    Counting.pickled = 0
    counting = pipeline(range(60), apply(Counting(), workers=TWO), repeat(3))
    made = dict(value for value, _ in opened(counting, pools))
    assert Counting.pickled == 1
    assert len(made) == 2
    assert os.getpid() not in made
    assert set(made.values()) == {1}


def test_arrays_that_a_function_closes_over_are_read_only(pools):
    array = np.arange(MIB)

    def changed(number):
        try:
            array[0] = number
        except ValueError as error:
            return str(error)

    assert through(pools, changed, [1]) == ['assignment destination is read-only']
    assert through(pools, lambda number: (array[number], array.flags.writeable), [7]) == [(7, False)]


@needs_proc
def test_an_array_that_a_function_closes_over_is_in_memory_once():
    array = np.random.default_rng(0).integers(0, 255, 256 * MIB, np.uint8)

    def share_of_memory(number):
        total = int(array[::4096].sum())
        with open('/proc/self/smaps_rollup', encoding='ascii') as file:
            kib = next(int(line.split()[1]) for line in file if line.startswith('Pss:'))
        return os.getpid(), total, kib

    one = processes(2, ahead=2)
    with pipeline(range(20), apply(share_of_memory, workers=one), prefetch()) as shares:
        last = {pid: (total, kib) for pid, total, kib in shares}
    assert len(last) == 2
    assert {total for total, _ in last.values()} == {int(array[::4096].sum())}
    # Pss splits a page among the processes that have touched it so far: more of it may have counted for the first one.
    assert sum(kib for _, kib in last.values()) < 256 * 1024 * 1.2


def test_parts_of_a_memory_map_are_opened_by_file(tmp_path, pools):
    np.save(tmp_path / 'data.npy', np.arange(MIB))
    whole = np.load(tmp_path / 'data.npy', mmap_mode='r')
    rows = whole.reshape(-1, 1024)[10:]

    def look(number):
        return type(rows).__name__, os.path.basename(rows.filename), rows[number, 1]

    assert through(pools, look, [0]) == [('memmap', 'data.npy', 10 * 1024 + 1)]


def set_builtin(name, value):
    import builtins

    setattr(builtins, name, value)


class Setter:
    def __init__(self, name):
        self.name = name

    def __call__(self, value):
        set_builtin(self.name, value)

    def set(self, value):
        self(value)


def closing_over(value):
    return lambda: set_builtin('A_SETTING', value)


LARGE = np.arange(MIB // 4)
INITIALIZERS = {
    'a function': (set_builtin, ('A_SETTING', 7), 7),
    'a lambda': (lambda value: set_builtin('A_SETTING', value), (8,), 8),
    'a closure': (closing_over(9), (), 9),
    'a partial': (functools.partial(set_builtin, 'A_SETTING'), (10,), 10),
    'an object': (Setter('A_SETTING'), (11,), 11),
    'a bound method': (Setter('A_SETTING').set, (12,), 12),
    'a large array': (lambda array: set_builtin('A_SETTING', int(array.sum())), (LARGE,), int(LARGE.sum())),
    'nothing': (None, (), None),
}


@pytest.mark.parametrize('kind', INITIALIZERS)
def test_any_function_may_be_an_initializer(kind):
    initializer, arguments, expected = INITIALIZERS[kind]

    def look(value):
        import builtins

        return value, getattr(builtins, 'A_SETTING', None)

    workers = processes(2, initializer=initializer, initargs=arguments)
    with pipeline(range(20), apply(look, workers=workers), prefetch()) as batches:
        assert list(batches) == [(value, expected) for value in range(20)]


EFFECTS = {
    'how floating point errors are handled': (
        lambda: set_errors('raise'),
        (),
        lambda _: np.geterr()['divide'],
        'raise',
    ),
    'how arrays print': (np.set_printoptions, (2,), lambda _: np.get_printoptions()['precision'], 2),
    'the limit of recursion': (sys.setrecursionlimit, (1234,), lambda _: sys.getrecursionlimit(), 1234),
    'a module': (set_builtin, ('A_MODULE', os), lambda _: A_MODULE.__name__, 'os'),  # noqa: F821
    'the current directory': (os.chdir, ('/',), lambda _: os.getcwd(), '/'),
    'the mask of new files': (os.umask, (0o77,), lambda _: os.umask(0o77), 0o77),
    'the hooks of the interpreter': (lambda: setattr(sys, 'a_hook', 1), (), lambda _: sys.a_hook, 1),
}


def set_errors(mode):
    np.seterr(divide=mode)


@pytest.mark.parametrize('kind', EFFECTS)
def test_what_an_initializer_sets_is_set_for_every_item(kind):
    initializer, arguments, look, expected = EFFECTS[kind]
    workers = processes(2, initializer=initializer, initargs=arguments)
    with pipeline(range(9), apply(look, workers=workers), prefetch()) as batches:
        assert list(batches) == [expected] * 9


def raise_in_setup(error):
    raise error


class NotHere:
    def __reduce__(self):
        return refuse, ()


def refuse():
    raise ModuleNotFoundError('no module of this name')


class Odd(Exception):
    def __init__(self, a, *, b):
        super().__init__(a)
        self.lines = (line for line in 'ab')


def fail():
    raise ZeroDivisionError('in setup')


def raise_odd():
    raise Odd(1, b=2)


def recurse():
    recurse()


FAILURES = {
    'an error': (fail, (), ZeroDivisionError, 'called'),
    'an error of the system': (open, ('/nowhere/at/all',), FileNotFoundError, 'called'),
    'an error that is given': (raise_in_setup, (ValueError(1),), ValueError, 'called'),
    'an exit': (sys.exit, (3,), SystemExit, 'called'),
    'an interrupt': (raise_in_setup, (KeyboardInterrupt(),), KeyboardInterrupt, 'called'),
    'an end': (raise_in_setup, (StopIteration(),), RuntimeError, None),
    'a group': (raise_in_setup, (ExceptionGroup('a', [ValueError(1)]),), ExceptionGroup, 'called'),
    'one that cannot be pickled': (raise_odd, (), RemoteError, 'called'),
    'a deep recursion': (recurse, (), RecursionError, 'called'),
    'a module that is not there': (print, (NotHere(),), ModuleNotFoundError, 'unpickled'),
}


@pytest.mark.parametrize('kind', FAILURES)
@pytest.mark.parametrize('n', [1, 3])
def test_an_error_in_an_initializer_says_where_it_was_and_what_to_do(kind, n):
    initializer, arguments, error, verb = FAILURES[kind]
    workers = processes(n, initializer=initializer, initargs=arguments)
    with pytest.raises(error) as caught, pipeline(range(9), apply(abs, workers=workers), prefetch()) as batches:
        list(batches)
    if verb is not None:
        notes = '\n'.join(caught.value.__notes__)
        assert (
            f'raised in a worker process when the initializer {code(initializer)} was {verb}: {REMEDIES[verb]}' in notes
        )


def test_an_initializer_that_cannot_be_pickled_is_named():
    lock = threading.Lock()
    for initializer, arguments, culprit in [(lambda: lock, (), '<lambda>'), (print, (lock,), '<lock>')]:
        workers = processes(2, initializer=initializer, initargs=arguments)
        with (
            pytest.raises(TypeError, match=f'cannot send {culprit} to processes') as caught,
            pipeline(range(9), apply(abs, workers=workers), prefetch()) as batches,
        ):
            list(batches)
        assert 'because it cannot be pickled' in str(caught.value)


def test_after_an_error_in_an_initializer_the_next_epoch_tries_again(tmp_path):
    def setup():
        if not (tmp_path / 'data').exists():
            raise OSError('no data')

    with pipeline(range(6), apply(abs, workers=processes(2, initializer=setup)), prefetch(6)) as batches:
        with pytest.raises(OSError, match='no data'):
            list(batches)
        (tmp_path / 'data').touch()
        assert list(batches) == list(range(6))


@pytest.mark.parametrize('what', ['a function', 'an input'])
def test_what_cannot_be_unpickled_in_a_process_says_so(what):
    not_here = NotHere()
    function = (lambda value: not_here) if what == 'a function' else id
    source = [1] if what == 'a function' else [NotHere()]
    with (
        pytest.raises(ModuleNotFoundError, match='no module of this name') as caught,
        pipeline(source, apply(function, workers=processes(2)), prefetch()) as batches,
    ):
        list(batches)
    name = code(function)
    text = f'raised in a worker process when {name} or its input was unpickled: {REMEDIES["unpickled"]}'
    assert text in caught.value.__notes__


def test_what_pipekit_needs_may_be_missing_in_a_process():
    program = PROGRAMS / 'without_modules.py'
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )
    assert done.stderr == ''
    error, note = done.stdout.splitlines()[:2]
    assert error.startswith("ImportError: ModuleNotFoundError: No module named '")
    assert note == f'raised in a worker process when pipekit was imported: {REMEDIES["imported"]}'


BLAS = [f'{name}_NUM_THREADS' for name in ('OMP', 'OPENBLAS', 'MKL')]


def limits(_):
    return [os.environ.get(name) for name in BLAS]


@pytest.mark.parametrize(('option', 'expected'), [({}, '1'), ({'blas_threads': 3}, '3'), ({'blas_threads': None}, '7')])
def test_numerical_libraries_start_blas_threads_threads(option, expected, monkeypatch):
    for name in BLAS:
        monkeypatch.setenv(name, '7')
    with pipeline([1], apply(limits, workers=processes(1, **option)), prefetch()) as found:
        assert list(found) == [[expected] * 3]


def pids(seen):
    return {*seen, os.getpid()}


def test_equal_workers_are_the_same_processes_and_a_name_keeps_them_apart():
    def found(*workers):
        stages = [apply(lambda seen: [*seen, os.getpid()], workers=each) for each in workers]
        with pipeline([[]] * 40, stages[0], shuffle(1), stages[1], prefetch()) as values:
            return [set(column) for column in zip(*values, strict=True)]

    first, second = found(processes(2), processes(2))
    assert first == second
    assert len(first) == 2
    first, second = found(processes(2), processes(2, name='other'))
    assert len(first | second) == 4


marks = []


def marks_in_process(_):
    return marks


def test_nothing_is_forked():
    marks.append('a mark')
    forks = []
    os.register_at_fork(before=lambda: forks.append('a fork'))
    with pipeline([1], apply(marks_in_process, workers=processes(1)), prefetch()) as found:
        assert list(found) == [[]]
    assert not forks


def test_without_prefetch_everything_runs_in_the_calling_thread():
    assert list(pipeline([1], apply(lambda _: os.getpid(), workers=TWO))) == [os.getpid()]


def test_a_call_that_holds_the_gil_in_a_process_does_not_hold_up_closing(tmp_path):
    begun = tmp_path / 'begun'

    def hold_the_gil(number):
        begun.touch()
        ctypes.PyDLL(None).sleep(TIMEOUT_SECONDS)

    with pipeline(range(9), apply(hold_the_gil, workers=TWO), prefetch()):
        begin = time.monotonic()
        while not begun.exists():
            assert time.monotonic() - begin < TIMEOUT_SECONDS
            time.sleep(0.01)
        begin = time.monotonic()
    assert time.monotonic() - begin < TIMEOUT_SECONDS / 4


@pytest.mark.parametrize(('workers', 'sees_it'), [(None, True), (threads(2), True), (TWO, False)])
def test_a_function_in_a_process_gets_a_copy_of_its_argument(workers, sees_it):
    samples = [[0], [1], [2]]
    with pipeline(samples, apply(lambda numbers: numbers.append(9), workers=workers), prefetch()) as batches:
        assert list(batches) == [None] * 3
    assert any(9 in numbers for numbers in samples) is sees_it
