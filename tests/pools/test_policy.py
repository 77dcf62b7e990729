"""What pools do when they have nothing to give, and how far they grow."""

from __future__ import annotations

import pytest

from pools import (
    BuddyPool,
    CompactingPool,
    MallocPool,
    PoolExhausted,
    PoolValueError,
    Quota,
    SizeClassPool,
    SlabPool,
    Unsupported,
    quota_levels,
)

from .conftest import BLOCK, fill, make, release

# ---- asking the program -----------------------------------------------------------------


def test_a_function_may_release_blocks_and_have_it_tried_again(strategy):
    calls = []

    def give_up(size, tag):
        calls.append((size, tag))
        if kept and len(calls) > 1:
            kept.pop().release()
            return True
        return False

    kept = []
    with make(strategy, on_exhausted=give_up) as pool:
        kept += fill(pool, "greedy")
        assert calls == [(BLOCK, "greedy")]
        lease = pool.acquire(BLOCK)
        assert calls[1:] == [(BLOCK, "")]
        assert pool.stats().failed == 1
        release([*kept, lease])


def test_what_a_function_raises_comes_out_of_acquire():
    def refuse(size, tag):
        raise LookupError(f"{size} for {tag}")

    with SlabPool(64, 2, on_exhausted=refuse) as pool, pool.acquire(), pool.acquire():
        for call in (lambda: pool.acquire(tag="x"), lambda: pool.acquire_many(1, 64, "x")):
            with pytest.raises(LookupError, match="64 for x"):
                call()
        assert pool.stats().failed == 2
        with pytest.raises(PoolValueError):  # nothing is left of it for later errors
            pool.acquire(65)


# ---- limits and growth ------------------------------------------------------------------


def test_a_pool_grows_to_its_hard_limit():
    for pool in (
        SlabPool(BLOCK, 4, on_exhausted="grow", hard_limit=64 * BLOCK),
        BuddyPool(4 * BLOCK, on_exhausted="grow", hard_limit=64 * BLOCK),
        SizeClassPool(BLOCK, capacity=1 << 24, on_exhausted="grow", hard_limit=64 * BLOCK),
        CompactingPool(1 << 24, segment_size=1 << 16, on_exhausted="grow", hard_limit=64 * BLOCK),
    ):
        with pool:
            leases = fill(pool)
            assert len(leases) == 64
            stats = pool.stats()
            assert stats.granted_bytes + stats.free_bytes <= 64 * BLOCK
            release(leases)
    with MallocPool(hard_limit=64 * BLOCK) as pool:
        leases = fill(pool)
        assert 60 < len(leases) <= 64
        release(leases)


def test_a_hard_limit_takes_the_place_of_what_a_pool_would_grow_to_by_itself():
    for pool in (
        SlabPool(BLOCK, 4, on_exhausted="grow", hard_limit=1 << 22),
        BuddyPool(1 << 16, on_exhausted="grow", hard_limit=1 << 22),
        SizeClassPool(BLOCK, capacity=1 << 20, on_exhausted="grow", hard_limit=1 << 22),
        CompactingPool(1 << 16, on_exhausted="grow", hard_limit=1 << 22),
    ):
        with pool:
            leases = fill(pool)
            assert len(leases) * BLOCK == 1 << 22
            pool.check()
            release(leases)


def test_a_limit_of_the_strategys_own_stays_what_it_is():
    with SlabPool(BLOCK, 2, max_count=4, on_exhausted="grow", hard_limit=1 << 22) as pool:
        release(fill_all(pool, 4))
    with BuddyPool(1 << 16, max_capacity=1 << 17, on_exhausted="grow", hard_limit=1 << 22) as pool:
        release(fill_all(pool, 32))


@pytest.mark.parametrize("kind", [SlabPool, BuddyPool, SizeClassPool, CompactingPool, MallocPool])
def test_growth_needs_an_end(kind):
    sizes = (64, 4) if kind is SlabPool else ()
    with pytest.raises(PoolValueError, match="hard_limit="):
        kind(*sizes, on_exhausted="grow")


def test_growth_to_more_than_a_strategy_can_have_is_refused():
    for kind in (BuddyPool, SizeClassPool, CompactingPool, lambda **options: SlabPool(64, 4, **options)):
        with pytest.raises(PoolValueError, match="hard_limit"):
            kind(on_exhausted="grow", hard_limit=1 << 60)


