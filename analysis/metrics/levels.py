"""How much there was of everything, at every event.

Two independent accounts: the events (each ALLOC adds, each FREE takes away, each REGION adds
address space), and the SAMPLE records, which carry what the pool said of itself. They are
compared in `analysis.metrics.balance`; a trace without REGION records (malloc) has only the
second for R, F and L.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis.layout import Op
from analysis.metrics.series import Series
from analysis.trace import Trace

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Levels:
    """Levels after each record of the trace, one value per record. Bytes, except `blocks`."""

    times: Int64s
    requested: Int64s  # Q
    granted: Int64s  # B: with blocks that are released but still pinned
    blocks: Int64s  # live, i.e. owned
    regions: Int64s  # bytes that blocks are carved from
    metadata: Int64s  # bytes besides
    has_regions: bool

    @property
    def reserved(self) -> Int64s:
        """R; only where `has_regions`."""
        return self.regions + self.metadata

    @property
    def free(self) -> Int64s:
        """F = R - B - metadata; only where `has_regions`."""
        return self.regions - self.granted

    def series(self, name: str, end: int) -> Series:
        """One level as a Series."""
        return Series(self.times, getattr(self, name), end)


@dataclass(frozen=True)
class Samples:
    """The SAMPLE records of one pool, or the sum over pools, in time order. Bytes."""

    at: Int64s  # record indices
    times: Int64s
    reserved: Int64s
    granted: Int64s
    requested: Int64s
    free: Int64s
    largest: Int64s

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.at)


@dataclass(frozen=True)
class Process:
    """The PROCESS records: resident set and commit charge in bytes, CPU time in ns since the process began.

    The commit charge is what Windows limits: committed memory, touched or not. It is 0 on other systems.
    """

    times: Int64s
    resident: Int64s
    charged: Int64s
    cpu_ns: Int64s


def levels(trace: Trace, pool: int | None = None) -> Levels:
    """Compute the levels of one pool, or of all together, from the events."""
    tenures, regions = trace.tenures, trace.regions
    if pool is not None:
        tenures, regions = tenures.select(tenures.pool == pool), regions.of_pool(pool)
    total = len(trace.records)
    ones = np.ones(len(tenures), np.int64)
    return Levels(
        times=trace.times,
        requested=_level(total, tenures.start, tenures.end, tenures.requested),
        granted=_level(total, tenures.start, tenures.held, tenures.granted),
        blocks=_level(total, tenures.start, tenures.end, ones),
        regions=_level(total, regions.start, regions.end, regions.size),
        metadata=_level(total, regions.start, regions.end, regions.metadata),
        has_regions=len(regions) > 0,
    )


def _level(total: int, start: Int64s, end: Int64s, amount: Int64s) -> Int64s:
    change = np.zeros(total + 1, np.int64)
    np.add.at(change, np.maximum(start, 0), amount)
    np.subtract.at(change, end, amount)
    return np.cumsum(change)[:total]


def samples(trace: Trace, pool: int | None = None) -> Samples:
    """Collect the SAMPLE records of one pool, or the running sum over all pools."""
    at = trace.where(Op.SAMPLE)
    pools = trace.records["pool"][at]
    if pool is not None:
        at, pools = at[pools == pool], pools[pools == pool]
    columns = {
        name: trace.records[field][at].astype(np.int64)
        for name, field in (
            ("reserved", "block"),
            ("granted", "granted"),
            ("requested", "requested"),
            ("free", "offset"),
            ("largest", "aux"),
        )
    }
    if len(np.unique(pools)) > 1:
        columns = {name: _sum_over_pools(values, pools) for name, values in columns.items()}
    return Samples(at=at, times=trace.times[at], **columns)


def _sum_over_pools(values: Int64s, pools: npt.NDArray[np.integer]) -> Int64s:
    """At each sample: the sum of the latest value of every pool."""
    change = np.zeros(len(values), np.int64)
    for number in np.unique(pools):
        mine = pools == number
        change[mine] = np.diff(values[mine], prepend=0)
    return np.cumsum(change)


def process(trace: Trace) -> Process:
    """Collect the PROCESS records."""
    at = trace.where(Op.PROCESS)
    rows = trace.records[at]
    resident, charged, cpu_ns = (rows[name].astype(np.int64) for name in ("aux", "granted", "requested"))
    return Process(trace.times[at], resident, charged, cpu_ns)
