"""Traces that the C writer wrote are read as what really happened."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

import analysis
import pools
from analysis.metrics import Metrics


def recorded(path: Path, pool: object, *, leak: int = 0, steps: int = 4000) -> list[tuple[int, int]]:
    """Drive a pool at random; returns (requested, granted) levels after each step."""
    rng = random.Random(3)
    held: list[object] = []
    levels = []
    with pools.Trace(path) as trace:
        trace.note("strategy", "test")
        pool.attach(trace)
        for step in range(steps):
            if held and rng.random() < 0.5:
                held.pop(rng.randrange(len(held))).release()
            elif len(held) < 60:
                held.append(pool.acquire(rng.randrange(1, 4000), tag=f"conn-{rng.randrange(9)}"))
            if step % 50 == 0:
                pool.sample()
                trace.process()
            levels.append((sum(lease.requested for lease in held), pool.stats().granted_bytes))
        for lease in held[leak:]:
            lease.release()
        pool.close()
        for lease in held[:leak]:
            lease.release()
    return levels


@pytest.mark.parametrize(
    "make",
    [
        lambda: pools.SlabPool(block_size=4000, block_count=16, max_count=64, name="slabs"),
        lambda: pools.MallocPool(name="heap"),
    ],
    ids=["slab", "malloc"],
)
def test_levels_laws_and_leaks_of_a_real_pool(tmp_path: Path, make: object) -> None:
    path = tmp_path / "real.pptrace"
    levels = recorded(path, make(), leak=3)
    trace = analysis.load(path)
    metrics = Metrics(trace)
    assert trace.complete
    assert trace.notes["strategy"] == "test"
    assert metrics.violations == []
    assert int(metrics.levels.requested.max()) == max(requested for requested, _ in levels)
    assert int(metrics.levels.granted.max()) == max(granted for _, granted in levels)
    assert int(metrics.levels.blocks[-1]) == 3
    assert sum(leak.blocks for leak in metrics.certain_leaks) == 3
    assert all(leak.tag.startswith("conn-") for leak in metrics.certain_leaks)
    assert metrics.resident.peak > 1 << 20
    assert (metrics.charged is not None) == (os.name == "nt")
    analysis.report(trace).save(tmp_path / "real.html")


def test_a_slab_says_of_itself_what_its_events_add_up_to(tmp_path: Path) -> None:
    path = tmp_path / "real.pptrace"
    recorded(path, pools.SlabPool(block_size=4000, block_count=16, max_count=64))
    metrics = Metrics(analysis.load(path))
    at = metrics.samples.at
    assert len(at) == 80
    assert metrics.samples.granted.tolist() == metrics.levels.granted[at].tolist()
    assert metrics.samples.free.tolist() == metrics.levels.free[at].tolist()
    assert metrics.samples.reserved.tolist() == metrics.levels.reserved[at].tolist()
    swept = analysis.metrics.free_extents(metrics.trace, metrics.trace.main_pool, at)
    assert swept.free.tolist() == metrics.samples.free.tolist()
    assert swept.largest.tolist() == metrics.samples.largest.tolist()


def test_a_trace_still_being_written_is_read_up_to_now(tmp_path: Path) -> None:
    pool = pools.SlabPool(block_size=64, block_count=4)
    with pools.Trace(tmp_path / "live.pptrace") as trace:
        pool.attach(trace)
        lease = pool.acquire(tag="now")
        seen = analysis.load(tmp_path / "live.pptrace")
        lease.release()
        pool.attach(None)
    pool.close()
    assert not seen.complete
    assert int(Metrics(seen).levels.blocks[-1]) == 1
    assert analysis.load(tmp_path / "live.pptrace").complete


def test_blocks_live_at_attach_are_from_before(tmp_path: Path) -> None:
    pool = pools.SlabPool(block_size=64, block_count=4)
    with pool.acquire(tag="early"), pools.Trace(tmp_path / "b.pptrace") as trace:
        pool.attach(trace)
        pool.acquire(tag="late").release()
        pool.attach(None)
    pool.close()
    metrics = Metrics(analysis.load(tmp_path / "b.pptrace"))
    assert metrics.trace.tenures.born_before.tolist() == [True, False]
    assert metrics.rates.allocations == 1


def test_a_refused_request_has_the_index_that_the_exception_told(tmp_path: Path) -> None:
    path, told, rng = tmp_path / "refused.pptrace", [], random.Random(5)
    with pools.Trace(path) as trace, pools.BuddyPool(1 << 16, name="sixteens") as pool:
        pool.attach(trace)
        held = [pool.acquire(256) for _ in range(256)]
        rng.shuffle(held)
        while held and len(told) < 40:
            for lease in held[:3]:
                lease.release()
            del held[:3]
            size = rng.randrange(300, 8000)
            try:
                held.append(pool.acquire(size))
            except pools.PoolExhausted as error:
                told.append((size, str(error).split("fragmentation index ")[1][:5].rstrip(";)")))
        for lease in held:
            lease.release()
    found = Metrics(analysis.load(path)).failures
    assert [(failure.requested, f"{failure.index:.2f}") for failure in found] == told
    assert len(told) > 10
