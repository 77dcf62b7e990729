"""The address ranges that pools held, from when to when."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis.layout import Op

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Regions:
    """Columns of equal length. A region covers records [start, end) and bytes [offset, offset + size)."""

    start: Int64s
    end: Int64s
    pool: Int64s
    offset: Int64s
    size: Int64s  # bytes that blocks are carved from
    metadata: Int64s  # bytes besides, that describe them

    def __len__(self) -> int:
        """Number of regions."""
        return len(self.start)

    def of_pool(self, pool: int) -> Regions:
        """The regions of one pool."""
        mine = self.pool == pool
        return Regions(*(getattr(self, name)[mine] for name in self.__slots__))


def regions_of(records: npt.NDArray[np.void]) -> Regions:
    """Match each REGION_REMOVE with the latest REGION_ADD of the same pool and offset that is still there."""
    at = np.flatnonzero(np.isin(records["op"], (Op.REGION_ADD, Op.REGION_REMOVE)))
    chosen = records[at]
    rows: list[list[int]] = []
    open_rows: dict[tuple[int, int], list[int]] = {}
    for index, op, pool, offset, size, metadata in zip(
        at.tolist(),
        *(chosen[name].tolist() for name in ("op", "pool", "offset", "granted", "aux")),
        strict=True,
    ):
        if op == Op.REGION_ADD:
            row = [index, len(records), pool, offset, size, metadata]
            rows.append(row)
            open_rows[pool, offset] = row
        elif (pool, offset) in open_rows:
            open_rows.pop((pool, offset))[1] = index
    table = np.array(rows, np.int64).reshape(-1, 6)
    return Regions(*(np.ascontiguousarray(table[:, column]) for column in range(6)))
