import pickle
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from pipekit import apply, combine_batches, pipeline, prefetch, processes, threads, unpack


@pytest.mark.parametrize(
    ('make', 'error', 'message'),
    [
        (lambda: threads(0), ValueError, 'n must be a positive int, got 0'),
        (lambda: threads(2.5), ValueError, 'n must be a positive int, got 2.5'),
        (lambda: threads(4, ahead=3), ValueError, 'ahead must be at least n, .* got ahead=3 for 4 threads'),
        (lambda: threads(4, name=3), TypeError, 'name must be a string or None, got 3'),
        (lambda: apply(abs, workers=4), TypeError, r'workers must be threads\(n\), .* got 4'),
        (lambda: unpack(max, workers=threads), TypeError, r'workers must be threads\(n\)'),
        (lambda: combine_batches(2, workers='threads'), TypeError, "got 'threads'"),
    ],
)
def test_bad_input_raises_at_once(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ('make', 'error', 'message'),
    [
        (lambda: processes(-1), ValueError, 'n must be a positive int, got -1'),
        (lambda: processes(2, ahead=1), ValueError, 'ahead must be at least n, .* got ahead=1 for 2 processes'),
        (lambda: processes(2, blas_threads=0), ValueError, 'blas_threads must be a positive int or None, got 0'),
        (lambda: processes(2, name=3), TypeError, 'name must be a string or None, got 3'),
    ],
)
def test_bad_input_of_processes_raises_at_once(make, error, message):
    with pytest.raises(error, match=message):
        make()


async def connect():
    pass


def setup(path, *, mode='r'):
    return path, mode


BAD_INITIALIZERS = [
    ({'initializer': 3}, TypeError, 'initializer must be a function or None, got 3'),
    ({'initializer': 'setup'}, TypeError, "initializer must be a function or None, got 'setup'"),
    ({'initializer': [setup]}, TypeError, 'initializer must be a function or None, got '),
    ({'initializer': apply(abs)}, TypeError, r'initializer must be .* got the stage apply\(abs\)'),
    (
        {'initializer': connect},
        TypeError,
        'initializer must be a function or None, got connect, which is async and returns a coroutine',
    ),
    ({'initializer': print, 'initargs': [1]}, TypeError, r'initargs must be a tuple, got \[1\]'),
    ({'initializer': print, 'initargs': 'abc'}, TypeError, "initargs must be a tuple, got 'abc'"),
    ({'initializer': print, 'initargs': None}, TypeError, 'initargs must be a tuple, got None'),
    ({'initializer': print, 'initargs': 5}, TypeError, 'initargs must be a tuple, got 5'),
    ({'initializer': print, 'initargs': {'a': 1}}, TypeError, 'initargs must be a tuple, got '),
    ({'initargs': (1,)}, ValueError, r'initargs are arguments for an initializer, and there is none, got \(1,\)'),
    ({'initializer': setup}, TypeError, r"initargs: missing a required argument: 'path', got setup and \(\)"),
    ({'initializer': setup, 'initargs': (1, 2)}, TypeError, r'too many positional arguments, got setup and \(1, 2\)'),
    ({'initializer': lambda: 0, 'initargs': (1,)}, TypeError, 'initializer cannot be called with initargs'),
    ({'initializer': lambda *, a: 0}, TypeError, "missing a required .*argument: 'a'"),
]


@pytest.mark.parametrize('kind', [threads, processes])
@pytest.mark.parametrize(('options', 'error', 'message'), BAD_INITIALIZERS)
def test_a_bad_initializer_raises_at_once(kind, options, error, message):
    with pytest.raises(error, match=message):
        kind(2, **options)


@pytest.mark.parametrize('kind', [threads, processes])
@pytest.mark.parametrize(
    ('options', 'text'),
    [
        ({}, ''),
        ({'initializer': setup, 'initargs': ('a',)}, ", initializer=setup, initargs=('a',)"),
        ({'initializer': print}, ', initializer=print'),
        ({'initializer': np.seterr, 'initargs': ('raise',)}, ", initializer=np.seterr, initargs=('raise',)"),
        ({'initializer': partial(setup, 1, mode='w')}, ", initializer=partial(setup, 1, mode='w')"),
        ({'initializer': dict}, ', initializer=dict'),
    ],
)
def test_an_initializer_is_a_part_of_the_description(kind, options, text):
    workers = kind(2, **options)
    assert repr(workers) == f'{kind.__name__}(2{text})'
    assert workers == pickle.loads(pickle.dumps(workers)) == kind(2, **options)
    assert (workers == kind(2)) is not bool(options)


@pytest.mark.parametrize('kind', [threads, processes])
def test_an_initializer_is_no_part_of_a_state(kind):
    def batches(*workers):
        return pipeline(range(5), apply(abs, workers=kind(2, **dict(*workers))), prefetch(2))

    with batches() as plain, batches({'initializer': print}) as initialized:
        assert plain.state_dict() == initialized.state_dict()
        initialized.load_state_dict(plain.state_dict())


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr('pipekit.workers.kinds.find_spec', lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r'needs cloudpickle: pip install "pipekit-batches\[processes\]"'):
        processes(2)


def test_processes_need_a_posix_system(monkeypatch):
    monkeypatch.setattr('pipekit.workers.kinds.os', SimpleNamespace(name='nt'))
    with pytest.raises(NotImplementedError, match='needs a POSIX system; pass an executor of processes as workers'):
        processes(2)