def test_growth_may_be_bounded_by_the_strategys_own_limit():
    with MallocPool(max_bytes=1 << 16, on_exhausted="grow") as pool:
        pool.acquire(64).release()
    with SlabPool(64, 4, max_count=8, on_exhausted="grow") as pool:
        release(fill_all(pool, 8))


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"on_watermark": print}, "high_watermark="),
        ({"fallback_limit": 5}, "on_exhausted='fallback'"),
        ({"on_exhausted": "wait", "fallback_limit": 5}, "fallback_limit=5"),
        ({"tag_quota": {1: 64}}, "1 is no tag"),
        ({"tag_quota": {"": 64}}, "'' is no tag"),
        ({"debug": "x"}, "debug='x'"),
        ({"debug": 3}, "debug=3"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_by_its_name(options, names):
    with pytest.raises(PoolValueError, match=names):
        SlabPool(64, 4, **options)


def fill_all(pool, count):
    leases = [pool.acquire() for _ in range(count)]
    with pytest.raises(PoolExhausted):
        pool.acquire()
    return leases


def test_a_soft_limit_gives_back_what_a_burst_took():
    with SlabPool(1 << 16, 64, soft_limit=1 << 20) as pool:
        leases = [pool.acquire() for _ in range(64)]
        assert pool.stats().soft_trims == 0
        release(leases)
        stats = pool.stats()
        assert stats.soft_trims > 0
        assert stats.trimmed_bytes >= 2 << 20


# ---- fallback ---------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, True])
def test_leases_of_the_fallback_are_leases_like_any_other(strategy, shared):
    with make(strategy, on_exhausted="fallback", thread_safe=shared) as pool:
        leases = [pool.acquire(3000, "t") for _ in range(40)]
        for number, lease in enumerate(leases):
            assert lease.size >= 3000
            lease.write(bytes([number]) * 3000)
        assert [lease.read(0, 3000) for lease in leases] == [bytes([n]) * 3000 for n in range(40)]
        with leases[-1].pin() as view:
            assert bytes(view[:3000]) == bytes([39]) * 3000
        del view
        leases[-1].resize(4000)
        assert leases[-1].read(0, 3000) == bytes([39]) * 3000
        stats = pool.stats()
        assert stats.live_blocks == 40
        assert 0 < stats.fallback_live_blocks == stats.fallback_blocks < 40
        assert stats.failed == 0
        assert [block.tag for block in pool.walk() if block.state == "owned"] == ["t"] * 40
        assert pool.inspect(leases[-1].handle).requested == 4000
        pool.check()
        release(leases)
        assert pool.stats().fallback_live_blocks == 0
        batch = pool.acquire_many(40, 3000)
        assert len(batch) == 40
        batch.release()
        pool.check()


def test_the_fallback_has_a_limit_and_leaks_are_reported():
    pool = SlabPool(BLOCK, 2, on_exhausted="fallback", fallback_limit=5 * BLOCK // 2, name="leaky")
    leases = fill(pool, "lost")
    assert len(leases) == 4
    report = pool.close()
    assert len(report) == 4
    assert {leak.tag for leak in report} == {"lost"}
    release(leases)


# ---- options ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"on_exhausted": "panic"}, "panic"),
        ({"timeout": 1.0}, "on_exhausted='wait'"),
        ({"on_exhausted": "wait", "timeout": -1}, "-1"),
        ({"quota": 0}, "0"),
        ({"quota": 2**63}, str(2**63)),
        ({"tag_quota": {"a": -5}}, "-5"),
        ({"tag_quota": {"": 5}}, "no tag"),
        ({"high_watermark": 5, "low_watermark": 5}, "low"),
        ({"low_watermark": 5}, "low"),
        ({"quota": Quota(high=5), "high_watermark": 6}, "twice"),
        ({"hard_limit": 10}, "hard_limit=10 .*give [0-9]+ or more"),
    ],
)
def test_what_cannot_be_is_refused_with_its_value(options, told):
    with pytest.raises(PoolValueError, match=told):
        SlabPool(64, 8, **options)


@pytest.mark.parametrize("limit", [4096, 200_000])
def test_a_limit_with_room_for_no_block_is_refused(limit):
    with pytest.raises(PoolValueError, match=f"hard_limit={limit}"):
        CompactingPool(64 << 20, hard_limit=limit)
    with CompactingPool(64 << 20, hard_limit=1 << 18) as pool:
        pool.acquire(1 << 18).release()


def test_a_pool_without_a_policy_has_no_layer():
    for options in ({}, {"on_exhausted": "raise"}, {"quota": None}):
        with SlabPool(64, 8, **options) as pool, pytest.raises(Unsupported):
            quota_levels(pool)


# ---- what a refusal tells ---------------------------------------------------------------


def test_a_refusal_names_the_limit_that_was_in_the_way():
    pool = SlabPool(4096, 2, on_exhausted="fallback", fallback_limit=5000)
    with pytest.raises(PoolExhausted, match="fallback_limit=5000"):
        pool.acquire_many(8)
    pool = SlabPool(4096, 2, on_exhausted="grow", hard_limit=16384)
    with pytest.raises(PoolExhausted, match="hard_limit=16384"):
        fill_all_and_one(pool)


def fill_all_and_one(pool):
    with pool.acquire_many(4):
        pool.acquire()


def test_a_batch_larger_than_the_pool_is_not_told_to_release():
    with SlabPool(4096, 4) as pool, pytest.raises(PoolExhausted, match="has 4 such blocks") as caught:
        pool.acquire_many(100)
    assert "release" not in str(caught.value)
