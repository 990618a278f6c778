"""The shares of ranks: joined, they are the batches of one rank, and a state fits any rank of any number of ranks."""

import json
import weakref
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipekit import (
    WorkerCrashed,
    apply,
    arrays,
    combine_batches,
    expiration_pool,
    flatten,
    keep,
    mix,
    pipeline,
    prefetch,
    processes,
    repeat,
    replace,
    rows,
    sample,
    shard,
    shuffle,
    skip,
    take,
    threads,
    unpack,
)
from pipekit.streams.context import Context, Run
from pipekit.streams.cursors import START
from pipekit.workers.pools import WorkerPools

BORROWED = ThreadPoolExecutor(2)
N = 12  # batches looked at
INLINE = Run()


class DataSet:
    """A data set that counts what is read of it."""

    def __init__(self, n):
        self.n = n
        self.read = []

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        if not 0 <= index < self.n:
            raise IndexError(index)
        self.read.append(index)
        return float(index)


def numbers():
    yield from range(41)


def noisy(value, rng):
    return value, int(rng.integers(1000))


def same(value):
    return value


SOURCES = {
    'with replacement': lambda: sample(range(100), seed=0),
    'without replacement': lambda: sample(range(31), replace=False, seed=0),
    'many without replacement': lambda: sample(range(10**9), replace=False, seed=0),
    'weights': lambda: sample(range(9), range(9), seed=0),
    'weights without replacement': lambda: sample(range(9), range(9), replace=False, seed=0),
    'a sequence': lambda: range(50),
    'a short sequence': lambda: range(3),
    'nothing': list,
    'a data set': lambda: DataSet(33),
    'a function': lambda: numbers,
    'rows': lambda: rows(['a', 'b', 'c'], [9, 20, 2], window=5, passes=2, seed=0),
    'rows in lanes': lambda: rows(['a', 'b', 'c'], [9, 20, 2], window=5, lanes=3, batch_size=6, seed=0),
    'arrays': lambda: arrays(np.arange(44), np.arange(44.0)),
    'samples of arrays': lambda: sample(arrays(np.arange(44), np.arange(44.0)), seed=1),
    'a mix': lambda: mix(sample(range(5), seed=0), sample(range(100, 105), seed=0), seed=2),
    'a mix of one sequence': lambda: mix(sample(IDS, seed=0), sample(IDS, [1, 2, 3], seed=0), seed=2),
    'a mix of pipelines': lambda: mix(pipeline(range(9), apply(float)), sample(range(3), seed=1), seed=2),
}
IDS = [10, 11, 12]
STAGES = {
    'shuffle': shuffle(7, seed=3),
    'take': take(29),
    'repeat': repeat(2),
    'keep': keep(lambda value: value != 3),
    'flatten': pipeline(apply(lambda value: [value, value]), flatten()),
    'expiration_pool': expiration_pool(3, repetitions=2, seed=4),
    'apply': apply(same),
    'apply in threads': apply(same, workers=threads(2)),
    'apply in an executor': apply(same, workers=BORROWED),
    'random': apply(noisy, seed=5),
    'random in threads': apply(noisy, seed=5, workers=threads(2)),
    'replace': apply(same, on_error=replace(same)),
    'chunks': combine_batches(2, list),
}


def pairs(stream, n=N, cursor=START, run=INLINE):
    return list(islice(stream.open(cursor, Context(run=run)), n))


def shares(parts, batch_size, n_ranks, drop_last=False, combine=list):
    for rank in range(n_ranks):
        options = {'rank': rank, 'world_size': n_ranks, 'uneven': True, 'drop_last': drop_last}
        yield pipeline(*parts, combine_batches(batch_size, combine, **options))


def joined(of_ranks):
    return [list(chain.from_iterable(step)) for step in zip(*of_ranks, strict=True)]


