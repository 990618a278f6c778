import gc
import json
import pickle
import weakref
from itertools import islice

import numpy as np
import pytest
from more_itertools import pairwise
from more_itertools import take as first_of
from toolz.curried import partition_all

from pipekit import (
    NotResumable,
    Stage,
    apply,
    apply_at,
    combine_batches,
    flatten,
    keep,
    load_by_random_id,
    mix,
    pipeline,
    repeat,
    sample,
    shard,
    shuffle,
    take,
    unpack,
)
from pipekit.streams.iterables import source_of

IMAGE = np.zeros((1, 28, 28), np.float32)


def load(id):
    return IMAGE, id


def jitter(image, label, rng):
    return image, label + rng.random()


BATCHES = pipeline(sample([3, 4], seed=0), apply(load), unpack(jitter, seed=1), combine_batches(2))
EVALUABLE = [
    BATCHES,
    pipeline('abc', repeat(2), shuffle(2, seed=0), shard(0, 2), take(3)),
    pipeline(apply(load), keep(len)),
    pipeline([1, 2], pairwise, partition_all(2)),
    mix('ab', pipeline('xy', repeat()), weights=[1, 2], seed=0),
    sample([1, 2], [0.5, 0.5], replace=False, seed=3),
    pipeline([(1, 2)], apply(apply_at(0, abs)), flatten(), combine_batches(2, list, drop_last=True)),
    pipeline(range(100), take(5)),
]


@pytest.mark.parametrize('value', EVALUABLE, ids=repr)
def test_what_prints_evaluates_to_an_equal_pipeline(value):
    assert eval(repr(value)) == value
    assert hash(eval(repr(value))) == hash(value)


@pytest.mark.parametrize('value', EVALUABLE, ids=repr)
def test_what_is_pickled_comes_back_equal(value):
    assert pickle.loads(pickle.dumps(value)) == value


def test_a_pipeline_prints_as_the_code_that_made_it():
    assert repr(pipeline('abc', apply(load), take(2))) == "pipeline('abc', apply(load), take(2))"
    assert repr(BATCHES) == (
        'pipeline(\n'
        '    sample([3, 4], seed=0),\n'
        '    apply(load),\n'
        '    unpack(jitter, seed=1),\n'
        '    combine_batches(2),\n'
        ')'
    )


def test_pipelines_that_differ_are_unequal():
    assert pipeline('abc', take(2)) != pipeline('abc', take(3))
    assert pipeline('abc', take(2)) != pipeline('abd', take(2))
    assert sample('ab', seed=0) != sample('ab', seed=1)
    assert sample('ab') != sample('ab')
    assert pipeline('abc') != 'abc'


def test_an_unseeded_pipeline_prints_without_a_seed_and_keeps_it_when_pickled():
    endless = sample('ab')
    assert repr(endless) == "sample('ab')"
    assert first_of(20, pickle.loads(pickle.dumps(endless))) == first_of(20, endless)


def test_an_iterator_knows_its_cursor_and_a_pipeline_resumes_there():
    values = iter(BATCHES)
    next(values)
    state = json.loads(json.dumps(values.cursor))
    assert next(values)[1].tolist() == next(BATCHES.resume(state))[1].tolist()


def test_an_iterator_as_the_source_goes_on_from_where_it_is():
    values = iter(pipeline('abcdef', flatten()))
    assert first_of(2, values) == ['a', 'b']
    rest = pipeline(values, apply(str.upper))
    assert list(rest) == list(rest) == ['C', 'D', 'E', 'F']
    assert repr(rest) == "pipeline(pipeline('abcdef', flatten()).resume((1, 1)), apply(str.upper))"
    assert pickle.loads(pickle.dumps(rest)) == rest


def test_an_iterator_that_has_not_begun_is_its_stream():
    assert pipeline(iter(pipeline('ab', take(1))), take(2)) == pipeline('ab', take(1), take(2))


def test_the_randomness_of_a_continued_stream_is_that_of_the_whole():
    whole = pipeline([(1, 2)] * 6, unpack(jitter, seed=0), unpack(jitter, seed=0))
    begun = iter(pipeline([(1, 2)] * 6, unpack(jitter, seed=0)))
    first_of(2, begun)
    assert list(pipeline(begun, unpack(jitter, seed=0))) == list(whole)[2:]


