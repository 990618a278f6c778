import copy
import pickle
import threading
import time
import tracemalloc
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipekit.streams.randomness import LARGEST_DRAWN, Generators, permutation, random_order

INTS = [0, 1, 2, 10, 2**32, 2**64 - 1, 2**64, 2**64 + 1, 2**200]
CURSORS = [
    *INTS,
    (),
    *product([0, 1, 10, 2**64], repeat=1),
    *product([0, 1, 10], repeat=2),
    ((0,), 1),
    (0, (1,)),
    ((0, 1),),
]
KEYS = [key for key in CURSORS if isinstance(key, tuple)]
NESTED = st.recursive(st.integers(0, 2**70), lambda parts: st.lists(parts, max_size=3).map(tuple), max_leaves=4)


def drawn(seed, key, cursor):
    return Generators(seed, key).at(cursor).bit_generator.random_raw(2).tobytes()


def test_every_seed_key_and_cursor_draws_something_else():
    places = list(product(INTS, KEYS, CURSORS))
    assert len({drawn(*place) for place in places}) == len(places)


@given(NESTED, NESTED)
def test_any_two_cursors_draw_something_else(one, other):
    assert (drawn(0, (), one) == drawn(0, (), other)) == (one == other)


@given(st.lists(st.integers(0, 9), min_size=1), st.sampled_from([(), (1, (2,))]))
def test_what_a_cursor_draws_does_not_depend_on_the_calls_before(cursors, key):
    generators = Generators(0, key)
    for cursor in cursors:
        generator = generators.at(cursor)
        assert generator.random() == Generators(0, key).at(cursor).random()
        generator.integers(9, size=cursor, dtype=np.uint32)  # leaves half a word behind


@pytest.mark.parametrize(
    ('place', 'raw', 'number'),
    [
        ((0, (), 0), 5366816472899394997, 0.714885155388213),
        ((0, (), 5), 3783079694012746665, 0.9110787404140261),
        ((0, (), (0,)), 9879621488234350288, 0.46876356395924956),
        ((17, (1, (2,)), (3, (4, 5))), 13313720463856829634, 0.7715181701447944),
        ((2**70, (), 2**64), 3740860945762097471, 0.20914277587086627),
    ],
)
def test_streams_are_those_of_every_other_version(place, raw, number):
    generator = Generators(*place[:2]).at(place[2])
    assert (generator.bit_generator.random_raw(), generator.random()) == (raw, number)


def test_permutations_are_those_of_every_other_version():
    assert permutation(5, Generators(0, ()).at(0))(np.arange(5)).tolist() == [3, 4, 0, 1, 2]
    large = permutation(10**12, Generators(0, ()).at(0))(np.arange(4))
    assert large.tolist() == [853530132342, 339169881772, 35346409696, 194828735455]


def test_a_negative_cursor_is_an_error():
    with pytest.raises(OverflowError):
        Generators(0, ()).at(-1)


KEEPING = [
    (lambda generator: generator, lambda kept: kept.random()),
    (lambda generator: generator.bit_generator, lambda kept: np.random.Generator(kept).random()),
    (lambda generator: generator.random, lambda kept: kept()),
    (copy.copy, lambda kept: kept.random()),
    (copy.deepcopy, lambda kept: kept.random()),
    (lambda generator: pickle.loads(pickle.dumps(generator)), lambda kept: kept.random()),
    (lambda generator: [[generator]], lambda kept: kept[0][0].random()),
    (lambda generator: iter([generator]), lambda kept: next(kept).random()),
]


@pytest.mark.parametrize(('keep', 'draw'), KEEPING)
def test_a_kept_generator_is_never_keyed_anew(keep, draw):
    generators = Generators(0, ())
    kept = [keep(generators.at(cursor)) for cursor in range(5)]
    assert [draw(one) for one in kept] == [Generators(0, ()).at(cursor).random() for cursor in range(5)]


def test_a_generator_kept_by_another_thread_is_never_keyed_anew():
    generators, go_on, found = Generators(0, ()), threading.Event(), []

    def draw_later(generator):
        go_on.wait(10)
        found.append(generator.random())

    thread = threading.Thread(target=draw_later, args=[generators.at(1)])
    thread.start()
    for cursor in range(2, 5):
        generators.at(cursor).random()
    go_on.set()
    thread.join(10)
    assert found == [Generators(0, ()).at(1).random()]


