"""Requests that got no block, and whether fragmentation was to blame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.layout import Op
from analysis.metrics.extents import FreeExtents, free_extents
from analysis.metrics.formulas import fragmentation_index
from analysis.trace import Trace

MAX_EXAMINED = 64


@dataclass(frozen=True)
class Failure:
    """One FAIL record. `index` is the fragmentation index, None where the pool's extents are unknown.

    Of a buddy pool it is that of the blocks which its extents can be cut into, and of the power of two
    that the request would have been granted: an extent that is long enough may hold no such block.
    """

    at_ns: int
    pool: str
    tag: str
    requested: int  # bytes
    status: int  # pp_status
    index: float | None


def _index(trace: Trace, pool: int, extents: FreeExtents, position: int, size: int) -> float:
    info = trace.pools.get(pool)
    if info is None or info.strategy != "buddy":
        return fragmentation_index(extents.at(position), size)
    smallest = info.parameters.get("min_block")
    granted = max(1 << (size - 1).bit_length(), smallest if isinstance(smallest, int) else 1)
    return fragmentation_index(extents.buddies_at(position), granted)


def failures(trace: Trace, limit: int = MAX_EXAMINED) -> list[Failure]:
    """Examine at most `limit` FAIL records, evenly spaced over all of them, in order of time."""
    at = trace.where(Op.FAIL)
    if len(at) > limit:
        at = at[np.linspace(0, len(at) - 1, limit).astype(np.int64)]
    found: dict[int, Failure] = {}
    for pool in np.unique(trace.records["pool"][at]).tolist():
        mine = at[trace.records["pool"][at] == pool]
        known = len(trace.regions.of_pool(pool)) > 0
        extents = free_extents(trace, pool, mine) if known else None
        for position, record in enumerate(mine.tolist()):
            row = trace.records[record]
            size = int(row["requested"])
            index = _index(trace, pool, extents, position, size) if extents and size else None
            found[record] = Failure(
                int(row["time_ns"]), trace.pool_name(pool), trace.tag_text(int(row["tag"])), size,
                int(row["aux"]), index,
            )  # fmt: skip
    return [found[record] for record in sorted(found)]
