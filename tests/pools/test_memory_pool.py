"""The drop-in pool: allocate() and deallocate(block)."""

from __future__ import annotations

import array
import ctypes
import gc
import threading

import pytest

from pools import DoubleRelease, ForeignBlock, MemoryPool, PoolClosed, PoolExhausted, PoolValueError


@pytest.fixture
def pool():
    with MemoryPool(64, 3) as pool:
        yield pool


def test_blocks_are_writable_and_apart(pool):
    blocks = [pool.allocate() for _ in range(3)]
    for number, block in enumerate(blocks):
        assert len(block) == 64
        block[:] = bytes([number]) * 64
    assert [set(block) for block in blocks] == [{0}, {1}, {2}]
    for block in blocks:
        pool.deallocate(block)


def test_a_full_pool_raises_and_gives_again_what_came_back(pool):
    blocks = [pool.allocate() for _ in range(3)]
    assert pool.available == 0
    with pytest.raises(PoolExhausted, match="memory pool"):
        pool.allocate()
    pool.deallocate(blocks.pop())
    assert pool.available == 1
    blocks.append(pool.allocate())
    with pytest.raises(PoolExhausted):
        pool.allocate()
    for block in blocks:
        pool.deallocate(block)
    assert pool.available == pool.block_count == 3


def test_the_same_block_comes_round_again_as_another_object(pool):
    before = pool.allocate()
    before[:5] = b"first"
    pool.deallocate(before)
    again = pool.allocate()
    assert again[:5] == b"first"  # the same memory
    assert again is not before
    for use in (lambda: before[0], before.tobytes, lambda: len(before)):
        with pytest.raises(ValueError, match="released"):
            use()
    with pytest.raises(DoubleRelease):
        pool.deallocate(before)
    again[0] = 1  # still its owner's
    pool.deallocate(again)


def test_blocks_with_equal_content_are_not_taken_for_each_other(pool):
    one, two = pool.allocate(), pool.allocate()
    one[:] = two[:] = bytes(64)
    pool.deallocate(two)
    one[0] = 7
    with pytest.raises(DoubleRelease):
        pool.deallocate(two)
    assert one[0] == 7
    pool.deallocate(one)


def test_what_did_not_come_from_allocate_is_foreign(pool):
    block = pool.allocate()
    with MemoryPool(64, 1) as other:
        theirs = other.allocate()
        for foreign in (
            theirs,
            block[:],
            block[1:],
            block.toreadonly(),
            bytearray(64),
            b"",
            None,
            5,
            block.obj,
        ):
            with pytest.raises(ForeignBlock, match="allocate"):
                pool.deallocate(foreign)
        other.deallocate(theirs)
    pool.deallocate(block)


@pytest.mark.parametrize(
    "export", [lambda block: block[3:9], lambda block: (ctypes.c_char * 6).from_buffer(block, 3)]
)
def test_what_is_still_looked_at_is_not_allocated_again(pool, export):
    block = pool.allocate()
    block[3:9] = b"looked"
    part = export(block)
    pool.deallocate(block)
    assert pool.available == 2
    with pytest.raises(DoubleRelease):
        pool.deallocate(block)
    others = [pool.allocate(), pool.allocate()]
    for other in others:
        other[:] = array.array("B", [255] * 64)
    assert bytes(part) == b"looked"
    del part, block
    others.append(pool.allocate())
    for other in others:
        pool.deallocate(other)


def test_a_closed_pool_gives_nothing_and_takes_back(pool):
    block = pool.allocate()
    assert len(pool.close()) == 1
    with pytest.raises(PoolClosed):
        pool.allocate()
    block[:2] = b"ok"
    pool.deallocate(block)
    assert not pool.close()


@pytest.mark.parametrize(("block_size", "block_count"), [(0, 1), (1, 0), (-1, 1), (64, 2**70)])
def test_impossible_sizes_are_refused(block_size, block_count):
    with pytest.raises(PoolValueError):
        MemoryPool(block_size, block_count)


def drop(holder: list[object]) -> None:
    holder.clear()
    gc.collect()


def test_a_pool_that_is_dropped_with_blocks_warns_of_each():
    pool = MemoryPool(64, 2)
    kept = [pool.allocate(), pool.allocate()]
    kept[0][:4] = b"mine"
    holder = [pool]
    del pool
    with pytest.warns(ResourceWarning, match="memory pool") as seen:
        drop(holder)
    assert len(seen) == 2
    assert bytes(kept[0][:4]) == b"mine"  # the memory stays while somebody looks


def test_many_threads_share_a_pool():
    with MemoryPool(64, 8) as pool:
        torn = []

        def work(mark: int) -> None:
            for _ in range(500):
                block = pool.allocate()
                block[:] = bytes([mark]) * 64
                if set(block) != {mark}:
                    torn.append(mark)
                pool.deallocate(block)

        threads = [threading.Thread(target=work, args=(mark,)) for mark in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not torn
        assert pool.available == 8


def test_a_with_block_that_ends_with_allocated_blocks_warns():
    with pytest.warns(ResourceWarning, match="1 live block,") as told, MemoryPool(64, 2) as pool:
        block = pool.allocate()
    assert told[0].filename == __file__
    block[0] = 1
    pool.deallocate(block)
