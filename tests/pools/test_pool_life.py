"""What a slab or malloc pool may be made of, what it says when it is empty, and its end."""

from __future__ import annotations

import pytest

from pools import (
    ForeignBlock,
    LeakError,
    MallocPool,
    OutOfMemory,
    PoolClosed,
    PoolError,
    PoolExhausted,
    PoolValueError,
    SlabPool,
    StaleHandle,
    Unsupported,
)

# ---- creation ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameters",
    [
        {"block_size": 0},
        {"block_size": -1},
        {"block_size": (1 << 30) + 1},
        {"block_size": 2**64},
        {"block_count": 0},
        {"block_count": -1},
        {"block_count": (1 << 28) + 1},
        {"block_count": 2**64},
        {"max_count": 3},
        {"max_count": -1},
        {"max_count": 2**64},
        {"alignment": 3},
        {"alignment": 8},
        {"alignment": 1 << 20},
        {"alignment": -16},
    ],
)
def test_a_slab_that_cannot_be_is_refused(parameters):
    with pytest.raises(PoolValueError, match=str(next(iter(parameters.values())))) as caught:
        SlabPool(**({"block_size": 64, "block_count": 4} | parameters))
    assert isinstance(caught.value, ValueError)


def test_a_malloc_pool_that_cannot_be_is_refused():
    for limit in (-1, 2**64):
        with pytest.raises(PoolValueError, match=str(limit)):
            MallocPool(max_bytes=limit)


@pytest.mark.parametrize("alignment", [16, 64, 512, 4096])
def test_blocks_are_aligned(alignment):
    with SlabPool(48, 8, alignment=alignment) as pool:
        leases = [pool.acquire() for _ in range(8)]
        assert all(pool.inspect(lease.handle).offset % alignment == 0 for lease in leases)
        assert all(lease.size == 48 for lease in leases)
        pool.release_many(leases)


def test_names_of_any_kind_are_kept():
    for name in ("", "é" * 100, "a\0b", "x" * 1000):
        with SlabPool(64, 1, name=name) as pool:
            assert pool.name == name
            assert repr(name) in repr(pool)


def test_ages_are_optional():
    with SlabPool(64, 1, ages=False) as pool, pool.acquire() as lease:
        assert pool.inspect(lease.handle).age_seconds == 0
        assert pool.inspect(lease.handle).ordinal == 0


def test_huge_pages_may_be_asked_for():
    with SlabPool(1 << 20, 4, huge_pages=True) as pool, pool.acquire() as lease:
        lease.write(b"x", (1 << 20) - 1)


# ---- exhaustion ------------------------------------------------------------------------------


def test_an_exhausted_slab_says_how_it_stands():
    with SlabPool(64, 4, name="tiny") as pool:
        leases = [pool.acquire(tag="greedy") for _ in range(4)]
        with pytest.raises(PoolExhausted) as caught:
            pool.acquire()
        for part in ("tiny", "4 of 4", "'greedy'", "256 bytes", "max_count"):
            assert part in str(caught.value)
        assert caught.value.status == "EXHAUSTED"
        assert pool.stats().failed == 1
        leases.pop().release()
        pool.acquire().release()
        pool.release_many(leases)


def test_a_slab_grows_to_its_limit():
    with SlabPool(64, 2, max_count=7) as pool:
        leases = [pool.acquire() for _ in range(7)]
        assert pool.stats().capacity_blocks == 7
        assert pool.stats().grown == 2
        with pytest.raises(PoolExhausted):
            pool.acquire()
        pool.release_many(leases)
        pool.check()


def test_the_malloc_baseline_keeps_to_its_limit():
    with MallocPool(max_bytes=10_000) as pool, pool.acquire(6000) as lease:
        with pytest.raises(PoolExhausted, match="max_bytes"):
            pool.acquire(6000)
        with pytest.raises(PoolExhausted, match="max_bytes"):
            lease.resize(11_000)
        assert lease.requested == 6000


def test_memory_that_the_system_refuses_is_a_memory_error():
    with pytest.raises(OutOfMemory) as caught:
        SlabPool(1 << 30, 1 << 28)
    assert isinstance(caught.value, MemoryError)
    with MallocPool() as pool, pytest.raises((OutOfMemory, PoolValueError)):
        pool.acquire((1 << 40) - 1).release()


# ---- the end --------------------------------------------------------------------------------------


def test_a_strict_pool_raises_its_leaks():
    pool = SlabPool(64, 2, strict=True, name="strict")
    lease = pool.acquire(tag="forgotten")
    with pytest.raises(LeakError, match=r"(?s)strict.*forgotten"):
        pool.close()
    assert pool.closed
    lease.release()
    assert not pool.close()


def test_a_shared_pool_is_not_adopted():
    with SlabPool(64, 1, thread_safe=True) as pool, pytest.raises(Unsupported):
        pool.adopt()
    with SlabPool(64, 1) as pool:
        pool.adopt()  # by its owner: nothing changes
        pool.acquire().release()


def test_every_error_is_a_pool_error():
    for error in (
        PoolExhausted,
        PoolClosed,
        StaleHandle,
        ForeignBlock,
        PoolValueError,
        OutOfMemory,
        LeakError,
    ):
        assert issubclass(error, PoolError)