def values_of(pairs):
    return [value for value, _ in pairs]


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(sorted(SOURCES)),
    st.lists(st.sampled_from(sorted(STAGES)), max_size=3),
    st.integers(1, 9),
    st.booleans(),
    st.data(),
)
def test_the_shares_of_all_ranks_joined_are_the_batches_of_one(source, names, batch_size, drop_last, data):
    n_ranks = data.draw(st.integers(1, batch_size))
    parts = [SOURCES[source](), *(STAGES[name] for name in names)]
    whole = pairs(pipeline(*parts, combine_batches(batch_size, list, drop_last=drop_last)))
    whole = [(batch, cursor) for batch, cursor in whole if len(batch) >= n_ranks]
    pools = WorkerPools()
    try:
        for run in INLINE, Run(pools), Run(fuses=False):
            of_ranks = [pairs(each, run=run) for each in shares(parts, batch_size, n_ranks, drop_last)]
            assert all([cursor for _, cursor in each] == [cursor for _, cursor in whole] for each in of_ranks)
            assert joined(map(values_of, of_ranks)) == values_of(whole)
            sizes = [[len(share) for share, _ in step] for step in zip(*of_ranks, strict=True)]
            assert all(max(each) - min(each) <= 1 for each in sizes)
        if whole:  # and goes on from any cursor, on any other number of ranks
            cursor = data.draw(st.sampled_from([cursor for _, cursor in whole]))
            fewer = data.draw(st.integers(1, batch_size))
            one = pairs(pipeline(*parts, combine_batches(batch_size, list, drop_last=drop_last)), cursor=cursor)
            rest = [pairs(each, cursor=cursor) for each in shares(parts, batch_size, fewer, drop_last)]
            assert joined(map(values_of, rest)) == [batch for batch, _ in one if len(batch) >= fewer]
    finally:
        pools.close()


@pytest.mark.parametrize('source', ['arrays', 'samples of arrays'])
def test_a_share_of_arrays_is_gathered(source):
    whole = pairs(pipeline(SOURCES[source](), shuffle(9, seed=1), combine_batches(6)))
    of_ranks = [pairs(each) for each in shares([SOURCES[source](), shuffle(9, seed=1)], 6, 4, combine=combine_of(6))]
    for step, (batch, cursor) in zip(zip(*of_ranks, strict=True), whole, strict=False):
        assert {each for _, each in step} == {cursor}
        for number in range(2):
            column = np.concatenate([share[number] for share, _ in step])
            np.testing.assert_array_equal(column, batch[number])
            assert column.dtype == batch[number].dtype


def combine_of(batch_size):
    return next(each for each in combine_batches(batch_size).operations if hasattr(each, 'function')).function


@pytest.mark.parametrize('workers', [threads(3), processes(2), BORROWED], ids=['threads', 'processes', 'borrowed'])
@pytest.mark.parametrize('stages', [1, 2])
def test_workers_compute_the_share_alone(workers, stages):
    functions = [apply(noisy, seed=0, workers=workers), apply(lambda pair: pair, workers=workers)][:stages]
    with pipeline(sample(range(50), seed=0), *functions, combine_batches(8, list), prefetch(6)) as batches:
        whole = list(batches)
    of_ranks = []
    for each in shares([sample(range(50), seed=0), *functions], 8, 4):
        with pipeline(each, prefetch(6)) as batches:
            of_ranks.append(list(batches))
    assert joined(of_ranks) == whole


def test_a_rank_reads_and_loads_its_own_samples_alone():
    for stages in [], [shuffle(12, seed=0)], [repeat()], [shuffle(12, seed=0), take(24)]:
        for rank in range(3):
            data_set, loaded = DataSet(48), []
            batch = combine_batches(6, list, rank=rank, world_size=3)
            part = pipeline(data_set, *stages, apply(lambda value, loaded=loaded: loaded.append(value) or value), batch)
            assert len(data_set.read) == 0
            whole = pairs(pipeline(range(48), *stages, combine_batches(6, list)), 3)
            got = pairs(part, 3)
            expected = [float(value) for batch, _ in whole for value in batch[2 * rank : 2 * rank + 2]]
            assert [value for share, _ in got for value in share] == expected
            assert loaded == data_set.read == expected


