"""The formulas, on plain numbers and arrays: each is written here and nowhere else.

Q live bytes requested, B live bytes granted, R reserved, F free bytes in n maximal free extents
f, L the largest of them. Extents are given as an array of their sizes in bytes.

Sources: external fragmentation and hole dispersion as in M. S. Johnstone and P. R. Wilson, "The
memory fragmentation problem: solved?" (ISMM 1998), and, for 1 - L/F, the measure printed by most
allocators; the unusable-free index and the fragmentation index as in M. Gorman and A. Whitcroft,
"The what, the why and the where to of anti-fragmentation" (Ottawa Linux Symposium 2006), here for
sizes in bytes instead of page orders.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Extents = npt.NDArray[np.int64]


def internal_fragmentation(requested: float, granted: float) -> float:
    """1 - Q/B: the share of granted bytes that nobody asked for. 0 where nothing is granted."""
    return 1.0 - requested / granted if granted else 0.0


def external_fragmentation(free: float, largest: float) -> float:
    """1 - L/F: the share of free bytes outside the largest free extent. 0 where nothing is free."""
    return 1.0 - largest / free if free else 0.0


def hole_dispersion(extents: Extents) -> float:
    """1 - sum(f^2)/F^2: the chance that two free bytes, drawn at random, lie in different extents.

    0 for a single extent or none; towards 1 for many small ones.
    """
    sizes = extents.astype(np.float64)
    free = float(sizes.sum())
    return 1.0 - float(np.square(sizes / free).sum()) if free else 0.0


def unusable_free_index(extents: Extents, size: int) -> float:
    """1 - s * sum(floor(f/s)) / F: the share of free bytes useless to requests of `size` bytes.

    0 where nothing is free. `size` is at least 1 byte.
    """
    if size < 1:
        raise ValueError(f"size is {size} bytes; it must be at least 1")
    free = int(extents.sum())
    return 1.0 - size * int((extents // size).sum()) / free if free else 0.0


def fragmentation_index(extents: Extents, size: int) -> float:
    """Why a request of `size` bytes failed: near 0 too little memory, near 1 fragmentation.

    -1 where it would have fitted, else 1 - (1 + F/s)/n. Below 0 where far less than `size` is
    free in a single extent; 0 where nothing is free at all.
    """
    if size < 1:
        raise ValueError(f"size is {size} bytes; it must be at least 1")
    holes = extents[extents > 0]
    if not len(holes):
        return 0.0
    if int(holes.max()) >= size:
        return -1.0
    return 1.0 - (1.0 + int(holes.sum()) / size) / len(holes)


def overhead(metadata: float, granted: float) -> float | None:
    """Metadata / B: bytes that describe blocks, per byte granted. None where nothing is granted."""
    return metadata / granted if granted else None


def churn(allocated: float, mean_live: float) -> float:
    """Bytes allocated / mean Q: how many times the live memory was replaced. 0 where nothing lived."""
    return allocated / mean_live if mean_live else 0.0
