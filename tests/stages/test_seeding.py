"""Functions that draw from global generators, or from their own, give what the seed and the sample determine."""

import operator
import random
import sys
import threading
import types
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from itertools import islice
from multiprocessing import get_context

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipekit import (
    apply,
    apply_at,
    combine_batches,
    executor,
    mix,
    pipeline,
    prefetch,
    processes,
    random_apply,
    repeat,
    reseeded,
    sample,
    seeded,
    threads,
    unpack,
    zip_apply,
)
from pipekit.streams.global_generators import global_states, moved_since, restore_global
from pipekit.testing import check_function, check_stage


def of_random(x):
    return x, random.random(), random.choice('abc'), random.gauss(0, 1)


def of_numpy(x):
    return x, np.random.rand(2).tolist(), int(np.random.randint(100)), np.random.permutation(4).tolist()


def of_both(x):
    values = list(range(5))
    random.shuffle(values)
    return x, values, np.random.normal()


class Pool(ThreadPoolExecutor):
    pass


def pair(x, y):
    return x, y, random.random()


class OwnGenerators:
    """A transform with generators of several kinds, some of them deep inside."""

    def __init__(self):
        self.generator = np.random.default_rng()
        self.parts = [types.SimpleNamespace(state=np.random.RandomState(), python=random.Random())]

    def __call__(self, x):
        part = self.parts[0]
        return x, self.generator.random(), part.state.rand(), part.python.random()


class Seedable:
    """A transform like those of albumentations: with a method that seeds it."""

    def __init__(self):
        self.hidden = iter(())
        self.seeds = []

    def set_random_seed(self, seed):
        assert 0 <= seed < 2**32
        self.seeds.append(seed)
        self.hidden = iter(np.random.default_rng(seed).random(3))

    def __call__(self, x):
        return x, next(self.hidden)


class Monai:
    def __init__(self):
        self.R = np.random.RandomState()

    def set_random_state(self, seed=None):
        self.R = np.random.RandomState(seed)

    def __call__(self, x):
        return x, self.R.rand()


def closing_over():
    generator = np.random.default_rng()

    def transform(x):
        return x, generator.random()

    return transform


def with_default(x, held=np.random.default_rng()):  # noqa: B008
    return x, held.random()


SEEDED = [seeded(of_random), seeded(of_numpy), seeded(of_both)]
RESEEDED = [
    reseeded(OwnGenerators()),
    reseeded(Seedable()),
    reseeded(Monai()),
    reseeded(closing_over()),
    reseeded(with_default),
    reseeded(partial(with_default, held=np.random.default_rng())),
    reseeded(Seedable(), set_seed='set_random_seed'),
    reseeded(OwnGenerators(), set_seed=lambda each, seed: each.__init__() or set_all(each, seed)),
]


def set_all(each, seed):
    each.generator = np.random.default_rng(seed)
    each.parts = [types.SimpleNamespace(state=np.random.RandomState(seed), python=random.Random(seed))]


def names(functions):
    return [f'{number}-{each._body!r:.20}' for number, each in enumerate(functions)]


def batches_of(function, workers=None, n=4):
    return pipeline(range(40), apply(function, seed=0, workers=workers), combine_batches(5, list), prefetch(n))


def expected(function):
    return list(pipeline(range(40), apply(function, seed=0), combine_batches(5, list)))


@pytest.mark.parametrize('function', SEEDED + RESEEDED, ids=names(SEEDED + RESEEDED))
def test_the_laws(function):
    check_stage(apply(function, seed=0))


@pytest.mark.parametrize('function', SEEDED, ids=names(SEEDED))
def test_global_generators_go_on_where_they_were(function):
    random.seed(7)
    np.random.seed(7)
    undisturbed = random.random(), np.random.rand()
    random.seed(7)
    np.random.seed(7)
    first = function(0, rng=np.random.default_rng(0))
    assert (random.random(), np.random.rand()) == undisturbed
    assert function(0, rng=np.random.default_rng(0)) == first
    assert function(0, rng=np.random.default_rng(1)) != first


def test_generators_are_put_back_after_an_error():
    def fail(x):
        random.random()
        raise OSError('broken')

    before = global_states()
    with pytest.raises(OSError, match='broken'):
        seeded(fail)(1, rng=np.random.default_rng(0))
    assert moved_since(before) == []


@pytest.mark.parametrize('function', SEEDED + RESEEDED, ids=names(SEEDED + RESEEDED))
def test_processes_give_what_the_calling_thread_gives(function):
    with batches_of(function, processes(2), n=8) as batches:
        got = []
        for batch in batches:
            got.append(batch)
            random.random()  # as training does
            np.random.rand()
    assert got == expected(function)
    with batches_of(function, processes(1), n=8) as batches:
        list(islice(batches, 3))
        state = batches.state_dict()
    with batches_of(function, processes(2), n=8) as batches:
        batches.load_state_dict(state)
        assert list(batches) == got[3:]


