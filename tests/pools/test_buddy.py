"""BuddyPool from Python: what it gives, refuses and tells."""

from __future__ import annotations

import gc
import threading

import pytest

from pools import (
    BlockPinned,
    BuddyPool,
    DoubleRelease,
    PoolClosed,
    PoolExhausted,
    PoolValueError,
    StaleHandle,
    Trace,
    Unsupported,
    WrongThread,
)


@pytest.fixture(params=["lazy", "eager"])
def pool(request):
    with BuddyPool(1 << 20, merge=request.param) as pool:
        yield pool
        pool.check()


def test_a_lease_has_the_next_power_of_two(pool):
    for size, granted in [(1, 256), (256, 256), (257, 512), (5000, 8192), (1 << 19, 1 << 19)]:
        with pool.acquire(size) as lease:
            assert lease.size == len(lease.view) == granted
            assert lease.requested == size
            lease.view[:] = b"\xaa" * granted
            assert lease.read(granted - 1) == b"\xaa"


def test_without_a_size_it_asks_for_the_block_size():
    with BuddyPool(1 << 20, block_size=10_000) as pool, pool.acquire() as lease:
        assert (lease.requested, lease.size) == (10_000, 16_384)


def test_neighbours_do_not_overlap(pool):
    leases = [pool.acquire(300) for _ in range(100)]
    for number, lease in enumerate(leases):
        lease.view[:] = bytes([number]) * lease.size
    for number, lease in enumerate(leases):
        assert bytes(lease.view) == bytes([number]) * lease.size
        lease.release()
    assert pool.stats().largest_free_bytes == 1 << 20


