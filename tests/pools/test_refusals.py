"""What refusals say: the limit that applied, and a remedy that helps."""

from __future__ import annotations

import re

import pytest

import analysis
import pools
from pools import (
    BuddyPool,
    CompactingPool,
    Debug,
    ForeignBlock,
    MallocPool,
    OutOfMemory,
    PoolClosed,
    PoolExhausted,
    PoolTimeout,
    PoolValueError,
    Quota,
    SizeClassPool,
    SlabPool,
    Trace,
    Unsupported,
)

from .conftest import BLOCK, fill, release

MIB = 1 << 20


# ---- quotas -------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("option", ["quota", "tag_quota"])
def test_a_wait_that_a_quota_ended_tells_of_the_quota(option, shared):
    with SlabPool(
        64, 4, on_exhausted="wait", timeout=0.01, thread_safe=shared, **{option: Quota(blocks=1)}
    ) as pool:
        lease = pool.acquire(tag="up")
        with pytest.raises(PoolTimeout, match=r"1 of 1 blocks.*set_quota\(\)") as refused:
            pool.acquire(tag="up")
        assert "block_count" not in str(refused.value)
        assert ("'up'" in str(refused.value)) == (option == "tag_quota")
        assert refused.value.waited >= 0.01
        lease.release()


def test_a_wait_that_memory_ended_tells_of_memory():
    with SlabPool(64, 1, on_exhausted="wait", timeout=0.01, quota=Quota(blocks=9)) as pool:
        lease = pool.acquire()
        with pytest.raises(PoolTimeout, match="block_count") as refused:
            pool.acquire()
        assert "quota" not in str(refused.value)
        lease.release()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"low_watermark": 5}, r"low_watermark=5.*high_watermark too, 6 or more"),
        ({"high_watermark": 3, "low_watermark": 5}, r"low_watermark=5.*high_watermark=3.*give 0 to 2"),
        ({"high_watermark": -1}, r"high_watermark=-1 of pool 'slab'"),
        ({"quota": Quota(high=3, low=3)}, r"Quota\.low=3.*Quota\.high=3"),
        ({"quota": -1}, r"quota=-1 of pool 'slab'"),
        ({"quota": Quota(blocks=-1)}, r"Quota\.blocks=-1"),
        ({"tag_quota": {"up": Quota(blocks=-1)}}, r"Quota\.blocks=-1 of tag 'up' of pool 'slab'"),
        ({"timeout": 1}, r"timeout=1.* of pool 'slab'.*on_exhausted='wait'"),
    ],
)
def test_a_wrong_bound_is_told_as_the_program_calls_it(options, said):
    with pytest.raises(PoolValueError, match=said):
        SlabPool(64, 2, **options)


def test_quotas_of_tags_that_are_given_for_the_pools_are_told_where_they_belong():
    with pytest.raises(TypeError, match="tag_quota="):
        SlabPool(64, 2, quota={"up": 5})


def test_what_is_no_pool_or_lease_is_refused_by_name():
    with pytest.raises(TypeError, match="quota_levels of None"):
        pools.quota_levels(None)
    with pytest.raises(TypeError, match="set_quota of None"):
        pools.set_quota(None, 1)
    with pytest.raises(TypeError, match="block_history of 'x'"):
        pools.block_history("x")


# ---- nothing left -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (lambda limit: SlabPool(4096, 2, on_exhausted="grow", hard_limit=limit), 4096),
        (lambda limit: BuddyPool(1 << 16, on_exhausted="grow", hard_limit=limit), 1 << 16),
        (lambda limit: CompactingPool(1 << 16, on_exhausted="grow", hard_limit=limit), 1 << 16),
        (lambda limit: SizeClassPool(4096, capacity=4096, on_exhausted="grow", hard_limit=limit), 4096),
    ],
)
def test_a_pool_that_grows_to_its_hard_limit_needs_no_more_than_a_larger_one(make, size):
    def most(limit):
        with make(limit) as pool:
            leases = fill(pool)
            with pytest.raises(PoolExhausted, match=f"more than hard_limit={limit}") as refused:
                pool.acquire(BLOCK)
            assert not re.search("capacity|block_count|max_count", str(refused.value).split(";")[-1])
            release(leases)
            return len(leases)

    assert most(8 * size) > most(4 * size)


def test_the_limit_that_applies_is_the_one_to_be_raised():
    with SlabPool(4096, 1, hard_limit=MIB) as pool, pool.acquire():
        with pytest.raises(PoolExhausted, match="block_count") as refused:
            pool.acquire()
        assert "hard_limit" not in str(refused.value)
    with SlabPool(4096, 1, max_count=9, hard_limit=4096) as pool, pool.acquire():
        with pytest.raises(PoolExhausted, match="hard_limit=4096") as refused:
            pool.acquire()
        assert "block_count" not in str(refused.value)


