"""What was not given back.

Certain: the pool wrote a LEAK record, because the block was live when the pool was closed.
Suspected: the pool is not known to be closed, but the block is older than a multiple of the p99
lifetime of its site, and its site holds more and more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis.layout import Op
from analysis.metrics.lifetimes import Lives
from analysis.trace import Trace

Int64s = npt.NDArray[np.int64]

SUSPECT_MULTIPLE = 4.0  # times the p99 lifetime of the site
SUSPECT_LIVES = 20  # completed lives that a p99 needs to mean anything
_SLOPE_INSTANTS = 16


@dataclass(frozen=True)
class Leak:
    """Blocks of one pool with the same tag and the same acquisition site."""

    pool: str
    tag: str
    site: str  # innermost frame first, one a line; empty where none was recorded
    blocks: int
    requested: int  # bytes
    granted: int  # bytes
    oldest_ns: int  # age at the pool's close, or at the trace's end
    youngest_ns: int


def certain_leaks(trace: Trace) -> list[Leak]:
    """Group the LEAK records by pool, tag and site; the most bytes first.

    The age is the pool's own (aux) where it kept ages, else the time since the block's ALLOC.
    """
    at = trace.where(Op.LEAK)
    if not len(at):
        return []
    rows = trace.records[at]
    ages = np.maximum(rows["aux"].astype(np.int64), _recorded_ages(trace, at))
    pool, tag, stack, requested, granted = (
        rows[name].astype(np.int64) for name in ("pool", "tag", "stack", "requested", "granted")
    )
    return _grouped(trace, pool=pool, tag=tag, stack=stack, requested=requested, granted=granted, ages=ages)


def _recorded_ages(trace: Trace, at: Int64s) -> Int64s:
    """Time from the acquisition of each leaked block to its LEAK record."""
    tenures = trace.tenures
    at_start = np.flatnonzero(tenures.first)
    names: dict[tuple[int, int], list[int]] = {}
    wanted = trace.records[at]
    keys = list(zip(wanted["pool"].tolist(), wanted["block"].tolist(), strict=True))
    candidates = at_start[np.isin(tenures.block[at_start], wanted["block"])]
    for pool, block, start in zip(
        tenures.pool[candidates].tolist(),
        tenures.block[candidates].tolist(),
        tenures.start[candidates].tolist(),
        strict=True,
    ):
        names.setdefault((pool, block), []).append(start)
    ages = np.zeros(len(at), np.int64)
    for position, (key, record) in enumerate(zip(keys, at.tolist(), strict=True)):
        starts = [start for start in names.get(key, ()) if 0 <= start < record]
        born = int(trace.times[max(starts)]) if starts else trace.start_ns
        ages[position] = int(trace.times[record]) - born
    return ages


def suspected_leaks(trace: Trace, lives: Lives, multiple: float = SUSPECT_MULTIPLE) -> list[Leak]:
    """Blocks still live at the trace's end that look forgotten; certain leaks are not repeated.

    A site is the stack, or the tag where none was recorded. Its blocks are suspected when they are
    older than `multiple` times the p99 of its completed lifetimes (at least 20 of them), and the
    site's live count rises: the least-squares line through 16 evenly spaced counts goes up.
    """
    certain = set(np.unique(trace.records["block"][trace.where(Op.LEAK)]).tolist())
    tenures = trace.tenures
    first = np.flatnonzero(tenures.first)
    last = np.flatnonzero(tenures.last)
    suspects: list[Int64s] = []
    for members in _by_site(lives):
        completed = members[lives.known[members]]
        open_ones = members[~lives.ended[members]]
        if len(completed) < SUSPECT_LIVES or not len(open_ones):
            continue
        limit_s = multiple * float(np.percentile(lives.seconds[completed], 99))
        old = open_ones[lives.seconds[open_ones] > limit_s]
        if len(old) and _rising(trace, lives, members):
            suspects.append(old)
    if not suspects:
        return []
    found = np.concatenate(suspects)
    found = found[[int(block) not in certain for block in tenures.block[first[found]]]]
    return _grouped(
        trace,
        pool=tenures.pool[first[found]],
        tag=lives.tag[found],
        stack=lives.stack[found],
        requested=tenures.requested[last[found]],
        granted=tenures.granted[last[found]],
        ages=lives.death_ns[found] - lives.birth_ns[found],
    )


def _by_site(lives: Lives) -> Iterator[Int64s]:
    """Positions of the lives of each site."""
    if not len(lives):
        return
    site = np.where(lives.stack > 0, lives.stack, -lives.tag)
    order = np.argsort(site, kind="stable")
    borders = np.flatnonzero(np.diff(site[order])) + 1
    yield from np.split(order, borders)


def _rising(trace: Trace, lives: Lives, members: Int64s) -> bool:
    instants = np.linspace(trace.start_ns, trace.end_ns, _SLOPE_INSTANTS)
    births = np.sort(lives.birth_ns[members])
    deaths = np.sort(lives.death_ns[members][lives.ended[members]])
    live = np.searchsorted(births, instants, "right") - np.searchsorted(deaths, instants, "right")
    slope = np.polynomial.polynomial.polyfit(np.arange(_SLOPE_INSTANTS), live, 1)[1]
    return bool(slope > 0)


def _grouped(
    trace: Trace,
    *,
    pool: Int64s,
    tag: Int64s,
    stack: Int64s,
    requested: Int64s,
    granted: Int64s,
    ages: Int64s,
) -> list[Leak]:
    if not len(pool):
        return []
    keys, which = np.unique(np.stack([pool, tag, stack], axis=1), axis=0, return_inverse=True)
    which = which.reshape(-1)
    order = np.argsort(which, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(which[order]) > 0))
    sums = [np.add.reduceat(column[order], starts) for column in (np.ones_like(pool), requested, granted)]
    oldest = np.maximum.reduceat(ages[order], starts)
    youngest = np.minimum.reduceat(ages[order], starts)
    leaks = [
        Leak(
            trace.pool_name(int(key[0])),
            trace.tag_text(int(key[1])),
            trace.site_text(int(key[2])),
            *(int(column[row]) for column in (*sums, oldest, youngest)),
        )
        for row, key in enumerate(keys)
    ]
    return sorted(leaks, key=lambda leak: (-leak.requested, -leak.oldest_ns, leak.tag))
