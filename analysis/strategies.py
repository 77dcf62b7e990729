"""The strategies that a server can take its buffers from, by name: one line each."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pools import AutoCompact, BuddyPool, CompactingPool, MallocPool, Pool, SizeClassPool, SlabPool

__all__ = ["STRATEGIES", "Strategy"]

_SLAB_BLOCK = 16 * 1024
_BUDDY_FIRST = 1 << 20


class Strategy(NamedTuple):
    """A way to provide buffers."""

    text: str
    """What it is, in one line."""
    build: Callable[[int], Pool]
    """Makes a pool that can hold about so many bytes of live buffers."""


STRATEGIES: dict[str, Strategy] = {
    "slab": Strategy(
        "blocks of 16 KiB from one region",
        lambda capacity: SlabPool(_SLAB_BLOCK, 64, max_count=max(64, capacity // _SLAB_BLOCK), name="slab"),
    ),
    "sizeclass": Strategy(
        "slabs by size class, for requests of any size",
        lambda capacity: SizeClassPool(capacity=capacity, name="sizeclass"),
    ),
    "buddy": Strategy(
        "powers of two, split and merged",
        lambda capacity: BuddyPool(_BUDDY_FIRST, 256, max_capacity=capacity, name="buddy"),
    ),
    "compacting": Strategy(
        "blocks of any size that are moved together when holes are in the way",
        lambda capacity: CompactingPool(capacity, name="compacting", auto_compact=AutoCompact()),
    ),
    "malloc": Strategy(
        "the C library's allocator, the baseline",
        lambda capacity: MallocPool(name="malloc", max_bytes=capacity),
    ),
}
"""Every strategy that servers know, ours first."""
