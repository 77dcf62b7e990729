"""Run allocation workloads under several strategies, interleaved, and say what each cost.

Every strategy runs in a process of its own; the repetitions of all strategies take turns, so
that a machine whose speed drifts is unfair to none. Figures are medians over the repetitions.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from analysis.benchmarks.cell import Cell
from analysis.benchmarks.workloads import WORKLOADS, defaults_for
from analysis.errors import AnalysisError, PlatformLacks

__all__ = ["ROOM_FOR_JEMALLOC", "Result", "run"]

# jemalloc keeps its caches in static thread-local storage, of which a program that is already
# running has too little left unless glibc was told so at its start.
ROOM_FOR_JEMALLOC = {"GLIBC_TUNABLES": "glibc.rtld.optional_static_tls=65536"}


class Result(NamedTuple):
    """One row: a workload under a strategy."""

    workload: str
    size: int
    """Bytes of each block; 0 for the pattern's mixed sizes."""
    threads: int
    strategy: str
    ns_per_op: float
    """Median over the repetitions of the time for one acquire and one release."""
    p99_ns: float
    """Median over the repetitions of the 99th percentile over runs of 32 operations."""
    peak_rss_bytes: int
    """What the process's resident set grew to above what it was before the strategy was created."""
    rss_bytes: int
    """What it was above that with the workload's last live set in place."""
    live_bytes: float
    external_fragmentation: float | None
    """None for an allocator that does not tell."""
    internal_fragmentation: float | None
    failures: int

    def as_dict(self) -> dict[str, Any]:
        """The row as JSON data."""
        return self._asdict()


class _Process:
    """A cell's process, answering one request at a time."""

    def __init__(self, cell: Cell):
        self.cell = cell
        self.answers: list[dict[str, Any]] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "analysis.benchmarks"],
            env=os.environ | ROOM_FOR_JEMALLOC,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.rss_before: int = self._ask(json.dumps(cell._asdict()))["rss_before_bytes"]

    def _ask(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise AnalysisError(
                f"{self.cell.strategy} under {self.cell.workload} died with exit code {self._process.wait()}"
            )
        data: dict[str, Any] = json.loads(answer)
        if "error" in data:
            raise PlatformLacks(data["error"]) if data["exit_code"] == 4 else AnalysisError(data["error"])
        return data

    def repeat(self) -> None:
        """Run one repetition."""
        self.answers.append(self._ask("again"))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def result(self) -> Result:
        """The row of what was measured."""
        cell = self.cell

        def median(name: str) -> float:
            return float(statistics.median(answer[name] for answer in self.answers))

        last = self.answers[-1]
        return Result(
            cell.workload,
            cell.shape.size,
            cell.threads,
            cell.strategy,
            median("ns_per_op"),
            median("p99_ns"),
            max(0, last["peak_rss_bytes"] - self.rss_before),
            max(0, int(median("rss_bytes")) - self.rss_before),
            last["live_bytes"],
            last["external_fragmentation"],
            last["internal_fragmentation"],
            sum(answer["failures"] for answer in self.answers),
        )


def run(
    workloads: Iterable[str],
    strategies: Iterable[str],
    *,
    size: int | None = None,
    threads: int = 1,
    reps: int = 9,
    seed: int = 1,
    skipped: Callable[[str, str], None] = lambda _strategy, _why: None,
    progress: Callable[[str], None] = lambda _text: None,
) -> list[Result]:
    """A row for each workload and strategy, in the order given.

    ``size`` is in bytes (0: the pattern's mixed sizes; None: the workload's own); ``threads`` goes to
    the workloads that take several. A strategy that the machine lacks is told to ``skipped`` with the reason.

    Raises ``AnalysisError`` where a cell fails.
    """
    rows: list[Result] = []
    lacking: set[str] = set()
    for workload in workloads:
        shape = defaults_for(workload, size)
        several = threads if WORKLOADS[workload].name in {"larson", "mstress"} else 1
        cells: list[_Process] = []
        try:
            for strategy in strategies:
                if strategy in lacking:
                    continue
                try:
                    cells.append(_Process(Cell(workload, strategy, shape, several, seed)))
                except PlatformLacks as error:
                    lacking.add(strategy)
                    skipped(strategy, str(error))
            for number in range(reps):
                for cell in cells:
                    progress(f"{workload}: {cell.cell.strategy}, repetition {number + 1} of {reps}")
                    cell.repeat()
            rows += [cell.result() for cell in cells]
        finally:
            for cell in cells:
                cell.close()
    return rows
