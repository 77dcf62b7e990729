"""What a compaction is told and what it tells."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AutoCompact", "Compaction", "Forecast", "PinnedBlock"]


@dataclass(frozen=True, slots=True)
class AutoCompact:
    """When a pool compacts by itself.

    It does so where a request of the size in demand (the largest recent one) fits nowhere although
    its fragmentation index, 1 - (1 + F/s)/n for F free bytes in n extents and a request of s, is
    above ``index_percent``; and for at most ``cpu_percent`` of the elapsed time, of which up to
    ``burst_seconds`` may be saved up and spent in one pause.
    """

    cpu_percent: int = 5
    index_percent: int = 50
    burst_seconds: float = 0.01


@dataclass(frozen=True, slots=True)
class Compaction:
    """What one call of ``compact()`` did."""

    moved_blocks: int
    moved_bytes: int
    freed_bytes: int
    """Free bytes that were scattered and are now part of the extent that the slide gathers."""
    pinned_bytes: int
    """Free bytes in front of pinned blocks, passed over so far in this pass."""
    elapsed_seconds: float
    finished: bool
    """Nothing more can be gained now."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What ``compact()`` without bounds would do now; the fields are ``Compaction``'s."""

    moved_blocks: int
    moved_bytes: int
    freed_bytes: int
    pinned_bytes: int
    returned_bytes: int
    """Bytes of emptied segments that would go back to the system."""


@dataclass(frozen=True, slots=True)
class PinnedBlock:
    """One pinned block, and what it costs; offsets and sizes in bytes."""

    handle: int
    offset: int
    granted: int
    kept_bytes: int
    """Free bytes that would stay in front of it after compacting all of the pool."""
    pins: tuple[int, int, int]
    """By kernel, export, user."""
    ages_seconds: tuple[float, float, float]
    """By kernel, export, user: since the oldest pin held now; 0.0 unless created with ``ages=True``."""
    tag: str
