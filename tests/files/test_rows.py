"""The order of the rows of many files."""

import json
import pickle
import time
import tracemalloc
from collections import Counter
from itertools import chain, islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from more_itertools import chunked, consume

from pipekit import StateMismatch, apply, combine_batches, pipeline, prefetch, rows, sample, shuffle, take
from pipekit.streams.context import Context
from pipekit.streams.cursors import START
from pipekit.testing import check_stage

LAYOUTS = st.fixed_dictionaries(
    {
        'lengths': st.lists(st.integers(0, 12), min_size=1, max_size=12).filter(any),
        'window': st.none() | st.integers(1, 20),
        'lanes': st.integers(1, 6),
        'run': st.integers(1, 4),
        'has_lanes': st.booleans(),
        'seed': st.none() | st.integers(0, 3),
    }
)


def names(n):
    return [f'part-{number:05}' for number in range(n)]


def source_of(layout, **options):
    lengths, lanes = layout['lengths'], layout['lanes']
    if layout['has_lanes']:
        options |= {'lanes': lanes, 'batch_size': lanes * layout['run']}
    if layout['seed'] is None:
        return rows(names(len(lengths)), lengths, shuffle=False, **options)
    return rows(names(len(lengths)), lengths, window=layout['window'], seed=layout['seed'], **options)


def expected(lengths):
    return [
        (name, number, length)
        for name, length in zip(names(len(lengths)), lengths, strict=True)
        for number in range(length)
    ]


def shares(source, batch_size, world_size, **options):
    options = {'world_size': world_size, 'uneven': True, **options}
    return [pipeline(source, combine_batches(batch_size, list, rank=rank, **options)) for rank in range(world_size)]


@given(LAYOUTS)
@settings(max_examples=100, deadline=None)
def test_each_row_comes_once_in_each_pass(layout):
    n = sum(layout['lengths'])
    for one_pass in islice(chunked(source_of(layout), n), 4):
        assert sorted(one_pass) == expected(layout['lengths'])
    assert sorted(source_of(layout, passes=1)) == expected(layout['lengths'])
    assert len(list(source_of(layout, passes=3))) == 3 * n


@given(LAYOUTS, st.integers(1, 24), st.integers(1, 7))
@settings(max_examples=60, deadline=None)
def test_the_shares_of_the_ranks_joined_are_the_batches_of_one(layout, batch_size, world_size):
    batch_size = max(batch_size, world_size)
    passes = source_of(layout, passes=2)
    whole = [batch for batch in pipeline(passes, combine_batches(batch_size, list)) if len(batch) >= world_size]
    joined = [list(chain(*step)) for step in zip(*shares(passes, batch_size, world_size), strict=True)]
    assert joined == whole


@given(LAYOUTS, st.data())
@settings(max_examples=60, deadline=None)
def test_it_resumes_at_any_cursor(layout, data):
    source = source_of(layout)
    values = iter(source)
    consume(values, data.draw(st.integers(0, 3 * sum(layout['lengths']))))
    cursor = json.loads(json.dumps(values.cursor))
    assert list(islice(source.resume(cursor), 30)) == list(islice(values, 30))


@pytest.mark.parametrize(
    'options',
    [{}, {'window': 5}, {'window': 4, 'lanes': 3, 'batch_size': 6}, {'passes': 2, 'window': 3}],
    ids=str,
)
def test_it_obeys_the_laws(options):
    source = rows(names(5), [3, 0, 7, 1, 4], **options, seed=0)
    check_stage(take(40), source, limit=35)
    check_stage(shuffle(5, seed=0), source, limit=20)


def test_it_prints_compares_and_pickles_as_code():
    source = rows(['a', 'b'], [2, 3], window=4, lanes=2, batch_size=4, seed=0)
    assert repr(source) == "rows(['a', 'b'], [2, 3], window=4, lanes=2, batch_size=4, seed=0)"
    assert pickle.loads(pickle.dumps(source)) == source
    assert eval(repr(source)) == source
    unseeded = rows(['a', 'b'], [20, 30], window=40)
    copied = pickle.loads(pickle.dumps(unseeded))
    assert list(islice(copied, 40)) == list(islice(unseeded, 40))


def test_without_shuffling_the_rows_come_in_the_given_order():
    assert list(rows(names(3), [2, 0, 3], passes=1, shuffle=False)) == expected([2, 0, 3])


