"""Where pools take their memory from, and when it goes back."""

from __future__ import annotations

import gc
import mmap
import re
import threading
import time
from collections.abc import Callable
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import pytest

import pools

PAGE = mmap.PAGESIZE
BYTES = 256 * PAGE

Maker = Callable[..., Any]
MAKERS: dict[str, Maker] = {
    "slab": lambda **options: pools.SlabPool(PAGE, 256, **options),
    "sizeclass": lambda **options: pools.SizeClassPool(PAGE, capacity=BYTES, **options),
    "buddy": lambda **options: pools.BuddyPool(BYTES, **options),
    "compacting": lambda **options: pools.CompactingPool(BYTES, **options),
}

every_pool = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def _has_barrier() -> bool:
    try:
        pools.SlabPool(64, 1, idle_seconds=1)
    except pools.Unsupported:
        return False
    return True


needs_barrier = pytest.mark.skipif(not _has_barrier(), reason="the system has no process-wide barrier")


def _wait_for(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0)  # lets the reclaimer run; how long it takes is not what is tested


@needs_barrier
@every_pool
@pytest.mark.parametrize("shared", [False, True], ids=["owner", "shared"])
def test_idle_memory_goes_back_without_a_call(make: Maker, shared: bool) -> None:
    pool = make(idle_seconds=0.01, thread_safe=shared)
    assert pool.memory.idle_seconds == 0.01
    leases = [pool.acquire(PAGE) for _ in range(200)]
    for number, lease in enumerate(leases):
        lease.write(bytes([number]) * PAGE)
    for lease in leases[1:]:
        lease.release()
    _wait_for(lambda: pool.memory.idle_bytes >= 199 * PAGE)
    assert leases[0].read(0, PAGE) == bytes(PAGE)
    pool.check()
    gone = pool.memory.idle_bytes  # before it is compared with, for more may go
    assert pool.stats().trimmed_bytes >= gone
    leases[0].release()


@needs_barrier
def test_the_delay_can_be_changed_and_taken_away() -> None:
    pool = pools.SlabPool(PAGE, 4)
    assert pool.memory.idle_seconds is None
    pool.set_idle(2.5)
    assert pool.memory.idle_seconds == 2.5
    pool.set_idle(None)
    assert pool.memory.idle_seconds is None
    with pool.acquire() as lease:
        lease.view[0] = 1


@pytest.mark.parametrize("seconds", [0, -1, 0.001, float("nan"), float("inf")])
def test_a_delay_out_of_range_is_refused(seconds: float) -> None:
    with pytest.raises(pools.PoolValueError):
        pools.SlabPool(PAGE, 4, idle_seconds=seconds)


@every_pool
@pytest.mark.parametrize("kind", ["bytearray", "mmap", "shared memory"])
def test_pools_work_in_memory_of_the_program(make: Maker, kind: str) -> None:
    shared = SharedMemory(create=True, size=BYTES + PAGE) if kind == "shared memory" else None
    try:
        if shared is not None:
            memory: Any = shared.buf
        else:
            memory = bytearray(BYTES + PAGE) if kind == "bytearray" else mmap.mmap(-1, BYTES)
        pool = make(memory=memory)
        assert pool.memory.lent
        lease = pool.acquire(16)
        lease.write(b"sixteen bytes...")
        assert b"sixteen bytes..." in bytes(memory[:])
        lease.release()
        assert pool.trim() == 0
        pool.close()
        del pool, lease, memory
        gc.collect()
    finally:
        if shared is not None:
            shared.close()
            shared.unlink()


def test_lent_memory_stays_exported_as_long_as_a_view() -> None:
    memory = bytearray(4 * PAGE)
    pool = pools.SlabPool(64, 16, memory=memory)
    lease = pool.acquire()
    view = lease.view
    view[:] = b"x" * 64
    lease.release()
    del pool, lease
    gc.collect()
    with pytest.raises(BufferError):
        memory.extend(b"more")
    assert bytes(view) == b"x" * 64
    del view
    gc.collect()
    memory.extend(b"more")


