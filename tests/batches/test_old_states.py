"""States that earlier versions have saved go on with the batches that followed then.

Each ``states_*.json`` was written by the version in its name; to write one with the present version:
``python tests/batches/test_old_states.py tests/batches/states_0_2.json``.
"""

import json
import logging
import re
import sys
from functools import partial  # noqa: F401 -- the code of a pipeline needs it
from pathlib import Path
from types import FunctionType

import numpy as np
import pytest
from more_itertools import pairwise, windowed  # noqa: F401

import pipekit

DELIVERED = 4  # batches before the state: in the second epoch where an epoch has three


def jitter(number, rng):
    return number + rng.random()


def add_globally(number):
    return number + np.random.rand()


class Noise:
    def __init__(self):
        self.generator = np.random.RandomState(0)

    def __call__(self, number):
        return number + self.generator.rand()


NOISE = Noise()


def roll(rng):
    return int(rng.integers(100))


def add(number, other):
    return number + other


def shift(number, label, rng):
    return number + int(rng.integers(9)), label


def with_square(number):
    return number, number**2


def swap(number, label):
    return label, number


def as_dict(number):
    return {'numbers': np.arange(number % 3 + 1), 'label': number}


def halves(number):
    return [number, -number][: number % 3]


def is_even(number):
    return number % 2 == 0


def fits(chunk, number):
    return sum(chunk) + number <= 40


def no_nines(number):
    if number % 10 in {4, 9}:
        raise ValueError(number)
    return number


def words():
    yield from ['the', 'quick', 'brown', 'fox', 'jumps', 'over', 'the', 'lazy', 'dog', 'and', 'goes', 'home']


TABLE = np.arange(30).reshape(10, 3)
PIPELINES = {
    'sample': 'pipeline(sample(range(50), seed=1), apply(jitter, seed=2), combine_batches(2), prefetch(3))',
    'sample, weighted': "pipeline(sample('abcd', [1, 2, 3, 0], seed=1), combine_batches(2, list), prefetch(3))",
    'sample, in passes': 'pipeline(sample(range(7), replace=False, seed=1), combine_batches(2, list), prefetch(3))',
    'sample, in weighted passes': (
        'pipeline(sample(range(5), [0, 1, 2, 3, 4], replace=False, seed=1), combine_batches(2, list), prefetch(3))'
    ),
    'sample, of many': 'pipeline(sample(range(10**9), replace=False, seed=1), combine_batches(2), prefetch(3))',
    'seeded, reseeded': (
        'pipeline(sample(range(50), seed=1), apply(seeded(add_globally), seed=2, workers=processes(1)), '
        'apply(reseeded(NOISE), seed=2), combine_batches(2), prefetch(3))'
    ),
    'shares': 'pipeline(sample(range(50), seed=1), combine_batches(6, rank=1, world_size=3), prefetch(3))',
    'rows': ("pipeline(rows(['a', 'b', 'c', 'd'], [3, 0, 5, 2], seed=1), combine_batches(2, list), prefetch(3))"),
    'rows, in windows and lanes': (
        "pipeline(rows(['a', 'b', 'c', 'd'], [9, 0, 50, 2], window=8, lanes=2, batch_size=4, seed=1), "
        'combine_batches(4, list), prefetch(3))'
    ),
    'load_by_random_id': (
        'make_infinite_batch_iter(load_by_random_id(abs, float, ids=range(20), seed=1), unpack(shift, seed=1), '
        'batch_size=3, n_iters_per_epoch=3)'
    ),
    'load_by_random_id, weighted': (
        'pipeline(load_by_random_id(str, ids=range(3), weights=[3, 2, 1], seed=1), combine_batches(2, list), '
        'prefetch(3))'
    ),
    'mix': (
        'pipeline(mix(pipeline(range(9), shuffle(4, seed=1), repeat()), sample(range(100, 120), seed=1), '
        'weights=[2, 1], seed=1), apply(jitter, seed=1), combine_batches(2, list), prefetch(3))'
    ),
    'arrays': 'pipeline(sample(arrays(TABLE, np.arange(10)), seed=1), combine_batches(2), prefetch(3))',
    'arrays, named': (
        'pipeline(arrays(rows=TABLE, label=np.arange(10)), shuffle(4, seed=1), repeat(), combine_batches(2), '
        'prefetch(3))'
    ),
    'shuffle, in passes': 'pipeline(range(10), shuffle(4, seed=1), combine_batches(4, list), prefetch())',
    'random, in passes': 'pipeline(range(4), apply(jitter, seed=1), apply(jitter, seed=1), prefetch())',
    'repeat and take': (
        'pipeline(range(5), shuffle(5, seed=1), repeat(2), apply(jitter, seed=1), repeat(), take(17), '
        'combine_batches(2, list), prefetch(3))'
    ),
    'flatten': 'pipeline(range(40), apply(halves), flatten(), combine_batches(2, list), prefetch(3))',
    'keep': 'pipeline(range(40), keep(is_even), combine_batches(2, list, drop_last=True), prefetch(3))',
    'shard': 'pipeline(range(40), shuffle(8, seed=1), shard(1, 3), combine_batches(2, list), prefetch(3))',
    'shard, full rounds': 'pipeline(range(40), shard(1, 3, drop_last=True), combine_batches(2, list), prefetch())',
    'expiration_pool': 'pipeline(range(40), expiration_pool(4, 3, 2, seed=1), combine_batches(2, list), prefetch(3))',
    'adaptive': 'pipeline(range(40), combine_batches(fits, list), prefetch(3))',
    'skip': (
        'pipeline(range(100), apply(no_nines, on_error=skip(ValueError, budget=None)), combine_batches(4, list), '
        'prefetch(3))'
    ),
    'replace and retry': (
        'pipeline(range(100), apply(no_nines, on_error=[retry(1, KeyError), replace(float, budget=None)]), '
        'combine_batches(4, list), prefetch(3))'
    ),
    'foreign': 'pipeline(range(40), shuffle(4, seed=1), pairwise, prefetch(3))',
    'foreign, with arguments': 'pipeline(words, partial(windowed, n=3), prefetch(3))',
    'an iterator that has begun': (
        'pipeline(pipeline(range(40), shuffle(4, seed=1)).resume((0, 2)), combine_batches(2, list), prefetch(3))'
    ),
    'sample functions': (
        'pipeline(range(40), apply(with_square), apply(apply_at(0, float)), unpack(shift, seed=1), '
        'apply(zip_apply(int, float)), apply(unpack_args(swap)), apply(multiply(int)), combine_batches(2), prefetch(3))'
    ),
    'random sample functions': (
        'pipeline(range(40), apply(random_apply(0.5, jitter), seed=1), apply(sample_args(add, roll), seed=1), '
        'combine_batches(2, combine_to_tuples), prefetch(3))'
    ),
    'combine_pad': 'pipeline(range(40), apply(as_dict), combine_batches(2, combine_pad), prefetch(3))',
    'combine_to_arrays': 'pipeline(range(40), apply(with_square), combine_batches(2, combine_to_arrays), prefetch(3))',
    'threads': (
        'pipeline(sample(range(50), seed=1), apply(jitter, seed=1, workers=threads(2)), pipeline(shuffle(3, seed=1), '
        'combine_batches(2, workers=threads(2))), prefetch(3, buffer_size=2))'
    ),
}
PUBLIC = {name: getattr(pipekit, name) for name in pipekit.__all__}
SAVED = {
    f'{file.stem}: {name}': saved
    for file in sorted(Path(__file__).parent.glob('states_*.json'))
    for name, saved in json.loads(file.read_text(encoding='utf-8')).items()
}