@pytest.mark.parametrize('function', RESEEDED, ids=names(RESEEDED))
def test_reseeded_functions_run_in_threads_and_beside_others(function):
    for workers in None, threads(3):
        with batches_of(function, workers, n=8) as batches:
            assert list(batches) == expected(function)


def test_seeded_functions_run_on_an_executor_of_processes():
    with (
        ProcessPoolExecutor(2, mp_context=get_context('spawn')) as pool,
        batches_of(seeded(of_both), pool, 8) as batches,
    ):
        assert list(batches) == expected(seeded(of_both))


@pytest.mark.parametrize(
    'stage',
    [
        lambda workers: apply(seeded(of_random), seed=0, workers=workers),
        lambda workers: unpack(seeded(pair), seed=0, workers=workers),
        lambda workers: apply(random_apply(0.5, seeded(of_random)), seed=0, workers=workers),
        lambda workers: apply(apply_at(0, seeded(of_random)), seed=0, workers=workers),
        lambda workers: apply(zip_apply(seeded(of_random), abs), seed=0, workers=workers),
        lambda workers: apply(nested(seeded(of_random)), seed=0, workers=workers),
    ],
)
@pytest.mark.parametrize(
    'workers',
    [None, threads(2), ThreadPoolExecutor(1), Pool(1), executor(Pool(1), whole_batches=True)],
    ids=['prefetch', 'threads', 'pool', 'subclass', 'described'],
)
def test_seeded_functions_are_refused_where_others_draw(stage, workers):
    batches = pipeline([(1, 2)] * 9, stage(workers), prefetch())
    with pytest.raises(ValueError, match=r'seeds generators that all threads share.*pass workers=processes'), batches:
        pass
    with pytest.raises(ValueError, match='share'):
        next(iter(pipeline(mix(pipeline([(1, 2)] * 9, stage(workers)), range(3), seed=0), prefetch())))


def nested(inner):
    def function(x, rng):
        return inner(x, rng=rng)

    return function


def test_a_seeded_function_that_is_hidden_is_refused_when_it_is_called():
    hidden = {1: {2: {3: {4: {5: seeded(of_random)}}}}}

    def source():
        yield from (hidden[1][2][3][4][5](number, rng=np.random.default_rng(0)) for number in range(3))

    with pipeline(source, prefetch()) as batches, pytest.raises(RuntimeError, match='seeds generators that all'):
        list(batches)


def test_a_library_that_the_function_loads_is_seeded_as_well(monkeypatch):
    class Generator:
        state = 5

        def get_state(self):
            return self.state

        def set_state(self, state):
            self.state = state

        manual_seed = set_state

    def load_and_draw(x):
        if 'torch' not in sys.modules:
            module = types.ModuleType('torch')
            module.default_generator, module.equal = Generator(), operator.eq
            monkeypatch.setitem(sys.modules, 'torch', module)
        return sys.modules['torch'].default_generator.get_state()

    monkeypatch.delitem(sys.modules, 'torch', raising=False)
    function = seeded(load_and_draw)
    first = function(0, rng=np.random.default_rng(0))
    assert first == function(0, rng=np.random.default_rng(0)) != 5
    assert first != function(0, rng=np.random.default_rng(1))


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_different_generators_give_different_numbers(a, b):
    values = [
        [of_function(0, rng=np.random.Generator(np.random.Philox(key=key))) for of_function in (*SEEDED, *RESEEDED)]
        for key in (a, b)
    ]
    assert all((x == y) == (a == b) for x, y in zip(*values, strict=True))


def test_the_original_of_a_reseeded_transform_is_left_alone():
    transform = Seedable()
    function = reseeded(transform)
    assert function(1, rng=np.random.default_rng(0)) == function(1, rng=np.random.default_rng(0))
    assert transform.seeds == []


def test_each_thread_has_a_copy():
    transforms = set()

    class Transform(Seedable):
        def __call__(self, x):
            transforms.add(id(self))
            return super().__call__(x)

    function = reseeded(Transform())
    for _ in range(2):
        function(1, rng=np.random.default_rng(0))
    with ThreadPoolExecutor(1) as pool:
        pool.submit(function, 1, rng=np.random.default_rng(0)).result()
    assert len(transforms) == 2


GLOBAL_GENERATOR = np.random.default_rng(0)


def draws_from_a_variable(x):
    return GLOBAL_GENERATOR.random()


def takes_rng(x, rng):
    return x


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: seeded(takes_rng), 'got takes_rng, which takes rng'),
        (lambda: seeded(3), 'func must be a function of a sample, got 3'),
        (lambda: seeded(seeded(of_random)), 'which takes rng'),
        (lambda: reseeded(takes_rng), 'which takes rng'),
        (lambda: reseeded(3), 'transform must be a function'),
        (lambda: reseeded(abs), 'has no generator that could be found; pass set_seed='),
        (lambda: reseeded(of_random), 'use seeded'),
        (lambda: reseeded(draws_from_a_variable), 'draws from the global variable GLOBAL_GENERATOR'),
        (lambda: reseeded(Seedable(), set_seed='reseed'), "the name of a method of .*, got 'reseed'"),
        (lambda: reseeded(Seedable(), set_seed=3), 'set_seed must be a function, the name of a method, or None, got 3'),
        (lambda: seeded(of_random)(1), 'call it with rng='),
        (lambda: reseeded(Seedable())(1), 'call it with rng='),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def pure(x):
    return x


