"""Statistics and block descriptions as Python data.

The fields of :class:`PoolStats` are generated from the core's own list
(``PP_STATS_LIST`` in ``poolport/stats.h``), so that there is nothing to keep in step.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from pools._native import CData, ffi, lib

__all__ = ["STATES", "STATISTICS", "BlockInfo", "PoolStats", "Statistic", "read_stats"]


class Statistic(NamedTuple):
    """One line of the core's list of statistics."""

    name: str
    kind: str
    """``counter`` (only rises) or ``gauge``."""
    unit: str
    meaning: str


def _read_list() -> tuple[Statistic, ...]:
    entries: list[Statistic] = []
    while (entry := lib.pp_stats_describe(len(entries))) != ffi.NULL:
        texts = (entry.name, entry.kind, entry.unit, entry.meaning)
        entries.append(Statistic(*(str(ffi.string(text), "ascii") for text in texts)))
    return tuple(entries)


STATISTICS: tuple[Statistic, ...] = _read_list()
"""Every statistic of a pool: name, kind, unit, meaning."""


def markdown() -> str:
    """The list as a table, which ``docs/statistics.md`` ends with."""
    rows = [f"| `{entry.name}` | {entry.kind} | {entry.unit} | {entry.meaning} |" for entry in STATISTICS]
    return "\n".join(["| name | kind | unit | meaning |", "|---|---|---|---|", *rows]) + "\n"


class _StatsBase:
    """Levels and counters of a pool at one instant; see ``STATISTICS`` for units and meanings."""

    def __getattr__(self, name: str) -> int:
        """Only reached for a name that is not in the list."""
        raise AttributeError(f"no statistic is called {name!r}; pools.STATISTICS lists them all")

    @property
    def internal_fragmentation(self) -> float:
        """1 - Q/B: the share of the granted bytes that nobody asked for; 0 where nothing is granted."""
        return 1 - self.requested_bytes / self.granted_bytes if self.granted_bytes else 0.0

    @property
    def external_fragmentation(self) -> float:
        """1 - L/F: the share of the free bytes that is not in the largest extent; 0 where F = 0."""
        return 1 - self.largest_free_bytes / self.free_bytes if self.free_bytes else 0.0

    def as_json(self) -> str:
        """The statistics as the core writes them: one JSON object, with the list's ``version``."""
        out = ffi.new("pp_stats *", {"size": ffi.sizeof("pp_stats"), "version": lib.PP_STATS_VERSION})
        for entry in STATISTICS:
            setattr(out, entry.name, getattr(self, entry.name))
        text = ffi.new("char[]", lib.pp_stats_json(out, ffi.NULL, 0) + 1)
        lib.pp_stats_json(out, text, len(text))
        return str(ffi.string(text), "ascii")

    def as_dict(self) -> dict[str, int]:
        """The statistics by name, in the list's order."""
        return {entry.name: getattr(self, entry.name) for entry in STATISTICS}


PoolStats: Any = dataclasses.make_dataclass(
    "PoolStats",
    [(entry.name, int) for entry in STATISTICS],
    bases=(_StatsBase,),
    namespace={"__doc__": _StatsBase.__doc__, "__module__": __name__},
    frozen=True,
)


def read_stats(pool: CData) -> Any:
    """The statistics of a C pool as a ``PoolStats``."""
    out = ffi.new("pp_stats *")
    lib.pp_pool_stats(pool, out)
    return PoolStats(*(getattr(out, entry.name) for entry in STATISTICS))


class BlockInfo(NamedTuple):
    """One block as ``walk()`` reports it; sizes and offsets in bytes."""

    handle: int
    """0 for a block that nobody holds."""
    offset: int
    requested: int
    granted: int
    state: str
    """``free``, ``owned``, ``in flight``, ``owned and in flight`` or ``cached``."""
    tag: str
    site: str
    age_seconds: float
    """0.0 unless the pool was created with ``ages=True``."""
    ordinal: int
    """How many acquisitions the pool had served before this one."""
    pins: tuple[int, int, int]
    """By kernel, export, user."""


STATES = ("free", "owned", "in flight", "owned and in flight", "cached")
