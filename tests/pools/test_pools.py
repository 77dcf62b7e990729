"""What SlabPool and MallocPool give, refuse and tell, from one thread."""

from __future__ import annotations

import contextlib

import pytest

from pools import (
    BuddyPool,
    CompactingPool,
    Debug,
    DoubleRelease,
    ForeignBlock,
    MallocPool,
    PoolClosed,
    PoolExhausted,
    PoolValueError,
    SizeClassPool,
    SlabPool,
    StaleHandle,
)
from pools._native import lib

from .conftest import make

# ---- acquire and release -----------------------------------------------------------------


def test_a_lease_has_at_least_the_size_asked_for_and_is_writable(pool):
    for size in (1, 17, 100, 4096):
        with pool.acquire(size) as lease:
            assert len(lease) == lease.size == len(lease.view) >= size
            assert lease.requested == size
            lease.view[:] = b"\xa5" * lease.size
            assert lease.read(lease.size - 1) == b"\xa5"
            assert not lease.view.readonly
            assert lease.view.format == "B"
        assert lease.released


def test_without_a_size_a_block_has_the_block_size(pool):
    with pool.acquire() as lease:
        assert lease.requested == 4096


def test_live_blocks_do_not_overlap(pool):
    leases = [pool.acquire(500) for _ in range(16)]
    for number, lease in enumerate(leases):
        lease.write(bytes([number]) * 500)
    assert [lease.read(0, 500) for lease in leases] == [bytes([number]) * 500 for number in range(16)]
    for lease in leases:
        lease.release()


@pytest.mark.parametrize("size", [0, -1, -(2**64), 2**41, 2**63, 2**64, 2**64 + 1])
def test_an_impossible_size_is_refused(pool, size):
    before = pool.stats()
    with pytest.raises(PoolValueError, match=str(size)):
        pool.acquire(size)
    with pytest.raises(PoolValueError, match=str(size)):
        pool.acquire_many(2, size)
    with pool.acquire(10) as lease, pytest.raises(PoolValueError):
        lease.resize(size)
    assert pool.stats().live_blocks == before.live_blocks


@pytest.mark.parametrize("size", [1.5, "1", b"1"])
def test_a_size_that_is_no_integer_is_a_type_error(pool, size):
    with pytest.raises(TypeError):
        pool.acquire(size)
    assert pool.stats().live_blocks == 0


def test_a_second_release_is_refused_and_changes_nothing(pool):
    lease = pool.acquire(10)
    lease.release()
    with pytest.raises(DoubleRelease, match="already released"):
        lease.release()
    with pytest.raises(DoubleRelease):
        pool.release(lease)
    assert pool.stats().released == 1
    assert pool.stats().double_releases == 2
    assert pool.stats().stale_handles == 0


@pytest.mark.parametrize(("end", "told"), [("release", "already released"), ("detach", "handed over")])
def test_whatever_uses_a_lease_after_its_end_is_told_so_and_counted(pool, end, told):
    lease = pool.acquire(10)
    handle = lease.handle
    getattr(lease, end)()
    uses = (
        lambda: lease.view,
        lambda: lease.requested,
        lambda: lease.tag,
        lease.read,
        lambda: lease.write(b""),
        lambda: lease.resize(5),
        lease.detach,
        lambda: lease.pin().__enter__(),
        lease.__enter__,
    )
    for use in uses:
        with pytest.raises(StaleHandle, match=told) as caught:
            use()
        assert not isinstance(caught.value, DoubleRelease)
        assert caught.value.status == "STALE"
    with pytest.raises(DoubleRelease, match=told):
        lease.release()
    assert pool.stats().stale_handles == len(uses)
    assert pool.stats().double_releases == 1
    if end == "detach":
        pool.lease(handle, 0, 10).release()
    assert lease.released
    assert "released" in repr(lease)


def test_a_lease_of_another_pool_is_foreign(pool):
    with SlabPool(64, 2) as other, other.acquire() as lease:
        with pytest.raises(ForeignBlock, match="slab"):
            pool.release(lease)
        with pytest.raises(ForeignBlock):
            pool.inspect(lease.handle)
    assert pool.stats().foreign_handles == 1  # the release; looking is no misuse


