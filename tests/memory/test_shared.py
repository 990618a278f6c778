import gc
import os
import subprocess
import sys
from contextlib import contextmanager
from textwrap import dedent

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipekit.memory import shared
from pipekit.memory.blocks import SPARE_BYTES, NoRoom
from pipekit.memory.shared import Arena, RemoteBlocks, SharedBlockPool

PAGE = 4096
MIB = 1 << 20
TIMEOUT_SECONDS = 60

needs_fork = pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')


@pytest.fixture
def arena():
    arena = Arena()
    yield arena
    arena.close_descriptor()


@pytest.fixture
def blocks(arena):
    return SharedBlockPool(arena)


@pytest.fixture
def small(monkeypatch):
    """An arena of sixteen pages."""
    monkeypatch.setattr(shared, '_file_bytes', lambda: 16 * PAGE)
    arena = Arena()
    yield arena
    arena.close_descriptor()


def taken(arena):
    return os.fstat(arena.descriptor).st_blocks * 512


def test_a_block_holds_what_was_asked_for_and_begins_at_a_page(blocks):
    for size in [1, 5, PAGE, PAGE + 1, 100_000, 3 * MIB + 1]:
        block = blocks.new(size)
        assert (block.shape, block.dtype, block.flags.writeable) == ((size,), np.uint8, True)
        assert block.ctypes.data % PAGE == 0


ACTS = st.sampled_from(['new', 'view', 'buffer', 'forget', 'hold', 'drop'])


