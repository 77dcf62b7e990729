"""Batches: many blocks in one call."""

from __future__ import annotations

import gc

import pytest

from pools import (
    CompactingPool,
    DoubleRelease,
    ForeignBlock,
    Lease,
    MallocPool,
    PoolExhausted,
    PoolValueError,
    SlabPool,
    StaleHandle,
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
    assert pool.stats().double_releases == 2
    with pool.acquire_many(3, 10) as batch:
        pass
    assert pool.stats().released == 6


def test_indexing_and_iterating_leave_the_blocks_in_the_batch(pool):
    with pool.acquire_many(4, 10, tag="many") as batch:
        for number, lease in enumerate(batch):
            lease.write(b"%d" % number)
        assert len(batch) == 4
        assert [lease.read(0, 1) for lease in batch] == [b"0", b"1", b"2", b"3"]
        assert batch[-1] is batch[3]
        assert {batch[1].tag, batch[2].tag} == {"many"}
        assert batch[2].handle == batch.handles[2]
        assert batch[2].site == batch.site
        for outside in (4, -5, 2**64):
            with pytest.raises(IndexError):
                batch[outside]
        kept = batch[2]
    assert pool.stats().live_blocks == 0
    assert kept.released
    with pytest.raises(StaleHandle):
        kept.write(b"x")
    with pytest.raises(DoubleRelease):
        kept.release()
    assert len(batch) == 0


def test_a_block_that_is_released_by_itself_leaves_the_batch(pool):
    with pool.acquire_many(4, 10) as batch:
        batch[0].release()
        with batch[1] as lease:
            lease.write(b"mine")
        handle = batch[2].detach()
        assert len(batch) == 1
        assert pool.stats().live_blocks == 2
        for gone in range(3):
            with pytest.raises(StaleHandle, match=f"block {gone} has left its batch"):
                batch[gone]
        assert [lease.handle for lease in batch] == batch.handles
    pool.lease(handle, 0, 10).release()
    assert pool.stats().double_releases == 0


def test_a_block_is_taken_out_of_the_batch_to_own(pool):
    batch = pool.acquire_many(4, 10)
    looked_at = batch[1]
    taken = batch.take(1)
    assert taken is looked_at
    last = batch.take(-1)
    assert len(batch) == 2
    assert taken.handle not in batch.handles
    with pytest.raises(StaleHandle, match="left its batch"):
        batch.take(1)
    for outside in (4, -5, 2**64):
        with pytest.raises(IndexError):
            batch.take(outside)
    batch.release()
    taken.write(b"mine")
    last.release()
    taken.release()
    assert pool.stats().released == 4


def test_a_block_that_is_resized_goes_back_with_its_batch():
    with MallocPool(max_bytes=10_000) as pool, pool.acquire_many(3, 10) as batch:
        batch[1].write(b"kept")
        batch[1].resize(5000)
        assert batch[1].read(0, 4) == b"kept"
        assert batch[1].size >= 5000


def test_what_is_looked_at_when_the_batch_goes_back_is_not_reused(pool):
    batch = pool.acquire_many(4, 10)
    part = batch[2].view[:4]
    part[:] = b"mine"
    looked_at = batch.handles[2]
    batch.release()
    assert [info.handle for info in pool.walk("owned")] == [looked_at]
    others = pool.acquire_many(7, 64)
    for lease in others:
        lease.write(bytes(64))
    assert bytes(part) == b"mine"
    others.release()
    del part


def test_a_batch_of_blocks_without_an_address_is_pinned_block_by_block():
    with CompactingPool(1 << 20) as pool, pool.acquire_many(3, 100) as batch:
        with batch[1].pin() as view:
            view[:4] = b"here"
        assert batch[1].read(0, 4) == b"here"
        kept = batch[1].pin()
        part = kept.__enter__()[:4]
        batch.release()
        assert pool.stats().deferred_blocks == 1
        kept.__exit__(None, None, None)
        assert bytes(part) == b"here"
        del part
        assert pool.stats().deferred_blocks == 0


def test_a_lease_that_outlives_its_batch_is_its_holders(pool):
    leases = list(pool.acquire_many(4, 10))
    assert pool.lost_leases == 0
    for lease in leases:
        lease.write(b"x")
    pool.release_many(leases)
    assert pool.stats().double_releases == 0
    with pytest.warns(ResourceWarning, match="batch of 3 blocks"):
        first = pool.acquire_many(4, 10)[0]
    first.release()
    assert pool.stats().live_blocks == 0


def test_a_batch_and_its_leases_in_a_cycle_are_lost_once(pool):
    for make in (lambda batch: [batch, batch[0], batch[1].view], lambda batch: [batch[0], batch]):
        cycle = make(pool.acquire_many(4, 10))
        cycle.append(cycle)
        before = pool.lost_leases
        del cycle
        with pytest.warns(ResourceWarning):
            gc.collect()
        assert pool.lost_leases == before + 4
    pool.acquire(10).release()  # takes home what was looked at in the cycle


def test_leases_of_a_class_of_ones_own_that_refer_to_their_batch():
    class Named(Lease):
        __slots__ = ("batch",)

    class Pool(SlabPool):
        _lease_class = Named

    with Pool(64, 8) as pool:
        batch = pool.acquire_many(4)
        for lease in batch:
            lease.batch = batch
        view = batch[3].view[:4]
        view[:] = b"mine"
        del lease, batch
        with pytest.warns(ResourceWarning):
            gc.collect()
        assert pool.lost_leases == 4
        assert pool.stats().live_blocks == 1  # which somebody looks at
        with pool.acquire_many(7) as others:
            for lease in others:
                lease.write(bytes(64))
        assert bytes(view) == b"mine"
        del view, lease


def test_a_batch_that_is_released_while_its_lease_is_made(pool):
    threshold = gc.get_threshold()

    def meddle(phase, info):
        if len(batch):
            batch.release()

    for _ in range(20):
        batch = pool.acquire_many(4, 10)
        gc.callbacks.append(meddle)
        gc.set_threshold(1)
        try:
            kept = [batch[0], [], batch[1]]
        except (StaleHandle, IndexError):
            kept = []
        finally:
            gc.set_threshold(*threshold)
            gc.callbacks.remove(meddle)
        assert all(lease.released for lease in kept[::2]) or len(batch)
        if len(batch):
            batch.release()


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
