"""Memoryviews of blocks: as long as one lives, nobody else gets the block."""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys

import pytest

from pools import BlockPinned, MallocPool, SlabPool

INDEX = 0xFFFF_FFFF


@pytest.fixture(params=["slab", "shared slab", "malloc", "shared malloc"])
def make_pool(request):
    def make(**more):
        shared = request.param.startswith("shared")
        if request.param.endswith("slab"):
            return SlabPool(4096, 4, thread_safe=shared, **more)
        return MallocPool(thread_safe=shared, **more)

    return make


EXPORTS = {
    "the view": lambda lease: lease.view,
    "a slice": lambda lease: lease.view[10:20],
    "a slice of a slice": lambda lease: lease.view[10:2000][5:9],
    "a stepping slice": lambda lease: lease.view[::16],
    "a cast": lambda lease: lease.view[:4096].cast("I"),
    "a read-only view": lambda lease: lease.view.toreadonly(),
    "the object behind": lambda lease: lease.view.obj,
    "a view of the object behind": lambda lease: memoryview(lease.view.obj),
    "a ctypes array": lambda lease: (ctypes.c_char * 100).from_buffer(lease.view),
    "an iterator": lambda lease: iter(lease.view),
}


@pytest.mark.parametrize("what", EXPORTS)
def test_a_block_that_is_looked_at_is_not_reused(make_pool, what):
    with make_pool() as pool:
        lease = pool.acquire(4096)
        index = lease.handle & INDEX
        lease.view[:] = b"\x07" * lease.size
        export = EXPORTS[what](lease)
        lease.release()
        others = [pool.acquire(4096) for _ in range(3)]
        assert index not in [other.handle & INDEX for other in others]
        for other in others:
            other.view[:] = b"\xff" * other.size
        if what != "an iterator":
            assert set(memoryview(export).tobytes()) == {7}
        assert pool.stats().live_blocks == 4
        del export
        again = pool.acquire(4096)
        assert again.handle & INDEX == index
        pool.release_many([*others, again])
        pool.check()
        assert pool.stats().live_blocks == 0


def test_what_was_looked_at_before_the_release_costs_no_block(make_pool):
    with make_pool() as pool:
        for _ in range(50):
            lease = pool.acquire(100)
            with memoryview(lease.view) as view:
                view[0] = 1
            assert lease.view[0] == 1
            lease.release()
            assert pool.stats().live_blocks == 0


def test_a_view_outlives_its_lease_and_its_pool(make_pool):
    pool = make_pool()
    lease = pool.acquire(4096)
    lease.view[:4] = b"kept"
    view = lease.view[:4]
    lease.release()
    pool.close()
    del pool, lease
    gc.collect()
    fill = [make_pool() for _ in range(3)]  # takes what addresses came free
    assert bytes(view) == b"kept"
    view[:] = b"mine"
    assert bytes(view) == b"mine"
    del fill, view


def test_a_view_whose_lease_and_pool_were_lost_is_still_readable(make_pool):
    pool = make_pool()
    lease = pool.acquire(4096)
    lease.write(b"kept")
    view = lease.view
    with pytest.warns(ResourceWarning):
        del lease
    del pool
    gc.collect()
    assert bytes(view[:4]) == b"kept"


def test_a_report_tells_a_released_block_that_is_still_looked_at(make_pool):
    pool = make_pool()
    lease = pool.acquire(100, tag="seen")
    view = lease.view
    lease.release()
    other = pool.acquire(100, tag="held")
    report = pool.close()
    assert {(leak.tag, leak.exported) for leak in report} == {("seen", True), ("held", False)}
    view.release()
    other.release()
    assert not pool.close()


def test_a_block_that_is_looked_at_is_not_resized(make_pool):
    with make_pool() as pool:
        lease = pool.acquire(100)
        index = lease.handle & INDEX
        lease.view[:100] = b"\x07" * 100
        part = lease.view[:100]
        with pytest.raises(BlockPinned, match="drop every view") as caught:
            lease.resize(4000)
        assert caught.value.status == "PINNED"
        assert (lease.requested, bytes(part)) == (100, b"\x07" * 100)
        lease.release()  # still waits for the view, whatever resize had to do with it
        others = [pool.acquire(4096) for _ in range(3)]
        assert index not in [other.handle & INDEX for other in others]
        for other in others:
            other.write(b"\xff" * 4096)
        assert bytes(part) == b"\x07" * 100
        del part
        pool.release_many(others)


def test_a_block_is_resized_once_nobody_looks(make_pool):
    with make_pool() as pool, pool.acquire(100) as lease:
        lease.view[:3] = b"abc"
        lease.resize(4000)
        assert bytes(lease.view[:3]) == b"abc"
        assert len(lease.view) == lease.size
        lease.view[lease.size - 1] = 1


def test_an_export_after_a_resize_holds_the_block(make_pool):
    with make_pool() as pool:
        lease = pool.acquire(100)
        assert len(lease.view) == lease.size
        lease.resize(4000)
        view = lease.view
        lease.release()
        assert pool.stats().live_blocks == 1
        del view
        pool.acquire(10).release()
        assert pool.stats().live_blocks == 0


def test_a_debugger_that_watches_the_import_does_not_blind_the_pools():
    """Frames whose locals are looked at hold references, also to what is counted."""
    code = """
import sys
def look(frame, event, argument):
    frame.f_locals
    return look
sys.settrace(look)
sys.setprofile(look)
import pools
sys.settrace(None)
sys.setprofile(None)
pool = pools.SlabPool(64, 2)
lease = pool.acquire()
lease.view[:] = bytes(64)
part = lease.view[:10]
lease.release()
with pool.acquire() as other:
    other.view[:] = b"x" * 64
    assert bytes(part) == bytes(10), "reused"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
