"""Law 3, in other processes: pipekit's own, and executors of the standard library, loky and dask."""

import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

import loky
import numpy as np
import pytest
from dask.distributed import Client, LocalCluster

from pipekit import apply, combine_batches, pipeline, prefetch, processes, shuffle, unpack
from pipekit.testing import check_stage


def load(number):
    return np.full(3, number), number


def jitter(image, label, rng):
    return image + rng.random(3), label


def is_broken(number):
    raise OSError(number, 'broken')


def steps(workers):
    return pipeline(
        apply(load, workers=workers),
        shuffle(3, seed=0),
        unpack(jitter, seed=0, workers=workers),
        unpack(jitter, seed=0, workers=workers),
        combine_batches(4, workers=workers),
    )


@pytest.fixture(scope='module')
def spawned():
    with ProcessPoolExecutor(2, mp_context=get_context('spawn')) as executor:
        yield executor


@pytest.fixture(scope='module')
def of_loky():
    executor = loky.ProcessPoolExecutor(2)
    yield executor
    executor.shutdown()


@pytest.fixture(scope='module')
def of_dask():
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=':0') as cluster, Client(cluster) as client:
        yield client.get_executor(pure=False)


# Our own come first: the cluster of dask opens and closes sockets here as long as it is there.
@pytest.fixture(params=[processes(1), processes(2), processes(3, ahead=5), 'spawned', 'of_loky', 'of_dask'], ids=str)
def executor(request):
    return request.getfixturevalue(request.param) if isinstance(request.param, str) else request.param


def test_an_executor_of_processes_changes_nothing(executor):
    check_stage(steps(executor), range(25), limit=5)
    expected = list(pipeline(range(25), steps(None)))
    with pipeline(range(25), steps(executor), prefetch()) as batches:
        for (images, labels), (expected_images, expected_labels) in zip(batches, expected, strict=True):
            assert np.array_equal(images, expected_images)
            assert np.array_equal(labels, expected_labels)


@pytest.mark.parametrize('name', ['of_loky', 'of_dask'])
def test_the_shares_of_ranks_are_computed_in_an_executor(name, request):
    executor = request.getfixturevalue(name)

    def shares(rank, world_size, workers=None):
        share = combine_batches(6, rank=rank, world_size=world_size, workers=workers)
        return pipeline(range(20), apply(load, workers=workers), unpack(jitter, seed=0, workers=workers), share)

    of_ranks = []
    for rank in range(2):
        with pipeline(shares(rank, 2, executor), prefetch()) as batches:
            of_ranks.append(list(batches))
    for (images, labels), *parts in zip(shares(0, 1), *of_ranks, strict=True):
        assert np.array_equal(images, np.concatenate([image for image, _ in parts]))
        assert np.array_equal(labels, np.concatenate([label for _, label in parts]))


def test_an_error_comes_with_its_type_and_attributes(executor):
    with (
        pipeline(range(5), apply(is_broken, workers=executor), prefetch()) as batches,
        pytest.raises(OSError, match='broken') as caught,
    ):
        list(batches)
    assert caught.value.errno == 0


def kill_oneself(number):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(sys.platform == 'win32', reason='needs POSIX signals')
def test_an_executor_that_breaks_raises_its_own_error_with_a_note():
    with (
        ProcessPoolExecutor(1, mp_context=get_context('spawn')) as executor,
        pipeline(range(5), apply(kill_oneself, workers=executor), prefetch()) as batches,
        pytest.raises(BrokenProcessPool) as caught,
    ):
        list(batches)
    assert 'workers=<ProcessPoolExecutor>' in caught.value.__notes__[0]


@pytest.mark.parametrize('name', ['of_loky', 'of_dask'])
def test_closures_travel_where_the_executor_pickles_them(name, request):
    executor, shift = request.getfixturevalue(name), 5
    with pipeline(range(5), apply(lambda x: x + shift, workers=executor), prefetch()) as batches:
        assert list(batches) == [5, 6, 7, 8, 9]
