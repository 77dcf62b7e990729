"""Who keeps memory from being given back: blame, and what a compaction could do about it.

A segment is an aligned piece of a region, the unit in which memory goes back to the system. One
small block keeps a whole segment; blame divides the free bytes of such a segment among those who
live in it, in proportion to their live bytes there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis.layout import Op
from analysis.metrics.extents import covering
from analysis.metrics.formulas import external_fragmentation
from analysis.regions import Regions
from analysis.trace import Trace

Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]

SEGMENT_BYTES = 64 << 10


@dataclass(frozen=True)
class Compaction:
    """What an ideal slide would do to one pool at one instant. Bytes."""

    at_ns: int
    freed_segments: int  # non-empty segments that become empty
    freed_bytes: int
    moved_blocks: int
    moved_bytes: int
    pinned_blocks: int
    pin_floor: float  # external fragmentation that remains


def blame(
    trace: Trace, pool: int, instants: Int64s, segment_bytes: int = SEGMENT_BYTES
) -> list[tuple[int, float]]:
    """Free bytes of non-empty segments by the tag that holds them, mean over the instants.

    For each segment with live bytes: its free bytes times the tag's share of the live bytes. A
    segment that a block covers has no free bytes, so only the two at the ends of a block are looked
    at: the cost follows the number of blocks and not their sizes.
    Returns (tag id, bytes), the most first. Empty for a pool without regions.
    """
    regions = trace.regions.of_pool(pool)
    tenures = trace.tenures
    mine = np.flatnonzero(tenures.pool == pool)
    if not len(regions) or not len(mine) or not len(instants):
        return []
    interval, which = covering(tenures.start[mine], tenures.held[mine], instants)
    block = mine[interval]
    offset, end = tenures.offset[block], tenures.offset[block] + tenures.granted[block]
    piece, number = _end_segments(offset, end, segment_bytes)
    begin = number * segment_bytes
    live = np.minimum(end[piece], begin + segment_bytes) - np.maximum(offset[piece], begin)
    numbers, rank = np.unique(number, return_inverse=True)
    pairs, key = np.unique(which[piece] * len(numbers) + rank, return_inverse=True)
    live_of = np.bincount(key, weights=live, minlength=len(pairs))
    at = instants[pairs // max(len(numbers), 1)]
    capacity = _capacity(regions, at, numbers[pairs % max(len(numbers), 1)] * segment_bytes, segment_bytes)
    free_of = np.maximum(capacity - live_of, 0)
    share = live * (free_of / np.maximum(live_of, 1))[key]
    tags, tag_of = np.unique(tenures.tag[block][piece], return_inverse=True)
    blamed = np.bincount(tag_of.reshape(-1), weights=share) / len(instants)
    return sorted(zip(tags.tolist(), blamed.tolist(), strict=True), key=lambda pair: -pair[1])


def _end_segments(offset: Int64s, end: Int64s, segment_bytes: int) -> tuple[Int64s, Int64s]:
    """Pairs (position, number of a segment): where each block begins, and where it ends if elsewhere."""
    some = np.flatnonzero(end > offset)
    first, last = offset[some] // segment_bytes, (end[some] - 1) // segment_bytes
    other = last > first
    return np.concatenate([some, some[other]]), np.concatenate([first, last[other]])


def _capacity(regions: Regions, at: Int64s, begin: Int64s, segment_bytes: int) -> Int64s:
    """Bytes of address space within each segment, which begins at an offset, at a record index."""
    total = np.zeros(len(begin), np.int64)
    for start, end, offset, size in zip(
        regions.start.tolist(),
        regions.end.tolist(),
        regions.offset.tolist(),
        regions.size.tolist(),
        strict=True,
    ):
        inside = np.minimum(begin + segment_bytes, offset + size) - np.maximum(begin, offset)
        total += np.where((at >= start) & (at < end), np.maximum(inside, 0), 0)
    return total


def compaction(
    trace: Trace, pool: int, instant: int, segment_bytes: int = SEGMENT_BYTES
) -> Compaction | None:
    """Slide the unpinned blocks of a pool towards the beginning of their region, in order.

    Pinned blocks stay; a block that does not fit before the next pin goes behind it. The pin floor
    is computed with the largest extent of each region, since no slide crosses regions: it is 0
    where nothing is pinned. None for a pool without regions.
    """
    regions = trace.regions.of_pool(pool)
    there = np.flatnonzero((regions.start <= instant) & (regions.end > instant))
    if not len(there):
        return None
    tenures = trace.tenures
    live = np.flatnonzero((tenures.pool == pool) & (tenures.start <= instant) & (tenures.held > instant))
    live = live[np.argsort(tenures.offset[live], kind="stable")]
    pinned = np.isin(tenures.block[live], _pinned_blocks(trace, pool, instant))
    freed = moved_blocks = moved_bytes = free = largest = 0
    last_segment = {"before": -1, "after": -1}
    for region in there[np.argsort(regions.offset[there])].tolist():
        begin, end = int(regions.offset[region]), int(regions.offset[region] + regions.size[region])
        inside = (tenures.offset[live] >= begin) & (tenures.offset[live] < end)
        old, size = tenures.offset[live][inside], tenures.granted[live][inside]
        new = _slide(old, size, pinned[inside], begin)
        moved_blocks += int((new != old).sum())
        moved_bytes += int(size[new != old].sum())
        before, last_segment["before"] = _occupied(old, size, segment_bytes, last_segment["before"])
        slid = np.argsort(new)
        after, last_segment["after"] = _occupied(new[slid], size[slid], segment_bytes, last_segment["after"])
        freed += before - after
        gaps = _gaps(new, size, begin, end)
        free += int(gaps.sum())
        largest += int(gaps.max(initial=0))
    return Compaction(
        at_ns=int(trace.times[instant]),
        freed_segments=freed,
        freed_bytes=freed * segment_bytes,
        moved_blocks=moved_blocks,
        moved_bytes=moved_bytes,
        pinned_blocks=int(pinned.sum()),
        pin_floor=external_fragmentation(free, largest),
    )


def _pinned_blocks(trace: Trace, pool: int, instant: int) -> npt.NDArray[np.uint64]:
    """Handles that hold more pins than unpins up to and including a record."""
    at = trace.where(Op.PIN, Op.UNPIN)
    at = at[(at <= instant) & (trace.records["pool"][at] == pool)]
    handles, which = np.unique(trace.records["block"][at], return_inverse=True)
    step = np.where(trace.ops[at] == Op.PIN, 1, -1)
    pins = np.bincount(which.reshape(-1), weights=step, minlength=len(handles))
    held: npt.NDArray[np.uint64] = handles[pins > 0]
    return held


def _slide(old: Int64s, size: Int64s, pinned: npt.NDArray[np.bool_], begin: int) -> Int64s:
    """New offsets of the blocks, which are in order of offset; nothing moves up."""
    new = old.copy()
    if not pinned.any():
        new[:] = begin + np.cumsum(size) - size
        return new
    top = begin
    walls = [(int(old[at]), int(old[at] + size[at])) for at in np.flatnonzero(pinned)]
    wall = 0
    for at in np.flatnonzero(~pinned).tolist():
        while wall < len(walls) and top + int(size[at]) > walls[wall][0]:
            top = max(top, walls[wall][1])
            wall += 1
        new[at] = top
        top += int(size[at])
    return new


def _gaps(offset: Int64s, size: Int64s, begin: int, end: int) -> Int64s:
    order = np.argsort(offset, kind="stable")
    starts = np.append(offset[order], end)
    ends = np.append(begin, (offset + size)[order])
    gaps: Int64s = np.maximum(starts - ends, 0)
    return gaps


def _occupied(offset: Int64s, size: Int64s, segment_bytes: int, seen: int) -> tuple[int, int]:
    """Number of segments beyond `seen` that the blocks (in order) touch, and the last one."""
    if not len(offset):
        return 0, seen
    first, last = offset // segment_bytes, (offset + size - 1) // segment_bytes
    reached = np.maximum.accumulate(np.append(seen, last))
    fresh = np.maximum(last - np.maximum(first, reached[:-1] + 1) + 1, 0)
    return int(fresh.sum()), int(reached[-1])
