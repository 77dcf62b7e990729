"""The values of the comparison table: one plain row per trace.

The row itself needs no numpy, so that commands can build, print and compare rows without it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from analysis.metrics import Metrics
    from analysis.trace import Trace


@dataclass(frozen=True, slots=True)
class Summary:
    """One trace in numbers. Bytes, nanoseconds and ratios; None where the trace does not tell.

    `source` says where reserved, free and largest free bytes come from: `"events"` (regions and
    blocks, exact at every event) or `"samples"` (SAMPLE records: what the allocator said of
    itself, at their times only), or `"none"`.
    """

    label: str  # what tells this trace from others on the same page
    path: str
    strategy: str  # note "strategy", else that of the pools in the trace
    writer: str  # "poolport 0.1.0"
    complete: bool  # closed by its writer, nothing cut, nothing dropped
    source: str
    duration_ns: int  # from the first record to the last
    records: int
    dropped: int  # records that the writer lost

    peak_live_bytes: int  # Q, requested
    peak_granted_bytes: int  # B
    peak_reserved_bytes: int | None
    peak_rss_bytes: int | None
    peak_live_blocks: int
    mean_live_bytes: float  # Q over time

    internal_fragmentation_at_peak: float  # at the peak of B
    internal_fragmentation_mean: float  # over the time in which anything is live
    external_fragmentation_at_peak: float | None
    external_fragmentation_mean: float | None
    hole_dispersion_at_peak: float | None
    unusable_free_index_at_peak: float | None  # for `typical_request_bytes`
    typical_request_bytes: int  # the p99 of the sizes requested
    overhead_at_peak: float | None  # metadata / B

    allocations: int
    releases: int
    failures: int  # FAIL records
    allocations_per_s: float
    allocated_bytes_per_s: float
    churn: float  # bytes allocated / mean Q
    lifetime_p50_ns: float | None
    lifetime_p99_ns: float | None

    leaked_blocks: int  # certain: live when their pool was closed
    leaked_bytes: int  # requested
    leaked_tags: tuple[str, ...]
    suspected_blocks: int
    suspected_bytes: int

    cpu_ns: int | None  # of the process, between the first and the last PROCESS record
    notes: dict[str, str] = field(default_factory=dict)  # as written: "messages" -> "120000"
    warnings: tuple[str, ...] = ()  # sentences; broken laws among them

    def number(self, note: str) -> float | None:
        """Give the value of a note as a number; None where it is absent or is not one."""
        try:
            return float(self.notes[note])
        except (KeyError, ValueError):
            return None


def summarise(trace: Trace) -> Summary:
    """Compute the row of one trace; TraceError where it holds no allocation."""
    from analysis.metrics import Metrics  # noqa: PLC0415

    return summary_of(Metrics(trace))


def summary_of(metrics: Metrics) -> Summary:
    """Compute the row from metrics that may be partly computed already."""
    trace, levels, rates = metrics.trace, metrics.levels, metrics.rates
    peak = metrics.peak_record
    reserved, resident, process = metrics.reserved, metrics.resident, metrics.process
    known = metrics.lives.seconds[metrics.lives.known] * 1e9
    certain, suspected = metrics.certain_leaks, metrics.suspected_leaks
    at_peak, mean = _external_values(metrics)
    return Summary(
        label=metrics.label,
        path=trace.path,
        strategy=trace.strategy,
        writer=trace.header.writer,
        complete=trace.complete,
        source=metrics.source,
        duration_ns=trace.duration_ns,
        records=len(trace.records),
        dropped=trace.header.dropped,
        peak_live_bytes=int(levels.requested.max()),
        peak_granted_bytes=int(levels.granted[peak]),
        peak_reserved_bytes=int(reserved.peak) if reserved else None,
        peak_rss_bytes=int(resident.peak) if resident else None,
        peak_live_blocks=int(levels.blocks.max()),
        mean_live_bytes=metrics.level("requested").mean(),
        internal_fragmentation_at_peak=float(metrics.internal.values[peak]),
        internal_fragmentation_mean=metrics.internal_mean,
        external_fragmentation_at_peak=at_peak.get("external"),
        external_fragmentation_mean=mean,
        hole_dispersion_at_peak=at_peak.get("dispersion"),
        unusable_free_index_at_peak=at_peak.get("unusable"),
        typical_request_bytes=metrics.typical_request,
        overhead_at_peak=_overhead(metrics),
        allocations=rates.allocations,
        releases=rates.releases,
        failures=metrics.failure_count,
        allocations_per_s=rates.allocations_per_s,
        allocated_bytes_per_s=rates.allocated_bytes_per_s,
        churn=rates.churn,
        lifetime_p50_ns=_percentile(known, 50),
        lifetime_p99_ns=_percentile(known, 99),
        leaked_blocks=sum(leak.blocks for leak in certain),
        leaked_bytes=sum(leak.requested for leak in certain),
        leaked_tags=tuple(dict.fromkeys(leak.tag for leak in certain)),
        suspected_blocks=sum(leak.blocks for leak in suspected),
        suspected_bytes=sum(leak.requested for leak in suspected),
        cpu_ns=int(process.cpu_ns[-1] - process.cpu_ns[0]) if len(process.times) > 1 else None,
        notes=dict(trace.notes),
        warnings=(*trace.warnings, *map(str, metrics.violations)),
    )


def _external_values(metrics: Metrics) -> tuple[dict[str, float], float | None]:
    """The external measures at the peak of B, and the mean external fragmentation over time."""
    swept = metrics.fragmentation
    if swept is None:
        return {}, None
    from analysis.metrics import Series  # noqa: PLC0415

    peak_ns = int(metrics.trace.times[metrics.peak_record])
    if swept.source == "events":
        at = int((metrics.instants == metrics.peak_record).argmax())
    else:
        at = max(int((swept.times <= peak_ns).sum()) - 1, 0)
    values = {"external": float(swept.external[at])}
    if swept.dispersion is not None and swept.unusable is not None:
        values |= {"dispersion": float(swept.dispersion[at]), "unusable": float(swept.unusable[at])}
    return values, Series(swept.times, swept.external, metrics.trace.end_ns).mean()


def _overhead(metrics: Metrics) -> float | None:
    """Metadata / B at the peak of B; None for a heap that several users share."""
    from analysis.metrics import overhead  # noqa: PLC0415

    if metrics.source != "events":
        return None
    peak = metrics.peak_record
    return overhead(int(metrics.levels.metadata[peak]), int(metrics.levels.granted[peak]))


def _percentile(values: npt.NDArray[np.float64], percent: float) -> float | None:
    import numpy as np  # noqa: PLC0415

    return float(np.percentile(values, percent)) if len(values) else None
