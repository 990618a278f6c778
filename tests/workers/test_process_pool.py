"""processes(n): what travels to them and back, and that they change nothing."""

import functools
import os
import subprocess
import sys
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipekit import (
    apply,
    combine_batches,
    combine_to_tuples,
    flatten,
    keep,
    mix,
    pipeline,
    prefetch,
    processes,
    repeat,
    sample,
    shuffle,
    take,
    threads,
    unpack,
)
from pipekit.cursors import START, cursor_of
from pipekit.descriptions import same
from pipekit.streams import Context
from pipekit.workers.pools import Pools

PATIENCE = 100
TWO = processes(2, ahead=8)
MIB = 1 << 20
PROGRAMS = Path(__file__).parent / 'programs'

needs_proc = pytest.mark.skipif(not os.path.isdir('/proc/self'), reason='needs /proc')


@pytest.fixture(scope='module')
def pools():
    pools = Pools()
    yield pools
    pools.cancel()
    pools.close()


def opened(stream, pools, cursor=START):
    return stream.open(cursor, Context(pools=pools))


def through(pools, function, values, workers=TWO):
    return [value for value, _ in opened(pipeline(values, apply(function, workers=workers)), pools)]


def run(*arguments, text=None):
    """What a program prints that raises no error, and no warning."""
    done = subprocess.run(
        [sys.executable, '-W', 'error', *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, '')
    return done.stdout


# What travels.


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
def test_a_value_comes_back_as_it_went(name, pools):
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


def test_a_script_needs_no_guard_and_its_classes_travel():
    assert run(TRAVEL) == OUTPUT


def test_code_given_as_an_argument_and_from_standard_input_runs():
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
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr.strip(b'x')) == (0, b'')
    assert result.read_text() == '[0, 1] [2, 3] [4, 5]' + ' closed' * len(closed) + '\n'


def test_a_class_that_travels_stays_what_it_is_here():
    assert run(PROGRAMS / 'class_that_changes.py') == 'Image(name=19) 20 True\n'


def test_what_a_notebook_defines_travels(capsys):
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


def test_a_function_travels_once_to_each_process(pools):
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
    # The first to touch it may have had it alone, with the main process.
    assert sum(kib for _, kib in last.values()) < 256 * 1024 * 1.2


def test_parts_of_a_memory_map_are_opened_by_file(tmp_path, pools):
    np.save(tmp_path / 'data.npy', np.arange(MIB))
    whole = np.load(tmp_path / 'data.npy', mmap_mode='r')
    rows = whole.reshape(-1, 1024)[10:]

    def look(number):
        return type(rows).__name__, os.path.basename(rows.filename), rows[number, 1]

    assert through(pools, look, [0]) == [('memmap', 'data.npy', 10 * 1024 + 1)]


# Where it runs.

BLAS = [f'{name}_NUM_THREADS' for name in ('OMP', 'OPENBLAS', 'MKL')]


def limits(_):
    return [os.environ.get(name) for name in BLAS]


@pytest.mark.parametrize(('option', 'expected'), [({}, '1'), ({'blas_threads': 3}, '3'), ({'blas_threads': None}, '7')])
def test_numerical_libraries_start_one_thread_or_as_many_as_they_are_told(option, expected, monkeypatch):
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


def marks_there(_):
    return marks


def test_nothing_is_forked():
    marks.append('a mark')
    forks = []
    os.register_at_fork(before=lambda: forks.append('a fork'))
    with pipeline([1], apply(marks_there, workers=processes(1)), prefetch()) as found:
        assert list(found) == [[]]
    assert not forks


def test_without_prefetch_everything_runs_in_the_calling_thread():
    assert list(pipeline([1], apply(lambda _: os.getpid(), workers=TWO))) == [os.getpid()]


# It changes nothing.


def jitter(value, rng):
    return value + rng.random()


def scale(batch, rng):
    return [value * rng.random() for value in batch]


class Broken(Exception):
    pass


def fails_at(bad, value):
    if int(value) == bad:
        raise Broken(value)
    return value


def some(n, bad):
    def numbers():
        for number in range(n):
            if number == bad:
                raise OSError(number, 'of the source')
            yield number

    return numbers


def is_kept(value):
    return int(value) % 3 != 1


def twice(value):
    return [value, value + 0.5]


def fits(chunk, value):
    return len(chunk) < 3 and sum(chunk) + value < 20


WORKERS = st.sampled_from([None, TWO, processes(2, ahead=2), threads(2)])
SEEDS = st.sampled_from([None, 0, 1])
SIZES = st.one_of(st.integers(1, 5), st.just(fits))


