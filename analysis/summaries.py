"""The values of the comparison table: one plain row per trace.

The row itself needs no numpy, so that commands can build, print and compare rows without it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analysis.trace import Trace


@dataclass(frozen=True, slots=True)
class Summary:
    """One trace in numbers. Bytes, nanoseconds and ratios; None where the trace does not tell.

    `source` says where reserved, free and largest free bytes come from: `"events"` (regions and
    blocks, exact at every event) or `"samples"` (SAMPLE records: what the allocator said of
    itself, at their times only), or `"none"`.
    """

    label: str                 # what tells this trace from others on the same page
    path: str
    strategy: str              # note "strategy", else that of the pools in the trace
    writer: str                # "poolport 0.1.0"
    complete: bool             # closed by its writer, nothing cut, nothing dropped
    source: str
    duration_ns: int           # from the first record to the last
    records: int
    dropped: int               # records that the writer lost

    peak_live_bytes: int       # Q, requested
    peak_granted_bytes: int    # B
    peak_reserved_bytes: int | None
    peak_rss_bytes: int | None
    peak_live_blocks: int
    mean_live_bytes: float     # Q over time

    internal_fragmentation_at_peak: float          # at the peak of B
    internal_fragmentation_mean: float             # over the time in which anything is live
    external_fragmentation_at_peak: float | None
    external_fragmentation_mean: float | None
    hole_dispersion_at_peak: float | None
    unusable_free_index_at_peak: float | None      # for `typical_request_bytes`
    typical_request_bytes: int                     # the p99 of the sizes requested
    overhead_at_peak: float | None                 # metadata / B

    allocations: int
    releases: int
    failures: int              # FAIL records
    allocations_per_s: float
    allocated_bytes_per_s: float
    churn: float               # bytes allocated / mean Q
    lifetime_p50_ns: float | None
    lifetime_p99_ns: float | None

    leaked_blocks: int         # certain: live when their pool was closed
    leaked_bytes: int          # requested
    leaked_tags: tuple[str, ...]
    suspected_blocks: int
    suspected_bytes: int

    cpu_ns: int | None         # of the process, between the first and the last PROCESS record
    notes: dict[str, str] = field(default_factory=dict)       # as written: "messages" -> "120000"
    warnings: tuple[str, ...] = ()                            # sentences; broken laws among them

    def number(self, note: str) -> float | None:
        """Give the value of a note as a number; None where it is absent or is not one."""
        try:
            return float(self.notes[note])
        except (KeyError, ValueError):
            return None
