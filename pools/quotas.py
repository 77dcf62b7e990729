"""How much of a pool may be live at once, in all and under each tag."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pools._native import CData, ffi, lib
from pools.errors import PoolError, PoolValueError, error_for
from pools.parameters import a_pool, text, whole

if TYPE_CHECKING:
    from pools.pool import Pool

__all__ = [
    "Crossing",
    "Quota",
    "QuotaLevels",
    "bounded",
    "fill_quota",
    "impose_quota",
    "quota_levels",
    "quota_of",
    "set_quota",
    "tag_text",
]

_RANGE = 1 << 63


@dataclass(frozen=True, slots=True)
class Quota:
    """Bounds of what may be live at once, of a pool or of a tag; None is no bound.

    ``high`` and ``low`` are watermarks, in bytes: the pool's ``on_watermark`` is called when what is live
    rises to ``high``, and again only after it has fallen to ``low``, for which it is called as well.
    """

    bytes: int | None = None
    """As requested, not as granted."""
    blocks: int | None = None
    high: int | None = None
    low: int | None = None


class Crossing(NamedTuple):
    """A watermark was crossed."""

    pool: str
    """The pool's name."""
    tag: str
    """Whose mark; empty for the pool's own."""
    rising: bool
    """True: the high mark was reached; False: the low one."""
    bytes: int
    """Live after the call that crossed it."""
    mark: int


class QuotaLevels(NamedTuple):
    """What counts against a quota now."""

    quota: Quota
    bytes: int
    blocks: int
    refusals: int
    """Requests that it refused."""
    above: bool
    """The high mark was reached, and the low one not since."""


# ---- to the core and back ---------------------------------------------------------------------


def tag_text(pool: CData, tag: int) -> str:
    """The text of a tag of a C pool; empty for none."""
    size = ffi.new("size_t *")
    text = lib.pp_pool_tag_text(pool, tag, size)
    return "" if text == ffi.NULL else bytes(ffi.buffer(text, size[0])).decode("utf-8", "replace")


def bounded(name: str, value: int | None, of: str = "") -> int:
    """A bound as C has it, 0 for none. Raises ``PoolValueError``."""
    if value is None:
        return 0
    return whole(name, value, 1, _RANGE - 1, of)


_IN_QUOTA = {name: f"Quota.{name}" for name in ("bytes", "blocks", "high", "low")}


def quota_of(wanted: Any, what: str, of: str) -> Quota:
    """What was given for a quota as one; ``what`` and ``of`` name it. Raises ``TypeError``."""
    if isinstance(wanted, Quota):
        return wanted
    if wanted is None or hasattr(wanted, "__index__"):
        return Quota(bytes=wanted)
    tags = "; quotas of tags are given as tag_quota=" * (what == "quota" and isinstance(wanted, Mapping))
    raise TypeError(f"{what}={wanted!r}{of}: give a Quota, a number of bytes, or None for no bound{tags}")


def fill_quota(quota: CData, wanted: Quota, of: str, names: Mapping[str, str] = _IN_QUOTA) -> None:
    """Write a quota into the struct of C; ``names`` are what the program calls each part of it.

    Raises ``PoolValueError``.
    """
    quota.max_bytes = bounded(names["bytes"], wanted.bytes, of)
    quota.max_blocks = bounded(names["blocks"], wanted.blocks, of)
    quota.high_bytes = bounded(names["high"], wanted.high, of)
    if wanted.low is None:
        quota.low_bytes = 0
        return
    quota.low_bytes = low = whole(names["low"], wanted.low, 0, _RANGE - 1, of)
    if wanted.high is None:
        raise PoolValueError(
            f"{names['low']}={low}{of}: there is no high mark that it could be below; give {names['high']} "
            f"too, {low + 1} or more"
        )
    if low >= wanted.high:
        raise PoolValueError(
            f"{names['low']}={low}{of}: it is not below {names['high']}={wanted.high}; give 0 to "
            f"{wanted.high - 1}"
        )


def _intern(native: CData, tag: str) -> int:
    data = text("tag", tag).encode("utf-8", "surrogatepass")
    out = ffi.new("uint32_t *")
    status = lib.pp_pool_tag(native, data, len(data), out)
    if status:
        raise error_for(status, f"a tag of {len(data)} bytes", "use 1 to 4096 bytes of UTF-8")
    return int(out[0])


def _refused(status: int, what: str, tag: str) -> PoolError:
    if status != _UNSUPPORTED:
        return error_for(status, what)
    if tag:
        return error_for(status, what, "create it with tag_quota=", why="the pool counts nothing by tag")
    return error_for(
        status, what, "create it with quota=", why="the pool was created without a quota, and counts nothing"
    )


def impose_quota(native: CData, quota: Quota | int | None, tag: str, name: str) -> None:
    """Set the quota of a tag, or without one of the C pool; ``name`` is the pool's."""
    wanted = ffi.new("pp_quota *")
    text("tag", tag, f" of a quota of pool {name!r}")
    what = f"quota of tag {tag!r}" if tag else "quota"
    of = f" of tag {tag!r}" * bool(tag) + f" of pool {name!r}"
    fill_quota(wanted, quota_of(quota, "quota", of), of)
    status = lib.pp_pool_set_quota(native, _intern(native, tag) if tag else 0, wanted)
    if status:
        raise _refused(status, f"{what} of pool {name!r}", tag)


def set_quota(pool: Pool, quota: Quota | int | None, tag: str = "") -> None:
    """Replace the quota of a tag, or without one of the pool; what is live stays so, even beyond it.

    Raises ``Unsupported`` for a pool that was created without a quota of the kind, ``PoolValueError`` and
    ``WrongThread``.
    """
    a_pool("set_quota", pool)
    impose_quota(pool.native, quota, tag, pool.name)


def quota_levels(pool: Pool, tag: str = "") -> QuotaLevels:
    """What counts against the quota of a tag, or without one of the pool.

    Raises ``Unsupported`` for a pool that was created without a quota of the kind.
    """
    a_pool("quota_levels", pool)
    out = ffi.new("pp_quota_levels *")
    text("tag", tag, f" of a quota of pool {pool.name!r}")
    status = lib.pp_pool_quota_levels(pool.native, _intern(pool.native, tag) if tag else 0, out)
    if status:
        what = f"quota_levels of tag {tag!r}" if tag else "quota_levels"
        raise _refused(status, f"{what} of pool {pool.name!r}", tag)
    bounds = out.quota
    return QuotaLevels(
        Quota(
            bounds.max_bytes or None,
            bounds.max_blocks or None,
            bounds.high_bytes or None,
            bounds.low_bytes or None,
        ),
        out.bytes,
        out.blocks,
        out.refusals,
        bool(out.above),
    )


_UNSUPPORTED = lib.PP_UNSUPPORTED
