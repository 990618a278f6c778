"""Every wrong argument of the public API is an error at once, which names the argument, the value and the remedy."""

import math
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial, wraps
from itertools import chain, count
from operator import methodcaller
from pathlib import Path

import numpy as np
import pytest
from more_itertools import chunked

from pipekit import (
    apply,
    apply_at,
    arrays,
    combine_batches,
    combine_pad,
    combine_to_arrays,
    combine_to_tuples,
    described,
    expiration_pool,
    flatten,
    keep,
    load_by_random_id,
    make_infinite_batch_iter,
    mix,
    multiply,
    pipeline,
    prefetch,
    processes,
    random_apply,
    read_json_lines,
    read_npy,
    read_tar,
    repeat,
    replace,
    retry,
    rows,
    sample,
    sample_args,
    shard,
    show,
    shuffle,
    skip,
    take,
    threads,
    unpack,
    unpack_args,
    zip_apply,
)
from pipekit.bench import InvalidTarget, bench
from pipekit.describing.display import code, structure
from pipekit.testing import check_stage


def no_argument():
    return 0


def two(image, label):
    return image


def needs_size(image, *, size):
    return image


def random(image, rng):
    return image


async def load(name):
    return name


async def names():
    yield 'a'


def in_passing(function):
    @wraps(function)
    def wrapper(*args):
        return function(*args, 1)

    return wrapper


class CallsAsync:
    async def __call__(self, name):
        return name


class Rows:
    def __init__(self, path):
        self.path = path

    def __iter__(self):
        return iter(self.path)


HUGE = 10**400
NO_INTS = ['3', 2.5, -1, True, [3], 3j, math.nan, HUGE, np.array(3)]
COUNTS = [*NO_INTS, 0, None]
OPTIONAL_COUNTS = [*NO_INTS, 0]
NATURALS = [*NO_INTS, None]
SEEDS = ['3', 2.5, -1, True, [3], np.random.default_rng(0)]
FLAGS = [0, 1, None, 'no', []]
FUNCTIONS = [3, None, 'abs', [abs], take(3), load, names, CallsAsync(), partial(load)]
OF_ONE = [*FUNCTIONS, no_argument, two, needs_size, partial(two, label=1, other=2), dict.fromkeys('ab')]
WORKERS = [4, 'threads', threads, [threads(2)], ThreadPoolExecutor, object()]
ON_ERROR = [OSError, 'skip', skip, [skip(), 3], 3]
SECONDS = ['1', -1.0, math.nan, math.inf, HUGE, True, [1]]
SOURCES = [3, None, 2.5, object(), take(3), abs, two, load, names, int, list, Rows, range(2**70)]
CURSORS = [-1, 'x', None, 2.5, (1, 2), 1000, [1, 'a'], {}]
WEIGHTS = ['ab', {'a': 1}, {1, 2}, [1], [1, 2, 3], [1, -1], [0, 0], [math.nan, 1], [math.inf, 1], [HUGE, 1], 3, count()]
STATES = [
    {},
    3,
    None,
    [],
    {'version': 1},
    {'delivered': 10**30},
    {'delivered': -1},
    {'delivered': '3'},
    {'in_epoch': 4},
    {'version': 2},
    {'batches_per_epoch': 4},
    {'pipeline': ['range(0, 10)']},
    {'pipeline': 'range(0, 9)'},
    {'cursor': 'x'},
    {'cursor': 10**6},
    {'failures': {'99': [5, 1]}},
    {'failures': {'2': [1, 5]}},
    {'failures': {'x': [5, 1]}},
    {'failures': [3]},
]

letters = pipeline('abcdefghi', apply(str.upper))
batches = pipeline(letters, prefetch(3))
pad = partial(combine_pad, [[1, 2], [3]])
infinite = partial(make_infinite_batch_iter, 'abc', batch_size=2, n_iters_per_epoch=3)


def infinite_with(stage):
    return make_infinite_batch_iter('abc', stage, batch_size=2, n_iters_per_epoch=3)


def load_changed_state(change):
    """Load what a change makes of a state, or the change itself where it is no part of one."""
    is_change = isinstance(change, dict) and len(change) == 1 and change != {'version': 1}
    batches.load_state_dict(batches.state_dict() | change if is_change else change)


