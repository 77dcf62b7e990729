"""Small pools of every strategy, to be filled and emptied."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from pools import (
    BuddyPool,
    CompactingPool,
    Lease,
    MallocPool,
    Pool,
    PoolExhausted,
    SizeClassPool,
    SlabPool,
)

STRATEGIES = ["slab", "sizeclass", "buddy", "compacting", "malloc"]
BLOCK = 4096


def make(strategy: str, **options: Any) -> Pool:
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
def strategy(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["slab", "shared slab", "malloc", "shared malloc"])
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    """Of the strategies that differ most, for one thread or for many; sound in the end."""
    shared = request.param.startswith("shared")
    if request.param.endswith("slab"):
        made: Pool = SlabPool(4096, 16, thread_safe=shared)
    else:
        made = MallocPool(thread_safe=shared)
    with made as pool:
        yield pool
        pool.check()


def fill(pool: Pool, tag: str | int = 0) -> list[Lease]:
    leases = []
    while True:
        try:
            leases.append(pool.acquire(BLOCK, tag))
        except PoolExhausted:
            return leases


def release(leases: Iterable[Lease]) -> None:
    for lease in leases:
        lease.release()
