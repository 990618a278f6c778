import gc
import io
import pickle
import weakref
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pytest

from pipekit.describing.descriptions import same
from pipekit.workers.pickling import MIN_OUT_OF_BAND_BYTES, Pickler, dumps, is_picklable, pickled, unpicklable_part


def test_large_buffers_are_out_of_band_where_they_are_placed():
    placed = []

    def place(buffer):
        placed.append(buffer)
        return (0, 7, buffer.nbytes)

    large, small = np.zeros(MIN_OUT_OF_BAND_BYTES, 'u1'), np.ones(MIN_OUT_OF_BAND_BYTES - 1, 'u1')
    body, extents = pickled([large, small], place)
    assert extents == [(0, 7, large.nbytes)]
    assert small.nbytes < len(body) < small.nbytes + 1000
    assert same(pickle.loads(body, buffers=placed), [large, small])


def test_large_buffers_stay_in_band_where_they_are_not_placed():
    large = np.arange(MIN_OUT_OF_BAND_BYTES)
    body, extents = pickled(large, lambda buffer: None)
    assert not extents
    assert same(pickle.loads(body), large)
    assert same(pickle.loads(dumps(large)), large)


def test_functions_that_pickle_rejects_are_pickled():
    offset = 3
    assert pickle.loads(dumps(lambda x: x + offset))(1) == 4
    cached = pickle.loads(dumps(lru_cache(maxsize=5)(lambda x: x + offset)))
    assert (cached(1), cached.cache_info().maxsize) == (4, 5)
    file = io.BytesIO()
    Pickler(file).dump(lambda: 3)
    assert pickle.loads(file.getvalue())() == 3


def test_whether_a_value_can_be_pickled_is_found_without_placing_it():
    assert is_picklable([lambda: 3, np.zeros(MIN_OUT_OF_BAND_BYTES)])
    assert not is_picklable([(line for line in 'ab')])


VIEWS = {
    'the whole': lambda array: array,
    'a row': lambda array: array[1],
    'some rows': lambda array: array[1:3],
    'in another shape': lambda array: array.reshape(-1, 16),
    'transposed': lambda array: array.T,
    'of another type': lambda array: array.view('>u4')[2:],
    'nothing': lambda array: array[:0],
}


def not_called(buffer):
    raise AssertionError('no buffer is to be copied')


@pytest.mark.parametrize('name', VIEWS)
def test_views_of_memory_maps_can_be_reopened_read_only(name, tmp_path):
    np.save(tmp_path / 'data.npy', np.arange(4 * MIN_OUT_OF_BAND_BYTES).reshape(4, -1))
    view = VIEWS[name](np.load(tmp_path / 'data.npy', mmap_mode='r+'))
    for value in (view, np.asarray(view)):
        body, extents = pickled(value, not_called, 0, reopen_views=True)
        got = pickle.loads(body)
        assert not extents
        assert same(got, value)
        assert not got.flags.writeable


class Point(NamedTuple):
    x: object
    y: object


@dataclass
class Image:
    name: str
    parts: list = field(default_factory=list)


@pytest.mark.parametrize(
    ('value', 'part'),
    [
        ([1, {'a': (x for x in ())}], "sample[1]['a'] is <generator>"),
        (Point(1, Point(2, (x for x in ()))), 'sample.y.y is <generator>'),
        (Image('a', [1, (x for x in ())]), 'sample.parts[1] is <generator>'),
        ((x for x in ()), 'sample is <generator>'),
    ],
)
def test_the_part_that_cannot_be_pickled_is_named(value, part):
    assert unpicklable_part(value, 'sample') == part


def test_a_value_that_contains_itself_has_a_part_too():
    loop = [(x for x in ())]
    loop.insert(0, loop)
    assert unpicklable_part(loop, 'sample').startswith('sample[0][0]')


def test_a_traceback_from_another_process_holds_no_frames_of_this_one():
    def fail(times):
        return fail(times - 1) if times else 1 / 0

    def loaded_deep_down():
        here = np.zeros(3)
        seen.append(weakref.ref(here))
        return pickle.loads(data)

    seen = []
    with pytest.raises(ZeroDivisionError) as caught:
        fail(3)
    data = dumps(caught.value)
    error = loaded_deep_down()
    gc.collect()
    assert seen[0]() is None
    part, names = error.__traceback__, []
    while part is not None:
        names.append(part.tb_frame.f_code.co_name)
        assert part.tb_frame.f_back is None
        part = part.tb_next
    assert names[1:] == ['fail'] * 4
