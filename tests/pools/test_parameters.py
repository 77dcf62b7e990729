"""Wrong parameters are refused by their names and values, whichever pool they are of."""

from __future__ import annotations

import math
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
    QuotaExceeded,
    SizeClassPool,
    SlabPool,
    Unsupported,
    quota_levels,
    set_quota,
)

from .conftest import make


def slab():
    return SlabPool(64, 8, name="recv")


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
        (lambda: SlabPool(4096, 8, quota="1 MiB"), "quota='1 MiB' of pool 'slab'"),
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
        (lambda: set_quota(SlabPool(4096, 8, quota=1), 1, []), "tag=[]"),
        (lambda: quota_levels(SlabPool(4096, 8, quota=1), None), "tag=None"),
        (lambda: SlabPool(4096, 8, quota=Quota(high=9, low="")), "Quota.low=''"),
        (lambda: SlabPool(4096, 8).attach("trace"), "attach of 'trace' to pool 'slab'"),
        (lambda: SlabPool(4096, 8).trim(math.nan), "keep_bytes=nan of trim of pool 'slab'"),
        (lambda: SlabPool(4096, 8).inspect("7"), "handle='7' of pool 'slab'"),
        (lambda: SlabPool(4096, 8).sample("x"), "interval_seconds='x' of sample of pool 'slab'"),
        (lambda: SlabPool(4096, 8).register(1.5), "offset=1.5 of register of pool 'slab'"),
        (lambda: SlabPool(4096, 8, debug=Debug(canaries="no")), "canaries='no' of Debug()"),
        (lambda: SlabPool(4096, 8, debug=Debug(history=None)), "history=None of Debug()"),
        (
            lambda: CompactingPool(auto_compact=AutoCompact(cpu_percent="x")),
            "cpu_percent='x' of auto_compact",
        ),
        (
            lambda: CompactingPool(auto_compact=AutoCompact(index_percent=1.5)),
            "index_percent=1.5 of auto_compact",
        ),
        (
            lambda: CompactingPool(auto_compact=AutoCompact(burst_seconds="x")),
            "burst_seconds='x' of auto_compact",
        ),
        (lambda: MallocPool(5), "library=5 of a MallocPool"),
        (lambda: SizeClassPool.learn(5), "learn from 5"),
        (lambda: SizeClassPool.learn([8], 1.5), "classes=1.5 to learn"),
        (lambda: SizeClassPool.learn([8], alignment="x"), "alignment='x' of classes to learn"),
        (
            lambda: slab().acquire(1.5),
            "size=1.5 of an acquire from pool 'recv': give a whole number from 1 to 64",
        ),
        (lambda: slab().acquire("x"), "size='x' of an acquire from pool 'recv'"),
        (lambda: slab().acquire(1, 0, 0), "acquire takes at most 2 arguments, and got 3, of pool 'recv'"),
        (lambda: slab().acquire(bytes=1), "the keyword argument 'bytes', which is unknown, of pool 'recv'"),
        (
            lambda: slab().acquire(1, size=1),
            "the keyword argument 'size', which is given twice, of pool 'recv'",
        ),
        (lambda: slab().acquire_many(), "acquire_many without a count from pool 'recv': say how many"),
        (
            lambda: slab().acquire_many("x"),
            "count='x' of an acquire_many from pool 'recv': give a whole number from 1 to 2**24",
        ),
        (lambda: slab().acquire_many(2, []), "size=[] of an acquire from pool 'recv'"),
        (lambda: slab().release_many(5), "release_many of 5 to pool 'recv': give a batch that it gave, or"),
        (lambda: slab().lease(1), "lease of 1 arguments of pool 'recv': give a handle, an address and"),
        (lambda: slab().lease("x", 1, 1), "handle='x' of a lease of pool 'recv': give a whole number"),
        (lambda: slab().lease(1, "x", 1), "address='x' of a lease of pool 'recv'"),
        (lambda: slab().lease(1, 1, "x"), "size='x' of a lease of pool 'recv'"),
        (lambda: slab().tag_text("x"), "tag='x' of tag_text of pool 'recv': give a whole number from 0 to"),
        (lambda: slab().held("x"), "longer_than='x' of held blocks of pool 'recv': give 0 to inf seconds"),
    ],
)
def test_a_parameter_of_the_wrong_type_is_refused_by_name_and_value(create, told):
    with pytest.raises(TypeError, match=re.escape(told)):
        create()


