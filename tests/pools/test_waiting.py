"""Pools that wait for a block: for how long, and what ends it."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from pools import (
    BuddyPool,
    CompactingPool,
    MallocPool,
    PoolClosed,
    PoolExhausted,
    PoolTimeout,
    Quota,
    SizeClassPool,
    SlabPool,
)

from .conftest import BLOCK, make, release


def run_when_waiting(pool, act):
    """A thread that acts when somebody waits for a block of the pool."""

    def run():
        while not pool.stats().waiting:
            time.sleep(0)
        act()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


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
        with pytest.raises(PoolTimeout, match=r"64 bytes.*'small'.*waited \d+\.\d+ s") as caught:
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


# ---- what no release can bring about ----------------------------------------------------


@pytest.mark.parametrize(
    ("create", "count", "size", "most"),
    [
        (lambda: SlabPool(4096, 2, on_exhausted="wait"), 3, None, 2),
        (lambda: SlabPool(4096, 2, max_count=4, on_exhausted="wait"), 5, 1, 4),
        (lambda: BuddyPool(1 << 20, on_exhausted="wait"), 3, 1 << 19, 2),
        (lambda: BuddyPool(1 << 20, on_exhausted="wait"), 2, (1 << 19) + 1, 1),
        (lambda: CompactingPool(1 << 20, on_exhausted="wait"), 257, 4096, 256),
        (lambda: SizeClassPool(4096, capacity=1 << 20, on_exhausted="wait"), 257, 4096, 256),
        (lambda: MallocPool(max_bytes=1 << 20, on_exhausted="wait"), 257, 4096, 256),
    ],
)
def test_a_batch_larger_than_the_pool_does_not_wait(create, count, size, most):
    with create() as pool:
        with pytest.raises(
            PoolExhausted, match=rf"{count} x .* an empty pool has {most} such block"
        ) as caught:
            pool.acquire_many(count, size)
        assert not isinstance(caught.value, PoolTimeout)
        assert pool.stats().live_blocks == pool.stats().waits == 0


def test_a_batch_that_just_fits_is_served():
    with SlabPool(4096, 2, on_exhausted="wait") as pool:
        pool.acquire_many(2).release()
    with BuddyPool(5000, 64, on_exhausted="wait") as pool:  # which has a whole page more
        pool.acquire_many(100, 64).release()


def test_a_timeout_tells_the_levels_and_who_holds_the_most():
    pool = SlabPool(64, 2, on_exhausted="wait", timeout=0.001)
    told = r"2 of 2 blocks live.*'hoarder' holds the most, 128 bytes"
    with pool.acquire_many(2, tag="hoarder"), pytest.raises(PoolTimeout, match=told):
        pool.acquire()