def test_without_a_window_the_rows_of_a_file_come_in_their_order():
    numbers = {}
    for file, number, _ in rows(names(20), [7] * 20, passes=1, seed=0):
        assert number == numbers.get(file, 0)
        numbers[file] = number + 1


def test_files_come_in_another_order_in_every_pass_and_every_order_is_about_equally_likely():
    orders = Counter(
        tuple(row.file for row in one) for one in islice(chunked(rows(list('abc'), [1] * 3, seed=0), 3), 3000)
    )
    assert len(orders) == 6
    assert min(orders.values()) > 400


def test_rows_move_within_their_window_and_every_place_is_about_equally_likely():
    source = rows(['a'], [16], window=4, seed=0)
    places = Counter()
    for one in islice(chunked(source, 16), 2000):
        for first in range(0, 16, 4):
            assert sorted(row.number for row in one[first : first + 4]) == list(range(first, first + 4))
        places.update(enumerate(row.number for row in one))
    assert len(places) == 64
    assert min(places.values()) > 400


def test_different_windows_are_shuffled_differently():
    numbers = [row.number for row in rows(['a'], [100], window=10, passes=2, seed=0)]
    orders = {tuple(number % 10 for number in chunk) for chunk in chunked(numbers, 10)}
    assert len(orders) == 20