@settings(deadline=None)
@given(st.lists(st.tuples(ACTS, st.integers(1, 40 * PAGE)), max_size=60))
def test_with_any_lifetimes_no_bytes_in_use_change(acts):
    arena = Arena()
    blocks = SharedBlockPool(arena)
    alive, held = [], []  # what an array, or a part of the memory, is filled with
    for number, (act, choice) in enumerate(acts):
        if act == 'new':
            alive.append((number, blocks.new(choice)))
            alive[-1][1][...] = number
        elif alive:
            mark, array = alive.pop(choice % len(alive))
            if act == 'hold':
                start, offset = blocks.place_of(array)
                blocks.hold(start)
                held.append((mark, start, slice(offset, offset + len(array))))
            if act != 'forget':
                alive.append((mark, array))
            if act in ('view', 'buffer'):
                alive.append(
                    (mark, array[len(array) // 2 :] if act == 'view' else np.frombuffer(memoryview(array), 'u1'))
                )
            del array
        if act == 'drop' and held:
            blocks.drop(held.pop(choice % len(held))[1])
        assert all((array == mark).all() for mark, array in alive)
        assert all(set(arena.memory[part]) == {mark} for mark, _, part in held)
    alive.clear()
    for _, start, _ in held:
        blocks.drop(start)
    kept = blocks.new(1)
    assert blocks.place_of(kept) is not None
    assert blocks.in_use == PAGE
    arena.close_descriptor()


def test_memory_is_given_back_when_less_is_in_use(arena, blocks):
    many = [blocks.new(8 * MIB) for _ in range(20)]
    for block in many:
        block[...] = 1
    assert taken(arena) >= 160 * MIB
    del many, block
    for _ in range(1000):
        blocks.new(8 * MIB)
    assert taken(arena) == blocks.in_use + blocks.spare <= 8 * MIB + SPARE_BYTES


def test_a_peak_that_comes_again_finds_its_memory(arena, blocks):
    def addresses():
        return {block.ctypes.data for block in [blocks.new(8 * MIB) for _ in range(10)]}

    assert addresses() == addresses()


def test_memory_of_a_size_no_longer_in_use_is_given_back_first(arena, blocks, monkeypatch):
    address = blocks.new(3 * MIB).ctypes.data
    many = [blocks.new(8 * MIB) for _ in range(20)]
    del many
    given_back = []
    monkeypatch.setattr(arena, 'give_back', lambda start, size: given_back.append(size))
    for _ in range(1500):
        assert blocks.new(3 * MIB).ctypes.data == address
    assert set(given_back) == {8 * MIB}


def test_memory_given_back_is_used_again_where_it_was(arena, blocks):
    many = [blocks.new(8 * MIB) for _ in range(20)]
    addresses = {block.ctypes.data for block in many}
    del many
    for _ in range(1000):
        blocks.new(PAGE)
    assert taken(arena) <= SPARE_BYTES + PAGE
    many = [blocks.new(8 * MIB) for _ in range(20)]
    assert {block.ctypes.data for block in many} == addresses


def test_blocks_of_ever_new_sizes_do_not_fill_the_memory(arena, blocks):
    for size in range(MIB, 60 * MIB, MIB // 3):
        blocks.new(size)[-1] = 1
    assert taken(arena) < 3 * 60 * MIB


def test_a_full_arena_says_how_full_it_is_and_goes_on_when_there_is_room(small):
    blocks = SharedBlockPool(small)
    kept = [blocks.new(4 * PAGE) for _ in range(3)]
    with pytest.raises(NoRoom, match='20,480 bytes are needed, and 16,384 of 65,536 bytes'):
        blocks.new(5 * PAGE)
    kept.append(blocks.new(4 * PAGE))
    with pytest.raises(NoRoom):
        blocks.new(1)
    kept.pop()
    assert blocks.new(4 * PAGE).shape == (4 * PAGE,)


def test_more_than_the_machine_has_is_refused(arena, blocks):
    with pytest.raises(NoRoom):
        blocks.new(arena.size + 1)
    assert blocks.in_use == 0
    assert blocks.new(10).shape == (10,)


def test_a_system_without_memory_is_no_room_and_nothing_is_lost(blocks, monkeypatch):
    def refuse(*arguments):
        raise OSError(28, 'No space left on device')

    with monkeypatch.context() as patch:
        patch.setattr(os, 'posix_fallocate', refuse)
        with pytest.raises(NoRoom, match=r'the system has no 8,192 bytes of shared memory: .* No space'):
            blocks.new(5000)
    assert blocks.in_use == blocks.spare == 0
    assert blocks.new(5000).base is not None


def test_blocks_begin_at_the_first_byte_to_reserve(arena):
    arena = Arena(os.dup(arena.descriptor), first=3 * PAGE)
    blocks = SharedBlockPool(arena)
    assert blocks.place_of(blocks.new(10)[4:]) == (3 * PAGE, 3 * PAGE + 4)


def test_arrays_elsewhere_lie_in_no_block(arena, blocks):
    block = blocks.new(PAGE)
    assert blocks.place_of(block) == (0, 0)
    assert blocks.place_of(np.zeros(9, np.uint8)) is None
    assert SharedBlockPool(Arena(os.dup(arena.descriptor))).place_of(block) is None


def test_a_held_block_is_not_used_again_until_it_is_dropped(blocks):
    block = blocks.new(10)
    start, _ = blocks.place_of(block)
    blocks.hold(start)
    del block
    assert blocks.place_of(blocks.new(10)) != (start, start)
    blocks.drop(start)
    both = [blocks.new(10) for _ in range(2)]
    assert (start, start) in map(blocks.place_of, both)


def test_views_show_what_the_other_end_writes_and_are_known_when_gone(arena):
    blocks, remote = SharedBlockPool(arena), RemoteBlocks(Arena(os.dup(arena.descriptor)))
    block = blocks.new(100)
    view = remote.view(*blocks.place_of(block), 100)
    block[...] = 7
    assert (view == 7).all()
    parts = view[:50], np.frombuffer(memoryview(view)[50:], np.int16)
    del view
    assert remote.take_freed() == []
    del parts
    assert remote.take_freed() == [0]
    assert remote.take_freed() == []


def test_each_view_of_a_block_is_counted(arena):
    remote = RemoteBlocks(arena)
    first, second = remote.view(0, 0, 5), remote.view(0, 10, 5)
    del first
    assert remote.take_freed() == [0]
    del second
    assert remote.take_freed() == [0]


def test_an_arena_that_is_read_only_cannot_be_written_to(arena):
    view = RemoteBlocks(Arena(os.dup(arena.descriptor), read_only=True)).view(0, 0, 10)
    assert not view.flags.writeable
    with pytest.raises(ValueError, match='read-only'):
        view[0] = 1


def test_a_view_outlives_its_arena_and_its_blocks():
    arena = Arena()
    block = SharedBlockPool(arena).new(1000)
    block[...] = 5
    arena.close_descriptor()
    del arena
    gc.collect()
    assert (block == 5).all()


def run(script):
    done = subprocess.run(
        [sys.executable, '-c', dedent(script)], capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )
    assert (done.returncode, done.stderr) == (0, '')
    return done.stdout


needs_linux = pytest.mark.skipif(sys.platform != 'linux', reason='needs /proc')


@contextmanager
def forked(alive, mark):
    """A forked child, which checks at the end of this block that some arrays still hold nothing but a mark."""
    here, there = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(there)
            os.read(here, 1)
            os._exit(0 if all((array == mark).all() for array in alive) else 1)
        finally:
            os._exit(2)
    os.close(here)
    try:
        yield
    finally:
        os.close(there)
        assert os.waitpid(child, 0)[1] == 0


@needs_fork
def test_a_fork_keeps_the_blocks_that_it_sees(arena, blocks):
    alive = [blocks.new(PAGE)]
    alive[0][...] = 1
    address = alive[0].ctypes.data
    with forked(alive, 1):
        alive.clear()
        for mark in range(2, 9):
            block = blocks.new(PAGE)
            block[...] = mark
            assert block.ctypes.data != address
    del block
    RemoteBlocks(arena).take_freed()  # as with each message
    assert blocks.in_use == 0


@needs_fork
def test_a_view_that_a_fork_sees_is_not_freed_until_the_fork_has_ended(arena):
    files = os.listdir('/dev/fd')
    remote = RemoteBlocks(arena)
    alive = [remote.view(start, start, 5) for start in range(0, 3 * PAGE, PAGE)]
    alive.pop(0)
    with forked(alive, 0):
        assert remote.take_freed() == [0]
        alive.pop(0)
        assert remote.take_freed() == []
        with forked(alive, 0):
            alive.clear()
            assert remote.take_freed() == []
        assert remote.take_freed() == []
    assert sorted(remote.take_freed()) == [PAGE, 2 * PAGE]
    assert remote.take_freed() == []
    assert os.listdir('/dev/fd') == files


@needs_linux
def test_a_fork_that_becomes_another_program_keeps_nothing(arena):
    assert (
        run("""
        import os, sys
        from pipekit.memory.shared import Arena, RemoteBlocks
        remote = RemoteBlocks(Arena())
        view = remote.view(0, 0, 5)
        here, there = os.pipe()
        says, said = os.pipe()
        os.set_inheritable(here, True)
        os.set_inheritable(said, True)
        child = os.fork()
        if not child:
            os.execv(sys.executable, [sys.executable, '-c', f'import os; os.write({said}, b"x"); os.read({here}, 1)'])
        del view
        os.read(says, 1)
        print(remote.take_freed())
        os.write(there, b'x')
        os.waitpid(child, 0)
    """)
        == '[0]\n'
    )


def test_an_arena_leaves_no_descriptor():
    before = os.listdir('/proc/self/fd')
    arena = Arena()
    SharedBlockPool(arena).new(10)
    arena.close_descriptor()
    del arena
    gc.collect()
    assert os.listdir('/proc/self/fd') == before


@needs_linux
def test_where_addresses_are_limited_there_is_no_arena_and_no_descriptor_is_left():
    assert (
        run("""
        import os, resource
        from pipekit.memory.shared import Arena
        resource.setrlimit(resource.RLIMIT_AS, (1 << 31, 1 << 31))
        before = os.listdir('/proc/self/fd')
        try:
            Arena()
        except OSError:
            print(os.listdir('/proc/self/fd') == before)
    """)
        == 'True\n'
    )


@needs_linux
def test_where_the_size_of_files_is_limited_a_arena_is_as_small():
    assert (
        run("""
        import resource
        from pipekit.memory.shared import Arena
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        arena = Arena()
        print(len(arena.memory), arena.size)
    """)
        == '98304 98304\n'
    )


@needs_linux
def test_the_core_of_a_process_that_crashes_does_not_fill_the_arena(tmp_path):
    assert (
        run(f"""
        import os, resource, signal
        from pipekit.memory.shared import Arena
        arena = Arena()
        arena.memory[:4] = b'full'
        if os.fork():
            os.wait()
            print(os.fstat(arena.descriptor).st_blocks)
        else:
            os.chdir({str(tmp_path)!r})
            _, most = resource.getrlimit(resource.RLIMIT_CORE)
            size = 1 << 28 if most == resource.RLIM_INFINITY else most
            resource.setrlimit(resource.RLIMIT_CORE, (size, most))
            os.kill(os.getpid(), signal.SIGSEGV)
    """)
        == '8\n'
    )


def test_without_memory_files_an_unnamed_file_does(monkeypatch):
    monkeypatch.delattr(os, 'memfd_create', raising=False)
    arena = Arena()
    blocks = SharedBlockPool(arena)
    many = [blocks.new(8 * MIB) for _ in range(10)]
    many[0][...] = 1
    del many
    for _ in range(1000):
        blocks.new(PAGE)
    assert blocks.spare <= SPARE_BYTES
    arena.close_descriptor()
