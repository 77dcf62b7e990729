"""The bars: what is measured for them, and what is said of it."""

from __future__ import annotations

import pytest

import pools
from analysis.benchmarks import Result
from analysis.benchmarks._native import ffi
from analysis.benchmarks.allocators import NOTHING, Allocator, build
from analysis.benchmarks.bars import BARS, Bar, stand
from analysis.benchmarks.bars import _of_workload as of_workload
from analysis.benchmarks.cell import Cell, run_once, workload_of
from analysis.benchmarks.probes import PROBES, run_probe
from analysis.benchmarks.workloads import WORKLOADS, defaults_for
from analysis.errors import AnalysisError


def row(strategy: str, ns: float, rss: int = 100) -> Result:
    return Result("lifo", 4096, 1, strategy, ns, ns, rss, rss, 80.0, 0.0, 0.0, 0)


@pytest.mark.parametrize(("ns", "verdict"), [(4.0, "aim"), (5.0, "aim"), (8.0, "holds"), (10.1, "missed")])
def test_a_bar_is_measured_against_the_fastest_rival_there_is(ns: float, verdict: str) -> None:
    bar = Bar("ours", 1.0, 0.5, "lifo", "slab", ("mimalloc", "malloc", "jemalloc"))
    found = of_workload(bar, [row("slab", ns), row("malloc", 30.0), row("mimalloc", 10.0)])
    assert found is not None
    assert (found.against, found.ratio, found.verdict) == ("mimalloc", ns / 10, verdict)


def test_without_any_rival_there_is_nothing_to_say() -> None:
    assert of_workload(Bar("ours", 1.0, 0.5, "lifo", "slab", ("mimalloc",)), [row("slab", 1.0)]) is None


def test_memory_is_measured_against_live_bytes_where_no_rival_is_named() -> None:
    found = of_workload(Bar("RSS", 1.25, 1.1, "lifo", "slab", (), "rss_bytes"), [row("slab", 1.0, rss=100)])
    assert found is not None
    assert (found.ratio, found.verdict) == (1.25, "holds")


def test_every_bar_names_what_can_be_measured() -> None:
    for bar in BARS:
        assert bool(bar.probe) != bool(bar.workload), bar
        assert not bar.probe or bar.probe in PROBES
        assert not bar.workload or bar.workload in WORKLOADS
        assert bar.aim >= bar.must if bar.more_is_better else bar.aim <= bar.must


def test_every_probe_is_asked_by_some_bar() -> None:
    assert {bar.probe for bar in BARS} - {""} == set(PROBES)


@pytest.mark.parametrize(
    "name", ["bulk-acquire", "bulk", "buddy-worst", "buddy-lazy-worst", "handle", "python-many"]
)
def test_a_probe_times_both_sides_as_often_as_asked(name: str) -> None:
    times = run_probe(name, 2, 1)
    assert [len(side) for side in times] == [2, 2]
    assert all(value > 0 for side in times for value in side)


def test_a_bar_of_a_probe_stands_somewhere() -> None:
    bar = next(bar for bar in BARS if bar.probe == "settled")
    (found,), rows = stand([bar], reps=1)
    assert (found.ratio, found.verdict, rows) == (0.0, "aim", [])


def test_what_cannot_be_measured_is_an_error() -> None:
    with pytest.raises(AnalysisError, match="nonsense"):
        stand([Bar("ours", 1.0, 1.0, probe="nonsense")], reps=1)


def test_the_workloads_own_time_is_told_but_the_whole_is_judged() -> None:
    bar = Bar("ours", 0.5, 0.33, "lifo", "slab", ("malloc",))
    found = of_workload(bar, [row("slab", 10.0), row("malloc", 16.0), row("nothing", 8.0)])
    assert found is not None
    assert (found.harness, found.net_ratio) == (8.0, 0.25)
    assert (found.ratio, found.verdict) == (10 / 16, "missed")


def test_a_rival_that_takes_no_longer_than_the_workload_leaves_no_net_ratio() -> None:
    bar = Bar("ours", 0.5, 0.33, "lifo", "slab", ("malloc",))
    found = of_workload(bar, [row("slab", 10.0), row("malloc", 8.0), row("nothing", 8.0)])
    assert found is not None
    assert found.net_ratio is None


@pytest.mark.parametrize("workload", WORKLOADS)
def test_nothing_serves_every_workload(workload: str) -> None:
    threads = 2 if workload in {"larson", "mstress"} else 1
    shape = defaults_for(workload, None)._replace(live=128, operations=2048)
    cell = Cell(workload, NOTHING, shape, threads, seed=1)
    with workload_of(cell) as runs:
        found = run_once(runs, build(NOTHING, shape, threads), cell.seed)
    assert found["failures"] == 0
    assert found["ns_per_op"] > 0
    assert (found["live_bytes"] > 0) == (workload not in {"lifo", "xthread", "xthread-batches"})


@pytest.mark.parametrize("workload", [one for one in WORKLOADS if one not in {"larson", "mstress"}])
def test_a_workload_may_run_again_and_is_made_of_its_seed(workload: str) -> None:
    shape = defaults_for(workload, None)._replace(live=128, operations=2048)
    with workload_of(Cell(workload, "sizeclass", shape, 1, 1)) as runs:
        found = [run_once(runs, build("sizeclass", shape, 1), seed) for seed in (1, 2, 1)]
    what = [(one["live_bytes"], one["internal_fragmentation"], one["failures"]) for one in found]
    assert what[0] == what[2]
    assert workload not in {"steady", "powers"} or what[0] != what[1]


@pytest.mark.parametrize("workload", WORKLOADS)
def test_what_a_workload_leaves_live_is_what_the_pool_says(workload: str) -> None:
    threads = 2 if workload in {"larson", "mstress"} else 1
    shape = defaults_for(workload, None)._replace(live=128, operations=2048)
    allocator = build("sizeclass", shape, threads)
    live_when_run: list[float] = []

    def look(_seconds: float) -> None:
        live_when_run.append(allocator.pool.stats().requested_bytes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("analysis.benchmarks.cell.time.sleep", look)
        with workload_of(Cell(workload, "sizeclass", shape, threads, 1)) as runs:
            found = run_once(runs, allocator, 1)
    assert [found["live_bytes"]] == live_when_run
    assert allocator.pool.stats().live_blocks == 0
    allocator.pool.close()


@pytest.mark.parametrize(
    "workload", ["fifo-rounds", "random-rounds", "fifo-batches", "random-batches", "xthread-batches"]
)
def test_a_workload_goes_on_without_the_blocks_that_it_was_refused(workload: str) -> None:
    shape = defaults_for(workload, None)._replace(live=128, operations=2048)
    with pools.SlabPool(4096, 20) as pool:
        allocator = Allocator(ffi.cast("pp_provider *", pool.provider_address), pool, pool)
        with workload_of(Cell(workload, "slab", shape, 1, 1)) as runs:
            found = run_once(runs, allocator, 1)
        stats = pool.stats()
        assert found["failures"] > 0 < stats.failed
        assert stats.acquired == stats.released
        assert (stats.double_releases, stats.stale_handles, stats.foreign_handles) == (0, 0, 0)
