"""How long blocks lived, and how fast they came and went."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis.layout import Op
from analysis.metrics.formulas import churn
from analysis.metrics.levels import Levels
from analysis.metrics.series import Series
from analysis.trace import Trace

Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Lives:
    """One row per block that lived, from its acquisition to its release; columns of equal length.

    `birth_ns` is the trace's beginning where `born_before`, `death_ns` its end where not `ended`:
    such lives are cut, and have no known length. `age_bytes` are the bytes requested by
    all allocations between birth and death: a clock that does not depend on the machine's speed.
    """

    start: Int64s  # record index of the birth, -1 if not recorded
    end: Int64s  # record index of the release
    birth_ns: Int64s
    death_ns: Int64s
    age_bytes: Int64s
    requested: Int64s  # at birth
    tag: Int64s
    stack: Int64s
    born_before: Bools
    ended: Bools  # within the trace

    def __len__(self) -> int:
        """Number of lives."""
        return len(self.start)

    @property
    def known(self) -> Bools:
        """Lives whose beginning and end are both in the trace."""
        return self.ended & ~self.born_before

    @property
    def seconds(self) -> Float64s:
        """Lifetimes in seconds; cut lives count what is known of them."""
        return (self.death_ns - self.birth_ns) / 1e9


@dataclass(frozen=True)
class Rates:
    """Over the whole trace. A trace of no duration has rates of 0."""

    allocations: int
    releases: int
    allocated_bytes: int  # requested
    allocations_per_s: float
    releases_per_s: float
    allocated_bytes_per_s: float
    churn: float


@dataclass(frozen=True)
class RateSeries:
    """Rates per time bin. `edges` has one entry more than the others; ns."""

    edges: Float64s
    allocations_per_s: Float64s
    releases_per_s: Float64s
    allocated_bytes_per_s: Float64s


def births(trace: Trace) -> Int64s:
    """Record indices of real allocations: blocks announced at attach are not among them."""
    tenures = trace.tenures
    return np.sort(tenures.start[tenures.first & ~tenures.born_before])


def lives(trace: Trace) -> Lives:
    """Join the tenures of each block to its life."""
    tenures = trace.tenures
    first, last = np.flatnonzero(tenures.first), np.flatnonzero(tenures.last)
    start, end = tenures.start[first], tenures.end[last]
    born = births(trace)
    allocated = np.zeros(len(trace.records) + 1, np.int64)
    allocated[born + 1] = trace.records["requested"][born].astype(np.int64)
    allocated = np.cumsum(allocated)
    times = np.append(trace.times, trace.end_ns)
    known_birth = np.maximum(start, 0)
    return Lives(
        start=start,
        end=end,
        birth_ns=np.where(start < 0, trace.start_ns, times[known_birth]),
        death_ns=times[end],
        age_bytes=allocated[end] - allocated[np.minimum(known_birth + (start >= 0), end)],
        requested=tenures.requested[first],
        tag=tenures.tag[first],
        stack=tenures.stack[first],
        born_before=tenures.born_before[first],
        ended=end < len(trace.records),
    )


def rates(trace: Trace, mean_live_bytes: float) -> Rates:
    """Count what came and went, per second; churn = bytes allocated / mean Q."""
    born = births(trace)
    allocated = int(trace.records["requested"][born].sum(dtype=np.int64))
    released = len(trace.where(Op.FREE))
    seconds = trace.duration_ns / 1e9
    per_s = 1 / seconds if seconds else 0.0
    return Rates(
        allocations=len(born),
        releases=released,
        allocated_bytes=allocated,
        allocations_per_s=len(born) * per_s,
        releases_per_s=released * per_s,
        allocated_bytes_per_s=allocated * per_s,
        churn=churn(allocated, mean_live_bytes),
    )


def rate_series(trace: Trace, bins: int = 120) -> RateSeries:
    """Rates in equal time bins from the first record to the last."""
    end = max(trace.end_ns, trace.start_ns + 1)
    edges = np.linspace(trace.start_ns, end, bins + 1)
    width_s = (end - trace.start_ns) / bins / 1e9
    born, freed = births(trace), trace.where(Op.FREE)
    sizes = trace.records["requested"][born].astype(np.float64)
    return RateSeries(
        edges,
        np.histogram(trace.times[born], edges)[0] / width_s,
        np.histogram(trace.times[freed], edges)[0] / width_s,
        np.histogram(trace.times[born], edges, weights=sizes)[0] / width_s,
    )


def littles_law(trace: Trace, levels: Levels, lives: Lives) -> tuple[float, float]:
    """The mean number of live blocks, computed twice; the two must agree.

    J. D. C. Little, "A proof for the queuing formula L = lambda W" (Operations Research 1961):
    mean live count = arrival rate x mean lifetime. Within a window both sides are exact when each
    lifetime is cut at the window's borders. Returns (from the levels, from the lifetimes).
    """
    mean_live = Series(levels.times, levels.blocks, trace.end_ns).mean()
    seconds = trace.duration_ns / 1e9
    return mean_live, float(lives.seconds.sum()) / seconds if seconds else mean_live