def make(code):
    return eval(code, globals() | PUBLIC)


def as_json(value):
    """A batch as JSON gives it back, with the types of its arrays."""
    if isinstance(value, np.ndarray):
        return [str(value.dtype), value.tolist()]
    if isinstance(value, dict):
        return {name: as_json(part) for name, part in value.items()}
    return [as_json(part) for part in value] if isinstance(value, list | tuple) else value


def following(epoch, batches):
    """The rest of an epoch and the next one, and where the batches are then."""
    epochs = [as_json(list(epoch)), as_json(list(batches))]
    state = batches.state_dict()
    return {'epochs': epochs, 'cursor': state['cursor'], 'failures': state['failures']}


def saved_now(code):
    with make(code) as batches:
        epoch = iter(batches)
        while batches.state_dict()['delivered'] < DELIVERED:
            if next(epoch, None) is None:
                epoch = iter(batches)
        state = batches.state_dict()
        return {'code': code, 'state': state, 'following': following(epoch, batches)}


@pytest.fixture(autouse=True)
def no_log_of_what_is_skipped(caplog):
    caplog.set_level(logging.ERROR, 'pipekit')


@pytest.mark.parametrize('name', SAVED)
def test_a_saved_state_goes_on_with_the_batches_that_followed(name):
    saved = SAVED[name]
    batches = make(saved['code'])
    batches.load_state_dict(saved['state'])
    with batches:
        assert following(batches, batches) == saved['following']


def test_everything_public_is_in_a_state():
    makers = {name for name, value in PUBLIC.items() if isinstance(value, FunctionType)}
    names = {name for saved in SAVED.values() for name in re.findall(r'\w+', saved['code'])}
    readers = {name for name in makers if name.startswith('read_')}  # of files, which are not kept here
    assert not makers - names - readers - {'described', 'executor', 'per_worker', 'show'}


if __name__ == '__main__':
    saved = {name: saved_now(code) for name, code in PIPELINES.items()}
    lines = ',\n'.join(f'{json.dumps(name)}: {json.dumps(one)}' for name, one in saved.items())
    Path(sys.argv[1]).write_text(f'{{\n{lines}\n}}\n', encoding='utf-8')
