"""A pool as a strip: what Jupyter shows for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from pools.stats import BlockInfo

if TYPE_CHECKING:
    from pools.pool import Pool

__all__ = ["html_of"]

_CELLS = 240
_HEIGHT = 26
_OWNED, _PINNED, _FREE = "#0072b2", "#d55e00", "#e8eaed"  # Okabe and Ito's, told apart by everybody
_SPARSE = 64
_TAGS_SHOWN = 5
_KIB = 1024


class _Extent(NamedTuple):
    begin: int
    end: int
    state: str


def _bytes_text(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < _KIB:
            return f"{size:.0f} {unit}" if unit == "B" or size == int(size) else f"{size:.1f} {unit}"
        size /= _KIB
    return f"{size:.1f} GiB"


def _extents(blocks: Iterable[BlockInfo]) -> tuple[list[_Extent], bool]:
    """The blocks as extents from 0 on, and whether they are to scale.

    An allocator whose blocks lie anywhere in the address space has them laid end to end.
    """
    found = [
        _Extent(block.offset, block.offset + block.granted, "pinned" if any(block.pins) else block.state)
        for block in blocks
        if block.granted
    ]
    if not found:
        return [], True
    base, held = found[0].begin, sum(extent.end - extent.begin for extent in found)
    if found[-1].end - base <= _SPARSE * held:
        return [extent._replace(begin=extent.begin - base, end=extent.end - base) for extent in found], True
    laid: list[_Extent] = []
    at = 0
    for extent in found:
        laid.append(_Extent(at, at + extent.end - extent.begin, extent.state))
        at = laid[-1].end
    return laid, False


def _cells(extents: list[_Extent]) -> list[tuple[float, float]]:
    """For each cell of the strip the share of its bytes that is owned, and that is pinned."""
    total = extents[-1].end
    owned, pinned = [0.0] * _CELLS, [0.0] * _CELLS
    for extent in extents:
        if extent.state in ("free", "cached"):
            continue
        into = pinned if extent.state == "pinned" else owned
        begin, end = extent.begin * _CELLS / total, extent.end * _CELLS / total
        for cell in range(int(begin), min(int(end) + 1, _CELLS)):
            into[cell] += max(0.0, min(end, cell + 1) - max(begin, cell))
    return list(zip(owned, pinned, strict=True))


def _drawing(extents: list[_Extent]) -> str:
    parts = [f'<rect width="{_CELLS}" height="{_HEIGHT}" fill="{_FREE}"/>']
    for cell, shares in enumerate(_cells(extents)):
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
    blocks, stats = pool.walk(), pool.stats()
    extents, to_scale = _extents(blocks)
    held: Counter[str] = Counter()
    for block in blocks:
        if block.handle:
            held[block.tag or "no tag"] += block.granted
    holders = ", ".join(f"{escape(tag)} {_bytes_text(size)}" for tag, size in held.most_common(_TAGS_SHOWN))
    levels = (
        f"{stats.live_blocks} live, {_bytes_text(stats.requested_bytes)} asked for, "
        f"{_bytes_text(stats.granted_bytes)} granted, {_bytes_text(stats.free_bytes)} free; "
        f"internal fragmentation {stats.internal_fragmentation:.0%}, "
        f"external {stats.external_fragmentation:.0%}"
    )
    swatch = '<span style="color:{}">&#9632;</span> {}'
    legend = " ".join(swatch.format(*entry) for entry in ((_OWNED, "owned"), (_PINNED, "pinned")))
    scale = "" if to_scale else "; blocks laid end to end"
    return (
        '<div style="font:13px sans-serif;max-width:60em">'
        f"<b>{escape(pool.name)}</b> ({escape(pool.strategy)}): {levels}"
        + (_drawing(extents) if extents else "")
        + f'<div style="color:#5f6368">{legend} <span style="color:#9aa0a6">&#9633;</span> free{scale}'
        + (f" &middot; most held by {holders}" if holders else "")
        + "</div></div>"
    )