def test_a_shard_of_a_data_set_reads_its_own_samples_alone():
    for rank in range(4):
        data_set = DataSet(40)
        assert list(pipeline(data_set, shuffle(8, seed=0), shard(rank, 4), apply(float))) == data_set.read
        assert len(data_set.read) == 10
        data_set = DataSet(1000)
        assert len(list(islice(pipeline(sample(data_set, seed=0), shard(rank, 100)), 8))) == len(data_set.read) == 8


@pytest.mark.parametrize('data_set_size', [40, 43])
def test_states_are_equal_on_all_ranks_and_load_on_any_number_of_them(data_set_size):
    def make(rank, n_ranks, **options):
        ids = sample(range(data_set_size), replace=False, seed=0)
        return pipeline(
            ids,
            apply(noisy, seed=1, on_error=replace(lambda value: (value, -1))),
            combine_batches(12, list, rank=rank, world_size=n_ranks, **options),
            prefetch(5),
        )

    def join(n_ranks, state=None, epochs=2, **options):
        epochs_of_ranks, states = [], []
        for rank in range(n_ranks):
            with make(rank, n_ranks, **options) as batches:
                if state is not None:
                    batches.load_state_dict(json.loads(json.dumps(state)))
                epochs_of_ranks.append([[*batches] for _ in range(epochs)])
                states.append(batches.state_dict())
        assert all(each == states[0] for each in states)
        return list(chain.from_iterable(joined(epoch) for epoch in zip(*epochs_of_ranks, strict=True))), states[0]

    whole, state = join(1, epochs=4)
    for n_ranks in 2, 3, 4, 6, 12:
        first, middle = join(n_ranks)
        assert first == whole[:10]
        for other in 1, 2, 3, 4:
            assert join(other, middle) == (whole[10:], state)
    assert join(5, middle, uneven=True) == (whole[10:], state)


def test_passes_and_lengths_count_batches_of_all_ranks():
    for n_ranks in 1, 2, 3:
        of_ranks = []
        for each in shares([range(20)], 6, n_ranks):
            with pipeline(each, prefetch()) as batches:
                of_ranks.append([list(batches), list(batches), batches.state_dict()['delivered']])
        whole = [list(range(start, start + 6)) for start in (0, 6, 12)]
        assert joined(first for first, _, _ in of_ranks) == (whole if n_ranks == 3 else [*whole, [18, 19]])
        assert all(first == second and n == 2 * len(first) for first, second, n in of_ranks)


def test_random_stages_behind_a_share_draw_differently_and_those_before_alike():
    def parts(rank, n_ranks):
        draw = apply(lambda batch, rng: (batch, int(rng.integers(10**9))), seed=0)
        again = apply(lambda pair, rng: (*pair, int(rng.integers(10**9))), seed=0)
        batch = combine_batches(4, list, rank=rank, world_size=n_ranks)
        return pairs(pipeline(sample(range(99), seed=0), batch, draw, shuffle(3, seed=7), again), 6)

    of_ranks = [parts(rank, 4) for rank in range(4)]
    drawn = [number for each in of_ranks for (_, *numbers), _ in each for number in numbers]
    assert len(set(drawn)) == len(drawn) == 4 * 6 * 2
    # The shuffle of batches is the same on all ranks, so that the shares still belong together.
    whole = pairs(pipeline(sample(range(99), seed=0), combine_batches(4, list), shuffle(3, seed=7)), 6)
    assert joined([share for (share, *_), _ in each] for each in of_ranks) == values_of(whole)
    assert [cursor for _, cursor in of_ranks[1]] == [cursor for _, cursor in whole]
    assert parts(0, 4) == parts(0, 4)
    assert [value[1:] for value, _ in parts(0, 1)] == [value[1:] for value, _ in parts(0, 2)]