def batches(size, combine, drop_last, workers):
    return combine_batches(size, combine, drop_last=drop_last, workers=workers)


EACH = st.one_of(
    st.builds(lambda seed, w: apply(jitter, seed=seed, workers=w), st.integers(0, 1), WORKERS),
    st.builds(lambda bad, w: apply(functools.partial(fails_at, bad), workers=w), st.integers(0, 30), WORKERS),
    st.builds(lambda w: apply(float, workers=w), WORKERS),
)
OTHERS = st.one_of(
    st.just(keep(is_kept)),
    st.builds(lambda n: shuffle(n, seed=0), st.integers(1, 4)),
    st.just(pipeline(apply(twice), flatten())),
    st.builds(take, st.integers(0, 15)),
    st.builds(repeat, st.integers(1, 2)),
)
BATCHES = st.builds(batches, SIZES, st.sampled_from([list, tuple, sum]), st.booleans(), WORKERS)
AFTER = st.one_of(
    st.builds(lambda w: apply(repr, workers=w), WORKERS),
    st.builds(lambda w: apply(lambda batch, rng: (batch, rng.random()), seed=0, workers=w), WORKERS),
)
SOURCES = st.one_of(
    st.builds(some, st.integers(0, 20), st.one_of(st.none(), st.integers(0, 20))),
    st.just(sample(range(30), seed=0)),
    st.just(sample(range(10), replace=False, seed=0)),
    st.builds(
        lambda stage, n: mix(pipeline(range(n), stage), pipeline(range(9), repeat()), seed=0), EACH, st.integers(1, 9)
    ),
)
COMPOSITIONS = st.builds(
    lambda source, before, each, whole, after: pipeline(source, *before, each, whole, *after),
    SOURCES,
    st.lists(st.one_of(EACH, OTHERS), max_size=2),
    EACH,
    BATCHES,
    st.lists(AFTER, max_size=2),
)
LIMIT = 12


def outcome(stream, context, cursor=START, limit=LIMIT):
    pairs = []
    try:
        pairs.extend(islice(stream.open(cursor, context), limit))
    except Exception as error:
        return pairs, (type(error), error.args)
    return pairs, None


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(COMPOSITIONS, st.data())
def test_random_compositions_give_what_they_give_inline(pools, stream, data):
    pairs, error = outcome(stream, Context(fused=False))
    worked = outcome(stream, Context(pools=pools))
    assert worked[1] == error
    assert same(worked[0], pairs)
    if pairs:
        number = data.draw(st.integers(1, len(pairs)))
        rest = outcome(stream, Context(pools=pools), cursor_of(pairs[number - 1][1]), LIMIT - number)
        assert same(rest[0], pairs[number:])
        assert rest[1] == error


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    n=st.integers(0, 13),
    bad=st.one_of(st.none(), st.integers(0, 13)),
    bad_sample=st.integers(0, 14),
    size=st.integers(1, 6),
    drop_last=st.booleans(),
)
def test_the_first_error_is_that_of_the_inline_run(pools, n, bad, bad_sample, size, drop_last):
    def stream(workers):
        load = apply(functools.partial(fails_at, bad_sample), workers=workers)
        return pipeline(some(n, bad), load, combine_batches(size, list, drop_last=drop_last))

    assert outcome(stream(TWO), Context(pools=pools)) == outcome(stream(None), Context())


def test_every_cursor_of_batches_made_in_workers_resumes(pools):
    stages = apply(jitter, seed=0, workers=TWO), combine_batches(3, list), apply(scale, seed=0)
    stream = pipeline(range(16), *stages)
    pairs, _ = outcome(stream, Context())
    assert len(pairs) == 6
    for number, (_, cursor) in enumerate(pairs, 1):
        assert outcome(stream, Context(pools=pools), cursor) == (pairs[number:], None)


def test_a_worker_makes_whole_batches_and_only_where_it_may(pools):
    def makers(*stages):
        return {pid for batch, _ in opened(pipeline(range(12), *stages), pools) for pid in batch[1]}

    def combined(samples):
        return samples, {os.getpid()}

    def others(batch):
        return batch[0], batch[1] | {os.getpid()}

    load, here = apply(abs, workers=TWO), {os.getpid()}
    assert not makers(load, combine_batches(3, combined)) & here
    assert not makers(load, combine_batches(3, combined, workers=TWO), apply(others, workers=TWO)) & here
    assert makers(load, combine_batches(3, combined), apply(others)) > here
    assert makers(load, combine_batches(lambda chunk, value: len(chunk) < 3, combined)) == here
    assert makers(load, shuffle(3, seed=0), combine_batches(3, combined)) == here
    assert makers(load, combine_batches(3, combined, workers=threads(1))) == here
    assert not makers(load, combine_batches(3, combined, workers=processes(1, name='other'))) & here


