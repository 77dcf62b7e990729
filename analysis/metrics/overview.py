"""All metrics of one trace, computed once and kept together.

Metrics of several pools are added up pool by pool, since free bytes of one pool serve no request
of another: the external fragmentation of a trace is 1 - sum(L)/sum(F), which is the mean over its
pools weighted by their free bytes. Hole dispersion and the unusable-free index are weighted alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from analysis.errors import TraceError
from analysis.layout import Op
from analysis.metrics import balance, leaks, lifetimes, segments
from analysis.metrics.extents import choose_instants, free_extents
from analysis.metrics.failures import Failure, failures
from analysis.metrics.formulas import external_fragmentation
from analysis.metrics.levels import Levels, Process, Samples, levels, process, samples
from analysis.metrics.series import Series
from analysis.trace import Trace

Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Fragmentation:
    """Ratios at chosen instants; arrays of equal length. `source` as in Summary.

    `dispersion` and `unusable` are None where only samples tell of free memory.
    """

    source: str
    times: Int64s
    free: Int64s
    largest: Int64s
    external: Float64s
    dispersion: Float64s | None
    unusable: Float64s | None


def _why_empty(trace: Trace) -> str:
    if trace.complete:
        return "attach a pool with pool.attach(trace) before the run."
    return f"what is left of it has {len(trace.records):,} records. {' '.join(trace.warnings)}"


class Metrics:
    """The metrics of one trace. Everything is computed when first asked for."""

    def __init__(self, trace: Trace, label: str | None = None) -> None:
        """Take a trace; `label` names it in figures and tables. TraceError where it holds no allocation."""
        if not len(trace.where(Op.ALLOC, Op.FREE, Op.LEAK)):
            raise TraceError(f"{trace.path!r} holds no allocation: {_why_empty(trace)}")
        self.trace = trace
        self.label = trace.label if label is None else label

    @cached_property
    def levels(self) -> Levels:
        """Levels of all pools together, at every record."""
        return levels(self.trace)

    @cached_property
    def samples(self) -> Samples:
        """What the pools said of themselves, added up."""
        return samples(self.trace)

    @cached_property
    def process(self) -> Process:
        """Resident set and CPU time."""
        return process(self.trace)

    @cached_property
    def lives(self) -> lifetimes.Lives:
        """Every block's life."""
        return lifetimes.lives(self.trace)

    @property
    def source(self) -> str:
        """Where R, F and L come from: "events", "samples" or "none"."""
        if self.levels.has_regions:
            return "events"
        return "samples" if len(self.samples) else "none"

    def level(self, name: str) -> Series:
        """The level `requested` (Q), `granted` (B) or `blocks` over time."""
        return self.levels.series(name, self.trace.end_ns)

    @cached_property
    def reserved(self) -> Series | None:
        """R over time."""
        if self.levels.has_regions:
            return self.level("reserved")
        return self._sampled("reserved")

    @cached_property
    def free(self) -> Series | None:
        """F over time."""
        if self.levels.has_regions:
            return self.level("free")
        return self._sampled("free")

    @cached_property
    def resident(self) -> Series | None:
        """The process's resident set over time."""
        if not len(self.process.times):
            return None
        return Series(self.process.times, self.process.resident, self.trace.end_ns)

    @cached_property
    def charged(self) -> Series | None:
        """The process's commit charge over time; None where the system keeps none."""
        if not self.process.charged.any():
            return None
        return Series(self.process.times, self.process.charged, self.trace.end_ns)

    def _sampled(self, name: str) -> Series | None:
        if not len(self.samples):
            return None
        return Series(self.samples.times, getattr(self.samples, name), self.trace.end_ns)

    @cached_property
    def peak_record(self) -> int:
        """Record index at which B is highest for the first time."""
        return int(self.levels.granted.argmax())

    @cached_property
    def instants(self) -> Int64s:
        """Record indices at which holes are measured: evenly spaced in time, and the peak."""
        return choose_instants(self.trace, always=(self.peak_record,))

    @cached_property
    def typical_request(self) -> int:
        """The p99 of the sizes requested, in bytes; at least 1."""
        sizes = self.lives.requested
        return max(int(np.percentile(sizes, 99, method="higher")), 1) if len(sizes) else 1

    @cached_property
    def internal(self) -> Series:
        """1 - Q/B over time; 0 where nothing is granted."""
        q, b = self.levels.requested, self.levels.granted
        ratio = np.divide(q, b, out=np.ones(len(b)), where=b > 0)
        return Series(self.levels.times, 1 - ratio, self.trace.end_ns)

    @property
    def internal_mean(self) -> float:
        """The mean of 1 - Q/B over the time in which something is granted."""
        weights = np.where(self.levels.granted > 0, self.internal.widths, 0)
        return float(np.average(self.internal.values, weights=weights)) if weights.any() else 0.0

    @cached_property
    def fragmentation(self) -> Fragmentation | None:
        """External measures over time; None where the trace tells nothing of free memory."""
        if self.source == "events":
            return self._swept[0]
        if self.source == "samples":
            free, largest = self.samples.free, self.samples.largest
            return Fragmentation(
                "samples", self.samples.times, free, largest, _external(free, largest), None, None
            )
        return None

    @cached_property
    def _swept(self) -> tuple[Fragmentation, list[balance.Violation]]:
        trace, at = self.trace, self.instants
        free, largest, usable = (np.zeros(len(at), np.int64) for _ in range(3))
        squares = np.zeros(len(at))
        misplaced: list[balance.Violation] = []
        for pool in np.unique(trace.regions.pool).tolist():
            extents = free_extents(trace, pool, at)
            free += extents.free
            largest += extents.largest
            usable += extents.usable(self.typical_request)
            squares += extents.squares_over_free
            misplaced += balance.check_places(extents, trace, pool)
        some = free > 0
        dispersion = np.where(some, 1 - squares / np.maximum(free, 1), 0.0)
        unusable = np.where(some, 1 - usable / np.maximum(free, 1), 0.0)
        times = trace.times[at]
        external = _external(free, largest)
        return Fragmentation("events", times, free, largest, external, dispersion, unusable), misplaced

    @cached_property
    def rates(self) -> lifetimes.Rates:
        """Allocations, releases and bytes per second, and churn."""
        return lifetimes.rates(self.trace, self.level("requested").mean())

    @cached_property
    def certain_leaks(self) -> list[leaks.Leak]:
        """Blocks that were live when their pool was closed."""
        return leaks.certain_leaks(self.trace)

    @cached_property
    def suspected_leaks(self) -> list[leaks.Leak]:
        """Blocks that look forgotten at the trace's end."""
        return leaks.suspected_leaks(self.trace, self.lives)

    @cached_property
    def failures(self) -> list[Failure]:
        """Requests that got no block, at most 64 of them."""
        return failures(self.trace)

    @property
    def failure_count(self) -> int:
        """How many requests got no block."""
        return len(self.trace.where(Op.FAIL))

    @cached_property
    def blame(self) -> list[tuple[str, float]]:
        """Tags by the free bytes that their blocks keep from being given back, mean over the run."""
        total: dict[str, float] = {}
        for pool in np.unique(self.trace.regions.pool).tolist():
            for tag, amount in segments.blame(self.trace, pool, self.instants):
                text = self.trace.tag_text(tag)
                total[text] = total.get(text, 0.0) + amount
        return sorted(total.items(), key=lambda pair: -pair[1])

    @cached_property
    def compaction(self) -> segments.Compaction | None:
        """What a slide of the main pool would do at the instant with the most free bytes out of reach."""
        swept = self.fragmentation
        if swept is None or swept.source != "events":
            return None
        worst = int((swept.free - swept.largest).argmax())
        return segments.compaction(self.trace, self.trace.main_pool, int(self.instants[worst]))

    @cached_property
    def violations(self) -> list[balance.Violation]:
        """Laws that this trace breaks; see `analysis.metrics.balance`."""
        found = balance.check_blocks(self.trace)
        for pool in self.trace.pool_numbers:
            one = levels(self.trace, pool)
            found += balance.check_events(one)
            found += balance.check_samples(self.trace, pool, one, samples(self.trace, pool))
        if self.source == "events":
            found += self._swept[1]
        return found + balance.check_littles_law(self.trace, self.levels, self.lives)


def _external(free: Int64s, largest: Int64s) -> Float64s:
    pairs = zip(free.tolist(), largest.tolist(), strict=True)
    return np.array([external_fragmentation(*pair) for pair in pairs], np.float64)