def test_a_function_that_makes_iterators_is_a_source_that_can_be_opened_again():
    numbers = pipeline(lambda: iter([1, 2, 3]), apply(abs))
    assert list(numbers) == list(numbers) == [1, 2, 3]
    assert list(numbers.resume(2)) == [3]


def test_an_iterator_is_a_source_for_one_iteration():
    numbers = pipeline(iter([1, 2, 3]), apply(abs))
    assert list(numbers) == [1, 2, 3]
    with pytest.raises(NotResumable, match=r'list_iterator.* can be opened only once; pass a sequence, or a function'):
        iter(numbers)


def test_stages_are_called_one_on_another_over_an_iterator():
    assert list(take(2)(apply(abs)(iter([-1, -2, -3])))) == [1, 2]
    assert list(pipeline(apply(abs)(iter([-1, -2, -3])), take(2))) == [1, 2]


def test_a_continued_stream_is_whole_in_its_later_passes():
    values = iter(pipeline([1, 2, 3]))
    next(values)
    assert list(pipeline(values, repeat(2))) == [2, 3, 1, 2, 3]


def test_a_stream_may_be_continued_any_number_of_times():
    values = iter(pipeline(range(3000)))
    for _ in range(2000):
        next(values)
        values = iter(pipeline(values))
    assert next(values) == 2000


def test_after_an_error_an_iterator_goes_on_from_its_cursor():
    broken = [OSError()]

    def load(number):
        if number == 4 and broken:
            raise broken.pop()
        return number

    values = iter(pipeline(range(9), apply(load), combine_batches(3, list)))
    assert next(values) == [0, 1, 2]
    with pytest.raises(OSError):  # noqa: PT011
        next(values)
    assert list(values) == [[3, 4, 5], [6, 7, 8]]


def test_a_source_made_by_a_function_draws_anew_in_every_pass():
    orders = list(pipeline(lambda: pipeline(range(9), shuffle(9, seed=0)), repeat(3), combine_batches(9, tuple)))
    assert len(set(orders)) == 3


@pytest.mark.parametrize('make', [sample, mix, pipeline, lambda data: load_by_random_id(abs, ids=data).stream])
def test_a_pipeline_that_is_dropped_lets_go_of_its_data_at_once(make):
    data = np.zeros(3)
    alive = weakref.ref(data)
    stream = pipeline(make(data), apply(data.__getitem__), unpack(data.sum), take(2))
    gc.disable()
    try:
        del data, stream
        assert alive() is None
    finally:
        gc.enable()


def test_an_iterator_cannot_be_opened_in_its_middle():
    with pytest.raises(NotResumable):
        pipeline(iter([1, 2, 3])).resume(2)


def test_a_stage_that_opens_its_source_again_refuses_an_iterator_when_it_is_composed():
    with pytest.raises(NotResumable, match=r'repeat\(2\) opens its source again'):
        pipeline(iter([1]), take(1), repeat(2))
    with pytest.raises(NotResumable):
        pipeline(mix([1], iter([1]), seed=0), repeat())


def test_nothing_is_opened_by_a_description():
    def fail():
        raise AssertionError

    pipeline(fail, apply(load), combine_batches(2))
    iter(pipeline(fail))


@pytest.mark.parametrize(
    ('stream', 'cursor'),
    [
        (pipeline('abc'), 4),
        (pipeline('abc'), (1, 2)),
        (pipeline('abc'), -1),
        (pipeline('abc'), '1'),
        (pipeline('abc'), 1.0),
        (pipeline('abc'), True),
        (pipeline('abc'), None),
        (pipeline('abc', take(2)), 1),
        (pipeline('abc', take(2)), (1, 2, 3)),
        (pipeline('abc', take(2)), ((1, 2), 1)),
        (pipeline('abc', take(2)), (1, (1, 1))),
        (pipeline('abc', flatten()), (1, (0, 0))),
        (pipeline('abc', shuffle(2)), 2),
        (pipeline('abc', shuffle(2)), (0, 9)),
        (pipeline('abc', take(2)), (3, 1)),
        (pipeline('abc', repeat(2)), (3, 1)),
        (pipeline('abc', repeat()), (0, 4)),
        (mix('ab', 'cd'), (1, (1,))),
        (mix('ab', 'cd'), (1, 1)),
        (mix('ab', 'cd'), (1, (1, (1, 1)))),
        (sample('ab'), (1, 1)),
        (pipeline('abc', pairwise), (1, 1)),
        (pipeline({1, 2}), (1, 1)),
    ],
)
def test_a_foreign_cursor_is_refused_at_once(stream, cursor):
    with pytest.raises(ValueError, match='cursor'):
        stream.resume(cursor)


