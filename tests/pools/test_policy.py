"""What pools do when they have nothing to give, and how much they give to whom."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time

import pytest

from pools import (
    BuddyPool,
    CompactingPool,
    Crossing,
    MallocPool,
    Pool,
    PoolClosed,
    PoolExhausted,
    PoolTimeout,
    PoolValueError,
    Quota,
    QuotaExceeded,
    SizeClassPool,
    SlabPool,
    Unsupported,
    quota_levels,
    set_quota,
)
from pools._native import ffi

STRATEGIES = ["slab", "sizeclass", "buddy", "compacting", "malloc"]
BLOCK = 4096


def make(strategy, **options) -> Pool:
    """A pool with room for 16 blocks of 4 KiB."""
    if strategy == "slab":
        return SlabPool(BLOCK, 16, **options)
    if strategy == "sizeclass":
        return SizeClassPool(BLOCK, capacity=16 * BLOCK, **options)
    if strategy == "buddy":
        return BuddyPool(16 * BLOCK, **options)
    if strategy == "compacting":
        return CompactingPool(16 * BLOCK, segment_size=16 * BLOCK, **options)
    return MallocPool(max_bytes=16 * (BLOCK + 16), **options)


@pytest.fixture(params=STRATEGIES)
def strategy(request):
    return request.param


def fill(pool, tag=0):
    leases = []
    while True:
        try:
            leases.append(pool.acquire(BLOCK, tag))
        except PoolExhausted:
            return leases


def release(leases):
    for lease in leases:
        lease.release()


def run_when_waiting(pool, act):
    """A thread that acts when somebody waits for a block of the pool."""

    def run():
        while not pool.stats().waiting:
            time.sleep(0)
        act()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


# ---- waiting ----------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, True])
def test_a_release_in_another_thread_ends_the_wait(strategy, shared):
    with make(strategy, on_exhausted="wait", quota=Quota(blocks=4), thread_safe=shared) as pool:
        leases = [pool.acquire(BLOCK) for _ in range(4)]
        thread = run_when_waiting(pool, leases[2].release)
        leases[2] = pool.acquire(BLOCK)
        thread.join()
        stats = pool.stats()
        assert (stats.waits, stats.wait_timeouts, stats.failed) == (1, 0, 0)
        pool.check()
        release(leases)


def test_a_wait_ends_at_its_timeout_and_says_how_long_it_was():
    with SlabPool(64, 1, on_exhausted="wait", timeout=0.002, name="small") as pool, pool.acquire():
        with pytest.raises(PoolTimeout, match=r"64 bytes.*'small'.*waited 0\.\d+ s") as caught:
            pool.acquire()
        assert isinstance(caught.value, TimeoutError)
        assert isinstance(caught.value, PoolExhausted)
        assert caught.value.waited >= 0.002
        assert caught.value.status == "TIMEOUT"
        assert pool.stats().waited_ns >= 2_000_000


def test_a_batch_waits_for_all_of_its_blocks():
    with SlabPool(64, 8, on_exhausted="wait") as pool:
        held = pool.acquire_many(6)
        thread = run_when_waiting(pool, held.release)
        batch = pool.acquire_many(8)
        thread.join()
        assert len(batch) == 8
        batch.release()


def test_a_pool_that_is_closed_meanwhile_ends_the_wait():
    with SlabPool(64, 1, on_exhausted="wait", thread_safe=True) as pool, pool.acquire():
        thread = run_when_waiting(pool, pool.close)
        with pytest.raises(PoolClosed):
            pool.acquire()
        thread.join()


@pytest.mark.skipif(os.name == "nt", reason="signals cannot be sent to this process alone")
def test_ctrl_c_ends_a_wait():
    with SlabPool(64, 1, on_exhausted="wait") as pool, pool.acquire():
        thread = run_when_waiting(pool, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            pool.acquire()
        thread.join()
        assert pool.stats().waiting == 0


@pytest.mark.skipif(os.name == "nt", reason="signals cannot be sent to this process alone")
def test_a_signal_that_raises_nothing_does_not_end_a_wait():
    seen = []
    before = signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
    try:
        with SlabPool(64, 1, on_exhausted="wait") as pool:
            lease = pool.acquire()

            def act():
                os.kill(os.getpid(), signal.SIGUSR1)
                while not seen:
                    time.sleep(0)
                lease.release()

            thread = run_when_waiting(pool, act)
            pool.acquire().release()
            thread.join()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_threads_that_wait_are_all_served():
    def work():
        for _ in range(200):
            with pool.acquire():
                pass

    with SlabPool(64, 2, on_exhausted="wait", thread_safe=True) as pool:
        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stats = pool.stats()
        assert (stats.acquired, stats.live_blocks, stats.failed) == (1200, 0, 0)


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


# ---- quotas -----------------------------------------------------------------------------


def test_a_quota_of_bytes_says_who_has_how_much(strategy):
    with make(strategy, quota=10_000, name="bounded") as pool:
        leases = [pool.acquire(BLOCK) for _ in range(2)]
        with pytest.raises(QuotaExceeded, match=r"8192 of 10000 bytes live") as caught:
            pool.acquire(1809)
        error = caught.value
        assert (error.tag, error.live, error.limit, error.unit, error.status) == (
            "", 8192, 10_000, "bytes", "QUOTA",
        )  # fmt: skip
        leases.append(pool.acquire(1808))
        levels = quota_levels(pool)
        assert (levels.bytes, levels.blocks, levels.refusals, levels.above) == (10_000, 3, 1, False)
        release(leases)
        assert quota_levels(pool).bytes == 0


def test_every_tag_or_some_have_quotas(strategy):
    with make(strategy, tag_quota=Quota(blocks=2)) as pool:
        leases = [pool.acquire(100, tag) for tag in ("a", "a", "b")]
        with pytest.raises(QuotaExceeded, match=r"'a'.*2 of 2 blocks"):
            pool.acquire(100, "a")
        leases.append(pool.acquire(100))
        release(leases)
    with make(strategy, tag_quota={"a": 100, "b": Quota(blocks=3)}) as pool:
        leases = [pool.acquire(100, tag) for tag in ("a", "b", "b", "b", "c", "c", "c", "c")]
        for tag in ("a", "b"):
            with pytest.raises(QuotaExceeded) as caught:
                pool.acquire(100, tag)
            assert caught.value.tag == tag
        set_quota(pool, 200, "a")
        leases.append(pool.acquire(100, "a"))
        assert quota_levels(pool, "a") == (Quota(bytes=200), 200, 2, 1, False)
        release(leases)


def test_a_release_from_another_thread_counts_once(strategy):
    with make(strategy, quota=Quota(blocks=2), tag_quota=1 << 20) as pool:
        leases = [pool.acquire(BLOCK, "t") for _ in range(2)]
        thread = threading.Thread(target=release, args=[leases])
        thread.start()
        thread.join()
        assert quota_levels(pool).blocks == quota_levels(pool, "t").bytes == 0
        release([pool.acquire(BLOCK, "t") for _ in range(2)])
        pool.check()


def test_a_block_that_grows_counts_for_its_new_size(strategy):
    with make(strategy, quota=3000) as pool, pool.acquire(1000) as lease:
        with pytest.raises(QuotaExceeded, match="1000 of 3000"):
            lease.resize(3001)
        lease.resize(3000)
        assert quota_levels(pool).bytes == 3000
        lease.resize(1)
        assert quota_levels(pool).bytes == 1


def test_without_a_quota_there_are_no_levels():
    with SlabPool(64, 1) as pool:
        for call in (lambda: quota_levels(pool), lambda: set_quota(pool, 1)):
            with pytest.raises(Unsupported, match="quota="):
                call()
    with SlabPool(64, 1, quota=1) as pool, pytest.raises(Unsupported, match="tag_quota="):
        quota_levels(pool, "t")


# ---- watermarks -------------------------------------------------------------------------


def test_watermarks_are_edges(strategy):
    seen = []
    with make(strategy, high_watermark=400, low_watermark=200, on_watermark=seen.append, name="w") as pool:
        leases = [pool.acquire(100) for _ in range(5)]
        assert seen == [Crossing("w", "", True, 400, 400)]
        release(leases[:2])
        leases[:2] = [pool.acquire(100)]
        assert len(seen) == 1
        thread = threading.Thread(target=release, args=[leases[1:]])
        thread.start()
        thread.join()
        assert seen[1:] == [Crossing("w", "", False, 200, 200)]
        leases[0].release()
        assert len(seen) == 2


def test_a_tags_watermarks_name_the_tag():
    seen = []
    with SlabPool(64, 8, tag_quota={"route": Quota(high=128, low=64)}, on_watermark=seen.append) as pool:
        release([pool.acquire(64, tag) for tag in ("route", "other", "route", "route")])
    assert [(crossing.tag, crossing.rising, crossing.bytes) for crossing in seen] == [
        ("route", True, 128),
        ("route", False, 64),
    ]


def test_what_on_watermark_raises_is_told_and_stops_nothing(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(unraisable.exc_value))

    def fail(crossing):
        raise LookupError(crossing.rising)

    with SlabPool(64, 8, high_watermark=64, on_watermark=fail) as pool:
        pool.acquire().release()
    assert [(type(error), error.args) for error in told] == [(LookupError, (True,)), (LookupError, (False,))]


def test_callbacks_live_as_long_as_anything_of_the_pool():
    seen = []
    pool = SlabPool(64, 8, high_watermark=64, on_watermark=seen.append)
    lease = pool.acquire()
    view = lease.view
    lease.release()  # the view holds the block
    del pool, lease
    gc.collect()
    del view
    gc.collect()
    assert [crossing.rising for crossing in seen] == [True, False]


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


def test_growth_needs_an_end():
    with pytest.raises(PoolValueError, match="hard_limit="):
        SlabPool(64, 4, on_exhausted="grow")
    with SlabPool(64, 4, max_count=8, on_exhausted="grow") as pool:
        release(fill_all(pool, 8))


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
        ({"quota": "1 MiB"}, "1 MiB"),
        ({"tag_quota": {"a": -5}}, "-5"),
        ({"tag_quota": {"": 5}}, "no tag"),
        ({"high_watermark": 5, "low_watermark": 5}, "low"),
        ({"low_watermark": 5}, "low"),
        ({"quota": Quota(high=5), "high_watermark": 6}, "twice"),
        ({"hard_limit": 10}, "hard_limit 10"),
    ],
)
def test_what_cannot_be_is_refused_with_its_value(options, told):
    with pytest.raises(PoolValueError, match=told):
        SlabPool(64, 8, **options)


def test_a_pool_without_a_policy_has_no_layer():
    for options in ({}, {"on_exhausted": "raise"}, {"quota": None, "notify": False}):
        with SlabPool(64, 8, **options) as pool:
            assert pool._provider.notify == ffi.NULL
            with pytest.raises(Unsupported):
                quota_levels(pool)
    for options in ({"notify": True}, {"on_exhausted": "wait"}):
        with SlabPool(64, 8, **options) as pool:
            assert pool._provider.notify != ffi.NULL
