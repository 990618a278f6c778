from collections.abc import Iterable, Iterator
from functools import partial
from itertools import accumulate
from unittest.mock import Mock

import more_itertools
import numpy as np
import pytest
import toolz.curried

from pipekit import (
    BatchIterator,
    NotResumable,
    Pipeline,
    Stage,
    apply,
    apply_at,
    combine_batches,
    pipeline,
    prefetch,
    repeat,
    take,
)


def load(id):
    return id


def every_second(iterable):
    for number, value in enumerate(iterable):
        if number % 2 == 0:
            yield value


def doubled(values) -> Iterator[int]:
    return (2 * value for value in values)


def halved(values: Iterable[int]):
    return (value // 2 for value in values)


def parts_of(image: np.ndarray):
    yield image


def test_a_source_and_stages_make_a_pipeline():
    assert isinstance(pipeline([1]), Pipeline)
    assert isinstance(pipeline([1], take(1)), Pipeline)


def test_stages_make_a_stage():
    assert isinstance(pipeline(take(1)), Stage)
    assert list(pipeline(take(2), apply(str))([1, 2, 3])) == ['1', '2']


def test_prefetch_makes_a_batch_iterator():
    assert isinstance(pipeline([1], prefetch()), BatchIterator)


def test_composition_is_associative():
    a, b, c = take(3), apply(abs), combine_batches(2)
    flat = pipeline('abc', a, b, c)
    assert pipeline(pipeline('abc', a), b, c) == flat
    assert pipeline('abc', pipeline(a, b), c) == flat
    assert pipeline('abc', pipeline(a, pipeline(pipeline(b), c))) == flat
    assert pipeline(pipeline(pipeline('abc'), a), pipeline(b, c)) == flat


@pytest.mark.parametrize(
    ('stage', 'values'),
    [
        (more_itertools.pairwise, [(1, 2), (2, 3), (3, 4)]),
        (toolz.curried.partition_all(2), [(1, 2), (3, 4)]),
        (toolz.curried.partition(2), [(1, 2), (3, 4)]),
        (toolz.curried.map(str), ['1', '2', '3', '4']),
        (toolz.curried.take(2), [1, 2]),
        (partial(more_itertools.chunked, n=3), [[1, 2, 3], [4]]),
        (partial(map, str), ['1', '2', '3', '4']),
        (accumulate, [1, 3, 6, 10]),
        (enumerate, [(0, 1), (1, 2), (2, 3), (3, 4)]),
        (every_second, [1, 3]),
        (doubled, [2, 4, 6, 8]),
        (halved, [0, 1, 1, 2]),
    ],
)
def test_a_function_from_an_iterable_to_an_iterator_is_a_stage_anywhere(stage, values):
    assert list(pipeline([1, 2, 3, 4], stage)) == values
    assert list(pipeline(stage, take(2))([1, 2, 3, 4])) == values[:2]
    assert list(pipeline([1, 2, 3, 4], stage).resume(1)) == values[1:]
    assert pipeline([1], stage) == pipeline([1], stage)


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (pipeline, 'pipeline needs a source or a stage'),
        (lambda: pipeline([1], load), r'expected a stage, got load; did you mean apply\(load\)\?'),
        (lambda: pipeline([1], len), r'expected a stage, got len; did you mean apply\(len\)\?'),
        (lambda: pipeline([1], str), r'expected a stage, got str; did you mean apply\(str\)\?'),
        (lambda: pipeline([1], parts_of), r'did you mean apply\(parts_of\)\?'),
        (lambda: pipeline([1], lambda x: x), r'did you mean apply\(<lambda>\)\?'),
        (lambda: pipeline([1], apply_at(0, abs)), r'did you mean apply\(apply_at\(0, abs\)\)\?'),
        (lambda: pipeline([1], repeat), r'expected a stage, got repeat; did you mean repeat\(\.\.\.\)\?'),
        (lambda: pipeline([1], combine_batches), r'did you mean combine_batches\(\.\.\.\)\?'),
        (lambda: pipeline([1], prefetch), r'did you mean prefetch\(\.\.\.\)\?'),
        (lambda: pipeline([1], [2]), r'expected a stage, got \[2\]; the source comes first'),
        (lambda: pipeline([1], pipeline([2])), 'the source comes first'),
        (lambda: pipeline(take(1), [2]), 'the source comes first'),
        (lambda: pipeline([1], prefetch(2), take(1)), r'prefetch\(2\) is always the last part'),
        (lambda: pipeline(take(1), prefetch(2)), r'prefetch\(2\) is always the last part'),
        (lambda: pipeline(prefetch(2)), 'prefetch.* is always the last part'),
        (lambda: pipeline(pipeline([1], prefetch(2)), take(1)), 'is always the last part'),
        (lambda: pipeline([1], 5), 'expected a stage, got 5'),
        (lambda: pipeline(5, take(1)), 'expected a source, got 5'),
        (lambda: pipeline(load, take(1)), r'expected a source, got load, which takes arguments; did you mean apply'),
        (lambda: pipeline([1], Mock()), 'expected a stage, got'),
        (lambda: pipeline([1], toolz.compose(abs, len)), r'did you mean apply\(abs_of_len'),
        (lambda: pipeline([1], None), 'expected a stage, got None'),
        (lambda: take(2)(take(3)), 'expected a source, got take'),
    ],
)
def test_the_error_for_a_wrong_part_says_what_to_write(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_a_function_of_toolz_that_is_not_a_stage_fails_when_it_runs():
    with pytest.raises(TypeError, match=r'did you mean apply\(first\)\?'):
        list(pipeline([1, 2], toolz.first))


def test_an_iterator_cannot_be_repeated():
    with pytest.raises(NotResumable, match='pass a sequence, or a function without arguments'):
        pipeline((x for x in [1]), repeat())
