"""One strategy under one workload, in a process of its own.

Run as ``python -m analysis.benchmarks``: the first line of standard input is the
cell's JSON description; every further line asks for one repetition, answered by one line of
JSON. So the parent can interleave the repetitions of all strategies, and the memory that one
strategy takes is not another's.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import psutil

from analysis.benchmarks._native import CData, ffi, lib
from analysis.benchmarks.allocators import Allocator, build
from analysis.benchmarks.workloads import WORKLOADS, Shape
from analysis.errors import AnalysisError
from pools.memory import OwnMemory

__all__ = ["Cell", "main", "run_once", "workload_of"]

IDLE_SECONDS = 1.0
"""How long a burst is left alone before its memory is read."""

IDLE_DELAY_SECONDS = 0.25
"""``idle_seconds`` of our pools there; the general-purpose allocators keep the delays they come with."""


WARM_BLOCKS = 64
"""Live at once while a strategy is warmed up."""


class Cell(NamedTuple):
    """What to run."""

    workload: str
    strategy: str
    shape: Shape
    threads: int
    seed: int

    @classmethod
    def from_json(cls, text: str) -> Cell:
        """The description that the parent sends."""
        fields = json.loads(text)
        return cls(**fields | {"shape": Shape(*fields["shape"])})


def peak_rss_bytes() -> int:
    """The most memory this process ever had resident."""
    try:  # rusage would tell the parent's peak where that was higher: it passes through fork and exec
        with open("/proc/self/status", encoding="ascii") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass  # not Linux
    memory = psutil.Process().memory_info()
    peak: int | None = getattr(memory, "peak_wset", None)  # Windows
    if peak is not None:
        return peak
    import resource  # noqa: PLC0415  # not on Windows

    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def _fragmentation(allocator: Allocator) -> tuple[float | None, float | None]:
    """External and internal fragmentation now; unknown for allocators that do not tell."""
    if allocator.pool is None:
        return None, None
    stats = allocator.pool.stats()
    return stats.external_fragmentation, stats.internal_fragmentation


@contextmanager
def workload_of(cell: Cell) -> Iterator[CData]:
    """The ``pp_workload *`` of a cell, for as many repetitions as wanted. Raises ``AnalysisError``."""
    config = ffi.new("pp_workload_config *")
    config.kind = WORKLOADS[cell.workload].kind
    config.threads = cell.threads
    config.size, config.max_size, config.live, config.operations = cell.shape
    workload = lib.pp_workload_begin(config)
    if workload == ffi.NULL:
        raise AnalysisError(
            f"workload {cell.workload} cannot run with {cell.shape} and {cell.threads} thread(s); "
            "only larson and mstress take more than one thread, and live must be at least threads"
        )
    try:
        yield workload
    finally:
        lib.pp_workload_end(workload)


def run_once(workload: CData, allocator: Allocator, seed: int, idle_seconds: float = 0) -> dict[str, Any]:
    """One repetition, and so many idle seconds; times in ns, sizes in bytes."""
    result = ffi.new("pp_workload_result *")
    lib.pp_workload_run(workload, allocator.provider, seed, result)
    try:
        time.sleep(idle_seconds)
        external, internal = _fragmentation(allocator)
        rss = psutil.Process().memory_info().rss
    finally:
        lib.pp_workload_drain(workload)
    if result.operations == 0:
        raise AnalysisError("the system refused to start a thread; run with fewer --threads")
    return {
        "ns_per_op": result.elapsed_ns / result.operations,
        "p99_ns": result.p99_ns,
        "rss_bytes": rss,
        "peak_rss_bytes": peak_rss_bytes(),
        "live_bytes": result.requested_live_bytes,
        "external_fragmentation": external,
        "internal_fragmentation": internal,
        "failures": result.failures,
    }


def _warm_up(cell: Cell) -> None:
    """Use the strategy a little, so that its code is in memory before the first look at the resident set."""
    shape = cell.shape._replace(live=WARM_BLOCKS, operations=WARM_BLOCKS * 16)
    allocator = build(cell.strategy, shape, cell.threads)
    with workload_of(cell._replace(shape=shape)) as workload:
        run_once(workload, allocator, cell.seed)
    if allocator.pool is not None:
        allocator.pool.close()


def _answer(cell: Cell, workload: CData) -> None:
    """Build the strategy, and a repetition for each line of standard input."""
    before = psutil.Process().memory_info().rss
    allocator = build(cell.strategy, cell.shape, cell.threads)
    # A burst is followed by what that workload is about: memory while nobody asks for any.
    idle_seconds = IDLE_SECONDS if cell.workload == "burst-idle" else 0
    if idle_seconds and isinstance(allocator.pool, OwnMemory):
        allocator.pool.set_idle(IDLE_DELAY_SECONDS)
    print(json.dumps({"ready": True, "rss_before_bytes": before}), flush=True)
    for number, _ in enumerate(sys.stdin):
        print(json.dumps(run_once(workload, allocator, cell.seed + number, idle_seconds)), flush=True)


def main() -> int:
    """Answer the parent until it closes standard input."""
    cell = Cell.from_json(sys.stdin.readline())
    try:
        _warm_up(cell)
        with workload_of(cell) as workload:  # what it takes is in memory before the first look, too
            _answer(cell, workload)
    except AnalysisError as error:
        print(json.dumps({"error": str(error), "exit_code": error.exit_code}), flush=True)
    return 0
