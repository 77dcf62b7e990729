"""What is told of a request that ended without a block."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, NamedTuple

from pools._native import CData, ffi, lib
from pools.errors import PoolError, error_for
from pools.refusals import last_refusal

if TYPE_CHECKING:
    from pools.pool import Pool

__all__ = ["Offer", "most_held", "refusal_of", "size_refusal_of"]


class Offer(NamedTuple):
    """What a request finds of the free memory: how many pieces, and the largest of them."""

    granted: int
    """Bytes that the request takes."""
    largest: int
    pieces: int
    kind: str
    """What they are: extents, or what else requests are served from."""


def most_held(pool: Pool, size: int) -> int | None:
    """How many blocks of ``size`` bytes an empty pool could give; None where that is not known.

    It may be more than fit in the end: what the pool's own books need is not taken off.
    """
    most = int(lib.pp_pool_most(pool.native, size))
    return None if most == _UNBOUNDED else most


def size_refusal_of(pool: Pool, most: int, size: int | None, verb: str) -> PoolError:
    """The exception for a size, None for the default one, that is not 1 to ``most`` bytes."""
    bound = pool._about.get("max_bytes", 0)
    most = min(most, bound or most)
    default = pool._about.get("block_size", 0)
    asked = default if size is None else operator.index(size)
    if size is None:
        what = f"a block of the default size, {asked} bytes, from pool {pool.name!r}"
    else:
        what = _asked(pool, 1, asked, verb)
    remedy = f"ask for 1 to {most} bytes"
    if size is None and not default:
        why = "this pool has no default size"
    elif asked < 1:
        why = "a block has at least one byte"
    else:
        why = f"its largest block has {most} bytes" + f", by max_bytes={bound}" * (most == bound)
        larger = _larger(pool) if pool._wider is None or most == bound else pool._wider
        if size is None:
            larger = "create the pool with a smaller block_size"
        remedy = f"ask for at most {most} bytes" + (f", or {larger}" if larger else "")
    return error_for(_SIZE, what, remedy, why=why)


def _asked(pool: Pool, count: int, size: int, verb: str) -> str:
    if verb:
        return f"{verb} {size} bytes of a block of pool {pool.name!r}"
    amount = f"{count} x {size}" if count > 1 else f"{size}"
    return f"acquire of {amount} bytes from pool {pool.name!r}"


def refusal_of(pool: Pool, status: int, count: int, size: int, verb: str = "") -> Exception:
    """The exception for a request of ``count`` blocks of ``size`` bytes, with what the pool had.

    ``verb`` is empty for an acquire.
    """
    size = operator.index(size)
    what = _asked(pool, count, size, verb)
    if status == _QUOTA:
        return error_for(status, what, *_beyond_quota(pool, count, size))
    if status == _TIMEOUT and (refusal := last_refusal()) is not None and refusal.of_quota:
        why = f"the quota of {'the tag' if refusal.tag else 'the pool'} had no room for it in that time"
        return error_for(status, what, _WITHIN_QUOTA, pool.native, why)
    if status == _UNSUPPORTED:
        why, remedy = pool._unresizable
        return error_for(status, what, remedy, pool.native, why)
    if status not in (_EXHAUSTED, _TIMEOUT):
        return error_for(status, what, "", pool.native)
    levels, offer = pool.stats(), pool._offer(size)
    what += f" ({_levels(pool, count, levels, offer)})"
    most = most_held(pool, size)
    if most is not None and count > most:
        why = f"an empty pool has {most or 'no'} such block{'' if most == 1 else 's'}"
        why += f", by max_bytes={bound}" if (bound := pool._about.get("max_bytes")) else ""
        less = "fewer" if most else "smaller blocks"
        return error_for(status, what, f"ask for {less}, or {_larger(pool)}", pool.native, why)
    together = pool._together if levels.free_bytes >= offer.granted else ""
    more_time = "give more timeout, " if status == _TIMEOUT else ""
    remedy = f"{together}release blocks sooner, {more_time}or {_larger(pool)}"
    return error_for(status, what, remedy, pool.native)


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
    hard_limit, own = about.get("hard_limit"), _own_limit(about)
    if hard_limit is None or 0 < own < hard_limit:
        return pool._larger
    if pool._widened or own != hard_limit:
        return f"create the pool with more than hard_limit={hard_limit}"
    return f"{pool._larger} and more than hard_limit={hard_limit}"


def _own_limit(about: dict[str, Any]) -> int:
    """Bytes that the strategy's own parameters allow; 0 where they leave it to others."""
    if "max_count" in about:
        unit = about["alignment"] or _CACHE_LINE
        return int(about["max_count"] * -(-about["block_size"] // unit) * unit)
    return int(about.get("max_capacity", about.get("capacity", about.get("max_bytes", 0))))


def _levels(pool: Pool, count: int, levels: Any, offer: Offer) -> str:
    tag, held = ffi.new("uint32_t *"), ffi.new("uint64_t *")
    lib.pp_pool_top_tag(pool.native, tag, held)
    of = f" of {levels.capacity_blocks}" if levels.capacity_blocks else ""
    holder = f"; tag {pool.tag_text(tag[0])!r} holds the most, {held[0]} bytes" if tag[0] else ""
    return (
        f"{levels.live_blocks}{of} blocks live, "
        f"{levels.free_bytes} bytes free, the largest free {offer.kind} {offer.largest}, "
        f"fragmentation index {_index(pool, count, offer, levels.free_bytes)}{holder}"
    )


def _index(pool: Pool, count: int, offer: Offer, free: int) -> str:
    """The fragmentation index of one of the blocks; -1 is told with what can be said of it."""
    if offer.largest < offer.granted:
        index = 1 - (1 + free / offer.granted) / max(offer.pieces, 1)
        return f"{round(index, 2) + 0.0:.2f}"  # which is never -0.00
    why = "one of them would fit" if count > 1 else pool._fits_and_yet
    return f"-1.00: {why}"


_CACHE_LINE = 64  # what a slab's blocks are rounded up to that was told no alignment
_UNBOUNDED = int(ffi.cast("size_t", -1))
_EXHAUSTED = lib.PP_EXHAUSTED
_QUOTA = lib.PP_QUOTA
_SIZE = lib.PP_SIZE
_TIMEOUT = lib.PP_TIMEOUT
_UNSUPPORTED = lib.PP_UNSUPPORTED
_WITHIN_QUOTA = (
    "release blocks that count against it sooner, raise it with set_quota(), or create the pool with more "
    "timeout"
)
