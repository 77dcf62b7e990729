"""Where the holes were: free extents at chosen instants.

The trace records no free memory, only regions and blocks. At an instant, what lies inside a region
and outside every block is free. For all instants at once:

    region   |<------------------------------------------>|
    blocks      [aaaa]      [bb][cccccc]         [d]
    items    E  a           b   c                d         E      sorted by (instant, offset)
    gaps     |--|    |-----|            |--------|  |------|      from each item's end to the next

Regions that touch are one: memory is contiguous whatever the number of system calls that made it.
A tenure that covers no instant drops out before anything is sorted, so the cost follows what was
live at the instants and not the length of the run.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis.regions import Regions
from analysis.trace import Trace

Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]

MAX_ITEMS = 4_000_000


@dataclass(frozen=True)
class FreeExtents:
    """Maximal free extents of one pool, ordered by instant and offset."""

    instants: Int64s  # record indices, ascending
    which: Int64s  # for each extent: its position in `instants`
    offset: Int64s
    size: Int64s
    misplaced: int  # blocks outside every region, or over a neighbour or a region's end

    def at(self, position: int) -> Int64s:
        """Sizes of the free extents at one instant."""
        found: Int64s = self.size[self.which == position]
        return found

    def buddies_at(self, position: int) -> Int64s:
        """Sizes of the blocks that a buddy allocator can make of them."""
        here = self.which == position
        return buddies(self.offset[here], self.size[here])

    @property
    def free(self) -> Int64s:
        """F at each instant."""
        total = np.zeros(len(self.instants), np.int64)
        np.add.at(total, self.which, self.size)
        return total

    @property
    def largest(self) -> Int64s:
        """L at each instant."""
        most = np.zeros(len(self.instants), np.int64)
        np.maximum.at(most, self.which, self.size)
        return most

    @property
    def count(self) -> Int64s:
        """How many extents (n) at each instant."""
        return np.bincount(self.which, minlength=len(self.instants))

    @property
    def squares_over_free(self) -> Float64s:
        """sum(f^2)/F at each instant; 0 where nothing is free."""
        sizes = self.size.astype(np.float64)
        squares = np.bincount(self.which, weights=sizes * sizes, minlength=len(self.instants))
        return np.divide(squares, self.free, out=np.zeros(len(squares)), where=self.free > 0)

    def usable(self, size: int) -> Int64s:
        """S * sum(floor(f/s)): bytes that requests of `size` bytes could have, at each instant."""
        total = np.zeros(len(self.instants), np.int64)
        np.add.at(total, self.which, self.size // size * size)
        return total


def buddies(offset: Int64s, size: Int64s) -> Int64s:
    """Cut extents into powers of two that are aligned to their size, each as large as its place allows.

    From an extent's beginning they get larger as the alignment does, and towards its end smaller again.
    """
    cut: list[Int64s] = []
    while len(offset):
        orders = np.frexp(size.astype(np.float64))[1].astype(np.int64) - 1
        fits = np.int64(1) << np.minimum(orders, 62)
        fits = np.where(fits > size, fits >> 1, fits)  # a size next to a power of two may have been rounded
        aligned = offset & -offset
        block = np.where((aligned > 0) & (aligned < fits), aligned, fits)
        cut.append(block)
        left = size > block
        offset, size = (offset + block)[left], (size - block)[left]
    return np.concatenate(cut) if cut else np.empty(0, np.int64)


def covering(start: Int64s, end: Int64s, instants: Int64s) -> tuple[Int64s, Int64s]:
    """All pairs (position of an interval, position of an instant that it covers)."""
    first = np.searchsorted(instants, start)
    count = np.searchsorted(instants, end) - first
    interval = np.repeat(np.arange(len(start)), count)
    before = np.repeat(np.cumsum(count) - count, count)
    return interval, np.repeat(first, count) + np.arange(len(interval)) - before


def free_extents(trace: Trace, pool: int, instants: Int64s) -> FreeExtents:
    """Sweep one pool at the given instants (record indices, ascending)."""
    tenures, regions = trace.tenures, trace.regions.of_pool(pool)
    mine = np.flatnonzero(tenures.pool == pool)
    interval, which = covering(tenures.start[mine], tenures.held[mine], instants)
    block = mine[interval]
    edge_which, edge_at, edge_step = _region_edges(*covering(regions.start, regions.end, instants), regions)

    which = np.concatenate([edge_which, which])
    start = np.concatenate([edge_at, tenures.offset[block]])
    size = np.concatenate([np.zeros(len(edge_at), np.int64), tenures.granted[block]])
    step = np.concatenate([edge_step, np.zeros(len(block), np.int64)])
    is_block = np.arange(len(which)) >= len(edge_at)
    order = np.lexsort((is_block, start, which))
    which, start, size, step, is_block = which[order], start[order], size[order], step[order], is_block[order]

    inside = np.cumsum(step) > 0
    gap = np.zeros(len(which), np.int64)
    same = which[1:] == which[:-1]
    gap[:-1][same] = (start[1:] - start[:-1] - size[:-1])[same]
    hole = inside & (gap > 0)
    misplaced = int(np.count_nonzero(is_block & (~inside | (gap < 0))))
    return FreeExtents(instants, which[hole], (start + size)[hole], gap[hole], misplaced)


def _region_edges(interval: Int64s, which: Int64s, regions: Regions) -> tuple[Int64s, Int64s, Int64s]:
    """Where address space begins (+1) and ends (-1) at each instant.

    Regions that touch have no edge between them.
    """
    begin = regions.offset[interval]
    end = begin + regions.size[interval]
    at = np.concatenate([begin, end])
    both = np.concatenate([which, which])
    step = np.concatenate([np.ones(len(begin), np.int64), np.full(len(end), -1)])
    order = np.lexsort((at, both))
    at, both, step = at[order], both[order], step[order]
    if not len(at):
        return both, at, step
    new = np.append(True, (at[1:] != at[:-1]) | (both[1:] != both[:-1]))
    first = np.flatnonzero(new)
    net = np.add.reduceat(step, first)
    return both[first][net != 0], at[first][net != 0], net[net != 0]


def choose_instants(trace: Trace, count: int = 256, always: tuple[int, ...] = ()) -> Int64s:
    """Record indices at `count` evenly spaced times, with those of `always`; fewer where much is live."""
    if not len(trace.times):
        return np.empty(0, np.int64)
    tenures = trace.tenures
    live_records = float((tenures.held - np.maximum(tenures.start, 0)).sum())
    mean_live = max(live_records / len(trace.times), 1.0)
    count = int(min(count, max(16, MAX_ITEMS / mean_live)))
    times = np.linspace(trace.start_ns, trace.end_ns, count)
    at = np.searchsorted(trace.times, times, side="right") - 1
    return np.unique(np.concatenate([np.maximum(at, 0), np.array(always, np.int64)])).astype(np.int64)
