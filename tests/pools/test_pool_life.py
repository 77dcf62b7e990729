"""What a slab or malloc pool may be made of, what it says when it is empty, and its end."""

from __future__ import annotations

import gc
import warnings

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


def leave_two_behind(pool):
    return [pool.acquire(tag="forgotten"), pool.acquire(tag="forgotten"), pool.acquire()]


def test_a_with_block_that_ends_with_leases_warns_of_them_once():
    with (
        pytest.warns(ResourceWarning, match="3 live blocks") as told,
        SlabPool(64, 4, name="left") as pool,
    ):
        kept = leave_two_behind(pool)
    assert len(told) == 1
    text = str(told[0].message)
    assert "pool 'left'" in text
    assert "2 tagged 'forgotten' from leave_two_behind (" in text
    assert "1 without a tag" in text
    assert "\n" not in text
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept.clear()  # they go back, and were told of
        gc.collect()
    assert pool.lost_leases == 3
    assert pool.stats().live_blocks == 0


def test_what_is_lost_before_the_end_of_the_with_block_is_told_of_then():
    with SlabPool(64, 4) as pool:
        with pytest.warns(ResourceWarning, match="lost without release"):
            pool.acquire()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pool.close()
    assert pool.closed


def test_a_with_block_is_silent_about_blocks_that_are_released_but_looked_at():
    with SlabPool(64, 4) as pool, pool.acquire() as lease:
        view = lease.view[:4]
    assert len(pool.close()) == 1
    del view, lease


def test_a_report_is_the_callers_where_close_is_called_by_hand():
    with SlabPool(64, 4) as pool:
        lease = pool.acquire(tag="kept")
        report = pool.close()
    assert report.summary.startswith(
        "pool 'slab' closed with 1 live block, 64 bytes: 1 tagged 'kept' from test_"
    )
    assert report.forgotten == report
    lease.release()
    assert pool.close().summary == "pool 'slab' closed with nothing live"


def test_a_summary_names_the_largest_groups_and_counts_the_rest():
    with SlabPool(64, 16) as pool:
        leases = [pool.acquire(tag=f"tag {number}") for number in range(5) for _ in range(number + 1)]
        report = pool.close()
        assert "5 tagged 'tag 4'" in report.summary
        assert report.summary.endswith(", 3 more")
        pool.release_many(leases)


@pytest.mark.parametrize("strict", [False, True])
def test_an_error_that_ends_the_with_block_is_not_replaced_and_carries_the_report(strict):
    kept = []

    def fail():
        with SlabPool(64, 4, strict=strict) as pool:
            kept.append(pool.acquire(tag="on the way"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        fail()
    assert "on the way" in caught.value.__notes__[0]
    with pytest.warns(ResourceWarning, match="lost without release"):
        kept.clear()


def test_a_strict_pool_raises_at_the_end_of_a_with_block():
    kept = []
    with pytest.raises(LeakError, match="forgotten"), SlabPool(64, 4, strict=True) as pool:
        kept.append(pool.acquire(tag="forgotten"))
    kept.pop().release()


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