@every_pool
def test_memory_that_does_not_do_is_refused_with_its_numbers(make: Maker) -> None:
    with pytest.raises(pools.PoolValueError, match=str(BYTES // 2)):
        make(memory=bytearray(BYTES // 2))
    misaligned = memoryview(mmap.mmap(-1, BYTES + PAGE))[8 : 8 + BYTES]
    with pytest.raises(pools.PoolValueError, match="aligned"):
        make(memory=misaligned)
    with pytest.raises(pools.PoolValueError, match="writable"):
        make(memory=bytes(BYTES + PAGE))


@needs_barrier
@pytest.mark.parametrize("make", [pools.SizeClassPool, pools.BuddyPool, pools.CompactingPool])
def test_the_capacity_that_a_refusal_of_lent_memory_names_fits(make: Maker) -> None:
    memory = bytearray(4 << 20)
    with pytest.raises(pools.PoolValueError, match="does not fit") as refused:
        make(memory=memory)
    found = re.search(r"capacity=(\d+)", str(refused.value))
    assert found
    with make(capacity=int(found[1]), memory=memory) as pool:
        pool.acquire(4096).release()


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (pools.SlabPool, {"block_size": 4096, "block_count": 512}),
        (pools.SlabPool, {"block_size": 4096, "block_count": 4, "max_count": 512, "debug": True}),
        (
            pools.SlabPool,
            {"block_size": 100, "block_count": 4, "on_exhausted": "grow", "hard_limit": 2 << 20},
        ),
        (pools.BuddyPool, {"capacity": 2 << 20}),
        (pools.BuddyPool, {"capacity": 2 << 20, "min_block": 1 << 18, "debug": True}),
        (pools.BuddyPool, {"capacity": 1 << 16, "max_capacity": 2 << 20}),
        (pools.BuddyPool, {"capacity": 2 << 20, "max_capacity": 4 << 20}),
        (pools.SizeClassPool, {"capacity": 2 << 20}),
        (pools.SizeClassPool, {"capacity": 1 << 30, "max_block": 2 << 20}),
        (pools.CompactingPool, {"capacity": 2 << 20}),
        (pools.CompactingPool, {"capacity": 2 << 20, "segment_size": 1 << 16}),
        (pools.CompactingPool, {"on_exhausted": "grow", "hard_limit": 1 << 28}),
    ],
)
@pytest.mark.parametrize("lent", [100, 1 << 20])
def test_what_a_refusal_of_lent_memory_advises_helps(make: Maker, options: dict[str, Any], lent: int) -> None:
    def refusal(memory: Any) -> str:
        with pytest.raises(pools.PoolValueError) as refused:
            make(memory=memory, **options)
        return str(refused.value)

    memory = bytearray(lent)
    advised = refusal(memory)
    smaller = {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", advised.split(";")[-1])}
    assert 0 not in smaller.values()
    if least := re.search(r"or (\d+) and give", advised):
        memory = bytearray(int(least[1]))
    if smaller:
        with make(memory=memory, **(options | smaller)) as pool:
            pool.acquire(64).release()
    enough = re.search(r"lend (\d+) bytes or more", advised)
    assert enough
    make(memory=bytearray(int(enough[1])), **options).close()


def test_idle_seconds_are_refused_with_the_one_reason() -> None:
    with pytest.raises(pools.Unsupported, match="lent") as refused:
        pools.SlabPool(4096, 4, memory=bytearray(1 << 16), idle_seconds=1)
    assert "thread_safe" not in str(refused.value)


def test_what_has_no_buffer_is_not_lent() -> None:
    with pytest.raises(pools.PoolValueError, match="a str cannot be lent, it has no buffer") as refused:
        pools.SlabPool(4096, 4, memory="x")
    assert "from_buffer" not in str(refused.value)


def test_lent_memory_is_never_given_back() -> None:
    with pytest.raises(pools.Unsupported):
        pools.SlabPool(64, 16, memory=bytearray(PAGE), idle_seconds=1)


@every_pool
def test_registered_memory_stays(make: Maker) -> None:
    pool = make()
    pool.register()
    leases = [pool.acquire(PAGE) for _ in range(64)]
    for lease in leases:
        lease.write(b"x" * PAGE)
        lease.release()
    assert pool.trim() == 0
    assert pool.memory.spared_pieces > 0
    assert pool.memory.registered_bytes >= BYTES
    pool.unregister()
    assert pool.trim() >= 64 * PAGE
    with pytest.raises(pools.ForeignBlock):
        pool.unregister()
    with pytest.raises(pools.PoolValueError):
        pool.register(offset=1 << 40)


def test_guaranteed_blocks_keep_what_was_written() -> None:
    pool = pools.SlabPool(PAGE, 64, guaranteed=8)
    batch = pool.acquire_many(64)
    for lease in batch:
        lease.view[:] = b"x" * PAGE
        lease.release()
    assert pool.trim() == 56 * PAGE
    with pytest.raises(pools.PoolValueError):
        pools.SlabPool(PAGE, 64, guaranteed=65)


def test_what_came_of_a_wish_for_huge_pages_is_told() -> None:
    assert pools.SlabPool(64, 16).memory.huge_pages == "not asked"
    assert pools.SlabPool(64, 16, huge_pages=True).memory.huge_pages == "refused"
    assert pools.SlabPool(PAGE, 2048, huge_pages=True).memory.huge_pages in ("asked for", "refused")


def test_memory_is_no_option_of_pools_that_have_none() -> None:
    with pytest.raises(TypeError):
        pools.MallocPool(memory=bytearray(PAGE))  # type: ignore[call-arg]


def test_the_core_writes_nothing_but_blocks_into_lent_memory() -> None:
    memory = bytearray(4 * PAGE)
    pool = pools.SlabPool(64, 16, memory=memory)
    batch = pool.acquire_many(16)
    pool.release_many(batch)
    pool.check()
    assert not any(memory)


# ---- lent twice ---------------------------------------------------------------------------


def test_no_two_pools_have_the_same_lent_bytes() -> None:
    memory = bytearray(64 * PAGE)
    halves = memoryview(memory)[: 32 * PAGE], memoryview(memory)[32 * PAGE :]
    first = pools.SlabPool(64, 16, memory=halves[0], name="the first")
    second = pools.SlabPool(64, 16, memory=halves[1])
    for overlapping in (memory, halves[0][PAGE:], halves[1]):
        with pytest.raises(pools.PoolValueError, match="lent to pool"):
            pools.SlabPool(64, 16, memory=overlapping)
    lease = first.acquire()
    first.close()
    with pytest.raises(pools.PoolValueError, match="'the first'"):  # something is live
        pools.SlabPool(64, 16, memory=halves[0])
    lease.release()
    second.close()
    with pools.SlabPool(64, 16, memory=halves[1]) as third:
        third.acquire().release()
    del first, lease
    gc.collect()
    pools.SlabPool(64, 16, memory=memory).close()


def test_a_pool_that_was_not_to_be_leaves_the_memory_free() -> None:
    memory = bytearray(8 * PAGE)
    for parameters in (
        {"block_count": 1 << 20},
        {"block_count": 0},
        {"idle_seconds": 1},
        {"hard_limit": 1},
        {"tag_quota": {"": 1}},
    ):
        with pytest.raises(pools.PoolError):
            pools.SlabPool(64, **({"block_count": 16} | parameters), memory=memory)  # type: ignore[arg-type]
    pools.SlabPool(64, 16, memory=memory).close()


def test_what_only_the_owner_may_change_says_so_and_nothing_else() -> None:
    pool = pools.SlabPool(PAGE, 16)
    errors: list[str] = []

    def change() -> None:
        for call in (pool.set_idle, lambda _: pool.register()):
            try:
                call(1)
            except pools.WrongThread as error:
                errors.append(str(error))

    thread = threading.Thread(target=change)
    thread.start()
    thread.join()
    assert len(errors) == 2
    assert all("adopt()" in text and "barrier" not in text for text in errors)
