"""What is told of a request that ended without a block."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pools._native import ffi, lib
from pools.errors import error_for

if TYPE_CHECKING:
    from pools.pool import Pool

__all__ = ["refusal_of"]


def refusal_of(pool: Pool, status: int, count: int, size: int) -> Exception:
    """The exception for a request of ``count`` blocks of ``size`` bytes, with what the pool had."""
    what = f"acquire of {count} x {size} bytes" if count > 1 else f"acquire of {size} bytes"
    what += f" from pool {pool.name!r}"
    if status != _EXHAUSTED:
        return error_for(status, what, "", pool.native)
    levels = pool.stats()
    extents = max(levels.free_extents, 1)
    fits = levels.largest_free_bytes >= size
    index = -1.0 if fits else 1 - (1 + levels.free_bytes / size) / extents
    tag, held = ffi.new("uint32_t *"), ffi.new("uint64_t *")
    lib.pp_pool_top_tag(pool.native, tag, held)
    of = f" of {levels.capacity_blocks}" if levels.capacity_blocks else ""
    holder = f"; tag {pool.tag_text(tag[0])!r} holds the most, {held[0]} bytes" if tag[0] else ""
    return error_for(
        status,
        f"{what} ({levels.live_blocks}{of} blocks live, "
        f"{levels.free_bytes} bytes free, the largest free extent {levels.largest_free_bytes}, "
        f"fragmentation index {index:.2f}{holder})",
        pool._remedy_when_exhausted(),
    )


_EXHAUSTED = lib.PP_EXHAUSTED