def test_compaction_is_advised_where_there_is_something_to_move_together():
    with CompactingPool(1 << 18) as pool:
        leases = [pool.acquire(1 << 14) for _ in range(16)]
        with pytest.raises(PoolExhausted, match="release blocks") as refused:
            pool.acquire(1 << 15)
        assert "compact" not in str(refused.value).split(";")[-1]
        for lease in leases[::2]:
            lease.release()
        with pytest.raises(PoolExhausted, match=r"compact\(\)"):
            pool.acquire(1 << 15)
        pool.compact()
        pool.acquire(1 << 15).release()
        for lease in leases[1::2]:
            lease.release()


@pytest.mark.parametrize("size", [1 << 41, 1 << 39, MIB + 1])
def test_a_limit_of_bytes_is_the_largest_block(size):
    with MallocPool(max_bytes=MIB) as pool, pytest.raises((PoolValueError, PoolExhausted)) as refused:
        pool.acquire(size)
    assert re.search(rf"max_bytes={MIB}\b", str(refused.value))
    assert "-0.00" not in str(refused.value)
    assert "ask for fewer" not in str(refused.value)


def test_address_space_that_there_is_not_is_no_matter_of_ranges():
    with pytest.raises(OutOfMemory, match="fewer or smaller") as refused:
        SlabPool(1 << 30, 1 << 28)
    assert "alignment a power of two" not in str(refused.value)


# ---- blocks -------------------------------------------------------------------------------


def test_a_size_beyond_every_block_is_refused_before_the_views_are():
    with SlabPool(4096, 1) as pool, pool.acquire() as lease:
        view = memoryview(lease.view)
        with pytest.raises(PoolValueError, match="4096"):
            lease.resize(9000)
        view.release()
        lease.resize(100)


def test_a_reserved_range_that_is_no_block_says_why_it_cannot_be_resized():
    with BuddyPool(MIB) as pool:
        lease = pool.reserve(0, 768)
        with pytest.raises(Unsupported, match=r"power of two.*; .*copy"):
            lease.resize(1024)
        lease.release()


def test_reserve_tells_the_capacity_and_the_least():
    with BuddyPool(MIB) as pool:
        with pytest.raises(PoolValueError, match=rf"\b{MIB}\b.*now; stay within"):
            pool.reserve(MIB, 256)
        with pytest.raises(PoolValueError, match=r"size=0.*give 1 to"):
            pool.reserve(0, 0)
    with pytest.raises(PoolClosed, match="create another pool"):
        pool.reserve(0, 256)


def test_nothing_was_given_back_that_was_only_looked_at():
    with SlabPool(64, 2) as pool, SlabPool(64, 2) as other, other.acquire() as lease:
        with pytest.raises(ForeignBlock) as refused:
            pool.inspect(lease.handle)
        assert "give" not in str(refused.value)


# ---- creation -----------------------------------------------------------------------------


def test_the_base_class_is_no_pool():
    with pytest.raises(TypeError, match="create a SlabPool"):
        pools.Pool()


def test_a_capacity_below_the_largest_block_is_told_that_both_may_change():
    with pytest.raises(PoolValueError, match=r"max_block=1048576 to .*a smaller max_block"):
        SizeClassPool(capacity=983040)
    SizeClassPool(983040, capacity=983040).close()


def test_unknown_options_are_told_with_the_pool_and_what_was_perhaps_meant():
    with pytest.raises(TypeError, match=r"'guarantee' of pool 'mine'.*'guaranteed'"):
        SlabPool(64, 2, name="mine", guarantee=1)
    for option in ("memory", "huge_pages", "idle_seconds"):
        with pytest.raises(TypeError, match=f"'{option}' of pool 'malloc'.*the library's"):
            MallocPool(**{option: 1})


def test_debug_levels_of_the_environment_are_told_by_its_name(monkeypatch):
    monkeypatch.setenv("POOLPORT_DEBUG", "history=99")
    with pytest.raises(PoolValueError, match=r"history=99 of POOLPORT_DEBUG=.*16"):
        SlabPool(64, 2)
    monkeypatch.setenv("POOLPORT_DEBUG", "guard_pages")
    with pytest.raises(Unsupported, match="POOLPORT_DEBUG='guard_pages' of pool 'compacting'"):
        CompactingPool()
    with pytest.raises(Unsupported, match="debug=") as refused:
        CompactingPool(debug=Debug(guard_pages=True))
    assert "POOLPORT_DEBUG" not in str(refused.value)


@pytest.mark.parametrize("replace", [False, True])
def test_a_trace_replaces_no_directory(tmp_path, replace):
    with pytest.raises(IsADirectoryError) as refused:
        Trace(tmp_path, replace=replace)
    assert "replace=True" not in str(refused.value)


@pytest.mark.parametrize("read_or_write", [Trace, analysis.load])
def test_what_is_no_path_is_refused(read_or_write):
    with pytest.raises(TypeError, match=r"None.*give the path"):
        read_or_write(None)
