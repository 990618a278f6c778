import gc
import os
import socket
from multiprocessing.connection import Connection
from threading import Thread

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_arrays

from pipekit.describing.descriptions import same
from pipekit.memory.blocks import NoRoom
from pipekit.memory.shared import Arena, RemoteBlocks, SharedBlockPool
from pipekit.workers import channels
from pipekit.workers.channels import Channel, hold_in_shared_memory
from pipekit.workers.pickling import MIN_OUT_OF_BAND_BYTES

TIMEOUT_SECONDS = 60
BIG = MIN_OUT_OF_BAND_BYTES * 4


class Pair:
    """Two ends in one process, each with shared memory to send large arrays in."""

    def __init__(self, *, there=True, back=True):
        arenas = Arena(), Arena()
        self.blocks = [
            SharedBlockPool(arena) if wanted else None for arena, wanted in zip(arenas, (there, back), strict=True)
        ]
        views = [RemoteBlocks(arena) if wanted else None for arena, wanted in zip(arenas, (there, back), strict=True)]
        connections = [Connection(end.detach()) for end in socket.socketpair()]
        self.here = Channel(connections[0], self.blocks[0], views[1])
        self.there = Channel(connections[1], self.blocks[1], views[0])
        self.arenas = arenas

    def through(self, content, *, back=False):
        ends = (self.there, self.here) if back else (self.here, self.there)
        content = ends[0].pickled(content)
        thread = Thread(target=ends[0].send_pickled, args=('content', content))  # it blocks if the pipe is full
        thread.start()
        _, load, _ = ends[1].parsed(ends[1].receive())
        thread.join(TIMEOUT_SECONDS)
        return load()

    def close(self):
        self.here.close()
        self.there.close()
        for arena in self.arenas:
            arena.close_descriptor()


@pytest.fixture
def pair():
    pair = Pair()
    yield pair
    pair.close()


@pytest.fixture
def pipe_only():
    pair = Pair(there=False, back=False)
    yield pair
    pair.close()


def bytes_through_pipe(channel, content):
    return len(channel.pickled(content)[0])


class Sub(np.ndarray):
    pass


def read_only(array):
    array.flags.writeable = False
    return array


