"""A pool as a strip: what Jupyter shows for it."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from pools._native import CData, ffi, lib

if TYPE_CHECKING:
    from pools.pool import Pool

__all__ = ["html_of"]

_CELLS = lib.PP_STRIP_CELLS
_HEIGHT = 26
_OWNED, _PINNED, _FREE = "#0072b2", "#d55e00", "#e8eaed"  # Okabe and Ito's, told apart by everybody
_KIB = 1024


def _bytes_text(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < _KIB:
            return f"{size:.0f} {unit}" if unit == "B" or size == int(size) else f"{size:.1f} {unit}"
        size /= _KIB
    return f"{size:.1f} GiB"


def _drawing(strip: CData) -> str:
    parts = [f'<rect width="{_CELLS}" height="{_HEIGHT}" fill="{_FREE}"/>']
    for cell, shares in enumerate(zip(strip.owned, strip.pinned, strict=True)):
        bottom = float(_HEIGHT)
        for share, colour in zip(shares, (_OWNED, _PINNED), strict=True):
            high = _HEIGHT * min(share, 1.0)
            bottom -= high
            if high:
                parts.append(
                    f'<rect x="{cell}" y="{bottom:.1f}" width="1" height="{high:.1f}" fill="{colour}"/>'
                )
    style = f"width:100%;height:{_HEIGHT}px;display:block"
    return (
        f'<svg viewBox="0 0 {_CELLS} {_HEIGHT}" preserveAspectRatio="none" shape-rendering="crispEdges" '
        f'style="{style}">{"".join(parts)}</svg>'
    )


def html_of(pool: Pool) -> str:
    """A box with the pool's levels, its memory from the lowest address to the highest, and who holds most."""
    strip, stats = ffi.new("pp_strip *"), pool.stats()
    status = lib.pp_pool_strip(pool.native, strip)
    if status:
        raise pool._error(status, "strip")
    holders = ", ".join(
        f"{escape(pool.tag_text(holder.tag) or 'no tag')} {_bytes_text(holder.bytes)}"
        for holder in strip.holders
        if holder.bytes
    )
    levels = (
        f"{stats.live_blocks} live, {_bytes_text(stats.requested_bytes)} asked for, "
        f"{_bytes_text(stats.granted_bytes)} granted, {_bytes_text(stats.free_bytes)} free; "
        f"internal fragmentation {stats.internal_fragmentation:.0%}, "
        f"external {stats.external_fragmentation:.0%}"
    )
    swatch = '<span style="color:{}">&#9632;</span> {}'
    legend = " ".join(swatch.format(*entry) for entry in ((_OWNED, "owned"), (_PINNED, "pinned")))
    scale = "; blocks laid end to end" if strip.laid else ""
    return (
        '<div style="font:13px sans-serif;max-width:60em">'
        f"<b>{escape(pool.name)}</b> ({escape(pool.strategy)}): {levels}"
        + (_drawing(strip) if strip.extents else "")
        + f'<div style="color:#5f6368">{legend} <span style="color:#9aa0a6">&#9633;</span> free{scale}'
        + (f" &middot; most held by {holders}" if holders else "")
        + "</div></div>"
    )