def test_a_handle_behind_the_lease_is_checked_by_the_core(pool):
    lease = pool.acquire(10)
    handle = lease.detach()
    assert lease.released
    pool.lease(handle, 0, 10).release()
    with pytest.raises(DoubleRelease):
        pool.lease(handle, 0, 10).release()
    with pool.acquire(10) as again:
        assert again.handle & 0xFFFFFFFF == handle & 0xFFFFFFFF  # the same block, another generation
        with pytest.raises(StaleHandle) as caught:
            pool.lease(handle, 0, 10).release()
        assert not isinstance(caught.value, DoubleRelease)
        with pytest.raises(StaleHandle):
            pool.inspect(handle)
    assert pool.stats().double_releases == 1
    assert pool.stats().stale_handles == 1


def test_the_end_of_the_with_block_releases_whatever_happened(pool):
    with pytest.raises(ZeroDivisionError), pool.acquire(10):
        raise ZeroDivisionError
    with pool.acquire(10) as lease:
        lease.release()  # early is fine
    assert pool.stats().live_blocks == 0


@pytest.mark.parametrize("garbage", [1, None, "lease"])
def test_only_leases_are_released(pool, garbage):
    lease = pool.acquire(64)
    with pytest.raises(TypeError, match="give a lease"):
        pool.release(garbage)
    with pytest.raises(TypeError, match="give a lease"):
        pool.release_many([garbage, lease])
    assert lease.released  # every good one


# ---- looking -------------------------------------------------------------------------------


def test_walk_and_inspect_tell_the_same(pool):
    leases = [pool.acquire(10 + number, f"t{number}") for number in range(5)]
    with leases[2].pin():
        seen = {info.handle: info for info in pool.walk() if info.handle}
        assert set(seen) == {lease.handle for lease in leases}
        for number, lease in enumerate(leases):
            info = pool.inspect(lease.handle)
            assert info._replace(age_seconds=0) == seen[lease.handle]._replace(age_seconds=0)
            assert info.requested == 10 + number
            assert info.granted >= info.requested
            assert info.ordinal == number
            assert info.age_seconds >= 0
            assert info.state == ("owned and in flight" if number == 2 else "owned")
            assert info.pins == ((0, 0, 1) if number == 2 else (0, 0, 0))
    offsets = [info.offset for info in pool.walk()]
    assert offsets == sorted(set(offsets))
    pool.release_many(leases)


def test_a_pinned_block_is_reused_only_after_the_last_pin(pool):
    lease = pool.acquire(10)
    index = lease.handle & 0xFFFFFFFF
    with lease.pin():
        lease.release()
        assert pool.stats().deferred_blocks == 1
        with pool.acquire(10) as other:
            assert other.handle & 0xFFFFFFFF != index
    levels = pool.stats()
    assert (levels.deferred_blocks, levels.deferred_releases, levels.live_blocks) == (0, 1, 0)
    leases = [pool.acquire(10) for _ in range(16)]
    assert index in [lease.handle & 0xFFFFFFFF for lease in leases]
    pool.release_many(leases)


def test_pins_nest(pool):
    with pool.acquire(10) as lease:
        with lease.pin(), lease.pin():
            assert pool.inspect(lease.handle).pins == (0, 0, 2)
            assert pool.stats().pinned_blocks == 1
        assert pool.stats().pinned_blocks == 0


def test_scrubbed_blocks_read_as_zeros():
    for scrubbed in (SlabPool(64, 1, scrub=True), MallocPool(block_size=64, scrub=True)):
        with scrubbed as pool:
            for _ in range(3):
                with pool.acquire() as lease:
                    assert bytes(lease.view) == bytes(64)
                    lease.view[:] = b"\xff" * 64


def test_trim_gives_pages_of_free_blocks_back_once():
    with SlabPool(1 << 16, 8) as pool:
        leases = [pool.acquire() for _ in range(8)]
        assert pool.trim() == 0
        leases[3].write(b"kept")
        pool.release_many(leases[:3] + leases[4:])
        assert pool.trim(keep_bytes=3 << 16) == 4 << 16
        assert pool.trim() == 3 << 16
        assert pool.trim() == pool.trim(2**63) == 0
        assert pool.stats().trimmed_bytes == 7 << 16
        assert leases[3].read(0, 4) == b"kept"
        leases[3].release()
    with MallocPool() as pool:
        assert pool.trim() == 0