def test_a_state_goes_on_with_other_workers():
    def make(workers):
        return pipeline(
            sample(range(100), seed=0),
            apply(jitter, seed=0, workers=workers),
            combine_batches(4, list, workers=workers),
            prefetch(3),
        )

    kinds = [TWO, None, threads(2), TWO]
    inline = make(None)
    expected = [list(inline) for _ in kinds]
    inline.close()
    state = None
    for workers, epoch in zip(kinds, expected, strict=True):
        with make(workers) as batches_:
            if state is not None:
                batches_.load_state_dict(state)
            assert list(batches_) == epoch
            state = batches_.state_dict()


def test_each_pass_has_its_own_randomness(pools):
    def make(workers):
        return pipeline(range(5), apply(jitter, seed=0, workers=workers), combine_batches(2, list), prefetch())

    inline = make(None)
    expected = [list(inline) for _ in range(3)]
    inline.close()
    assert len({repr(epoch) for epoch in expected}) == 3
    with make(TWO) as epochs:
        assert [list(epochs) for _ in range(3)] == expected


def test_groups_change_no_value(pools):
    numbers = range(3000)
    assert through(pools, jitter_alone, numbers, processes(2)) == list(map(jitter_alone, numbers))


def jitter_alone(number):
    return number * 1.5


@pytest.mark.parametrize('ahead', [2, 3, 8, 50])
def test_no_more_than_ahead_are_in_flight(ahead, pools):
    read = count()
    numbers = pipeline(lambda: iter(read), apply(abs, workers=processes(2, ahead=ahead)))
    for delivered, _ in enumerate(islice(opened(numbers, pools), 300)):
        assert int(repr(read)[6:-1]) <= delivered + ahead


def test_no_more_than_ahead_batches_are_in_flight(pools):
    read = count()
    stages = apply(abs, workers=processes(2, ahead=4)), combine_batches(5, list)
    for delivered, _ in enumerate(islice(opened(pipeline(lambda: iter(read), *stages), pools), 50)):
        assert int(repr(read)[6:-1]) <= 5 * (delivered + 4)


def test_nothing_is_read_before_a_value_is_asked_for(pools):
    read = count()
    opened(pipeline(lambda: iter(read), apply(abs, workers=TWO)), pools)
    opened(pipeline(lambda: iter(read), apply(abs, workers=TWO), combine_batches(2)), pools)
    assert next(read) == 0


def image(number):
    return Image(np.full(100_000, number))


@pytest.mark.parametrize('stages', [(), (combine_batches(2, combine_to_tuples),)], ids=['samples', 'batches'])
def test_no_value_is_held_when_its_consumer_has_let_go_of_it(stages, pools):
    import weakref

    def arrays(value):
        return value.pixels if isinstance(value.pixels, tuple) else (value.pixels,)

    values = opened(pipeline(range(30), apply(image, workers=TWO), *stages), pools)
    for value, _ in values:
        references = [weakref.ref(array) for array in arrays(value)]
        del value, _
        assert not any(reference() is not None for reference in references)


def test_batches_that_are_kept_stay_as_they_are_also_after_close():
    stages = apply(lambda number: np.full(50_000, number), workers=TWO), combine_batches(2)
    with pipeline(range(60), *stages, prefetch()) as batches_:
        kept = [(number, batch[:, :9] if number % 2 else memoryview(batch)) for number, batch in enumerate(batches_)]
    for number, batch in kept:
        assert np.unique(np.asarray(batch)).tolist() == [2 * number, 2 * number + 1]


def test_a_batch_can_be_written_to_and_changes_no_other(pools):
    stages = apply(lambda number: np.full(50_000, number), workers=TWO), combine_batches(2)
    found = []
    for batch, _ in opened(pipeline(range(40), *stages), pools):
        found.append(batch.max())
        batch[...] = -1
    assert found == list(range(1, 40, 2))


def test_unpack_runs_there_too(pools):
    stream = pipeline([(1, 2), (3, 4)], unpack(max, workers=TWO))
    assert [value for value, _ in opened(stream, pools)] == [2, 4]