@pytest.mark.parametrize(
    ('stages', 'message'),
    [
        (
            lambda share: [apply(len, on_error=skip()), share],
            r'apply\(len, on_error=skip\(\)\) cannot come before .*repl',
        ),
        (lambda share: [apply(len, on_error=[replace(abs), skip()]), share], 'cannot come before'),
        (lambda share: [apply(len, on_error=skip()), shuffle(3, seed=0), share], 'cannot come before'),
        (lambda share: [share, keep(bool)], r'keep\(bool\) cannot come after .*different numbers'),
        (lambda share: [share, flatten()], r'flatten\(\) cannot come after'),
        (lambda share: [share, apply(len), keep(bool)], r'keep\(bool\) cannot come after'),
        (lambda share: [share, apply(len, on_error=skip())], 'cannot come after'),
        (lambda share: [share, combine_batches(lambda chunk, value: True)], 'cannot come after'),
        (lambda share: [share, shard(0, 2)], r'shard\(0, 2\) cannot come after .*leave out one'),
        (lambda share: [shard(0, 2), share], r'shard\(0, 2\) cannot come before .*leave out one'),
        (lambda share: [share, share], 'cannot come after .*leave out one'),
    ],
)
def test_what_is_not_exact_is_refused_when_it_is_written_down(stages, message):
    share = combine_batches(4, list, rank=0, world_size=2)
    with pytest.raises(ValueError, match=message):
        pipeline(range(9), *stages(share))
    with pytest.raises(ValueError, match=message):
        pipeline(pipeline(range(9)), pipeline(*stages(share)))


def test_stages_of_sources_are_refused_too():
    share = combine_batches(4, list, rank=0, world_size=2)
    skipping = pipeline(range(9), apply(len, on_error=skip()))
    with pytest.raises(ValueError, match='cannot come before'):
        pipeline(mix(skipping, range(9), seed=0), share)
    shared = mix(pipeline(range(9), share), pipeline(range(9), share), seed=0)
    with pytest.raises(ValueError, match='cannot come after'):
        pipeline(shared, keep(bool))
    with pytest.raises(ValueError, match='all sources of a mix or of none'):
        mix(pipeline(range(9), share), range(9), seed=0)
    with pytest.raises(ValueError, match='all sources of a mix or of none'):
        mix(pipeline(range(9), share), pipeline(range(9), combine_batches(4, list, rank=1, world_size=2)), seed=0)


@pytest.mark.parametrize(
    ('parts', 'drawn_by'),
    [
        (lambda share: [sample(range(9)), share], r'sample\(range\(0, 9\)\)'),
        (lambda share: [range(9), shuffle(3), share], r'shuffle\(3\)'),
        (lambda share: [range(9), share, shuffle(3)], r'shuffle\(3\)'),
        (lambda share: [mix(range(9), range(3)), share], 'mix'),
        (lambda share: [mix(sample(range(9)), range(3), seed=0), share], 'sample'),
        (lambda share: [mix(pipeline(range(9), shuffle(3)), range(3), seed=0), share], 'shuffle'),
        (lambda share: [range(9), apply(noisy), keep(bool), share], 'apply'),
    ],
)
def test_numbers_drawn_without_a_seed_that_decide_which_samples_come_next_are_refused(parts, drawn_by):
    with pytest.raises(ValueError, match=f'{drawn_by}.* draws other numbers on each rank.*pass seed=, the same on all'):
        pipeline(*parts(combine_batches(4, list, rank=0, world_size=2)))
    assert list(pipeline(*parts(combine_batches(4, list, rank=0, world_size=1)), take(1)))


def test_a_set_is_refused_because_its_order_differs_between_processes():
    for source in {'a', 'b'}, mix({'a', 'b'}, seed=0):
        with pytest.raises(ValueError, match=r"the source \{'.'.* is a set, whose order differs .*pass sorted"):
            pipeline(source, combine_batches(2, list, rank=0, world_size=2))
        assert len(next(iter(pipeline(source, combine_batches(2, list, rank=0, world_size=1))))) == 2