@pytest.mark.parametrize(
    ("create", "told"),
    [
        (lambda: SlabPool(64, 8, max_count=7), "max_count=7 of pool 'slab': it begins with block_count=8"),
        (lambda: SlabPool(64, 8, guaranteed=9), "guaranteed=9 of pool 'slab': it begins with block_count=8"),
        (lambda: SlabPool(64, 8, alignment=24), "alignment=24 of pool 'slab': give 0 or a power of two"),
        (lambda: BuddyPool(1 << 16, 48), "min_block=48 of pool 'buddy': give a power of two from 64"),
        (lambda: BuddyPool(1 << 40), f"capacity={1 << 40} of pool 'buddy': give 1 to"),
        (lambda: BuddyPool(1 << 33, 64), "or a larger min_block"),
        (lambda: BuddyPool(8192, max_capacity=4096), "max_capacity=4096 of pool 'buddy': it begins with"),
        (lambda: CompactingPool(alignment=8), "alignment=8 of pool 'compacting': give 0 or a power of two"),
        (
            lambda: CompactingPool(segment_size=4096),
            "segment_size=4096 of pool 'compacting': give 0 or a power",
        ),
        (lambda: CompactingPool(auto_compact=AutoCompact(0)), "cpu_percent=0 of auto_compact of pool"),
        (lambda: SlabPool(64, 8).trim(-1), "keep_bytes=-1 of trim of pool 'slab'"),
        (lambda: SlabPool(64, 8).inspect(1 << 64), f"handle={1 << 64} of pool 'slab'"),
        (lambda: SlabPool(64, 8).sample(math.inf), "interval_seconds=inf of sample of pool 'slab'"),
        (lambda: SlabPool(64, 8).register(0, 1 << 40), f"size={1 << 40} of register of pool 'slab'"),
        (lambda: SizeClassPool.learn([(1, 2, 3)]), "(1, 2, 3) is among them"),
        (lambda: SizeClassPool.learn([8], 255), "classes=255 to learn"),
        (lambda: slab().held(-1), "longer_than=-1 of held blocks of pool 'recv': give 0 to inf seconds"),
        (lambda: slab().tag_text(-1), "tag=-1 of tag_text of pool 'recv': give 0 to 2**32 - 1"),
        (lambda: slab().lease(-1, 1, 1), "handle=-1 of a lease of pool 'recv': give 0 to 2**64 - 1"),
        (lambda: slab().lease(1, 1 << 70, 1), f"address={1 << 70} of a lease of pool 'recv'"),
        (lambda: slab().lease(1, 1, 1 << 70), f"size={1 << 70} of a lease of pool 'recv'"),
    ],
)
def test_a_value_out_of_range_is_told_with_the_one_limit_that_it_breaks(create, told):
    with pytest.raises(PoolValueError, match=re.escape(told)):
        create()


SIZES_REFUSED = {
    0: "at least one byte; ask for 1 to",
    -5: "at least one byte; ask for 1 to",
    2**70: "its largest block has .* ask for at most",
}


@pytest.mark.parametrize("size", SIZES_REFUSED)
@pytest.mark.parametrize("call", ["acquire", "acquire_many", "resize"])
def test_a_size_that_no_block_has_is_told_the_one_reason_and_what_to_do(strategy, call, size):
    with make(strategy) as pool, pool.acquire(100) as lease:
        calls = {
            "acquire": lambda: pool.acquire(size),
            "acquire_many": lambda: pool.acquire_many(2, size),
            "resize": lambda: lease.resize(size),
        }
        with pytest.raises(PoolValueError, match=SIZES_REFUSED[size]) as caught:
            calls[call]()
        assert str(size) in str(caught.value)
        assert "overflows" not in str(caught.value)


def test_what_serves_larger_blocks_is_named():
    for pool, remedy in (
        (SlabPool(64, 2), "block_size"),
        (SizeClassPool(1000), "max_block"),
        (BuddyPool(1 << 16), "max_capacity"),
        (CompactingPool(1 << 18), "larger capacity"),
    ):
        with pool, pytest.raises(PoolValueError, match=remedy):
            pool.acquire(1 << 40)
    with (
        BuddyPool(1 << 16, block_size=1 << 20) as pool,
        pytest.raises(PoolValueError, match="smaller block_size"),
    ):
        pool.acquire()
    with SizeClassPool() as pool, pytest.raises(PoolValueError, match="no default size"):
        pool.acquire()


def test_a_name_that_is_no_unicode_is_taken():
    with SlabPool(64, 2, name="\ud800", quota=64) as pool, pool.acquire(), pytest.raises(QuotaExceeded):
        pool.acquire()


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


class NoNumber:
    def __index__(self):
        raise TypeError("of its own")


@pytest.mark.parametrize(
    ("use", "told"),
    [
        (
            lambda lease, _: lease.resize(None),
            "size=None of a resize of a block of pool 'recv': give a whole",
        ),
        (lambda lease, _: lease.read(1.5), "offset=1.5 of a read of a block of pool 'recv': give a whole"),
        (lambda lease, _: lease.read(0, "x"), "size='x' of a read of a block of pool 'recv': give a whole"),
        (
            lambda lease, _: lease.write(b"", []),
            "offset=[] of a write to a block of pool 'recv': give a whole",
        ),
        (lambda lease, _: lease.write("x" * 99), "write of a str to a block of pool 'recv': give bytes"),
        (lambda lease, _: lease.write(memoryview(b"abc")[::2]), "a memoryview to a block of pool 'recv'"),
        (lambda _, batch: batch["x"], "index='x' of a batch of pool 'recv': give a whole number from 0 to 2"),
        (lambda _, batch: batch[1:2], "index=slice(1, 2, None) of a batch of pool 'recv'"),
        (lambda _, batch: batch.take(None), "index=None of a batch of pool 'recv'"),
        (lambda lease, _: lease.read(NoNumber()), "of its own"),
        (lambda lease, _: lease.resize(NoNumber()), "of its own"),
        (lambda lease, _: lease.pool.acquire(NoNumber()), "of its own"),
        (lambda lease, _: lease.pool.acquire_many(NoNumber()), "of its own"),
        (lambda _, batch: batch[NoNumber()], "of its own"),
    ],
)
def test_what_is_no_number_or_no_bytes_is_told_with_the_pool_it_was_for(use, told):
    with SizeClassPool(name="recv") as pool, pool.acquire(100) as lease, pool.acquire_many(3, 64) as batch:
        with pytest.raises(TypeError, match=re.escape(told)):
            use(lease, batch)
        assert pool.stats().live_blocks == 4


@pytest.mark.parametrize("index", [3, -4, 1 << 70, -(1 << 70)])
def test_a_number_that_a_batch_does_not_have_is_told_with_those_it_has(index):
    with SlabPool(64, 8, name="recv") as pool, pool.acquire_many(3) as batch:
        told = re.escape(f"block {index} of a batch of 3 blocks of pool 'recv'")
        for look in (batch.take, batch.__getitem__):
            with pytest.raises(IndexError, match=told):
                look(index)
