"""Errors say where they were raised, and the line in their note runs that sample again."""

import pickle
import subprocess
import sys
import traceback
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from more_itertools import consume, repeatfunc

from pipekit import (
    RemoteError,
    apply,
    combine_batches,
    expiration_pool,
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
from pipekit.describing.display import brief
from pipekit.describing.tracebacks import FULL_TRACEBACKS
from pipekit.streams.error_notes import StageLocation


class Broken(Exception):
    pass


def note_of(error):
    return error.__notes__[-1]


def last_line(error):
    return note_of(error).splitlines()[-1].removeprefix('to run it again: ')


def drawn(value, rng):
    return value, rng.random()


BEFORE = {
    'nothing': [],
    'shuffle': [shuffle(4, seed=0)],
    'repeat': [take(3), repeat()],
    'flatten': [apply(lambda value: (value, value, value)), flatten()],
    'keep': [keep(lambda value: value % 2)],
    'a random stage': [apply(drawn, seed=3)],
    'expiration_pool': [expiration_pool(3, 2, seed=0)],
}
AFTER = {
    'nothing': [],
    'shuffle': [shuffle(2, seed=1)],
    'repeat': [take(3), repeat()],
    'flatten': [flatten()],
    'batches': [combine_batches(3, list)],
    'adaptive batches': [combine_batches(lambda chunk, sample: len(chunk) < 2, list)],
    'batches of a shuffle': [shuffle(2, seed=1), combine_batches(2, list)],
}


@pytest.mark.parametrize('n', [1, 2, 7])
@pytest.mark.parametrize('after', AFTER.values(), ids=AFTER)
@pytest.mark.parametrize('before', BEFORE.values(), ids=BEFORE)
@pytest.mark.parametrize('epochs', [5, None], ids=['batches per epoch', 'passes'])
def test_the_line_in_the_note_runs_the_sample_again(before, after, n, epochs):
    seen = []

    def fails(value):
        seen.append(value)
        if seen[0] is None:  # the run again: nothing but the culprit should come
            raise Broken(value)
        if len(seen) == n:
            raise Broken(value)
        return [value]

    broken = pipeline(range(1000), *before, apply(fails), *after)
    with pipeline(broken, prefetch(epochs)) as batches, pytest.raises(Broken) as caught:
        consume(chain.from_iterable(repeatfunc(list, 10, batches)))
    assert len(seen) == n
    culprit = seen[-1]
    seen[:] = [None]
    with pytest.raises(Broken) as again:
        eval(last_line(caught.value), {'pipeline': broken, 'batches': batches})
    assert again.value.args == (culprit,)
    assert seen == [None, culprit]
    assert note_of(again.value).splitlines()[0] == note_of(caught.value).splitlines()[0]


def test_in_a_branch_of_a_mix_too():
    def fails(value):
        if value == 'y':
            raise Broken
        return value

    mixed = pipeline(mix(range(100), pipeline('xyz', apply(fails), repeat()), seed=0), combine_batches(5, list))
    with pytest.raises(Broken) as caught:
        list(mixed)
    assert "in apply(fails), the 2nd of 3 stages, on sample 'y' (cursor 2)" in note_of(caught.value)
    with pytest.raises(Broken):
        eval(last_line(caught.value), {'pipeline': mixed})


@pytest.mark.parametrize('workers', [None, threads(2), processes(2)], ids=repr)
def test_the_stage_and_the_sample_are_named(workers):
    def load(name):
        if name == 'patient_17':
            raise OSError(5, 'unreadable')
        return np.zeros((2, 3), np.float32), name

    def check(image, name):
        if name == 'patient_23':
            raise KeyError(name)
        return image

    names = [f'patient_{number}' for number in range(30)]
    made = pipeline(names, apply(load, workers=workers), unpack(check, workers=workers), combine_batches(4))
    with pipeline(made, prefetch(100)) as batches, pytest.raises(OSError, match='unreadable') as caught:
        list(batches)
    of_workers = f', workers={workers}'
    assert note_of(caught.value) == (
        f"in apply(load{of_workers}), the 2nd of 4 stages, on sample 'patient_17' (cursor 18)\n"
        'to run it again: pipeline.replay(17)'
    )
    assert caught.value.errno == 5
    with pipeline(names[20:], *made.stages, prefetch(100)) as batches, pytest.raises(KeyError) as caught:
        list(batches)
    assert f"in unpack(check{of_workers}), the 3rd of 4 stages, on sample (float32[2, 3], 'patient_23')" in note_of(
        caught.value
    )


@pytest.mark.parametrize('workers', [None, threads(2), processes(2)], ids=repr)
def test_an_error_in_combining_names_the_batch(workers):
    ragged = pipeline(range(9), apply(lambda n: np.zeros(2 + (n == 7))), combine_batches(3, workers=workers))
    with (
        pipeline(ragged, prefetch()) as batches,
        pytest.raises(ValueError, match=r'float64\[3\] in sample 1') as caught,
    ):
        list(batches)
    assert 'the 3rd of 3 stages, on batch [' in note_of(caught.value)
    assert caught.value.__context__ is None
    assert last_line(caught.value) == 'pipeline.replay(6)'
    with pytest.raises(ValueError, match='in sample 1'):
        ragged.replay(6)


def test_predicates_and_sources_are_named_too():
    with pytest.raises(ZeroDivisionError) as caught:
        list(pipeline([1, 0], keep(lambda value: 1 / value)))
    assert note_of(caught.value) == (
        'in keep(<lambda>), the 2nd of 2 stages, on sample 0 (cursor 2)\nto run it again: pipeline.replay(1)'
    )

    class Rows:
        def __len__(self):
            return 9

        def __getitem__(self, number):
            if number == 3:
                raise OSError('row 3')
            return number

    with pytest.raises(OSError, match='row 3') as caught:
        list(pipeline(Rows(), combine_batches(2, list)))
    assert note_of(caught.value) == 'after the cursor 2\nto run it again: pipeline.replay(2)'


def test_an_error_raised_twice_has_one_note():
    error = Broken()

    def fails(value):
        raise error

    for number in range(3):
        with pytest.raises(Broken):
            pipeline(range(9), apply(fails)).replay(number)
    assert len(error.__notes__) == 1
    assert 'sample 2' in note_of(error)


def test_own_frames_are_hidden_and_the_users_kept(monkeypatch):
    def outer(value):
        return inner(value)

    def inner(value):
        raise Broken

    def frames_of(run):
        with pytest.raises(Broken) as caught:
            run()
        names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        return names[names.index('run') + 1 :]

    inline = pipeline(range(9), apply(outer), combine_batches(2))

    def run():
        return list(inline)

    def batches_of(workers):
        def run():
            with pipeline(range(9), apply(outer, workers=workers), combine_batches(2), prefetch()) as batches:
                list(batches)

        return run

    assert frames_of(run) == ['outer', 'inner']
    for workers in (None, threads(1), processes(1)):
        assert frames_of(batches_of(workers)) == ['outer', 'inner']
    monkeypatch.setenv(FULL_TRACEBACKS, '1')
    assert '__next__' in frames_of(run)


def test_replay_gives_the_batch_that_followed_a_state():
    made = pipeline(sample(range(50), seed=0), apply(drawn, seed=0), combine_batches(4))
    with pipeline(made, prefetch(6)) as batches:
        states, delivered = [batches.state_dict()], []
        for batch in batches:
            states.append(batches.state_dict())
            delivered.append(batch)
    for state, batch in zip(states, delivered, strict=False):
        assert np.array_equal(batches.replay(state['cursor']), batch)


def test_replay_of_a_later_pass_gives_its_batch():
    with pipeline(range(6), apply(drawn, seed=0), combine_batches(2, list), prefetch()) as batches:
        list(batches)
        state = batches.state_dict()
        assert batches.replay(state['cursor']) == next(iter(batches))


@pytest.mark.parametrize('cursor', [(1, 2), 'x', -1, 1000, None])
def test_replay_of_a_foreign_cursor_is_an_error(cursor):
    made = pipeline(range(9), apply(abs))
    with pytest.raises((ValueError, TypeError)):
        made.replay(cursor)
    with pytest.raises((ValueError, TypeError)):
        pipeline(made, prefetch(2)).replay(cursor)


def test_replay_of_nothing_is_an_error():
    with pytest.raises(ValueError, match='nothing after the cursor 9'):
        pipeline(range(9), apply(abs)).replay(9)


class Odd:
    def __repr__(self):
        raise Broken


@pytest.mark.parametrize(
    'value',
    [Odd(), [Odd()] * 3, list(range(10**7)), 'x' * 10**6, np.float32(3), np.zeros(10**6), {'a': {'b': {'c': [Odd()]}}}],
    ids=lambda value: type(value).__name__,
)
def test_odd_samples_are_survived_in_a_line(value):
    def fails(sample):
        raise Broken

    with pytest.raises(Broken) as caught:
        list(pipeline([value], apply(fails)))
    first, second = note_of(caught.value).splitlines()
    assert len(first) < 200
    assert second == 'to run it again: pipeline.replay(0)'


def test_arrays_are_shown_by_type_and_shape():
    assert brief((np.zeros((1, 28, 28), np.float32), 3)) == '(float32[1, 28, 28], 3)'
    assert brief((np.zeros((1, 28, 28), np.float32), 'a' * 200)) == '(float32[1, 28, 28], str)'
    assert brief([np.zeros(3)] * 9) == '[float64[3]] of 9'


def test_ctrl_c_in_the_consumer_is_not_blamed_on_a_sample():
    program = Path(__file__).parent / 'programs' / 'interrupted.py'
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == '[]\n'


def test_a_path_has_the_branches_and_the_number_but_no_passes():
    assert StageLocation('apply(load)', 2, 3, key=(1, (3,), 0)).path == '1.0.2'
    assert StageLocation('apply(load)', 2, 3, key=((3,),)).path == '2'


@dataclass(frozen=True)
class Frozen(Exception):
    value: int


class WithoutNotes(Exception):
    __notes__ = ()


class RefusesNotes(Exception):
    def add_note(self, note):
        raise RuntimeError('no notes')

    def __setattr__(self, name, value):
        raise RuntimeError('no attributes')


class OddNotes(Exception):
    __notes__ = property(lambda self: 1 / 0)


@pytest.mark.parametrize('workers', [None, threads(2)], ids=repr)
@pytest.mark.parametrize('kind', [Frozen, WithoutNotes, RefusesNotes, OddNotes])
def test_an_error_that_takes_no_notes_is_still_the_users(kind, workers):
    errors = []

    def fails(value):
        errors.append(kind(value))
        raise errors[-1]

    made = pipeline(range(9), apply(fails, workers=workers))
    with pytest.raises(kind) as caught:
        list(made)
    assert caught.value is errors[0]
    with pipeline(made, prefetch()) as batches, pytest.raises(kind) as caught:
        list(batches)
    assert any(caught.value is error for error in errors)
    if kind in (Frozen, WithoutNotes):
        assert last_line(caught.value) == 'pipeline.replay(0)'


@pytest.mark.parametrize('kind', [Frozen, WithoutNotes])
def test_in_a_process_too_as_far_as_it_can_be_pickled(kind):
    def fails(value):
        raise kind(value)

    with (
        pipeline(range(9), apply(fails, workers=processes(1)), prefetch()) as batches,
        pytest.raises((kind, RemoteError)) as caught,
    ):
        list(batches)
    assert kind.__name__ in repr(caught.value)


@pytest.mark.parametrize('workers', [None, threads(1), processes(1)], ids=repr)
def test_a_long_cursor_is_an_attribute_of_the_note(workers):
    def fails(value):
        if value == tenth:
            raise Broken(value)
        return value

    mixed = mix(*(pipeline([number], repeat()) for number in range(1000)), seed=0)
    *_, tenth = pipeline(mixed, take(10))
    whole = pipeline(mixed, apply(fails, workers=workers), combine_batches(3))
    with pytest.raises(Broken) as caught, pipeline(whole, prefetch()) as batches:
        list(batches)
    assert len(note_of(caught.value)) < 400
    with pytest.raises(Broken):
        whole.replay(caught.value.__notes__[-1].cursor)


def test_the_note_is_short_where_a_mix_has_a_thousand_sources():
    def fails(value, **options):
        if value == tenth:
            raise Broken
        return True

    mixed = mix(*(pipeline([number], repeat()) for number in range(1000)), seed=0)
    *_, tenth = pipeline(mixed, take(10))
    many = partial(fails, **{f'option_{number}': number for number in range(1000)})
    for stages in ([apply(fails)], [apply(many)], [take(15), repeat(), keep(fails)]):
        with pytest.raises(Broken) as caught:
            list(pipeline(mixed, *stages))
        where, again = note_of(caught.value).splitlines()
        assert len(where) < 600
        assert len(again) < 100
        pipeline_that_fails, error = pipeline(mixed, *stages), caught.value
        with pytest.raises(Broken):
            eval(again.removeprefix('to run it again: '), {'pipeline': pipeline_that_fails, 'error': error})
        copied = pickle.loads(pickle.dumps(note_of(error)))
        assert (copied, copied.cursor) == (note_of(error), note_of(error).cursor)
    label = StageLocation(mixed, 1, 2).label
    assert len(label) < 300
    assert label.endswith('..., the 1st of 2 stages')
