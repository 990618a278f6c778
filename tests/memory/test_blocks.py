import gc
import os
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path
from queue import Queue
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipekit import apply, arrays, combine_batches, combine_pad, pipeline, prefetch, repeat, sample, threads
from pipekit.memory.blocks import (
    PEAK_DECAY_BLOCKS,
    SPARE_BYTES,
    BlockPool,
    Heap,
    allocate_from,
    allocating_from,
    is_worth_pooling,
    pooled_empty,
    rounded,
)
from pipekit.memory.shared import Arena, SharedBlockPool

PAGE = 4096
MIB = 1 << 20
TIMEOUT_SECONDS = 60


@pytest.fixture(params=['heap', 'arena'])
def blocks(request):
    if request.param == 'heap':
        yield BlockPool()
    else:
        arena = Arena()
        yield SharedBlockPool(arena)
        arena.close_descriptor()


def address(array):
    return array.ctypes.data


WAYS_TO_REFER = {
    'the block': lambda block: block,
    'a view': lambda block: block.view(),
    'a slice': lambda block: block[10:20],
    'every second byte': lambda block: block[::2],
    'a shape': lambda block: block[:400].reshape(20, 20),
    'a transposed shape': lambda block: block[:400].reshape(20, 20).T,
    'another type': lambda block: block[:400].view('>f4'),
    'a part of a structure': lambda block: block[:400].view([('a', 'i4'), ('b', 'i4')])['b'],
    'a subclass': lambda block: block[:400].view(np.recarray),
    'a view of a view of a view': lambda block: block[:400].view('f4')[5:].reshape(-1, 5).view(np.matrix)[1:],
    'a memoryview': memoryview,
    'a slice of a memoryview': lambda block: memoryview(block)[7:9].toreadonly(),
    'an array of a buffer': lambda block: np.frombuffer(block, np.int16),
    'an array of a buffer of a memoryview': lambda block: np.frombuffer(memoryview(block)[8:16], np.int64),
    'an iterator': iter,
    'a broadcast array': lambda block: np.broadcast_to(block, (3, 1000)),
    'strides': lambda block: np.lib.stride_tricks.sliding_window_view(block, 3),
    'a flat iterator': lambda block: block.flat,
    'dlpack': np.from_dlpack,
    'a closure': lambda block: lambda: block[0],
}


@pytest.mark.parametrize('way', WAYS_TO_REFER)
def test_memory_that_is_referred_to_is_not_reused(way, blocks):
    block = blocks.new(1000)
    address = block.ctypes.data
    alive = WAYS_TO_REFER[way](block)
    del block
    gc.collect()
    assert blocks.new(1000).ctypes.data != address
    del alive
    gc.collect()
    others = [blocks.new(1000).ctypes.data for _ in range(2)]
    assert address in others


@given(st.integers(1, 1 << 40))
def test_sizes_are_rounded_up_to_pages_and_by_no_more_than_an_eighth(size):
    room = rounded(size)
    assert room % PAGE == 0
    assert size <= room <= max(size * 9 / 8, size + PAGE - 1)
    assert rounded(room) == room


def test_sizes_that_differ_a_little_share_a_block(blocks):
    address = blocks.new(1_000_000).ctypes.data
    assert blocks.new(1_000_100).ctypes.data == address


ACTS = st.sampled_from(['new', 'view', 'buffer', 'forget'])