def test_what_is_free_is_never_refused_for_not_being_merged(pool):
    for lease in [pool.acquire(256) for _ in range((1 << 20) // 256)]:
        lease.release()
    pool.acquire(1 << 20).release()


def test_the_refusal_tells_the_levels(pool):
    with (
        pool.acquire(1 << 19, tag="half"),
        pytest.raises(PoolExhausted, match=r"524288 bytes free.*'half' holds the most.*max_capacity"),
    ):
        pool.acquire(1 << 20)


def test_a_refusal_does_not_say_that_the_request_fits():
    with BuddyPool(4096) as pool:
        blocks = [pool.acquire(256) for _ in range(16)]
        for block in blocks[1:3]:  # one extent of 512 bytes, and no block of 512
            block.release()
        with pytest.raises(PoolExhausted, match=r"free block 256, fragmentation index 0\.00[;)]"):
            pool.acquire(300)
        with pytest.raises(PoolExhausted, match=r"free block 256, fragmentation index -1\.00: one of them"):
            pool.acquire_many(3, 256)
        for block in (blocks[0], *blocks[3:]):
            block.release()


@pytest.mark.parametrize("size", [0, -1, (1 << 20) + 1, 1 << 64])
def test_sizes_out_of_range_are_value_errors(pool, size):
    with pytest.raises(PoolValueError):
        pool.acquire(size)


@pytest.mark.parametrize(
    "wrong",
    [
        {"capacity": 0},
        {"capacity": 1 << 40},
        {"capacity": 1 << 63},
        {"capacity": -1},
        {"capacity": 1 << 34, "min_block": 64},
        {"min_block": 32},
        {"min_block": 100},
        {"min_block": 0},
        {"max_capacity": 4096},
        {"merge": "sometimes"},
    ],
)
def test_impossible_parameters_are_value_errors_that_name_the_limits(wrong):
    with pytest.raises(PoolValueError, match=r"give 1 to|power of two from|begins with|'lazy'"):
        BuddyPool(**wrong)


def test_it_grows_to_its_limit_and_its_regions_merge():
    with BuddyPool(64 << 10, max_capacity=1 << 20) as pool:
        with pool.acquire_many(16, 64 << 10):
            assert pool.stats().grown == 4
            with pytest.raises(PoolExhausted):
                pool.acquire(1)
        pool.acquire(1 << 20).release()
        pool.check()


def test_misuse_is_told_apart(pool):
    lease = pool.acquire(100)
    handle = lease.handle
    lease.release()
    with pytest.raises(DoubleRelease):
        lease.release()
    with pytest.raises(StaleHandle):
        pool.inspect(handle)
    assert pool.stats().double_releases == 1


# ---- resizing -------------------------------------------------------------------------------


def test_it_grows_and_shrinks_in_place(pool):
    with pool.acquire(256) as lease:
        lease.write(b"kept")
        lease.resize(1 << 20)
        assert (lease.size, lease.read(0, 4)) == (1 << 20, b"kept")
        lease.resize(1000)
        assert (lease.size, lease.requested, lease.read(0, 4)) == (1024, 1000, b"kept")
        assert pool.stats().moved_blocks == 0


def test_it_moves_with_its_bytes_where_a_neighbour_lives(pool):
    with pool.acquire(256) as lease, pool.acquire(256):
        handle = lease.handle
        lease.write(b"kept")
        lease.resize(512)
        assert (lease.handle, lease.size, lease.read(0, 4)) == (handle, 512, b"kept")
        assert pool.stats().moved_blocks == 1


def test_a_resize_is_refused_while_a_view_or_pin_is_there(pool):
    with pool.acquire(256) as lease, pool.acquire(256):
        part = lease.view[10:20]
        with pytest.raises(BlockPinned, match="view"):
            lease.resize(512)
        del part
        with lease.pin() as view:
            del view
            with pytest.raises(BlockPinned):
                lease.resize(512)
        lease.resize(512)
        assert len(lease.view) == 512


def test_a_block_is_still_kept_for_a_view_that_refused_its_resize():
    with BuddyPool(4096, 4096) as pool:
        lease = pool.acquire(100)
        part = lease.view[1:]
        with pytest.raises(BlockPinned):
            lease.resize(200)
        lease.release()
        with pytest.raises(PoolExhausted):
            pool.acquire(1)
        part[0] = 1
        del part
        pool.acquire(1).release()


def test_a_refused_resize_leaves_the_lease_as_it_was(pool):
    with pool.acquire(256) as lease, pool.acquire(1 << 19):
        lease.write(b"kept")
        with pytest.raises(PoolExhausted):
            lease.resize(1 << 20)
        for size in (0, -5, 1 << 40):
            with pytest.raises(PoolValueError):
                lease.resize(size)
        assert (lease.size, lease.read(0, 4)) == (256, b"kept")


# ---- reserving ---------------------------------------------------------------------------------


def test_a_reserved_range_is_where_it_was_asked_for(pool):
    with pool.reserve(5 * 256, 1000, tag="fixed") as lease:
        assert (lease.size, lease.requested, lease.tag) == (1024, 1000, "fixed")
        assert pool.inspect(lease.handle).offset == 5 * 256
        lease.view[:] = b"x" * 1024
        with pytest.raises(PoolExhausted, match="walk"):
            pool.reserve(0, 2000)
        with pytest.raises(Unsupported):
            lease.resize(256)
        pool.check()
    assert pool.stats().free_extents == 1


@pytest.mark.parametrize(
    ("offset", "size"),
    [(-256, 256), (100, 256), (0, 0), (0, -1), (1 << 20, 1), (0, (1 << 20) + 1), (1 << 70, 1)],
)
def test_ranges_outside_the_pool_are_value_errors(pool, offset, size):
    with pytest.raises(PoolValueError):
        pool.reserve(offset, size)


# ---- views and buffers -----------------------------------------------------------------------------


def test_a_block_is_not_given_to_another_while_a_view_of_it_is_alive():
    with BuddyPool(4096, 4096) as pool:
        lease = pool.acquire(4096)
        view = lease.view[100:200]
        lease.release()
        with pytest.raises(PoolExhausted):
            pool.acquire(4096)
        view[:] = b"z" * 100
        del view
        pool.acquire(4096).release()


def test_the_buffer_of_a_block_follows_its_size(pool):
    for size in (256, 1024, 256, 4096, 512):
        with pool.acquire(size) as lease:
            assert len(lease.view) == size
            lease.view[:] = b"q" * size
            with pool.acquire(size) as other:
                other.view[:] = b"r" * size
                assert bytes(lease.view) == b"q" * size


def test_the_memory_outlives_the_pool_while_a_view_is_alive():
    pool = BuddyPool(1 << 16)
    lease = pool.acquire(1000)
    view = lease.view
    view[:] = b"v" * len(view)
    lease.release()
    del lease, pool
    gc.collect()
    assert bytes(view) == b"v" * 1024


def test_scrub_hides_the_former_owners_bytes():
    with BuddyPool(4096, 4096, scrub=True) as pool:
        with pool.acquire(4096) as lease:
            lease.view[:] = b"s" * 4096
        with pool.acquire(4096) as lease:
            assert bytes(lease.view) == bytes(4096)


# ---- the pool as a whole ------------------------------------------------------------------------------


def test_walk_tells_blocks_and_maximal_free_extents_in_order(pool):
    with pool.acquire(256) as first, pool.acquire(1024, tag="second"):
        first.release()
        blocks = pool.walk()
    assert [block.state for block in blocks] == ["free", "owned", "free"]
    assert [block.offset for block in blocks] == [0, 1024, 2048]
    assert blocks[1].tag == "second"
    assert sum(block.granted for block in blocks) == 1 << 20


def test_trim_gives_free_memory_back_once(pool):
    with pool.acquire(1 << 19) as lease:
        lease.view[:] = b"t" * lease.size
    assert pool.trim(1 << 18) == 1 << 18
    assert pool.trim(1 << 18) == 0
    assert pool.trim() == 1 << 18
    assert pool.stats().trimmed_bytes == 1 << 19


def test_a_closed_pool_reports_its_leaks_and_takes_them_back():
    pool = BuddyPool(1 << 16)
    lease = pool.acquire(1000, tag="left")
    report = pool.close()
    assert [(leak.tag, leak.granted) for leak in report] == [("left", 1024)]
    with pytest.raises(PoolClosed):
        pool.acquire(1)
    with pytest.raises(PoolClosed):
        pool.reserve(0, 256)
    lease.release()


def test_other_threads_release_and_only_release(pool):
    leases = [pool.acquire(1000) for _ in range(50)]
    seen: list[BaseException] = []

    def elsewhere():
        for lease in leases:
            lease.release()
        try:
            pool.acquire(1)
        except WrongThread as error:
            seen.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert len(seen) == 1
    assert pool.stats().live_blocks == 0
    pool.acquire(1 << 20).release()
    assert pool.stats().remote_releases == 50


def test_a_shared_pool_serves_every_thread():
    with BuddyPool(1 << 20, thread_safe=True) as pool:

        def use():
            for size in range(1, 3000, 7):
                with pool.acquire(size) as lease:
                    lease.view[0] = 1

        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        pool.check()
        assert pool.stats().largest_free_bytes == 1 << 20


def test_a_trace_can_be_attached(pool, tmp_path):
    with Trace(tmp_path / "buddy.pptrace") as trace:
        pool.attach(trace)
        with pool.acquire(1000, tag="traced") as lease:
            lease.resize(3000)
        with pool.reserve(0, 256, tag="traced"):
            pool.sample()
        pool.attach(None)
    assert (tmp_path / "buddy.pptrace").stat().st_size > 128 << 10