@pytest.mark.parametrize(
    ("strategy", "options", "most"),
    [
        (SlabPool, {"block_size": 4096, "block_count": 16}, 16 * 4096),
        (SlabPool, {"block_size": 4096, "block_count": 16, "max_count": 64}, 64 * 4096),
        (SlabPool, {"block_size": 4096, "block_count": 16, "on_exhausted": "fallback"}, None),
        (SizeClassPool, {"max_block": 1 << 16, "capacity": 1 << 20}, 1 << 20),
        (SizeClassPool, {"max_block": 1 << 16, "capacity": 1 << 20, "hard_limit": 1 << 18}, 1 << 18),
        (BuddyPool, {"capacity": 1 << 16, "max_capacity": 1 << 20}, 1 << 20),
        (SlabPool, {"block_size": 100, "block_count": 3}, 3 * 128),
        (SlabPool, {"block_size": 4096, "block_count": 3, "alignment": 64}, 3 * 4096),
        (SlabPool, {"block_size": 4096, "block_count": 4, "max_count": 64, "hard_limit": 1 << 16}, 1 << 16),
        (SlabPool, {"block_size": 4096, "block_count": 4, "debug": Debug(guard_pages=1)}, None),
        (SizeClassPool, {"max_block": 5000, "capacity": 5000}, 8192),
        (BuddyPool, {"capacity": 5000}, 8192),
        (CompactingPool, {"capacity": 1 << 16, "segment_size": 1 << 18}, 1 << 18),
        (MallocPool, {}, None),
        (MallocPool, {"max_bytes": 100_000}, 100_000),
        (MallocPool, {"hard_limit": 1 << 20}, 1 << 20),
    ],
)
def test_a_pool_tells_the_most_that_it_will_ever_hand_out(strategy, options, most):
    with strategy(**options) as pool:
        assert pool.limit_bytes == most


@pytest.mark.parametrize(
    ("make_pool", "size"),
    [
        (lambda: SlabPool(100, 3), 100),
        (lambda: SizeClassPool(5000, capacity=5000), 16),
        (lambda: BuddyPool(5000), 256),
        (lambda: CompactingPool(1 << 16), 4096),
    ],
)
def test_a_pool_hands_out_all_that_it_tells_of_and_no_more(make_pool, size):
    with make_pool() as pool:
        leases = []
        with contextlib.suppress(PoolExhausted):
            while len(leases) < 1 << 14:
                leases.append(pool.acquire(size))
        assert pool.stats().granted_bytes == pool.limit_bytes
        if isinstance(pool, CompactingPool):
            assert pool.capacity == pool.limit_bytes > 1 << 16
        pool.release_many(leases)


# ---- the end --------------------------------------------------------------------------------------


def test_a_closed_pool_takes_back_and_gives_nothing(pool):
    lease = pool.acquire(10)
    pinned = pool.acquire(10)
    with pinned.pin():
        report = pool.close()
        assert pool.closed
        assert len(report) == 2
        for refused in (lambda: pool.acquire(10), lambda: pool.acquire_many(2, 10)):
            with pytest.raises(PoolClosed, match="closed"):
                refused()
        with pytest.raises(PoolClosed):
            lease.pin().__enter__()
        lease.write(b"still mine")
    assert lease.read(0, 5) == b"still"
    lease.release()
    pinned.release()
    assert not pool.close()
    assert "closed" in repr(pool)
    assert pool.stats().live_blocks == 0
    assert all(not info.handle for info in pool.walk())


def test_what_uses_a_block_that_was_released_below_is_no_second_release(strategy):
    with make(strategy) as pool:
        lease = pool.acquire(100)
        assert lib.pp_pool_release(pool.native, lease.handle) == 0
        uses = [lambda: lease.pin().__enter__(), lambda: lease.resize(50)]
        if strategy == "compacting":
            uses += [lease.read, lambda: lease.write(b"x")]
        for use in (*uses, lambda: lease.requested, lambda: pool.inspect(lease.handle)):
            with pytest.raises(StaleHandle) as caught:
                use()
            assert not isinstance(caught.value, DoubleRelease)
        assert (pool.stats().double_releases, pool.stats().stale_handles) == (0, len(uses))
        with pytest.raises(DoubleRelease):
            lease.release()


def test_a_batch_of_another_pool_is_foreign_and_counted(pool):
    with SlabPool(64, 2) as other, other.acquire_many(2) as batch:
        with pytest.raises(ForeignBlock):
            pool.release_many(batch)
        assert len(batch) == 2
    assert pool.stats().foreign_handles == 1
