"""The bars that the allocators set themselves, and where they stand on this machine.

Each bar is a ratio of two things measured in turn: a strategy against the fastest of its rivals
under a workload, or the two sides of a probe. A bar that is missed is shown like one that holds.
A workload's own time is in both sides and draws their ratio towards 1; it is measured in the same turns, and
what the ratio is without it is shown beside, but it is the ratio of the whole that is judged.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from analysis.benchmarks import Result, run
from analysis.benchmarks.allocators import NOTHING
from analysis.benchmarks.probes import PROBES, Times
from analysis.errors import AnalysisError

__all__ = ["BARS", "Bar", "Standing", "stand"]

_GENERAL = ("malloc", "mimalloc", "jemalloc", "tcmalloc")


class Bar(NamedTuple):
    """One bar: ours over theirs, at most ``must``, hoped to be at most ``aim``."""

    text: str
    must: float
    aim: float
    workload: str = ""
    strategy: str = ""
    rivals: tuple[str, ...] = ()
    """The fastest of these that the machine has counts; none: the strategy's own live bytes do."""
    field: str = "ns_per_op"
    probe: str = ""
    more_is_better: bool = False
    """The ratio is theirs over ours (a bandwidth), at least ``must``."""


class Standing(NamedTuple):
    """Where a bar stands."""

    bar: str
    ours: float
    """In the unit of what was measured: ns, bytes, or a plain number."""
    theirs: float
    against: str
    ratio: float
    must: float
    aim: float
    verdict: str
    """``aim``, ``holds`` or ``missed``, by ``ratio``."""
    harness: float | None = None
    """What the workload itself takes (the strategy ``nothing``), which is in both sides; None elsewhere."""
    net_ratio: float | None = None
    """What the ratio is without it; None where there is no such thing, or theirs is no longer than it."""


BARS: tuple[Bar, ...] = (
    Bar("slab, 4 KiB LIFO pair, against mimalloc", 1.0, 0.75, "lifo", "slab", ("mimalloc",)),
    Bar("slab, 1024 live 4 KiB, FIFO, against the best malloc", 0.5, 0.33, "fifo-rounds", "slab", _GENERAL),
    Bar(
        "slab, 1024 live 4 KiB, random, against the best malloc", 0.5, 0.33, "random-rounds", "slab", _GENERAL
    ),
    Bar("the same, FIFO, one block replaced at a time", 0.5, 0.33, "fifo", "slab", _GENERAL),
    Bar("the same, random, one block replaced at a time", 0.5, 0.33, "random", "slab", _GENERAL),
    Bar("the same, FIFO, rounds, 32 blocks to a call", 0.5, 0.33, "fifo-batches", "slab", _GENERAL),
    Bar("the same, random, rounds, 32 blocks to a call", 0.5, 0.33, "random-batches", "slab", _GENERAL),
    Bar("the same, FIFO, coloured", 0.5, 0.33, "fifo-batches", "slab-coloured", _GENERAL),
    Bar("the same, random, coloured", 0.5, 0.33, "random-batches", "slab-coloured", _GENERAL),
    Bar("slab, released by another thread, against mimalloc", 0.35, 0.2, "xthread", "slab", ("mimalloc",)),
    Bar("the same, 32 blocks to a call", 0.35, 0.2, "xthread-batches", "slab", ("mimalloc",)),
    Bar("slab, acquire_many(32) per block, against one acquire", 0.5, 0.3, probe="bulk-acquire"),
    Bar("the same, with release_many and one release", 0.5, 0.3, probe="bulk"),
    Bar("Python, acquire_many(64) per block, against bytearray(4096)", 0.1, 0.05, probe="python-many"),
    Bar("Python, with pool.acquire(), against bytearray(4096)", 3.0, 1.5, probe="python-single"),
    Bar("size classes, Pareto sizes, time, against mimalloc", 1.0, 0.7, "steady", "sizeclass", ("mimalloc",)),
    Bar(
        "size classes, Pareto sizes, peak RSS, against mimalloc",
        1.0,
        0.9,
        "steady",
        "sizeclass",
        ("mimalloc",),
        "peak_rss_bytes",
    ),
    Bar("the same, huge pages, time", 1.0, 0.7, "steady", "sizeclass-huge", ("mimalloc",)),
    Bar("the same, peak RSS", 1.0, 0.9, "steady", "sizeclass-huge", ("mimalloc",), "peak_rss_bytes"),
    Bar("buddy, powers of two 4 to 64 KiB, against malloc", 0.4, 0.25, "powers", "buddy", ("malloc",)),
    Bar("buddy, eager: its worst pair, against its steady state", 5.0, 2.0, probe="buddy-worst"),
    Bar("buddy, lazy: the same pair, against its steady state", 5.0, 2.0, probe="buddy-lazy-worst"),
    Bar("compaction, bandwidth of memmove reached", 0.8, 1.0, probe="slide", more_is_better=True),
    Bar("the same, with memory given back", 0.8, 1.0, probe="slide-return", more_is_better=True),
    Bar("the same, by the idle thread", 0.8, 1.0, probe="slide-leave", more_is_better=True),
    Bar("compaction step, p99 over its time budget", 2.0, 1.2, probe="step-overrun"),
    Bar("handle to pointer, compacting, against a raw pointer", 3.0, 2.0, probe="handle"),
    Bar("handle to pointer, slab, against a raw pointer", 3.0, 2.0, probe="handle-slab"),
    Bar("handle to pointer, size classes, against a raw pointer", 3.0, 2.0, probe="handle-sizeclass"),
    Bar("debug levels but guard pages, C, one word written, against none", 1.5, 1.24, probe="debug"),
    Bar("the same, C, all 4 KiB written", 1.5, 1.24, probe="debug-filled"),
    Bar("the same, Python, all 4 KiB written", 1.5, 1.24, probe="python-debug"),
    Bar(
        "slab, RSS a second after a burst, against live",
        1.25,
        1.1,
        "burst-idle",
        "slab",
        (),
        "rss_bytes",
    ),
    Bar("size classes, RSS, the same", 1.25, 1.1, "burst-idle", "sizeclass", (), "rss_bytes"),
    Bar("buddy, RSS, the same", 1.25, 1.1, "burst-idle", "buddy", (), "rss_bytes"),
    Bar("compacting, RSS, the same", 1.25, 1.1, "burst-idle", "compacting", (), "rss_bytes"),
    Bar("external fragmentation after a compaction", 0.0, 0.0, probe="settled"),
)
"""Every bar."""


