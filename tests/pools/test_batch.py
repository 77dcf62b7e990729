"""Batches: many blocks in one call."""

from __future__ import annotations

import pytest

from pools import (
    DoubleRelease,
    ForeignBlock,
    MallocPool,
    PoolExhausted,
    PoolValueError,
    SlabPool,
)


@pytest.fixture(params=[SlabPool, MallocPool])
def pool(request):
    with SlabPool(64, 8) if request.param is SlabPool else MallocPool(max_bytes=10_000) as pool:
        yield pool
        pool.check()
        assert pool.stats().live_blocks == 0


def test_a_batch_has_so_many_blocks_of_its_own(pool):
    batch = pool.acquire_many(5, 60, tag="many")
    assert len(batch) == 5
    assert len(set(batch.handles)) == 5
    assert {pool.inspect(handle).tag for handle in batch.handles} == {"many"}
    assert "5 blocks" in repr(batch)
    pool.release_many(batch)
    assert len(batch) == 0
    assert batch.handles == []


def test_all_or_none(pool):
    with pytest.raises(PoolExhausted):
        pool.acquire_many(200, 64)
    assert pool.stats().live_blocks == 0
    pool.release_many(pool.acquire_many(8, 64))


@pytest.mark.parametrize("count", [0, -1, (1 << 24) + 1, 2**64])
def test_an_impossible_count_is_refused(pool, count):
    with pytest.raises(PoolValueError, match=str(count)):
        pool.acquire_many(count, 10)


def test_a_batch_is_released_once(pool):
    batch = pool.acquire_many(3, 10)
    batch.release()
    with pytest.raises(DoubleRelease):
        batch.release()
    with pytest.raises(DoubleRelease):
        pool.release_many(batch)
    with pool.acquire_many(3, 10) as batch:
        pass
    assert pool.stats().released == 6


def test_a_block_leaves_the_batch_as_a_lease(pool):
    with pool.acquire_many(4, 10) as batch:
        with batch[1] as lease, batch[-1] as last:
            lease.write(b"mine")
            last.write(b"too")
            assert len(batch) == 2
            assert lease.handle not in batch.handles
        with pytest.raises(DoubleRelease, match="left the batch"):
            batch.take(1)
        for outside in (4, -5, 2**64):
            with pytest.raises(IndexError):
                batch.take(outside)
        assert len(batch) == 2
    assert len(batch) == 0


def test_iterating_takes_every_block_that_is_left(pool):
    batch = pool.acquire_many(4, 10)
    first = batch[0]
    leases = list(batch)
    assert len(leases) == 3
    assert len(batch) == 0
    batch.release()  # an empty batch is released like any other, once
    first.release()
    pool.release_many(leases)


def test_a_batch_of_another_pool_is_foreign(pool):
    with SlabPool(64, 4) as other, other.acquire_many(2) as batch, pytest.raises(ForeignBlock):
        pool.release_many(batch)


def test_every_good_lease_of_a_list_is_released_before_the_first_failure_is_raised(pool):
    with SlabPool(64, 4) as other, other.acquire() as foreign:
        leases = [pool.acquire(10) for _ in range(4)]
        leases[1].release()
        with pytest.raises(DoubleRelease):
            pool.release_many([leases[0], leases[1], foreign, leases[2], leases[3]])
        assert pool.stats().live_blocks == 0
        with pytest.raises(ForeignBlock):
            pool.release_many(iter([foreign, leases[1]]))


def test_a_batch_with_a_block_that_is_gone_releases_the_others_and_says_why(pool):
    batch = pool.acquire_many(4, 10)
    pool.lease(batch.handles[2], 0, 10).release()
    with pytest.raises(DoubleRelease):
        pool.release_many(batch)
    assert pool.stats().live_blocks == 0
    batch = pool.acquire_many(4, 10)
    pool.lease(batch.handles[0], 0, 10).release()
    again = pool.acquire(10)  # the same block under another owner
    with pytest.raises(Exception, match="earlier owner") as caught:
        pool.release_many(batch)
    assert caught.value.status == "STALE"
    again.release()


def test_a_lost_batch_warns_and_goes_back(pool):
    lost = [pool.acquire_many(3, 10)]
    lost[0].take(0).release()
    with pytest.warns(ResourceWarning, match=r"batch of 2 blocks.*test_a_lost_batch"):
        lost.clear()
    assert pool.lost_leases == 2
