"""The strategies that a trace can be replayed under: how each is built to fit the requests.

What a strategy is built with depends on the requests and the limit alone, never on the machine, so
that a replay is the same everywhere. A strategy is refused with a sentence where it cannot fit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import pools
from analysis.errors import PlatformLacks
from analysis.units import bytes_text, count_text
from pools.learning import learn_classes

__all__ = ["STRATEGIES", "Shape", "Strategy", "Unfit", "build", "shape_of"]

_SLAB_BLOCK_MAX = 1 << 30
_SLAB_FIRST = 64
_SIZECLASS_BLOCK_MAX = 1 << 27
_SIZECLASS_CAPACITY_MAX = 1 << 34
_BUDDY_UNITS_MAX = 1 << 26
_BUDDY_FIRST = 1 << 20
_CLASSES = 32
_ROOM = 16 << 20
_COMPACT_EVERY = 1 << 20
_COMPACT_BYTES = 256 << 10


class Unfit(Exception):
    """The strategy cannot serve these requests at all; the text says why."""


class Shape(NamedTuple):
    """What of the requests decides how large a pool must be. Bytes as requested."""

    largest: int
    peak_bytes: int
    peak_blocks: int
    limit_bytes: int
    classes: list[int]

    def capacity(self, factor: int) -> int:
        """Bytes for `factor` times the peak and some room, whole MiB, at most the limit."""
        wanted = max(factor * self.peak_bytes, self.peak_bytes + self.largest) + _ROOM
        return min(-(-wanted >> 20) << 20, self.limit_bytes)


class Strategy(NamedTuple):
    """Something that serves requests."""

    text: str
    build: Callable[[Shape, str], pools.Pool]
    """Builds the pool under a name, or raises `Unfit` or `pools.PoolError`."""
    library: str | None = None
    """The allocator that is called directly where time is taken: "" for the C library's."""
    compact_every: int = 0
    """Bytes acquired between two compactions; 0: never."""
    compact_bytes: int = 0


def _slab(shape: Shape, name: str) -> pools.Pool:
    size = max(shape.largest, 1)
    count = max(shape.peak_blocks, 1)
    if size > _SLAB_BLOCK_MAX or size * count > shape.limit_bytes:
        raise Unfit(
            f"{count_text(count)} blocks of the largest size requested, {bytes_text(size)}, take "
            f"{bytes_text(size * count)}, more than the limit of {bytes_text(shape.limit_bytes)}"
        )
    first = min(count, _SLAB_FIRST)
    return pools.SlabPool(size, first, max_count=count, name=name, ages=False, debug=False)


def _sizeclass(shape: Shape, name: str, classes: list[int] | None = None) -> pools.Pool:
    capacity = min(shape.capacity(2), _SIZECLASS_CAPACITY_MAX)
    largest = min(max(shape.largest, 32768, *(classes or [0])), _SIZECLASS_BLOCK_MAX, capacity)
    return pools.SizeClassPool(
        largest, capacity=capacity, classes=classes, name=name, ages=False, debug=False
    )


def _buddy(shape: Shape, name: str) -> pools.Pool:
    # A power of two may be nearly twice the request, and neighbours must be buddies to merge.
    capacity = shape.capacity(4)
    smallest = 64
    while capacity // smallest > _BUDDY_UNITS_MAX:
        smallest *= 2
    first = min(capacity, _BUDDY_FIRST)
    return pools.BuddyPool(first, smallest, max_capacity=capacity, name=name, ages=False, debug=False)


def _compacting(shape: Shape, name: str) -> pools.Pool:
    return pools.CompactingPool(shape.capacity(2), name=name, ages=False, debug=False)


def _malloc(library: str | None) -> Callable[[Shape, str], pools.Pool]:
    def build(shape: Shape, name: str) -> pools.Pool:
        return pools.MallocPool(library, name=name, max_bytes=shape.limit_bytes, ages=False, debug=False)

    return build


STRATEGIES: dict[str, Strategy] = {
    "slab": Strategy("blocks of the largest size requested", _slab),
    "sizeclass": Strategy("slabs by size class", _sizeclass),
    "sizeclass-learned": Strategy(
        f"the same with the {_CLASSES} classes that waste least for these requests",
        lambda shape, name: _sizeclass(shape, name, shape.classes),
    ),
    "buddy": Strategy("powers of two, split and merged", _buddy),
    "compacting": Strategy(
        "blocks of any size, moved together: up to 256 KiB for each MiB acquired",
        _compacting,
        compact_every=_COMPACT_EVERY,
        compact_bytes=_COMPACT_BYTES,
    ),
    "compacting-off": Strategy("the same, never moved", _compacting),
    "malloc": Strategy("the C library's allocator", _malloc(None), library=""),
    "mimalloc": Strategy("mimalloc", _malloc("mimalloc"), library="mimalloc"),
    "jemalloc": Strategy("jemalloc", _malloc("jemalloc"), library="jemalloc"),
    "tcmalloc": Strategy("tcmalloc", _malloc("tcmalloc"), library="tcmalloc"),
}
"""Every strategy by name, ours first."""


def shape_of(largest: int, peak_bytes: int, peak_blocks: int, limit: int, sizes: dict[int, int]) -> Shape:
    """The shape of some requests; `sizes` says how often each was asked for, in bytes."""
    asked = Counter({size: count for size, count in sizes.items() if size > 0})
    classes = learn_classes(asked, _CLASSES) if asked else [64]
    return Shape(largest, peak_bytes, peak_blocks, limit, classes)


def build(name: str, shape: Shape) -> pools.Pool:
    """The pool of a strategy. Raises `Unfit`, `PlatformLacks`, or `pools.PoolError`."""
    try:
        return STRATEGIES[name].build(shape, name)
    except pools.Unsupported as error:
        raise PlatformLacks(str(error)) from error
