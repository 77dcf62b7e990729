"""Wrong parameters are refused by their names and values, whichever pool they are of."""

from __future__ import annotations

import re

import pytest

from pools import (
    AutoCompact,
    BuddyMap,
    BuddyPool,
    CompactingPool,
    Debug,
    MallocPool,
    PoolValueError,
    Quota,
    SizeClassPool,
    SlabPool,
    Unsupported,
    quota_levels,
    set_quota,
)


@pytest.mark.parametrize(
    ("create", "told"),
    [
        (lambda: SlabPool("4096", 8), "block_size='4096' of pool 'slab'"),
        (lambda: SlabPool(4096.0, 8), "block_size=4096.0 of pool 'slab'"),
        (lambda: SlabPool(4096, None), "block_count=None of pool 'slab'"),
        (lambda: SlabPool(4096, 8, name=5), "name=5"),
        (lambda: SlabPool(4096, 8, thread_safe="no"), "thread_safe='no' of pool 'slab'"),
        (lambda: SlabPool(4096, 8, strict="no"), "strict='no' of pool 'slab'"),
        (lambda: SlabPool(4096, 8, on_exhausted="wait", timeout="x"), "timeout='x'"),
        (lambda: SlabPool(4096, 8, idle_seconds="x"), "idle_seconds='x' of pool 'slab'"),
        (lambda: SlabPool(4096, 8, quota="1 MiB"), "quota: bytes='1 MiB'"),
        (lambda: SlabPool(4096, 8, on_watermark=3, high_watermark=64), "on_watermark=3"),
        (lambda: SlabPool(4096, 8, debug=Debug(guard_pages="x")), "guard_pages='x' of Debug()"),
        (lambda: BuddyPool(min_block="x"), "min_block='x' of pool 'buddy'"),
        (lambda: SizeClassPool(classes="x"), "classes='x' of pool 'sizeclass'"),
        (lambda: SizeClassPool(classes=[64, "x"]), "classes[1]='x' of pool 'sizeclass'"),
        (lambda: CompactingPool(auto_compact=True), "auto_compact=True of pool 'compacting'"),
        (lambda: CompactingPool().on_move(5), "callback=5 of on_move of pool 'compacting'"),
        (lambda: MallocPool(max_bytes="x"), "max_bytes='x' of a MallocPool"),
        (lambda: BuddyMap("x"), "length='x' of a BuddyMap"),
        (lambda: set_quota(SlabPool(4096, 8, quota=1), 1, 5), "tag=5"),
    ],
)
def test_a_parameter_of_the_wrong_type_is_refused_by_name_and_value(create, told):
    with pytest.raises(TypeError, match=re.escape(told)):
        create()


@pytest.mark.parametrize("size", [-1, 0, 2**30 + 1, 2**62, 2**70])
def test_a_size_out_of_range_is_told_the_range_that_holds(size):
    with pytest.raises(PoolValueError, match=rf"block_size={size} of pool 'slab': .*1 to 2\*\*30"):
        SlabPool(size, 8)


def test_memory_that_cannot_be_lent_is_told_by_its_type():
    with pytest.raises(PoolValueError, match="a bytes cannot be lent"):
        SlabPool(4096, 8, memory=b"123")


def test_a_hard_limit_below_the_first_commitment_is_told_the_least_that_does():
    with pytest.raises(PoolValueError, match="give 32768 or more"):
        SlabPool(4096, 8, hard_limit=100)
    with SlabPool(4096, 8, hard_limit=32768) as pool:
        pool.acquire_many(8).release()


def test_an_offset_between_two_units_is_told_the_unit():
    with pytest.raises(PoolValueError, match="offset 20 is not a multiple of 16"):
        BuddyMap(160, 16).reserve(20, 30)
    with BuddyPool(1 << 20) as pool, pytest.raises(PoolValueError, match="100 is not a multiple of 256"):
        pool.reserve(100, 4096)


def test_a_tag_without_a_quota_is_told_apart_from_a_pool_without_one():
    with SlabPool(4096, 8, quota=1 << 20) as pool, pytest.raises(Unsupported, match="nothing by tag"):
        quota_levels(pool, "nosuch")
    with SlabPool(4096, 8) as pool, pytest.raises(Unsupported, match="without a quota"):
        quota_levels(pool)


def test_numbers_that_are_no_int_but_whole_are_taken():
    class Four:
        def __index__(self):
            return 4

    with SlabPool(4096, Four()) as pool:
        pool.acquire_many(4).release()
    with CompactingPool(auto_compact=AutoCompact()) as pool:
        pool.on_move(None)


def test_a_high_mark_without_a_function_is_told_by_the_levels():
    with SlabPool(4096, 8, quota=Quota(high=4096)) as pool, pool.acquire():
        assert quota_levels(pool).above
