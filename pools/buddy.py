"""Blocks that are powers of two and merge with their neighbours."""

from __future__ import annotations

import sys
from typing import Any, Literal, Unpack

from pools._native import ffi, lib
from pools.errors import PoolError, PoolValueError, error_for
from pools.exhausted import Offer
from pools.lease import Lease
from pools.memory import OwnMemory
from pools.options import RegionOptions, create
from pools.parameters import power_of_two, text, whole
from pools.pool import Pool

__all__ = ["BuddyPool"]

_RANGE = 1 << 63
_CAPACITY_MAX = 1 << 39
_BLOCK_MIN, _BLOCK_MAX = 64, 1 << 30
_BLOCKS_MAX = 1 << 26
_REMEDY = (
    "capacity is 1 to 2**39 bytes, at most max_capacity (or the hard_limit to grow to) and at most 2**26 "
    "smallest blocks; min_block is a power of two from 64 to 2**30"
)


def _within(most: int, unit: int) -> str:
    if most == _CAPACITY_MAX:
        return f"give 1 to {most} bytes"
    return f"give 1 to {most} bytes, which are 2**26 blocks of min_block={unit}, or a larger min_block"


class BuddyPool(OwnMemory, Pool):
    """Blocks of any power of two from ``min_block`` bytes, cut from and merged in one contiguous range.

    ``capacity`` bytes are committed at once, rounded up to whole pages; ``max_capacity`` lets the pool
    grow by regions up to that many, without it the pool never grows. A request is granted the next
    power of two, and its block is aligned to its size, up to 2 MiB. ``merge`` is ``"lazy"``: up to 30
    released blocks of each size wait unmerged for the next request of that size, or ``"eager"``: each
    release merges as far as it goes. ``block_size`` is what ``acquire()`` asks for without a size. The
    other parameters are ``SlabPool``'s.

    ``lease.resize()`` works in place where the neighbour is free and otherwise moves the block, whose
    handle stays; it raises ``BlockPinned`` while the block is pinned or a view of it is alive,
    ``PoolExhausted`` where no block fits, and ``Unsupported`` for a reserved range that is no power of
    two; the block is then as it was.

    Raises ``PoolValueError`` or ``OutOfMemory``.
    """

    strategy = "buddy"
    _larger = "create the pool with a larger capacity or max_capacity"
    _unresizable = (
        "it is a reserved range that is no single block: a power of two of bytes at a multiple of that",
        "reserve or acquire another, copy what it holds, and release this one",
    )

    def __init__(
        self,
        capacity: int = 64 << 20,
        min_block: int = 256,
        *,
        name: str = "buddy",
        block_size: int = 4096,
        max_capacity: int | None = None,
        merge: Literal["lazy", "eager"] = "lazy",
        **options: Unpack[RegionOptions],
    ):
        about: dict[str, Any] = {
            "name": name,
            "block_size": block_size,
            "capacity": capacity,
            "max_capacity": capacity if max_capacity is None else max_capacity,
            "min_block": min_block,
            "merge": merge,
        }
        of = f" of pool {text('name', name)!r}"
        about["min_block"] = power_of_two("min_block", min_block, _BLOCK_MIN, _BLOCK_MAX, of)
        most = min(_CAPACITY_MAX, _BLOCKS_MAX * about["min_block"])
        for what in ("capacity", "max_capacity"):
            about[what] = whole(what, about[what], 1, most, of, _within(most, about["min_block"]))
        if about["max_capacity"] < about["capacity"]:
            raise PoolValueError(
                f"max_capacity={max_capacity}{of}: it begins with capacity={capacity}; give that or more, or "
                "leave it out"
            )
        about["block_size"] = whole("block_size", block_size, 1, _RANGE - 1, of)
        if merge not in ("lazy", "eager"):
            raise PoolValueError(f"merge={merge!r} of pool {name!r}: choose 'lazy' or 'eager'")
        config = ffi.new("pp_buddy_config *")
        config.capacity_bytes = capacity
        config.max_capacity_bytes = about["max_capacity"]
        config.min_block_bytes = min_block
        config.merge = lib.PP_BUDDY_EAGER if merge == "eager" else 0
        status, native = create(lib.pp_buddy_create, config, name, options, about)
        if status:
            raise error_for(
                status,
                f"BuddyPool {name!r} of {capacity} bytes (max_capacity {about['max_capacity']}, min_block "
                f"{min_block})",
                _REMEDY,
            )
        super().__init__(native, strict=options.get("strict", False), about=about)

    def _offer(self, size: int) -> Offer:
        out = ffi.new("pp_buddy_offer *")
        lib.pp_buddy_offered(self._c, size, out)
        return Offer(out.granted_bytes, out.largest_bytes, out.blocks, "block")

    def reserve(self, offset: int, size: int, tag: str | int = 0) -> Lease:
        """Take the ``size`` bytes at ``offset`` (bytes from the pool's origin, as ``walk()`` tells them).

        ``size`` is rounded up to smallest blocks. Raises ``PoolValueError`` (offset is no multiple of the
        smallest block, or the range leaves the capacity that there is now), ``PoolExhausted`` (a part of
        it is not free), ``PoolClosed``, ``WrongThread`` or ``OutOfMemory``.
        """
        frame = sys._getframe(1)
        of = f" of a reserve of pool {self.name!r}"
        offset = whole("offset", offset, 0, _RANGE - 1, of)
        size = whole("size", size, 1, _RANGE - 1, of)
        self._sweep()
        mark = ffi.new("pp_site_mark *")
        if self._records_sites:
            mark.pool, mark.site = self._c, self._site_number(frame.f_code, frame.f_lasti)
        block = ffi.new("pp_block *")
        number = self._tag_number(tag)
        lib.pp_swap_site(mark)
        try:
            status = lib.pp_buddy_reserve(self._c, offset, size, number, block)
        finally:
            lib.pp_swap_site(mark)
        if status:
            raise self._reserve_error(status, offset, size)
        address = int(ffi.cast("uintptr_t", block.data))
        return self.lease(block.handle, address, block.size, frame.f_code, frame.f_lasti)

    def _reserve_error(self, status: int, offset: int, size: int) -> PoolError:
        what = f"reserve of {size} bytes at {offset} of pool {self.name!r}"
        if status == lib.PP_ALIGNMENT:
            unit = self._about["min_block"]
            why = f"offset {offset} is not a multiple of {unit}, its min_block"
            return error_for(status, what, f"give a multiple of {unit}", why=why)
        if status == lib.PP_SIZE:
            levels = self.stats()
            end = levels.granted_bytes + levels.free_bytes
            why = f"the range ends behind the pool's capacity, which is {end} bytes now"
            return error_for(status, what, f"stay within offsets 0 to {end}", why=why)
        why = "a part of the range is taken" * (status == lib.PP_EXHAUSTED)
        return error_for(status, what, "walk() tells which extents are free", self._c, why)