@pytest.mark.parametrize('workers', [None, threads(4), processes(2)], ids=['prefetch', 'threads', 'processes'])
@pytest.mark.parametrize(('function', 'library'), [(of_random, 'random'), (of_numpy, 'numpy.random')])
def test_a_function_that_draws_from_a_global_generator_is_warned_of_once(workers, function, library):
    stages = [apply(pure, workers=workers), apply(function, workers=workers), apply(len, workers=workers)]
    batches = pipeline(sample(range(9), seed=0), *stages, combine_batches(4, list), prefetch(5))

    def run():
        for _ in range(2):
            with batches:
                list(batches)

    with pytest.warns(RuntimeWarning) as caught:
        run()
    assert [str(each.message).partition(' draws')[0] for each in caught] == [f'apply({function.__name__})']
    assert f'global generator of {library}, so that' in str(caught[0].message)
    assert 'seeded(...)' in str(caught[0].message)


@pytest.mark.parametrize('workers', [None, threads(4), processes(2)], ids=['prefetch', 'threads', 'processes'])
def test_pure_functions_are_not_warned_of(workers):
    stages = [apply(pure, workers=workers), apply(lambda x, rng: rng.random(), seed=0, workers=workers)]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        with pipeline(range(99), *stages, repeat(), combine_batches(4, list), prefetch(5)) as batches:
            for _ in batches:
                random.random()
                np.random.rand()


def test_threads_do_not_wait_for_each_other_for_long():
    together = threading.Barrier(4, timeout=30)
    # Not in passes: those of the second one would wait, ahead, while the batches are closed.
    with pipeline(range(8), apply(lambda _: together.wait() < 4, workers=threads(4)), prefetch(9)) as batches:
        assert all(batches)


def test_describe_says_which_stage_draws():
    table = str(pipeline(range(9), apply(pure), apply(of_both), apply(len), combine_batches(2)).describe())
    assert table.splitlines()[-1] == (
        'apply(of_both) draws from the global generator of random and numpy.random: see seeded'
    )
    assert table.count('draws') == 1


def test_states_are_restored_as_a_whole():
    before = global_states()
    random.random()
    np.random.rand()
    assert moved_since(before) == ['random', 'numpy.random']
    restore_global(before)
    assert moved_since(before) == []


def changing(values):
    values.append(1)
    return len(values)


COUNTER = iter(range(10**9))


@pytest.mark.parametrize(
    ('func', 'sample', 'message'),
    [
        (of_random, (1,), 'of_random draws from the global generator of random, so that its results.*seeded'),
        (of_numpy, (1,), 'of_numpy draws from the global generator of numpy.random'),
        (of_both, (1,), 'of random and numpy.random'),
        (pair, (1, 2), 'draws'),
        (closing_over(), (1,), 'transform holds the random generator `generator`.*reseeded'),
        (OwnGenerators(), (1,), 'holds the random generator'),
        (with_default, (1,), 'holds the random generator `held`'),
        (lambda x: next(COUNTER), (1,), 'gave 0 for a sample, and 1 the second time'),
        (changing, ([],), 'changing changes its argument'),
    ],
)
def test_check_function_says_what_is_wrong(func, sample, message):
    with pytest.raises(AssertionError, match=message):
        check_function(func, *sample)


@pytest.mark.parametrize('func', [abs, takes_rng, seeded(of_both), reseeded(OwnGenerators()), random_apply(0.5, abs)])
def test_check_function_passes_what_is_pure(func):
    check_function(func, -1)


@pytest.mark.parametrize('workers', [None, threads(4)], ids=['prefetch', 'threads'])
def test_nobody_is_blamed_for_what_the_training_draws(workers):
    begun = threading.Event()

    def slow(x):
        begun.set()
        threading.Event().wait(0.02)
        return x

    with warnings.catch_warnings():
        warnings.simplefilter('error')
        with pipeline(range(12), apply(slow, workers=workers), combine_batches(4, list), prefetch()) as batches:
            begun.wait(30)
            for _ in range(20_000):
                random.random()
            assert len(list(batches)) == 3


def test_an_empty_cell_is_copied_as_one():
    def outer():
        generator = np.random.default_rng()

        def transform(x):
            return (x, generator.random()) if x >= 0 else never

        if generator is None:
            never = 1
        return transform

    function = reseeded(outer())
    assert function(1, rng=np.random.default_rng(0)) == function(1, rng=np.random.default_rng(0))
