from types import SimpleNamespace

import pytest

from pipekit import apply, combine_batches, processes, threads, unpack


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


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr('pipekit.workers.kinds.find_spec', lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r'needs cloudpickle: pip install "pipekit-batches\[processes\]"'):
        processes(2)


def test_processes_need_a_posix_system(monkeypatch):
    monkeypatch.setattr('pipekit.workers.kinds.os', SimpleNamespace(name='nt'))
    with pytest.raises(NotImplementedError, match='needs a POSIX system; pass an executor of processes as workers'):
        processes(2)