def test_seeds_passes_and_branches_differ():
    def first(*parts):
        return [row.file for row in islice(pipeline(*parts), 50)]

    drawn = [first(rows(names(100), [1] * 100, seed=seed)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_each_batch_has_consecutive_rows_of_each_lane():
    source = rows(['a'], [40], lanes=4, batch_size=8, passes=1, seed=0)
    batches = [[row.number for row in batch] for batch in pipeline(source, combine_batches(8, list))]
    assert batches == [[10 * lane + 2 * step + k for lane in range(4) for k in range(2)] for step in range(5)]


# The trial of 2,000 uneven files.
UNEVEN = np.random.default_rng(0).integers(1, 400, 2000)
BATCH = 480


def uneven_rows(**options):
    return rows(names(len(UNEVEN)), UNEVEN, window=1000, seed=0, **options)


def order_of(source, n):
    """The order of the first rows, as their numbers among all rows of all files."""
    return np.array(source.indices.open_numbered(START, Context()).between(0, n))


@pytest.mark.parametrize('lanes', [None, 48])
def test_two_thousand_uneven_files_are_read_alike_on_any_number_of_ranks(lanes):
    source = uneven_rows(passes=1, **({} if lanes is None else {'lanes': lanes, 'batch_size': BATCH}))
    n = int(UNEVEN.sum())
    order = order_of(source, n)
    np.testing.assert_array_equal(np.sort(order), np.arange(n))
    starts = dict(zip(names(len(UNEVEN)), np.cumsum(UNEVEN) - UNEVEN, strict=True))
    for world_size in 6, 16:
        parts = [islice(part, 40) for part in shares(source, BATCH, world_size)]
        joined = chain.from_iterable(chain(*step) for step in zip(*parts, strict=True))
        assert [starts[row.file] + row.number for row in joined] == order[: 40 * BATCH].tolist()


def files_opened(source, world_size):
    """How many files each rank opens in a pass."""
    order = order_of(source, int(UNEVEN.sum()) // BATCH * BATCH)
    files = np.searchsorted(np.cumsum(UNEVEN), order, side='right').reshape(-1, world_size, BATCH // world_size)
    return [len(np.unique(files[:, rank])) for rank in range(world_size)]


def test_with_lanes_a_rank_opens_few_files_and_without_all():
    with_lanes = files_opened(uneven_rows(lanes=48, batch_size=BATCH), 48)
    assert 42 <= np.mean(with_lanes) <= 44
    assert max(with_lanes) < 60  # files are uneven, and so are the parts of ranks in files
    assert min(files_opened(uneven_rows(), 48)) > 1700


def test_a_lane_keeps_its_places_in_batches_after_the_first_pass():
    source = uneven_rows(lanes=48, batch_size=BATCH)
    n = int(UNEVEN.sum())
    for number in 1, 7:
        assert number * n % (BATCH // 48)  # the pass begins in the middle of a lane's run
        start = -(-number * n // BATCH) * BATCH
        pairs = pipeline(source, combine_batches(BATCH, list, rank=20, world_size=48)).resume(start)
        files = {row.file for row in chain.from_iterable(islice(pairs, n // BATCH - 1))}
        assert len(files) < 60


def test_a_far_row_is_found_at_once():
    source = rows(names(1000), [10**9] * 1000, window=10**6, lanes=10, batch_size=100, seed=0)
    start = time.perf_counter()
    assert len(list(islice(source.resume(10**17), 3))) == 3
    assert len(list(islice(rows(['a', 'b'], [3, 4], seed=0).resume(10**30), 3))) == 3
    assert time.perf_counter() - start < 1


def test_memory_grows_with_the_number_of_files_alone():
    def peak(length):
        tracemalloc.start()
        consume(islice(rows(names(1000), [length] * 1000, window=10**5, lanes=4, batch_size=32, seed=0), 5000))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(10)
    assert peak(10**9) < 3e6


def test_permutations_of_windows_that_are_kept_are_bounded():
    source = rows(['a'], [10**7], window=8000, lanes=1000, batch_size=1000, seed=0)
    tracemalloc.start()
    consume(islice(source, 3000))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 20e6


def test_a_state_is_saved_on_one_number_of_ranks_and_loaded_on_another():
    def batches(rank, world_size):
        source = rows(names(9), range(10, 19), window=6, lanes=4, batch_size=12, seed=0)
        return pipeline(
            source,
            apply(tuple),
            combine_batches(12, list, rank=rank, world_size=world_size, uneven=True),
            prefetch(5),
        )

    def epoch(rank, world_size, state):
        with batches(rank, world_size) as some:
            some.load_state_dict(state)
            return list(some)

    with batches(1, 4) as some:
        list(some)
        state = json.loads(json.dumps(some.state_dict()))
    whole = epoch(0, 1, state)
    for world_size in 3, 5:
        steps = zip(*[epoch(rank, world_size, state) for rank in range(world_size)], strict=True)
        assert [list(chain(*step)) for step in steps] == whole


def test_a_state_of_other_lengths_is_refused():
    def batches(lengths):
        return pipeline(rows(names(200), lengths, seed=0), combine_batches(4, list), prefetch(2))

    lengths = [5] * 200
    with batches(lengths) as some:
        list(some)
        state = some.state_dict()
    changed = [*lengths[:100], 6, *lengths[101:]]
    assert repr(batches(changed)) == repr(batches(lengths))
    with pytest.raises(StateMismatch, match='1001 rows'):
        batches(changed).load_state_dict(state)


WRONG = [
    ({'files': 'abc.npy'}, TypeError, 'files must be a list of paths or URLs'),
    ({'files': []}, ValueError, 'files must be a list of at least one path or URL, got []'),
    ({'lengths': [1]}, ValueError, 'one for each of 2 files, got 1 of them: [1]'),
    ({'lengths': [1, 2, 3]}, ValueError, 'one for each of 2 files, got 3 of them'),
    ({'lengths': [1, -2]}, ValueError, "got -2 for 'b'"),
    ({'lengths': [1, 2.0]}, TypeError, "got 2.0 for 'b'"),
    ({'lengths': [1, True]}, TypeError, "got True for 'b'"),
    ({'lengths': [0, 0]}, ValueError, 'lengths must not all be zero'),
    ({'lengths': [2**62, 1]}, ValueError, 'lengths must add up to at most'),
    ({'lengths': 3}, TypeError, 'got 3'),
    ({'lanes': 2}, TypeError, 'lanes=2 needs batch_size'),
    ({'batch_size': 2}, ValueError, 'without lanes; leave it out'),
    ({'lanes': 3, 'batch_size': 8}, ValueError, 'lanes must divide batch_size'),
    ({'shuffle': False, 'seed': 0}, ValueError, 'got seed=0 with shuffle=False'),
    ({'shuffle': False, 'window': 3}, ValueError, 'got window=3 with shuffle=False'),
]


@pytest.mark.parametrize(('changed', 'error', 'message'), WRONG, ids=str)
def test_a_wrong_argument_is_an_error_at_once(changed, error, message):
    given = {'files': ['a', 'b'], 'lengths': [2, 3], **changed}
    with pytest.raises(error) as caught:
        rows(**given)
    assert message in str(caught.value)


@pytest.mark.parametrize('cursor', [(1, 2), 13])
def test_a_cursor_that_is_not_one_of_rows_is_refused(cursor):
    with pytest.raises(ValueError, match='is not one of rows'):
        rows(['a', 'b'], [5, 7], passes=1, seed=0).resume(cursor)


def test_a_sequence_of_rows_can_be_sampled_too():
    source = rows(['a', 'b'], [5, 7], passes=1, shuffle=False)
    assert len(list(islice(sample(list(source), seed=0), 20))) == 20
