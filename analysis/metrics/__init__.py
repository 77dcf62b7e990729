"""The numbers of design: each formula once, with its source.

`Metrics(trace)` computes everything for one trace; the modules hold the parts:
`formulas` (on plain numbers), `series`, `levels` (Q, B, R, F over time), `extents` (holes at chosen
instants), `lifetimes` (rates, Little's law), `leaks`, `segments` (blame, compaction), `failures`,
`outstanding` (live bytes by tag), `balance` (laws that must hold).
"""

from analysis.metrics.balance import Violation, require
from analysis.metrics.extents import FreeExtents, buddies, free_extents
from analysis.metrics.failures import Failure, failures
from analysis.metrics.formulas import (
    churn,
    external_fragmentation,
    fragmentation_index,
    hole_dispersion,
    internal_fragmentation,
    overhead,
    unusable_free_index,
)
from analysis.metrics.leaks import Leak, certain_leaks, suspected_leaks
from analysis.metrics.levels import Levels, Process, Samples, levels, process, samples
from analysis.metrics.lifetimes import Lives, Rates, littles_law, lives, rate_series, rates
from analysis.metrics.outstanding import Outstanding, outstanding, tag_group
from analysis.metrics.overview import Fragmentation, Metrics
from analysis.metrics.segments import Compaction, blame, compaction
from analysis.metrics.series import Series

__all__ = [
    "Compaction",
    "Failure",
    "Fragmentation",
    "FreeExtents",
    "Leak",
    "Levels",
    "Lives",
    "Metrics",
    "Outstanding",
    "Process",
    "Rates",
    "Samples",
    "Series",
    "Violation",
    "blame",
    "buddies",
    "certain_leaks",
    "churn",
    "compaction",
    "external_fragmentation",
    "failures",
    "fragmentation_index",
    "free_extents",
    "hole_dispersion",
    "internal_fragmentation",
    "levels",
    "littles_law",
    "lives",
    "outstanding",
    "overhead",
    "process",
    "rate_series",
    "rates",
    "require",
    "samples",
    "suspected_leaks",
    "tag_group",
    "unusable_free_index",
]