def test_a_cursor_past_the_end_of_an_iterable_is_refused_when_it_is_reached():
    with pytest.raises(ValueError, match='the cursor 5 is past the end, after 3 values'):
        next(pipeline({1, 2, 3}).resume(5))


@pytest.mark.parametrize('source', [5, None, np.array(5), take(2), int])
def test_what_is_no_source_is_told(source):
    with pytest.raises(TypeError, match=r'expected a source, got|pipeline needs|did you mean'):
        source_of(source)


def test_a_table_shows_each_stage_with_its_first_value():
    assert str(BATCHES.describe()) == (
        'stage                   first value\n'
        'sample([3, 4], seed=0)  int\n'
        'apply(load)             (float32[1, 28, 28], int)\n'
        'unpack(jitter, seed=1)  (float32[1, 28, 28], float)\n'
        'combine_batches(2)      (float32[2, 1, 28, 28], float64[2])'
    )


def test_a_table_names_what_resumes_by_replay():
    assert 'pairwise resumes by replay' in str(pipeline('abc', pairwise).describe())
    assert 'replay' not in str(pipeline('abc', take(1)).describe())


def test_a_table_does_not_load_a_window_for_a_shuffle():
    read = []
    pipeline(range(10**6), apply(read.append), shuffle(1000)).describe()
    assert len(read) == 1


def test_a_table_shows_an_error_at_its_stage_and_no_value_where_there_is_none():
    assert 'raises TypeError: ' in str(pipeline([1, 2], apply(len), take(2)).describe()).split('\n')[2]
    assert str(pipeline([], apply(len)).describe()).endswith('nothing')


def test_a_table_leaves_an_iterator_alone():
    numbers = iter([1, 2])
    assert 'an iterator is not read ahead' in str(pipeline(numbers, apply(abs)).describe())
    assert list(numbers) == [1, 2]


def test_a_notebook_shows_the_table_escaped():
    html = pipeline(['<b>'], apply(str.upper))._repr_html_()
    assert '&lt;b&gt;' in html
    assert '<b>' not in html


def test_stages_that_do_not_look_at_the_values_resume_without_what_lies_before():
    read = []
    numbers = pipeline(
        sample(range(10**9), seed=0), take(10**9), shuffle(8, seed=0), shard(0, 2), apply(read.append), repeat(3)
    )
    values = iter(numbers)
    first_of(100, values)
    read.clear()
    first_of(4, numbers.resume(values.cursor))
    assert len(read) == 4


def test_a_mix_resumes_without_what_lies_before():
    read = []

    def record(value):
        read.append(value)

    sources = [pipeline(range(1000), apply(record)) for _ in range(2)]
    values = iter(mix(*sources, seed=0))
    list(islice(values, 500))
    read.clear()
    list(islice(mix(*sources, seed=0).resume(values.cursor), 3))
    assert len(read) == 3


def test_a_loading_iterator_prints_as_the_call_that_made_it():
    samples = load_by_random_id(len, ids=['a'], seed=0)
    assert repr(samples) == "iter(load_by_random_id(len, ids=['a'], seed=0))"
    assert eval(repr(samples)).stream == samples.stream == pickle.loads(pickle.dumps(samples.stream))


def add_one(upstream, cursor, context):
    return ((value + 1, cursor) for value, cursor in upstream(cursor, context))


def test_a_stage_of_ones_own_prints_compares_and_pickles():
    own = pipeline([1, 2], Stage(add_one))
    assert repr(own) == 'pipeline([1, 2], Stage(add_one))'
    assert own == pickle.loads(pickle.dumps(own)) == eval(repr(own))


def test_a_function_of_numpy_is_not_taken_for_the_builtin_of_its_name():
    assert pipeline([[1]], apply(np.sum)).fingerprint() != pipeline([[1]], apply(sum)).fingerprint()
    assert eval(repr(pipeline([[1]], apply(np.sum)))) == pipeline([[1]], apply(np.sum))
