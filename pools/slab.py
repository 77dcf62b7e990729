"""Fixed-size blocks."""

from __future__ import annotations

import mmap
from typing import Any, Unpack

from pools._native import ffi, lib
from pools.errors import PoolValueError, error_for
from pools.memory import OwnMemory
from pools.options import RegionOptions, create
from pools.parameters import power_of_two, text, whole
from pools.pool import Pool

__all__ = ["SlabPool"]

_BLOCK_MAX = 1 << 30
_COUNT_MAX = 1 << 28
_CACHE_LINE = 64


class SlabPool(OwnMemory, Pool):
    """Blocks of one size in one contiguous region, handed out last-in-first-out.

    ``block_size`` is in bytes (1 to 1 GiB), ``block_count`` blocks are reserved at once.
    ``max_count`` lets the pool grow up to that many blocks; without it the pool never grows.
    ``alignment`` is a power of two from 16 to the page; 0 means the cache line, or the page for
    blocks that are whole pages. Below the page such blocks begin at different cache lines, so that
    the same words of many of them stay cached together, and lie on one page more each. ``guaranteed``
    blocks are backed by memory from the beginning, and stay so. ``scrub`` zeroes a block before its next
    owner sees it; ``ages`` keeps the acquisition time of each block; ``huge_pages`` asks for huge pages;
    ``strict`` makes ``close()`` raise ``LeakError`` when something is live.

    Raises ``PoolValueError`` or ``OutOfMemory``.
    """

    strategy = "slab"
    _larger = "create the pool with a larger block_count or max_count"
    _wider = "create the pool with a larger block_size"

    def __init__(
        self,
        block_size: int,
        block_count: int,
        *,
        name: str = "slab",
        max_count: int | None = None,
        alignment: int = 0,
        guaranteed: int = 0,
        **options: Unpack[RegionOptions],
    ):
        about: dict[str, Any] = {
            "name": name,
            "block_size": block_size,
            "block_count": block_count,
            "max_count": block_count if max_count is None else max_count,
            "alignment": alignment,
            "guaranteed": guaranteed,
        }
        of = f" of pool {text('name', name)!r}"
        for what, low, high in (
            ("block_size", 1, _BLOCK_MAX),
            ("block_count", 1, _COUNT_MAX),
            ("max_count", 1, _COUNT_MAX),
            ("guaranteed", 0, _COUNT_MAX),
        ):
            about[what] = whole(what, about[what], low, high, of)
        about["alignment"] = power_of_two("alignment", alignment, 16, mmap.PAGESIZE, of, zero=True)
        _check_counts(about, of)
        config = ffi.new("pp_slab_config *")
        config.block_bytes = about["block_size"]
        config.block_count = about["block_count"]
        config.max_count = about["max_count"]
        config.alignment = about["alignment"]
        config.guaranteed_count = about["guaranteed"]
        status, native = create(lib.pp_slab_create, config, name, options, about)
        if status:
            raise error_for(
                status,
                f"SlabPool {name!r} of {block_count} x {block_size} bytes (max_count {about['max_count']}, "
                f"alignment {alignment}, guaranteed {guaranteed})",
                "block_size is 1 to 2**30, max_count (or what a hard_limit to grow to makes of it) and "
                "block_count 1 to 2**28, block_count at most max_count, guaranteed at most block_count, "
                "alignment a power of two from 16 to the page",
            )
        super().__init__(native, strict=options.get("strict", False), about=about)
        self.block_size = block_size

    def _bytes_of(self, most: int) -> int:
        # as pp_slab_create() chooses it
        whole_pages = self.block_size % mmap.PAGESIZE == 0
        alignment = self._about["alignment"] or (mmap.PAGESIZE if whole_pages else _CACHE_LINE)
        return most * (-(-self.block_size // alignment) * alignment)


def _check_counts(about: dict[str, Any], of: str) -> None:
    count, most, guaranteed = about["block_count"], about["max_count"], about["guaranteed"]
    if most < count:
        raise PoolValueError(
            f"max_count={most}{of}: it begins with block_count={count}; give that or more, or leave it out"
        )
    if guaranteed > count:
        raise PoolValueError(
            f"guaranteed={guaranteed}{of}: it begins with block_count={count}; give 0 to {count}"
        )