def test_numbers_drawn_without_a_seed_for_each_sample_or_batch_are_not_refused():
    of_ranks = [list(pipeline(share, apply(noisy))) for share in shares([range(8), apply(noisy)], 4, 2)]
    batches = joined([share for share, _ in each] for each in of_ranks)
    assert [[number for number, _ in batch] for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_mix_of_shares_is_the_mix_of_the_batches():
    def make(rank, n_ranks):
        share = combine_batches(4, list, rank=rank, world_size=n_ranks)
        draw = apply(lambda batch, rng: (batch, int(rng.integers(10**9))), seed=0)
        return pairs(pipeline(mix(pipeline(range(40), share), pipeline(range(100, 140), share), seed=0), draw))

    of_ranks = [make(rank, 2) for rank in range(2)]
    whole = make(0, 1)
    assert joined([share for (share, _), _ in each] for each in of_ranks) == [batch for (batch, _), _ in whole]
    drawn = [number for each in of_ranks for (_, number), _ in each]
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize(
    ('batch_size', 'options', 'error', 'message'),
    [
        (4, {'rank': 0}, TypeError, 'rank was given without world_size'),
        (4, {'world_size': 2}, TypeError, 'world_size was given without rank'),
        (4, {'rank': 2, 'world_size': 2}, ValueError, 'rank must be less than world_size, got rank 2 of 2'),
        (4, {'rank': -1, 'world_size': 2}, ValueError, 'rank must be a non-negative int, got -1'),
        (4, {'rank': True, 'world_size': 2}, TypeError, 'rank must be a non-negative int, got True'),
        (4, {'rank': 0, 'world_size': False}, TypeError, 'world_size must be a positive int, got False'),
        (4, {'rank': 0, 'world_size': 0}, ValueError, 'world_size must be a positive int, got 0'),
        (4, {'rank': 0.0, 'world_size': 2}, ValueError, 'rank must be a non-negative int, got 0.0'),
        (4, {'rank': '0', 'world_size': 2}, TypeError, 'rank must be a non-negative int'),
        (4, {'rank': 0, 'world_size': 5}, ValueError, 'at least world_size 5, got 4'),
        (4, {'rank': 0, 'world_size': 5, 'uneven': True}, ValueError, 'at least world_size 5, got 4'),
        (10, {'rank': 0, 'world_size': 4}, ValueError, 'take 8, or pass uneven=True'),
        (4, {'uneven': True}, ValueError, 'pass rank and world_size too'),
        (4, {'rank': 0, 'world_size': 2, 'uneven': 1}, TypeError, 'uneven must be'),
        (lambda chunk, value: True, {'rank': 0, 'world_size': 2}, ValueError, 'must be an int where ranks share'),
    ],
)
def test_wrong_arguments(batch_size, options, error, message):
    with pytest.raises(error, match=message):
        combine_batches(batch_size, list, **options)


@pytest.mark.parametrize('bad', [30, 32])
@pytest.mark.parametrize('workers', [None, threads(2), processes(2)], ids=repr)
def test_an_error_names_the_sample_and_how_to_run_it_again(workers, bad):
    def fail(value):
        return 1 / (value - bad)

    part = pipeline(range(100), apply(fail, workers=workers), combine_batches(12, list, rank=2, world_size=4))
    with pipeline(part, prefetch(9)) as batches:
        with pytest.raises(ZeroDivisionError) as caught:
            list(batches)
        assert batches.state_dict()['delivered'] == 2
    where, how = caught.value.__notes__[-1].splitlines()[:2]
    assert where == f'in {part.stages[0]!r}, the 2nd of 3 stages, on sample {bad} (cursor {bad + 1})'
    assert how == f'to run it again: pipeline.replay({bad}, stage=2)'
    with pytest.raises(ZeroDivisionError):
        batches.replay(bad, stage=2)
    for rank in 0, 1, 3:  # the other ranks do not see it
        other = combine_batches(12, list, rank=rank, world_size=4)
        assert len(list(pipeline(range(96), apply(fail), other))) == 8


def test_an_error_of_a_combiner_names_the_batch():
    def combine(samples):
        return 1 / (18 - samples[0])

    part = pipeline(range(100), combine_batches(12, combine, rank=1, world_size=2))  # of 6 to 11, 18 to 23, ...
    values = iter(part)
    next(values)
    with pytest.raises(ZeroDivisionError) as caught:
        next(values)
    where, how = caught.value.__notes__[-1].splitlines()[:2]
    assert where.endswith('the 2nd of 2 stages, on batch [18, 19, 20, 21, 22, 23] (cursor 24)')
    assert how == 'to run it again: pipeline.replay(12)'
    with pytest.raises(ZeroDivisionError):
        part.replay(12)


def test_a_process_that_dies_in_a_share_is_replaced(tmp_path):
    def fragile(value):
        import os
        from contextlib import suppress

        with suppress(FileExistsError):
            (tmp_path / 'died').touch(exist_ok=False)
            os._exit(1)
        return value

    part = combine_batches(8, list, rank=1, world_size=2)
    with (
        pipeline(range(64), apply(fragile, workers=processes(2)), part, prefetch()) as batches,
        pytest.warns(RuntimeWarning, match='a new one repeats its work'),
    ):
        assert list(batches) == [list(range(start, start + 4)) for start in range(4, 64, 8)]


def test_samples_that_kill_their_workers_are_replaced():
    def fragile(value):
        if value == 13:
            import os

            os._exit(1)
        return value

    replaced = apply(fragile, workers=processes(2), on_error=replace(lambda value: -value, WorkerCrashed, budget=None))
    part = pipeline(range(64), replaced, combine_batches(8, list, rank=1, world_size=2), prefetch())
    with part as batches:
        with pytest.warns(RuntimeWarning, match='a new one repeats its work'):
            got = list(batches)
        assert batches.state_dict()['failures'] == {}
    assert got == [[-n if n == 13 else n for n in range(start, start + 4)] for start in range(4, 64, 8)]
    assert [failure.sample for failure in batches.failures] == [13]


def test_many_replaced_samples_of_a_share_are_not_remembered():
    failing = apply(lambda value: 1 / 0, on_error=replace(lambda value: 0, budget=None))
    batch = combine_batches(100, len, rank=0, world_size=2)
    with pipeline(sample(range(9), seed=0), failing, batch, prefetch(400)) as batches:
        assert sum(batches) == 50 * 400
        assert not batches._delivery.failures._tried
        assert len(batches.failures) == 100


def test_describe_says_what_every_rank_computes():
    share = combine_batches(4, list, rank=0, world_size=2)

    def notes(*parts):
        return [line for line in str(pipeline(*parts).describe()).splitlines() if 'every rank' in line]

    assert notes(range(9), apply(abs), share) == []
    assert notes(range(9), shuffle(3, seed=0), apply(abs), unpack(abs), share, apply(len), shuffle(2, seed=0)) == []
    assert notes(range(9), apply(abs), combine_batches(2)) == []
    assert notes(range(9), apply(abs), keep(bool), apply(float), share) == [
        f'{part} is computed on every rank, for all of them' for part in ('range(0, 9)', 'apply(abs)', 'keep(bool)')
    ]
    assert notes(numbers, apply(abs), share) == ['numbers is computed on every rank, for all of them']


def test_describe_computes_the_share_alone():
    loaded = []
    part = combine_batches(1000, list, rank=1, world_size=500)
    table = pipeline(range(10**6), apply(lambda value: loaded.append(value) or value), part).describe()
    assert str(table).splitlines()[3].endswith('[int] of 2')
    assert loaded == [2, 3]


class Value:
    pass


@pytest.mark.parametrize('before', [[], [apply(same)], [shuffle(4, seed=0)]])
@pytest.mark.parametrize('source', ['a sequence', 'a function'])
@pytest.mark.parametrize('fuses', [True, False])
def test_no_sample_is_held_while_its_consumer_works(before, source, fuses):
    class Values(DataSet):
        def __getitem__(self, index):
            super().__getitem__(index)
            return Value()

    made = Values(40) if source == 'a sequence' else lambda: (Value() for _ in range(40))
    share = combine_batches(4, list, rank=1, world_size=2)
    values = pipeline(made, *before, share, apply(same)).open(START, Context(run=Run(fuses=fuses)))
    for _ in range(3):
        pair = next(values)
        alive = [weakref.ref(value) for value in pair[0]]
        del pair
        assert [each() for each in alive] == [None, None]
