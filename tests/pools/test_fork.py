"""A forked child uses or destroys its copy of a pool, whatever other threads were doing."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import pools

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork"),
    pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning"),
]


def _in_child(work: Callable[[], None]) -> int:
    """Run ``work`` in a forked child; its exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize(
    "make",
    [
        lambda **options: pools.SlabPool(4096, 256, **options),
        lambda **options: pools.SizeClassPool(4096, capacity=4 << 20, **options),
        lambda **options: pools.BuddyPool(4 << 20, **options),
        lambda **options: pools.CompactingPool(4 << 20, **options),
    ],
    ids=["slab", "sizeclass", "buddy", "compacting"],
)
def test_the_child_uses_a_shared_pool_that_others_hammer(make: Callable[..., pools.Pool]) -> None:
    pool = make(thread_safe=True)
    over = threading.Event()

    def hammer() -> None:
        while not over.is_set():
            pool.release_many(pool.acquire_many(8, 4096))

    def use() -> None:
        with pool.acquire(4096) as lease:
            lease.write(b"of the child")
            assert lease.read(0, 12) == b"of the child"
        pool.check()

    threads = [threading.Thread(target=hammer) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        codes = [_in_child(use) for _ in range(5)]
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert codes == [0] * 5
    assert pool.stats().live_blocks == 0


def test_the_child_of_an_owner_owns_its_copy() -> None:
    pool = pools.SlabPool(64, 4)
    lease = pool.acquire()

    def use() -> None:
        lease.view[:5] = b"child"
        lease.release()
        assert pool.stats().live_blocks == 0

    lease.view[:6] = b"parent"
    assert _in_child(use) == 0
    assert bytes(lease.view[:6]) == b"parent"
    lease.release()


def test_the_child_does_not_write_into_the_parents_trace(tmp_path: Path) -> None:
    path = tmp_path / "run.pptrace"
    trace = pools.Trace(path)
    pool = pools.SlabPool(64, 4)
    pool.attach(trace)

    def use() -> None:
        assert trace.inherited
        with pool.acquire():
            pass
        trace.mark("of the child")
        assert trace.dropped == 1

    used = trace.size_bytes
    assert _in_child(use) == 0
    assert not trace.inherited
    assert (trace.size_bytes, trace.dropped) == (used, 0)
    pool.close()
    trace.close()


def test_the_child_of_another_thread_is_told_what_is_left_and_closes_in_peace() -> None:
    pool = pools.SlabPool(64, 4, strict=True)
    lease = pool.acquire()
    codes: list[int] = []

    def use() -> None:
        for call in (pool.acquire, pool.adopt, pool.walk, pool.check, pool.trim, lambda: lease.resize(5)):
            with pytest.raises((pools.WrongThread, pools.PoolClosed)) as refused:
                call()
            assert "create another pool in the child" in str(refused.value)
            assert "adopt()" not in str(refused.value)
        with pool:
            pass
        assert pool.closed
        assert not pool.close()

    thread = threading.Thread(target=lambda: codes.append(_in_child(use)))
    thread.start()
    thread.join()
    assert codes == [0]
    lease.release()
    assert not pool.close()