# What is called, what its message calls the argument, what is expected or to be done, and the wrong values.
TABLE = {
    'apply func': (apply, 'func', 'a function of a sample', OF_ONE),
    'apply seed': (lambda seed: apply(random, seed=seed), 'seed', 'a non-negative int or None', [*SEEDS, HUGE]),
    'apply seed of no rng': (lambda seed: apply(abs, seed=seed), 'seed', 'takes no argument rng', [0, 17, '3']),
    'apply workers': (lambda workers: apply(abs, workers=workers), 'workers', 'threads(n), processes(n)', WORKERS),
    'apply on_error': (lambda policy: apply(abs, on_error=policy), 'on_error', 'skip(...), replace(...)', ON_ERROR),
    'unpack func': (unpack, 'func', 'a function of a sample', FUNCTIONS),
    'unpack seed': (lambda seed: unpack(random, seed=seed), 'seed', 'a non-negative int or None', SEEDS),
    'unpack workers': (lambda workers: unpack(two, workers=workers), 'workers', 'an executor', WORKERS),
    'unpack on_error': (lambda policy: unpack(two, on_error=policy), 'on_error', 'a list of them', ON_ERROR),
    'keep predicate': (keep, 'predicate', 'a function of a sample', OF_ONE),
    'keep random': (keep, 'predicate', 'draw in an apply before it', [random]),
    'flatten': (lambda value: list(flatten()([value])), 'flatten', 'iterable samples', [object()]),
    'shuffle window': (shuffle, 'window', 'a positive int', COUNTS),
    'shuffle seed': (lambda seed: shuffle(3, seed=seed), 'seed', 'a non-negative int or None', SEEDS),
    'take n': (take, 'n', 'a non-negative int', NATURALS),
    'repeat times': (repeat, 'times', 'a positive int or None', OPTIONAL_COUNTS),
    'shard rank': (lambda rank: shard(rank, 2), 'rank', '', [*NATURALS, 2, 5]),
    'shard world_size': (lambda size: shard(0, size), 'world_size', 'a positive int', COUNTS),
    'shard drop_last': (lambda drop: shard(0, 2, drop_last=drop), 'drop_last', 'True or False', FLAGS),
    'expiration_pool pool_size': (lambda size: expiration_pool(size, 2), 'pool_size', 'a positive int', COUNTS),
    'expiration_pool repetitions': (lambda n: expiration_pool(2, n), 'repetitions', 'a positive int', COUNTS),
    'expiration_pool iterations': (lambda n: expiration_pool(2, 2, n), 'iterations', '', [*COUNTS, 3]),
    'expiration_pool seed': (lambda seed: expiration_pool(2, 2, seed=seed), 'seed', 'a non-negative int', SEEDS),
    'rows files': (
        lambda files: rows(files, [1]),
        'files',
        'a list of paths or URLs',
        ['a.npy', b'a', Path('a'), 3, None],
    ),
    'rows files, none': (lambda files: rows(files, []), 'files', 'at least one path or URL', [[], ()]),
    'rows lengths': (
        lambda lengths: rows(['a', 'b'], lengths),
        'lengths',
        'one for each of 2 files',
        ['12', {'a': 1}, {1, 2}, [1], [1, 2, 3], [1, -1], [1.0, 2], ['1', 2], [True, 1], [None, 1], 3, None, count()],
    ),
    'rows lengths, none': (lambda lengths: rows(['a', 'b'], lengths), 'lengths', 'not all be zero', [[0, 0]]),
    'rows lengths, huge': (lambda lengths: rows(['a', 'b'], lengths), 'lengths', 'at most', [[HUGE, 1], [2**62, 1]]),
    'rows window': (lambda n: rows(['a'], [3], window=n), 'window', 'a positive int or None', OPTIONAL_COUNTS),
    'rows lanes': (
        lambda n: rows(['a'], [3], lanes=n, batch_size=4),
        'lanes',
        '',
        [*OPTIONAL_COUNTS, 3],
    ),
    'rows batch_size': (
        lambda n: rows(['a'], [3], lanes=2, batch_size=n),
        'batch_size',
        '',
        [*OPTIONAL_COUNTS, 3],
    ),
    'rows batch_size alone': (lambda n: rows(['a'], [3], batch_size=n), 'batch_size', 'leave it out', [4]),
    'rows passes': (lambda n: rows(['a'], [3], passes=n), 'passes', 'a positive int or None', OPTIONAL_COUNTS),
    'rows shuffle': (lambda flag: rows(['a'], [3], shuffle=flag), 'shuffle', 'True or False', FLAGS),
    'rows seed': (lambda seed: rows(['a'], [3], seed=seed), 'seed', 'a non-negative int or None', SEEDS),
    'rows seed unused': (lambda seed: rows(['a'], [3], seed=seed, shuffle=False), 'seed', 'shuffled', [0, 17]),
    'rows window unused': (lambda n: rows(['a'], [3], window=n, shuffle=False), 'window', 'shuffled', [17]),
    'read_npy max_open_files': (lambda n: read_npy(max_open_files=n), 'max_open_files', 'a positive int', COUNTS),
    'read_json_lines max_open_files': (lambda n: read_json_lines(max_open_files=n), 'max_open_files', '', COUNTS),
    'read_tar max_open_files': (lambda n: read_tar(max_open_files=n), 'max_open_files', 'a positive int', COUNTS),
    'read_npy row': (read_npy(), 'a reader takes a Row', 'as rows yields them', [3, None, 'a.npy', ['a.npy', 1]]),
    'read_npy lengths': (read_npy().lengths, 'files', 'pass a list of it', ['a.npy']),
    'combine_batches batch_size': (
        combine_batches,
        'batch_size',
        'a positive int or a function',
        [*COUNTS, no_argument, abs, load],
    ),
    'combine_batches combine': (lambda combine: combine_batches(2, combine), 'combine', 'a function of a list', OF_ONE),
    'combine_batches random': (
        lambda combine: combine_batches(2, combine),
        'combine',
        'draw in an apply after',
        [random],
    ),
    'combine_batches drop_last': (lambda drop: combine_batches(2, drop_last=drop), 'drop_last', 'True or False', FLAGS),
    'combine_batches workers': (lambda workers: combine_batches(2, workers=workers), 'workers', 'an executor', WORKERS),
    'prefetch batches_per_epoch': (prefetch, 'batches_per_epoch', 'a positive int or None', OPTIONAL_COUNTS),
    'prefetch buffer_size': (lambda size: prefetch(3, buffer_size=size), 'buffer_size', 'a positive int', COUNTS),
    'prefetch profile': (lambda profile: prefetch(profile=profile), 'profile', 'True or False', FLAGS),
    'prefetch report_every': (
        lambda s: prefetch(report_every=s),
        'report_every',
        'a positive number or None',
        [*SECONDS, 0],
    ),
    'prefetch stall_after': (
        lambda s: prefetch(stall_after=s),
        'stall_after',
        'a positive number or None',
        [*SECONDS, 0],
    ),
    'threads n': (threads, 'n', 'a positive int', COUNTS),
    'threads ahead': (lambda ahead: threads(2, ahead=ahead), 'ahead', '', [*OPTIONAL_COUNTS, 1]),
    'threads name': (lambda name: threads(2, name=name), 'name', 'a string or None', [3, b'a', ['a']]),
    'processes n': (processes, 'n', 'a positive int', COUNTS),
    'processes ahead': (lambda ahead: processes(2, ahead=ahead), 'ahead', '', [*OPTIONAL_COUNTS, 1]),
    'processes name': (lambda name: processes(2, name=name), 'name', 'a string or None', [3, b'a', ['a']]),
    'processes blas_threads': (lambda n: processes(2, blas_threads=n), 'blas_threads', 'int or None', OPTIONAL_COUNTS),
    'skip exceptions': (skip, 'skip', 'subclasses of Exception', [3, 'OSError', KeyboardInterrupt, OSError(), int]),
    'skip budget': (
        lambda budget: skip(budget=budget),
        'budget',
        'a fraction from 0.0 to 1.0',
        ['1', -1, 1.5, math.nan, [1]],
    ),
    'skip grace': (lambda grace: skip(grace=grace), 'grace', 'a positive int', COUNTS),
    'replace func': (replace, 'func', 'a function of a sample', OF_ONE),
    'replace exceptions': (lambda kind: replace(abs, kind), 'replace', 'subclasses of Exception', [3, SystemExit]),
    'replace budget': (lambda budget: replace(abs, budget=budget), 'budget', 'a number of samples', ['1', -1, 1.5]),
    'replace grace': (lambda grace: replace(abs, grace=grace), 'grace', 'a positive int', COUNTS),
    'retry times': (retry, 'times', 'a positive int', [*COUNTS, OSError]),
    'retry exceptions': (lambda kind: retry(3, kind), 'retry', 'subclasses of Exception', [3, SystemExit, 'OSError']),
    'retry backoff': (lambda seconds: retry(3, backoff=seconds), 'backoff', 'a non-negative number', [*SECONDS, None]),
    'sample sequence': (
        sample,
        'sequence',
        '',
        [3, None, {'a': 1}, {1}, iter('ab'), '', [], range(2**70), np.array(3)],
    ),
    'sample weights': (lambda weights: sample('ab', weights), 'weights', '', WEIGHTS),
    'sample replace': (lambda flag: sample('ab', replace=flag), 'replace', 'True or False', FLAGS),
    'sample seed': (lambda seed: sample('ab', seed=seed), 'seed', 'a non-negative int or None', SEEDS),
    'load_by_random_id loaders': (lambda f: load_by_random_id(f, ids='ab'), 'loader', 'a function of an id', OF_ONE),
    'load_by_random_id ids': (lambda ids: load_by_random_id(abs, ids=ids), '', 'sequence', [3, {1}, [], range(2**70)]),
    'load_by_random_id weights': (lambda w: load_by_random_id(ord, ids='ab', weights=w), 'weights', '', WEIGHTS),
    'load_by_random_id seed': (
        lambda seed: load_by_random_id(ord, ids='ab', seed=seed),
        'seed',
        'non-negative int',
        SEEDS,
    ),
    'mix sources': (lambda source: mix('ab', source), '', '', SOURCES),
    'mix weights': (lambda weights: mix('ab', 'cd', weights=weights), 'weights', '', WEIGHTS),
    'mix seed': (lambda seed: mix('ab', seed=seed), 'seed', 'a non-negative int or None', SEEDS),
    'arrays': (arrays, 'array', '', [3, None, 'ab', [1, 2], np.array(3), np.ma.array([1]), {}]),
    'arrays by name': (lambda column: arrays(images=np.zeros(2), labels=column), 'array', '', [3, [1, 2], np.zeros(3)]),
    'pipeline source': (pipeline, 'source', '', [each for each in SOURCES if repr(each) != 'take(3)']),
    'pipeline stage': (
        partial(pipeline, 'ab'),
        'stage',
        '',
        [3, None, 'cd', abs, int, map, filter, chunked, two, take, load],
    ),
    'pipeline order': (lambda part: pipeline('ab', part, take(3)), 'prefetch', 'the last part', [prefetch(3)]),
    'described': (lambda made: described(lambda: made)(), 'described', 'return a stage or a source', [3, None, abs]),
    'unpack_args func': (unpack_args, 'func', 'a function of a sample', FUNCTIONS),
    'apply_at func': (partial(apply_at, 0), 'func', 'a function of a sample', OF_ONE),
    'apply_at path': (lambda path: apply_at(path, abs), 'path', 'leave out apply_at', [()]),
    'multiply func': (multiply, 'func', 'a function of a sample', OF_ONE),
    'zip_apply funcs': (zip_apply, 'funcs', 'a function of a sample', OF_ONE),
    'random_apply p': (
        lambda p: random_apply(p, abs),
        'p',
        'a number from 0 to 1',
        ['1', -1, 1.5, None, math.nan, HUGE],
    ),
    'random_apply func': (partial(random_apply, 0.5), 'func', 'a function of a sample', OF_ONE),
    'sample_args func': (lambda func: sample_args(func, methodcaller('normal')), 'func', '', [*FUNCTIONS, abs]),
    'sample_args samplers': (lambda func: sample_args(two, func), 'sampler', 'a function of a numpy Generator', OF_ONE),
    'sample_args named': (lambda func: sample_args(two, label=func), 'sampler label', 'numpy Generator', OF_ONE),
    'combine_to_arrays': (combine_to_arrays, 'sample', '', [[None], [[]], [2**70], [object()], [1, 'a'], [[1, 'a']]]),
    'combine_to_tuples': (combine_to_tuples, 'sample', '', [[(1, 2), (3,)], [{'a': 1}, {'b': 1}], [(1,), 3]]),
    'combine_pad samples': (combine_pad, 'sample', '', [[None], [[], []], [[1], [[1]]], [[1], ['a', 'b']]]),
    'combine_pad padding_values': (
        lambda value: pad(padding_values=value),
        'padding',
        '',
        ['a', 2.5, None, HUGE, [1, 2]],
    ),
    'combine_pad ratio': (
        lambda ratio: pad(ratio=ratio),
        'ratio',
        'a number from 0 to 1',
        ['1', -1, 1.5, None, math.nan],
    ),
    'make_infinite_batch_iter source': (
        lambda source: make_infinite_batch_iter(source, batch_size=2, n_iters_per_epoch=3),
        'source',
        '',
        SOURCES,
    ),
    'make_infinite_batch_iter transformers': (infinite_with, 'stage', '', [3, None, abs, map]),
    'make_infinite_batch_iter batch_size': (lambda n: infinite(batch_size=n), 'batch_size', 'a positive int', COUNTS),
    'make_infinite_batch_iter n_iters': (lambda n: infinite(n_iters_per_epoch=n), 'n_iters_per_epoch', 'int', COUNTS),
    'make_infinite_batch_iter buffer_size': (
        lambda n: infinite(buffer_size=n),
        'buffer_size',
        'a positive int',
        COUNTS,
    ),
    'make_infinite_batch_iter combiner': (lambda f: infinite(combiner=f), 'combine', 'a function of a list', OF_ONE),
    'show most': (lambda most: show(np.zeros((2, 28, 28)), most=most), 'most', 'a positive int', COUNTS),
    'show batch': (show, 'batch', 'images are 2-D or 3-D arrays', [3, None, 'ab', np.zeros(3), (1, 2)]),
    'resume': (letters.resume, 'cursor', '', CURSORS),
    'replay': (letters.replay, 'cursor', '', CURSORS),
    'replay stage': (lambda stage: letters.replay(0, stage=stage), 'stage', 'a positive int', [*OPTIONAL_COUNTS, 5]),
    'replay key': (lambda key: letters.replay(0, key=key), 'key', '', [(5,), 3, 'x', (-1,)]),
    'batches replay': (batches.replay, 'cursor', '', CURSORS),
    'batches replay stage': (lambda stage: batches.replay(0, stage=stage), 'stage', 'a positive int', OPTIONAL_COUNTS),
    'load_state_dict': (load_changed_state, 'state', '', STATES),
    'headroom': (batches.headroom, 'times', 'a positive int', COUNTS),
    'check_stage stage': (check_stage, 'stage', '', [3, None, 'ab', abs, map, prefetch(3)]),
    'check_stage source': (partial(check_stage, take(3)), 'source', '', [3, None, abs, iter('ab')]),
    'check_stage limit': (lambda limit: check_stage(take(3), limit=limit), 'limit', 'a positive int', COUNTS),
    'check_stage reads_at_most': (
        lambda n: check_stage(take(3), reads_at_most=n),
        'reads_at_most',
        'a non-negative int or None',
        NO_INTS,
    ),
    'bench target': (bench, '', 'module:name or script.py:name', [3, None, '', 'train', 'a-b:c', 'a:b:c']),
    'bench duration': (lambda s: bench('a:b', duration=s), 'duration', 'a positive number', ['1', -1, 0, math.nan]),
    'bench batches': (lambda n: bench('a:b', batches=n), 'batches', 'a positive', ['1', -1, 0, math.nan]),
    'bench step': (lambda s: bench('a:b', step=s), 'step', 'a non-negative number', SECONDS),
}