n = BIG // 8
ARRAYS = {
    'a scalar': np.array(3.5),
    'an empty one': np.zeros((0, 3), 'f4'),
    'a small one': np.arange(5),
    'a large one': np.arange(n),
    'of three axes': np.arange(n).reshape(4, 4, -1),
    'in the order of Fortran': np.asfortranarray(np.arange(n).reshape(4, -1)),
    'with its axes in another order': np.arange(n).reshape(4, 4, -1).transpose(2, 0, 1),
    'with gaps': np.arange(2 * n).reshape(-1, 8)[:, 1:7:2],
    'with gaps and its axes in another order': np.arange(2 * n).reshape(4, -1, 8)[:, :, 1:7:2].transpose(1, 2, 0),
    'backwards': np.arange(n)[::-1],
    'repeated': np.broadcast_to(np.arange(8.0), (n // 8, 8)),
    'a part of a larger one': np.arange(2 * n)[n // 2 : n + n // 2],
    'read-only': read_only(np.arange(n)),
    'read-only, with gaps': read_only(np.arange(2 * n)[::2]),
    'of the other byte order': np.arange(n, dtype='>f4'),
    'of half floats': np.zeros(n * 4, 'f2'),
    'of long doubles': np.zeros(n, 'g'),
    'of objects': np.array([None, 'a', [1], {}] * n, object),
    'structured': np.zeros(n, [('a', 'i4'), ('b', 'f8', (3,))]),
    'structured and aligned': np.zeros(n, np.dtype([('a', 'i1'), ('b', 'f8')], align=True)),
    'structured, with objects': np.array([(1, 'a')] * n, [('a', 'i4'), ('b', object)]),
    'structured, with dates': np.zeros(n, [('a', 'M8[s]')]),
    'of strings': np.array(['ab', 'c', ''] * n),
    'of bytes': np.array([b'ab', b'c'] * n),
    'of strings of any length': np.array(['a', 'b' * 99] * n, np.dtypes.StringDType()),
    'of dates': np.arange(n).astype('M8[ns]'),
    'of durations, read-only, with gaps': read_only(np.arange(2 * n).astype('m8[s]')[::2]),
    'a date': np.array('2020-01-01', 'M8[D]'),
    'of anything': np.zeros(n, 'V3'),
    'masked': np.ma.masked_array(np.arange(n), np.arange(n) % 2),
    'a matrix': np.arange(n * 2.0).reshape(n, 2).view(np.matrix),
    'of records': np.rec.array([(1, 2.0)] * n, dtype=[('a', 'i4'), ('b', 'f8')]),
    'of a subclass': np.arange(n).view(Sub),
}


def like(array):
    # Not the strides: gaps need not be kept.
    return array.dtype, array.dtype.isalignedstruct, array.shape, array.flags.writeable, array.flags.aligned


@pytest.mark.parametrize('name', ARRAYS)
def test_an_array_arrives_unchanged(name, pair, pipe_only):
    array = ARRAYS[name]
    for got in (pair.through(array), pair.through([array], back=True)[0], pipe_only.through(array)):
        assert same(got, array)
        assert like(got) == like(array)


@pytest.mark.parametrize('name', [name for name, array in ARRAYS.items() if array.nbytes >= BIG])
def test_no_large_array_goes_through_the_pipe(name, pair):
    assert bytes_through_pipe(pair.here, ARRAYS[name]) < 1000


ORDERS = [name for name in ARRAYS if 'order' in name]


@pytest.mark.parametrize('name', ORDERS)
def test_the_order_of_the_axes_in_memory_is_kept(name, pair):
    got, array = pair.through(ARRAYS[name]), ARRAYS[name]
    assert np.argsort(got.strides).tolist() == np.argsort(array.strides).tolist()


@settings(deadline=None)
@given(
    st_arrays.arrays(
        st.one_of(st_arrays.scalar_dtypes(), st_arrays.array_dtypes()), st_arrays.array_shapes(min_dims=0, min_side=0)
    ),
    st.data(),
)
def test_any_view_of_any_array_arrives_unchanged(array, data):
    view = array[data.draw(st_arrays.basic_indices(array.shape, allow_newaxis=True, allow_ellipsis=True))]
    view = view.transpose(data.draw(st.permutations(range(view.ndim)))) if isinstance(view, np.ndarray) else view
    pair = Pair()
    original, channels.MIN_OUT_OF_BAND_BYTES = channels.MIN_OUT_OF_BAND_BYTES, 0
    try:
        got = pair.through(view)
    finally:
        channels.MIN_OUT_OF_BAND_BYTES = original
        pair.close()
    assert same(got, view)


def test_writing_to_a_received_array_does_not_change_the_sent_one(pair):
    array = np.zeros(BIG, 'u1')
    got = pair.through(array)
    got[...] = 1
    assert not array.any()


def test_an_array_in_a_block_is_not_copied(pair):
    block = pair.blocks[0].new(BIG)
    got = pair.through(block[100:].view('u4'))
    block[100:] = 7
    assert (got.view('u1') == 7).all()
    assert pair.blocks[0].in_use == len(block)


def test_a_block_is_free_when_the_other_end_has_released_it(pair):
    blocks, _ = pair.blocks
    got = pair.through(np.zeros(BIG, 'u1'))
    pair.through('anything', back=True)
    assert blocks.in_use == BIG
    part = got[5:]
    del got
    pair.through('anything', back=True)
    assert blocks.in_use == BIG
    del part
    assert blocks.in_use == BIG  # the next message says so
    pair.through('anything', back=True)
    assert blocks.in_use == 0


def test_a_block_is_not_free_while_this_end_uses_it(pair):
    blocks, _ = pair.blocks
    block = blocks.new(BIG)
    pair.through(block)
    pair.through('anything', back=True)
    assert blocks.in_use == BIG
    del block
    assert blocks.in_use == 0


def test_two_arrays_in_one_block_hold_it_both(pair):
    block = pair.blocks[0].new(2 * BIG)
    first, second = pair.through((block[:BIG], block[BIG:]))
    del block, first
    pair.through('anything', back=True)
    assert pair.blocks[0].in_use == 2 * BIG
    del second
    pair.through('anything', back=True)
    assert pair.blocks[0].in_use == 0


def test_content_that_is_not_loaded_is_released(pair):
    pair.here.send('content', np.zeros(BIG, 'u1'))
    pair.there.parsed(pair.there.receive())
    pair.through('anything', back=True)
    assert pair.blocks[0].in_use == 0


def test_many_small_values_together_are_sent_in_shared_memory(pair):
    many = [(number, np.full(100, number)) for number in range(1000)]
    got = pair.through(many)
    assert same(got, many)
    assert all(array.flags.writeable for _, array in got)
    assert pair.blocks[0].in_use > BIG
    pair.through('anything', back=True)
    assert pair.blocks[0].in_use == 0  # what was received is a copy
    assert bytes_through_pipe(pair.here, many) == 0


def test_blocks_sent_to_a_closed_end_are_free(pair):
    got = pair.through([np.zeros(BIG, 'u1')] * 2), pair.through(np.ones(BIG, 'u1'))
    assert pair.blocks[0].in_use == 2 * BIG
    pair.here.close()
    assert pair.blocks[0].in_use == 0
    pair.here.close()
    assert pair.blocks[0].in_use == 0
    del got


def test_a_received_array_outlives_both_channels():
    pair = Pair()
    got = pair.through(np.full(BIG, 7, 'u1'))
    pair.close()
    del pair
    gc.collect()
    assert (got == 7).all()


def test_blocks_are_shared_by_the_channels_to_several_ends():
    blocks = SharedBlockPool(Arena())
    ends = [socket.socketpair() for _ in range(2)]
    first, second = (Channel(Connection(here.detach()), blocks, None) for here, _ in ends)
    first.send('content', np.zeros(BIG, 'u1'))
    second.send('content', np.zeros(BIG, 'u1'))
    first.close()
    assert blocks.in_use == BIG
    second.close()
    assert blocks.in_use == 0
    for _, there in ends:
        there.close()


def test_a_full_arena_is_no_error(pair, monkeypatch):
    monkeypatch.setattr(Arena, 'reserve', lambda *arguments: (_ for _ in ()).throw(NoRoom('none is left')))
    array = np.arange(BIG)
    assert same(pair.through(array), array)
    assert str(pair.here.no_room) == 'none is left'
    assert pair.there.no_room is None


class Fails:
    def __reduce__(self):
        raise ValueError('not to be pickled')


def test_memory_taken_before_an_error_is_free_again(pair):
    with pytest.raises(ValueError, match='not to be pickled'):
        pair.here.send('content', [np.zeros(BIG, 'u1'), Fails()])
    assert pair.blocks[0].in_use == 0
    assert pair.through('goes on') == 'goes on'


def test_a_message_has_a_header_content_and_a_size(pair):
    pair.here.send(('kind', 5), np.zeros(BIG, 'u1'))
    header, load, size = pair.there.parsed(pair.there.receive())
    assert header == ('kind', 5)
    assert len(load()) == BIG <= size < BIG + 1000


def test_receiving_from_a_closed_end_raises_eof_error(pair):
    pair.here.close()
    with pytest.raises(EOFError):
        pair.there.receive()


@pytest.fixture
def path(tmp_path):
    np.save(tmp_path / 'data.npy', np.arange(BIG).reshape(4, -1))
    return tmp_path / 'data.npy'


def test_a_memory_map_is_sent_as_its_file(path, pair):
    array = np.load(path, mmap_mode='r')
    assert bytes_through_pipe(pair.here, array) < 1000
    got = pair.through(array)
    assert same(got, array)
    assert (type(got), got.filename, got.flags.writeable) == (np.memmap, array.filename, False)
    assert pair.blocks[0].in_use == 0


def test_a_writable_memory_map_stays_writable(path, pair):
    array = np.load(path, mmap_mode='r+')
    pair.through(array)[0, 0] = 99
    assert array[0, 0] == 99
    new = np.memmap(path.with_name('new'), 'i8', 'w+', shape=(3, 5), order='F')
    new[...] = 3
    got = pair.through(new)
    assert same(got, new)
    assert got.flags.f_contiguous


PARTS = {
    'a row': lambda array: array[1],
    'some rows': lambda array: array[1:3],
    'with gaps': lambda array: array[:, ::2],
    'in another shape': lambda array: array.reshape(-1, 16),
    'transposed': lambda array: array.T,
    'of another type': lambda array: array.view('>u4')[2:],
    'nothing': lambda array: array[:0],
}


@pytest.mark.parametrize('mode', ['r', 'r+', 'c'])
@pytest.mark.parametrize('part', PARTS)
def test_a_view_of_a_memory_map_is_sent_by_value(part, mode, path, pair):
    array = PARTS[part](np.load(path, mmap_mode=mode))
    assert bytes_through_pipe(pair.here, array) < 1000
    got = pair.through(array)
    assert same(got, array)
    assert (type(got), got.flags.writeable) == (type(array), mode != 'r')
    got = None
    path.unlink()
    assert same(pair.through(array), array)


def test_a_memory_map_whose_file_is_gone_is_sent_by_value(path, pair):
    array = np.load(path, mmap_mode='r')
    path.unlink()
    assert same(pair.through(array), array)


def test_changes_to_a_copy_on_write_map_are_sent(path, pair):
    array = np.load(path, mmap_mode='c')
    array[0, 0] = 99
    assert same(pair.through(array), array)


def test_bytes_in_a_block_are_held_in_place_and_others_are_copied():
    blocks = SharedBlockPool(Arena())
    block = blocks.new(100)
    start, _ = blocks.place_of(block)
    assert hold_in_shared_memory(block[10:30], blocks) == (start, start + 10, 20)
    elsewhere, begin, size = hold_in_shared_memory(np.arange(5, dtype='u1'), blocks)
    assert (elsewhere, size) == (begin, 5)
    assert elsewhere != start


def test_buffers_of_other_objects_are_sent_too(pair):
    class Text(bytearray):
        def __reduce_ex__(self, protocol):
            return bytes, (channels.pickle.PickleBuffer(self),)

    assert pair.through(Text(b'a' * BIG)) == b'a' * BIG
    assert pair.through(channels.pickle.PickleBuffer(b'a' * BIG)).tobytes() == b'a' * BIG


class OfTwo(Exception):
    def __init__(self, first, second):
        super().__init__(f'{first} and {second}')
        self.second = second


def test_an_error_arrives_with_its_attributes_notes_cause_and_traceback(pair):
    try:
        try:
            raise KeyError('a')
        except KeyError as cause:
            raise OfTwo(1, 2) from cause
    except OfTwo as error:
        error.add_note('a note')
        got = pair.through(error)
    assert (type(got), str(got), got.second, got.__notes__) == (OfTwo, '1 and 2', 2, ['a note'])
    assert isinstance(got.__cause__, KeyError)
    assert (
        got.__traceback__.tb_frame.f_code.co_name
        == 'test_an_error_arrives_with_its_attributes_notes_cause_and_traceback'
    )


def test_closing_leaves_no_descriptor():
    gc.collect()
    before = len(os.listdir('/proc/self/fd'))
    pair = Pair()
    pair.through(np.zeros(BIG))
    pair.close()
    del pair
    gc.collect()
    assert len(os.listdir('/proc/self/fd')) == before