def test_a_generator_that_nobody_kept_is_used_again():
    generators = Generators(0, ())
    assert len({id(generators.at(cursor)) for cursor in range(100)}) == 1


@pytest.mark.parametrize('of', [lambda generator: generator, lambda generator: generator.bit_generator])
def test_a_generator_refuses_to_spawn(of):
    with pytest.raises(TypeError, match='does not implement spawning'):
        of(Generators(0, ()).at(0)).spawn(2)


def test_numbers_of_different_cursors_are_independent():
    numbers = np.array([Generators(0, ()).at(cursor).random(2) for cursor in range(20_000)]).T
    for one, other in combinations([*numbers, np.roll(numbers[0], 1)], 2):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.03


@pytest.mark.parametrize('large', [False, True])
def test_a_permutation_is_a_bijection(large, monkeypatch):
    if large:
        monkeypatch.setattr('pipekit.streams.randomness.LARGEST_DRAWN', 1)
    for n in [*range(2, 300), *range(300, 3001, 37), 3000]:
        order = permutation(n, np.random.default_rng(n))(np.arange(n))
        assert np.array_equal(np.sort(order), np.arange(n)), n


@pytest.mark.parametrize('n', [1, LARGEST_DRAWN, LARGEST_DRAWN + 1, 2**14, 2**14 + 1, 10**5, 2**20])
def test_a_permutation_of_many_is_a_bijection(n):
    order = permutation(n, np.random.default_rng(0))
    blocks = [order(np.arange(first, min(first + 1000, n))) for first in range(0, n, 1000)]
    assert np.array_equal(np.sort(np.concatenate(blocks)), np.arange(n))


@pytest.mark.parametrize('n', [10**9, 2**32, 10**12, 2**62 + 1])
@pytest.mark.parametrize('start', [0, 0.5, 1])
def test_a_window_of_a_huge_permutation_has_no_index_twice(n, start):
    positions = int((n - 10**5) * start) + np.arange(10**5)
    indices = permutation(n, np.random.default_rng(0))(positions)
    assert indices.dtype == np.int64
    assert len(np.unique(indices)) == 10**5
    assert 0 <= indices.min() <= indices.max() < n


def chi_square(counts):
    expected = counts.sum() / counts.size
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize('n', [LARGEST_DRAWN + 1, 10**6, 10**12])
@pytest.mark.parametrize('seed', range(3))
def test_neighbouring_positions_go_to_unrelated_indices(n, seed):
    indices = permutation(n, Generators(seed, ()).at(0))(np.arange(8192))
    bins = indices * 16 // n if n < 10**18 else indices // (n // 16)
    pairs = np.bincount(bins[1:] * 16 + bins[:-1], minlength=256)
    assert chi_square(pairs) < 350  # of 255 degrees of freedom: beyond 350 once in 10**4


@pytest.mark.parametrize('n', [3, LARGEST_DRAWN + 1, 10**12])
def test_a_position_goes_to_every_index_equally_often(n):
    generators = Generators(0, ())
    firsts = [int(permutation(n, generators.at(cursor))(np.array([n // 2]))[0]) for cursor in range(3000)]
    parts = min(n, 20)
    assert chi_square(np.bincount([first * parts // n for first in firsts], minlength=parts)) < 50


def test_a_huge_permutation_takes_little_memory_and_time():
    positions = np.arange(10**5)
    tracemalloc.start()
    order = permutation(10**12, np.random.default_rng(0))
    start = time.perf_counter()
    order(positions)
    elapsed, (_, peak) = time.perf_counter() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * positions.nbytes
    assert elapsed < 10e-6 * len(positions)


def test_larger_weights_tend_to_come_earlier():
    generators, weights = Generators(0, ()), np.array([1.0, 2.0, 5.0])
    orders = np.array([random_order(3, generators.at(cursor), weights) for cursor in range(4000)])
    assert np.bincount(orders[:, 0]) / 4000 == pytest.approx(weights / 8, abs=0.03)


def test_weights_next_to_zero_come_last():
    weights = np.array([5e-324, 1.0, 5e-324, 1.0])
    assert sorted(random_order(4, np.random.default_rng(0), weights)[:2].tolist()) == [1, 3]
