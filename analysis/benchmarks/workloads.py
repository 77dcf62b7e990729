"""What the benchmark runs: the workloads' names and how large a run is."""

from __future__ import annotations

from typing import NamedTuple

from analysis.benchmarks._native import ffi, lib

__all__ = ["WORKLOADS", "Workload", "defaults_for"]


class Workload(NamedTuple):
    """One allocation pattern."""

    kind: int
    """Its number in ``poolport/workload.h``."""
    name: str
    """As on the command line: ``burst-idle``."""
    text: str


def _read_names() -> dict[str, Workload]:
    found: dict[str, Workload] = {}
    while (name := lib.pp_workload_name(len(found))) != ffi.NULL:
        text = str(ffi.string(lib.pp_workload_text(len(found))), "ascii")
        shown = str(ffi.string(name), "ascii").replace("_", "-")
        found[shown] = Workload(len(found), shown, text)
    return found


WORKLOADS: dict[str, Workload] = _read_names()
"""Every workload by name."""


class Shape(NamedTuple):
    """How large one run of a workload is."""

    size: int
    """Bytes of each block; 0 for the pattern's mixed sizes."""
    max_size: int
    """Bytes of the largest block where sizes are mixed."""
    live: int
    """Blocks live at once."""
    operations: int


_MIXED = Shape(0, 65536, 4096, 400_000)
_SHAPES = {
    "lifo": Shape(4096, 4096, 1, 1_000_000),
    "fifo": Shape(4096, 4096, 1024, 1_000_000),
    "random": Shape(4096, 4096, 1024, 1_000_000),
    "fifo-rounds": Shape(4096, 4096, 1024, 1_000_000),
    "random-rounds": Shape(4096, 4096, 1024, 1_000_000),
    "fifo-batches": Shape(4096, 4096, 1024, 1_000_000),
    "random-batches": Shape(4096, 4096, 1024, 1_000_000),
    "xthread": Shape(4096, 4096, 512, 1_000_000),
    "xthread-batches": Shape(4096, 4096, 512, 1_000_000),
    "larson": Shape(0, 4096, 4096, 400_000),
    "mstress": Shape(0, 16384, 4096, 400_000),
    "burst-idle": Shape(4096, 4096, 8192, 100_000),
    "pin-mix": Shape(0, 16384, 4096, 400_000),
    "powers": Shape(0, 65536, 1024, 400_000),
}


def defaults_for(workload: str, size: int | None) -> Shape:
    """The shape of a run; ``size`` (bytes, 0 for mixed) overrides the workload's own."""
    shape = _SHAPES.get(workload, _MIXED)
    return shape if size is None else shape._replace(size=size, max_size=max(size, shape.max_size))