@settings(deadline=None)
@given(st.lists(st.tuples(ACTS, st.integers(1, 40 * PAGE)), max_size=60))
def test_with_any_lifetimes_no_bytes_in_use_change(acts):
    blocks = BlockPool()
    alive = []  # what an array is filled with
    for number, (act, choice) in enumerate(acts):
        if act == 'new':
            alive.append((number, blocks.new(choice)))
            alive[-1][1][...] = number
        elif alive:
            mark, array = alive.pop(choice % len(alive))
            if act != 'forget':
                alive.append((mark, array))
            if act in ('view', 'buffer'):
                part = array[len(array) // 2 :] if act == 'view' else np.frombuffer(memoryview(array), 'u1')
                alive.append((mark, part))
                del part
            del array
        assert all((array == mark).all() for mark, array in alive)
    alive.clear()
    assert blocks.in_use == 0


def test_threads_may_drop_what_another_one_allocates(blocks):
    wrong = []

    def drop_at_random(arriving, chance):
        kept = []
        while (item := arriving.get(timeout=TIMEOUT_SECONDS)) is not None:
            kept.append(item)
            if len(kept) > chance.randrange(20):
                mark, array = kept.pop(chance.randrange(len(kept)))
                wrong.extend([] if (array == mark).all() else [mark])

    queues = [Queue(maxsize=5) for _ in range(4)]
    droppers = [
        threading.Thread(target=drop_at_random, args=(queue, Random(k)), daemon=True) for k, queue in enumerate(queues)
    ]

    def make_at_random(chance):
        for number in range(1000):
            block = blocks.new(chance.randrange(1, 5 * PAGE))
            block[...] = number % 256
            queues[number % 4].put((number % 256, block[chance.randrange(len(block)) :]), timeout=TIMEOUT_SECONDS)

    makers = [threading.Thread(target=make_at_random, args=(Random(k),), daemon=True) for k in range(3)]
    for thread in droppers + makers:
        thread.start()
    for thread in makers:
        thread.join(TIMEOUT_SECONDS)
    for queue in queues:
        queue.put(None, timeout=TIMEOUT_SECONDS)
    for thread in droppers:
        thread.join(TIMEOUT_SECONDS)
    assert not wrong
    assert blocks.in_use == 0
    assert blocks.spare < 1000 * PAGE
    if isinstance(blocks, SharedBlockPool):
        assert os.fstat(blocks._arena.descriptor).st_blocks * 512 == blocks.spare


def test_memory_of_a_burst_is_given_back_afterwards(blocks):
    many = [blocks.new(8 * MIB) for _ in range(100)]
    assert blocks.in_use == 800 * MIB
    del many
    assert blocks.in_use == 0
    assert blocks.spare <= 3 * SPARE_BYTES


def test_a_batch_at_a_time_finds_its_memory_however_large(blocks):
    addresses = set()
    for _ in range(10 * PEAK_DECAY_BLOCKS):
        addresses.add(address(blocks.new(200 * MIB)))
    assert len(addresses) == 1


def test_a_burst_that_comes_again_finds_most_of_its_memory(blocks):
    first, second = ({address(block) for block in [blocks.new(8 * MIB) for _ in range(10)]} for _ in range(2))
    assert len(first & second) >= 7


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
def test_a_fork_has_blocks_whatever_other_threads_of_the_parent_did(blocks):
    for _ in blocks._lock.held():
        child = os.fork()
        if not child:
            os._exit(0 if blocks.new(MIB).nbytes == MIB else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_blocks_outlive_their_pool():
    blocks = BlockPool()
    block = blocks.new(MIB)
    block[...] = 7
    del blocks
    gc.collect()
    assert (block == 7).all()


def test_pooled_memory_is_for_large_arrays_of_this_thread():
    blocks = BlockPool()
    shape, dtype = (600, 600), np.dtype('>f4')
    assert pooled_empty(shape, dtype) is None
    allocate_from(blocks)
    try:
        array = pooled_empty(shape, dtype)
        assert (array.shape, array.dtype, blocks.in_use) == (shape, dtype, rounded(array.nbytes))
        assert pooled_empty((3, 3), dtype) is None
        assert pooled_empty(shape, np.dtype(object)) is None
        assert pooled_empty(shape, np.dtype([('a', object)])) is None
        assert pooled_empty((1 << 60,), dtype) is None
        elsewhere = []
        thread = threading.Thread(target=lambda: elsewhere.append(pooled_empty(shape, dtype)))
        thread.start()
        thread.join(TIMEOUT_SECONDS)
        assert elsewhere == [None]
    finally:
        allocate_from(None)


def test_a_function_allocates_from_a_pool_while_it_runs_and_only_then():
    assert not is_worth_pooling(MIB)
    assert allocating_from(BlockPool(), lambda: (is_worth_pooling(MIB), is_worth_pooling(MIB - 1)))() == (True, False)
    assert not is_worth_pooling(MIB)
    with pytest.raises(ZeroDivisionError):
        allocating_from(BlockPool(), lambda: 1 / 0)()
    assert not is_worth_pooling(MIB)


# Pipelines


def image(number):
    return np.full((512, 512), number, np.float32)


IMAGES = np.arange(16, dtype=np.float32).repeat(1 << 18).reshape(16, 512, 512)
PIPELINES = {
    'stacked': lambda: pipeline(range(16), repeat(), apply(image), combine_batches(4)),
    'padded': lambda: pipeline(
        range(16), repeat(), apply(lambda k: image(k)[k % 4 :]), combine_batches(4, combine_pad)
    ),
    'gathered': lambda: pipeline(arrays(IMAGES), repeat(), combine_batches(4)),
    'drawn': lambda: pipeline(sample(arrays(image=IMAGES), seed=0), combine_batches(4)),
    'stacked in threads': lambda: pipeline(
        range(16), repeat(), apply(image), combine_batches(4, workers=threads(2, ahead=3))
    ),
}


def leaf(batch):
    while not isinstance(batch, np.ndarray):
        batch = next(iter(batch.values())) if isinstance(batch, dict) else batch[0]
    return batch


@pytest.mark.timeout(TIMEOUT_SECONDS)
@pytest.mark.parametrize('make', PIPELINES.values(), ids=PIPELINES)
def test_batches_are_written_where_earlier_ones_were(make, monkeypatch):
    reserved = []
    reserve = Heap.reserve
    monkeypatch.setattr(Heap, 'reserve', lambda self, size: (reserved.append(size), reserve(self, size))[1])
    with pipeline(make(), prefetch(30)) as ahead:
        for batches in (iter(make()), iter(ahead)):
            assert len({address(leaf(next(batches))) for _ in range(30)}) < 20
    assert 0 < len(reserved) < 40  # else it is the addresses that come again, of memory that is fresh


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(sorted(PIPELINES)), st.randoms(), st.booleans())
def test_no_batch_that_is_kept_changes(name, chance, ahead):
    expected = [leaf(batch).tobytes() for _, batch in zip(range(30), PIPELINES[name](), strict=False)]
    kept = []
    made = PIPELINES[name]()
    with pipeline(made, prefetch(30)) as batches:
        for batch, whole in zip(batches if ahead else made, expected, strict=False):
            rows = chance.choice([slice(None), slice(1, 3), slice(3, None)])
            size = len(whole) // len(leaf(batch))
            kept.append((leaf(batch)[rows], np.frombuffer(whole, np.uint8).reshape(-1, size)[rows].tobytes()))
            if len(kept) > chance.randrange(6):
                kept.pop(chance.randrange(len(kept)))
            del batch
            assert all(part.tobytes() == as_it_was for part, as_it_was in kept)


def test_kept_batches_do_not_keep_those_that_were_dropped():
    tracemalloc.start()
    try:
        batches = iter(pipeline(range(16), repeat(), apply(image), combine_batches(4)))
        kept = [next(batches) for _ in range(50)][::10]
        del batches
        gc.collect()
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < sum(batch.nbytes for batch in kept) * 9 / 8 + MIB


def test_batches_that_a_consumer_drops_are_given_back_even_if_it_takes_no_other():
    tracemalloc.start()
    try:
        batches = iter(pipeline(range(16), repeat(), apply(image), combine_batches(4)))
        kept = [next(batches) for _ in range(100)]
        del kept
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size <= 2 * SPARE_BYTES


def test_batches_of_small_samples_are_as_numpy_makes_them():
    batch = next(iter(pipeline(range(100), combine_batches(100))))
    assert batch.flags.owndata


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
def test_a_fork_goes_on_with_memory_of_its_own():
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', Path(__file__).parent / 'programs' / 'fork.py'],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert (done.stdout, done.stderr) == ('both\n', '')