def _verdict(bar: Bar, ratio: float) -> str:
    sign = -1 if bar.more_is_better else 1
    if sign * ratio <= sign * bar.aim:
        return "aim"
    return "holds" if sign * ratio <= sign * bar.must else "missed"


def _standing(bar: Bar, ours: float, theirs: float, against: str, ratio: float | None = None) -> Standing:
    if ratio is None:
        ratio = ours / theirs
    return Standing(bar.text, ours, theirs, against, ratio, bar.must, bar.aim, _verdict(bar, ratio))


def _of_workload(bar: Bar, rows: Sequence[Result]) -> Standing | None:
    """None where the machine has no rival, so that there is nothing to compare."""
    by_name = {row.strategy: row for row in rows if row.workload == bar.workload}
    ours = by_name[bar.strategy]
    if not bar.rivals:
        return _standing(bar, getattr(ours, bar.field), ours.live_bytes, "live bytes")
    rivals = [by_name[name] for name in bar.rivals if name in by_name]
    if not rivals:
        return None
    best = min(rivals, key=lambda row: float(getattr(row, bar.field)))
    found = _standing(bar, getattr(ours, bar.field), getattr(best, bar.field), best.strategy)
    if bar.field != "ns_per_op" or NOTHING not in by_name:
        return found
    harness = by_name[NOTHING].ns_per_op
    own = found.theirs - harness
    return found._replace(harness=harness, net_ratio=(found.ours - harness) / own if own > 0 else None)


def _of_probe(bar: Bar, times: Times) -> Standing:
    pairs = zip(times.ours, times.theirs, strict=True)
    ratio = statistics.median(
        theirs / ours if bar.more_is_better else ours / theirs for ours, theirs in pairs
    )
    against = PROBES[bar.probe].theirs
    return _standing(bar, statistics.median(times.ours), statistics.median(times.theirs), against, ratio)


def _ask(probe: str, reps: int, seed: int) -> Times:
    command = [sys.executable, "-m", "analysis.benchmarks.probes", probe, str(reps), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # our own
    if done.returncode:
        raise AnalysisError(f"the probe {probe} failed: {done.stderr.strip() or done.returncode}")
    return Times(*json.loads(done.stdout))


def stand(
    bars: Iterable[Bar] = BARS,
    *,
    reps: int = 9,
    seed: int = 1,
    skipped: Callable[[str, str], None] = lambda _strategy, _why: None,
    progress: Callable[[str], None] = lambda _text: None,
) -> tuple[list[Standing], list[Result]]:
    """Measure every bar: where each stands, and the workloads' rows that this took.

    A bar whose rivals the machine lacks is left out, and told to ``skipped``.
    Raises ``AnalysisError`` where something cannot be measured.
    """
    wanted: dict[str, dict[str, None]] = {}
    for bar in bars:
        if bar.workload:
            harness = (NOTHING,) if bar.field == "ns_per_op" else ()
            wanted.setdefault(bar.workload, {}).update(dict.fromkeys((bar.strategy, *bar.rivals, *harness)))
    rows: list[Result] = []
    for workload, strategies in wanted.items():
        rows += run([workload], strategies, reps=reps, seed=seed, skipped=skipped, progress=progress)
    standings: list[Standing] = []
    for bar in bars:
        found: Standing | None
        if bar.probe:
            progress(f"probe {bar.probe}")
            found = _of_probe(bar, _ask(bar.probe, reps, seed))
        else:
            found = _of_workload(bar, rows)
        if found is None:
            skipped(bar.text, f"the bar {bar.text!r} has no rival here")
        else:
            standings.append(found)
    return standings, rows
