"""What is told of a request that ended without a block."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pools._native import CData, ffi, lib
from pools.errors import error_for
from pools.refusals import last_refusal

if TYPE_CHECKING:
    from pools.pool import Pool

__all__ = ["most_held", "refusal_of"]


def most_held(pool: Pool, size: int) -> int | None:
    """How many blocks of ``size`` bytes an empty pool could give; None where that is not known.

    It may be more than fit in the end: what the pool's own books need is not taken off.
    """
    most = int(lib.pp_pool_most(pool.native, size))
    return None if most == _UNBOUNDED else most


def refusal_of(pool: Pool, status: int, count: int, size: int) -> Exception:
    """The exception for a request of ``count`` blocks of ``size`` bytes, with what the pool had."""
    what = f"acquire of {count} x {size} bytes" if count > 1 else f"acquire of {size} bytes"
    what += f" from pool {pool.name!r}"
    if status == _QUOTA:
        return error_for(status, what, *_beyond_quota(pool, count, size))
    if status not in (_EXHAUSTED, _TIMEOUT):
        return error_for(status, what, "", pool.native)
    what += f" ({_levels(pool, size)})"
    most = most_held(pool, size)
    if most is not None and count > most:
        why = f"an empty pool has {most} such block{'' if most == 1 else 's'}"
        return error_for(status, what, f"ask for fewer, or {_larger(pool)}", pool.native, why)
    more_time = "give more timeout, " if status == _TIMEOUT else ""
    return error_for(status, what, f"{pool._sooner}, {more_time}or {_larger(pool)}", pool.native)


def _beyond_quota(pool: Pool, count: int, size: int) -> tuple[str, CData, str]:
    """Remedy, pool and reason; no reason where the quota is large enough for the request."""
    refusal = last_refusal()
    asked = 0 if refusal is None else count if refusal.unit == "blocks" else count * size
    if refusal is None or asked <= refusal.limit:
        return "", pool.native, ""
    why = f"it asks for {asked} {refusal.unit}, the quota is {refusal.limit}"
    return "ask for less at once, or raise the quota with set_quota()", pool.native, why


def _larger(pool: Pool) -> str:
    """How the program gets a pool that has more."""
    about = pool._about
    if about.get("on_exhausted") == "fallback" and "fallback_limit" in about:
        return f"create the pool with more than fallback_limit={about['fallback_limit']}, or with none"
    if "hard_limit" in about:
        return f"{pool._larger} and more than hard_limit={about['hard_limit']}"
    return pool._larger


def _levels(pool: Pool, size: int) -> str:
    levels = pool.stats()
    extents = max(levels.free_extents, 1)
    fits = levels.largest_free_bytes >= size
    index = -1.0 if fits else 1 - (1 + levels.free_bytes / size) / extents
    tag, held = ffi.new("uint32_t *"), ffi.new("uint64_t *")
    lib.pp_pool_top_tag(pool.native, tag, held)
    of = f" of {levels.capacity_blocks}" if levels.capacity_blocks else ""
    holder = f"; tag {pool.tag_text(tag[0])!r} holds the most, {held[0]} bytes" if tag[0] else ""
    return (
        f"{levels.live_blocks}{of} blocks live, "
        f"{levels.free_bytes} bytes free, the largest free extent {levels.largest_free_bytes}, "
        f"fragmentation index {index:.2f}{holder}"
    )


_UNBOUNDED = int(ffi.cast("size_t", -1))
_EXHAUSTED = lib.PP_EXHAUSTED
_QUOTA = lib.PP_QUOTA
_TIMEOUT = lib.PP_TIMEOUT