CASES = [(name, value) for name, (*_, values) in TABLE.items() for value in values]


def test_the_table_is_long():
    assert len(CASES) >= 300


@pytest.mark.parametrize(('name', 'value'), CASES, ids=[f'{name}: {code(value)[:40]}' for name, value in CASES])
def test_a_wrong_argument_is_named_and_shown_at_once(name, value):
    call, argument, remedy, _ = TABLE[name]
    with pytest.raises((TypeError, ValueError, InvalidTarget)) as caught:
        call(value)
    message = str(caught.value)
    assert argument in message
    assert remedy in message
    assert is_shown(value, message)
    assert message[-1] != '.'


def is_shown(value, message):
    """Whether a value is in a message, or its structure, or a part that is wrong with it."""
    texts = [code(value), repr(value), str(value) or "''", structure(value), str(getattr(value, 'shape', code(value)))]
    if any(text in message for text in texts) or (value == [] and 'an empty list' in message):
        return True
    parts = chain(*value.items()) if isinstance(value, dict) else value if isinstance(value, list | tuple) else []
    return any(is_shown(part, message) for part in parts)


TAKEN = [in_passing(two), cache(abs), methodcaller('upper'), partial(two, 1), partial(needs_size, size=3), np.sqrt, int]


@pytest.mark.parametrize('func', TAKEN, ids=code)
def test_a_function_that_can_be_called_with_one_argument_is_taken(func):
    assert apply(func).calls_function
    assert not keep(func).calls_function
