"""Metrics of random histories against a model in plain Python, and of small ones by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import synthetic
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import analysis
from analysis import metrics
from analysis.metrics import Metrics, formulas


def measured(builder: synthetic.TraceBuilder, tmp_path: Path) -> Metrics:
    return Metrics(analysis.load(builder.write(tmp_path / "m.pptrace")))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1 << 30), steps=st.integers(5, 400), slots=st.integers(1, 40))
def test_levels_holes_and_laws_agree_with_the_model(
    tmp_path: Path, seed: int, steps: int, slots: int
) -> None:
    work = synthetic.workload(seed, steps, slots)
    if not any(work.blocks):
        return
    found = measured(work.builder, tmp_path)
    assert found.levels.requested.tolist() == work.requested
    assert found.levels.granted.tolist() == work.granted
    assert found.levels.blocks.tolist() == work.blocks
    assert found.levels.free.tolist() == work.free
    instants = np.arange(len(work.extents))
    extents = metrics.free_extents(found.trace, 1, instants)
    for at, expected in enumerate(work.extents):
        assert extents.at(at).tolist() == expected
        holes = np.array(expected, np.int64)
        assert extents.largest[at] == holes.max(initial=0)
        assert extents.count[at] == len(expected)
        assert extents.free[at] == work.free[at]
        if expected:
            dispersion = 1 - extents.squares_over_free[at] / extents.free[at]
            assert dispersion == pytest.approx(formulas.hole_dispersion(holes))
            unusable = 1 - extents.usable(5000)[at] / extents.free[at]
            assert unusable == pytest.approx(formulas.unusable_free_index(holes, 5000))
    assert extents.misplaced == 0
    assert found.violations == []
    counted, expected_live = metrics.littles_law(found.trace, found.levels, found.lives)
    assert counted == pytest.approx(expected_live)


def test_reserved_is_granted_plus_free_plus_metadata_in_every_sample(tmp_path: Path) -> None:
    found = measured(synthetic.workload(8, steps=900).builder, tmp_path)
    samples = found.samples
    assert len(samples) > 20
    metadata = found.levels.metadata[samples.at]
    assert (samples.reserved == samples.granted + samples.free + metadata).all()


@pytest.mark.parametrize(
    ("wrong", "law"),
    [
        ({"R": 5000}, "R = B + F"),
        ({"B": 96, "F": 4000}, "B of samples"),
        ({"Q": 70}, "Q <= B"),
        ({"L": 4033}, "L <= F"),
    ],
)
def test_a_sample_that_breaks_a_law_is_named(
    tmp_path: Path, builder: synthetic.TraceBuilder, wrong: dict[str, int], law: str
) -> None:
    builder.region(0, 0, 4096, 100)
    builder.alloc(1, 1, 0, 40, 64)
    builder.sample(2, **{"R": 4196, "B": 64, "Q": 40, "F": 4032, "L": 4032} | wrong)
    violations = measured(builder, tmp_path).violations
    assert any(violation.law.startswith(law) for violation in violations)
    with pytest.raises(analysis.BalanceError):
        metrics.require(violations)
    assert any(law in warning for warning in analysis.summary(tmp_path / "m.pptrace").warnings)


def test_overlapping_and_outlying_blocks_are_named(tmp_path: Path, builder: synthetic.TraceBuilder) -> None:
    builder.region(0, 0, 4096)
    builder.alloc(1, 1, 0, 64)
    builder.alloc(2, 2, 32, 64)
    builder.alloc(3, 3, 9000, 64)
    found = measured(builder, tmp_path)
    assert metrics.free_extents(found.trace, 1, np.array([3])).misplaced == 2
    assert any("place" in violation.law for violation in found.violations)


def test_regions_that_touch_are_one_and_regions_apart_are_two(
    tmp_path: Path, builder: synthetic.TraceBuilder
) -> None:
    builder.region(0, 0, 1000)
    builder.region(1, 1000, 1000)
    builder.region(2, 5000, 500)
    builder.alloc(3, 1, 100, 50)
    builder.event(synthetic.REGION_REMOVE, 4, offset=5000, granted=500)
    extents = metrics.free_extents(measured(builder, tmp_path).trace, 1, np.arange(5))
    assert [extents.at(at).tolist() for at in range(5)] == [
        [1000], [2000], [2000, 500], [100, 1850, 500], [100, 1850],
    ]  # fmt: skip


def test_rates_churn_and_lifetimes_by_hand(tmp_path: Path, builder: synthetic.TraceBuilder) -> None:
    second = 1_000_000_000
    builder.alloc(0, 1, 0, 100)
    builder.alloc(1 * second, 2, 100, 300)
    builder.free(2 * second, 1, 0, 100)
    builder.free(4 * second, 2, 100, 300)
    found = measured(builder, tmp_path)
    assert found.rates.allocations_per_s == pytest.approx(0.5)
    assert found.rates.releases_per_s == pytest.approx(0.5)
    assert found.rates.allocated_bytes_per_s == pytest.approx(100)
    # Q is 100, 400, 300, 300 for a second each: 275 on average.
    assert found.level("requested").mean() == pytest.approx(275)
    assert found.rates.churn == pytest.approx(400 / 275)
    assert sorted(found.lives.seconds.tolist()) == [2, 3]
    # Block 1 saw 300 bytes allocated meanwhile, block 2 none.
    assert found.lives.age_bytes[np.argsort(found.lives.seconds)].tolist() == [300, 0]
    assert metrics.littles_law(found.trace, found.levels, found.lives) == (
        pytest.approx(1.25),
        pytest.approx(1.25),
    )
    series = metrics.rate_series(found.trace, bins=4)
    assert series.allocations_per_s.tolist() == [1, 1, 0, 0]
    assert series.releases_per_s.tolist() == [0, 0, 1, 1]


def test_blocks_announced_at_attach_are_no_allocations(
    tmp_path: Path, builder: synthetic.TraceBuilder
) -> None:
    builder.alloc(0, 1, 0, 100, flags=synthetic.BORN_BEFORE)
    builder.alloc(5, 2, 100, 100)
    builder.free(9, 1, 0, 100)
    found = measured(builder, tmp_path)
    assert found.rates.allocations == 1
    assert found.lives.known.tolist() == [False, False]
    assert found.violations == []


def test_certain_leaks_name_tag_site_bytes_and_age(tmp_path: Path, builder: synthetic.TraceBuilder) -> None:
    builder.alloc(1000, 1, 0, 100, 128, tag="conn-9", stack="serve (s.py:3)\nmain (s.py:9)")
    builder.alloc(3000, 2, 128, 50, 128, tag="conn-9", stack="serve (s.py:3)\nmain (s.py:9)")
    builder.alloc(3500, 3, 256, 1, 128, tag="conn-8")
    for block, requested, tag, stack, age in (
        (1, 100, "conn-9", "serve (s.py:3)\nmain (s.py:9)", 0),
        (2, 50, "conn-9", "serve (s.py:3)\nmain (s.py:9)", 0),
        (3, 1, "conn-8", "", 9999),
    ):
        builder.event(
            synthetic.LEAK, 5000, block=block, requested=requested, granted=128, tag=tag, stack=stack, aux=age
        )
    first, second = measured(builder, tmp_path).certain_leaks
    assert (first.tag, first.pool, first.blocks, first.requested, first.granted) == (
        "conn-9",
        "recv",
        2,
        150,
        256,
    )
    assert first.site == "serve (s.py:3)\nmain (s.py:9)"
    assert (first.oldest_ns, first.youngest_ns) == (4000, 2000)
    assert (second.tag, second.site, second.oldest_ns) == ("conn-8", "", 9999)


def test_what_only_grows_and_is_old_is_suspected(tmp_path: Path, builder: synthetic.TraceBuilder) -> None:
    handle = 0
    for round_ in range(60):
        start = round_ * 1000
        for tag in ("leaky", "sound"):
            handle += 1
            builder.alloc(start, handle, 0, 10, tag=tag)
            builder.free(start + 400, handle, 0, 10, tag=tag)
        if round_ % 10 == 0:
            handle += 1
            builder.alloc(start + 500, handle, 0, 77, tag="leaky")
    suspects = measured(builder, tmp_path).suspected_leaks
    assert [(leak.tag, leak.blocks, leak.requested) for leak in suspects] == [("leaky", 6, 6 * 77)]


def test_blame_divides_the_free_bytes_of_a_segment_by_live_bytes(
    tmp_path: Path, builder: synthetic.TraceBuilder
) -> None:
    builder.region(0, 0, 3000)
    builder.alloc(1, 1, 0, 100, tag="small")
    builder.alloc(2, 2, 100, 300, tag="large")
    builder.alloc(3, 3, 900, 200, tag="large")  # 100 bytes in segment 0, 100 in segment 1
    trace = measured(builder, tmp_path).trace
    shares = {trace.tag_text(tag): amount for tag, amount in metrics.blame(trace, 1, np.array([3]), 1000)}
    # Segment 0: 500 live, 500 free; segment 1: 100 live, 900 free; segment 2 is empty.
    assert shares == {"small": pytest.approx(500 * 100 / 500), "large": pytest.approx(500 * 400 / 500 + 900)}


def test_blame_costs_the_same_however_large_the_blocks_are(
    tmp_path: Path, builder: synthetic.TraceBuilder
) -> None:
    whole, segment = 1 << 47, 1 << 16
    builder.region(0, 0, whole)
    builder.alloc(1, 1, 100, whole // 2, tag="vast")
    builder.alloc(2, 2, whole - 300, 300, tag="last")
    trace = measured(builder, tmp_path).trace
    shares = {trace.tag_text(tag): amount for tag, amount in metrics.blame(trace, 1, np.array([2]), segment)}
    # 100 bytes before it and the rest of the segment in which it ends; all but 300 of the last one.
    assert shares == pytest.approx({"vast": segment, "last": segment - 300})


def test_compaction_slides_to_the_front(tmp_path: Path, builder: synthetic.TraceBuilder) -> None:
    builder.region(0, 0, 4000)
    for block, offset in ((1, 0), (2, 1000), (3, 2000), (4, 3500)):
        builder.alloc(block, block, offset, 100)
    slide = metrics.compaction(measured(builder, tmp_path).trace, 1, 4, 1000)
    assert (slide.moved_blocks, slide.moved_bytes) == (3, 300)
    assert (slide.freed_segments, slide.freed_bytes) == (3, 3000)
    assert slide.pin_floor == 0


def test_a_pin_is_a_floor_that_no_slide_gets_under(tmp_path: Path, builder: synthetic.TraceBuilder) -> None:
    builder.region(0, 0, 4000)
    for block, offset in ((1, 500), (2, 1900), (3, 3500)):
        builder.alloc(block, block, offset, 100)
    builder.event(synthetic.PIN, 4, block=2)
    slide = metrics.compaction(measured(builder, tmp_path).trace, 1, 4, 1000)
    # 1 and 3 go to 0 and 100; 2 stays at 1900: holes of 1700 and 2000 remain.
    assert (slide.moved_blocks, slide.pinned_blocks, slide.freed_segments) == (2, 1, 1)
    assert slide.pin_floor == pytest.approx(1 - 2000 / 3700)


def test_failures_carry_the_fragmentation_index(tmp_path: Path, builder: synthetic.TraceBuilder) -> None:
    builder.region(0, 0, 1000)
    for block in range(5):
        builder.alloc(1, block + 1, block * 200 + 100, 100)
    builder.event(synthetic.FAIL, 2, requested=150, aux=1, tag="conn-3")
    builder.event(synthetic.FAIL, 3, requested=(1 << 64) - 1, aux=7)
    first, second = measured(builder, tmp_path).failures
    assert (first.requested, first.tag, first.status) == (150, "conn-3", 1)
    assert first.index == pytest.approx(1 - (1 + 500 / 150) / 5)
    assert second.index == pytest.approx(1 - 1 / 5)


def test_the_index_of_a_buddy_pool_is_of_blocks_that_a_request_could_have(
    tmp_path: Path, builder: synthetic.TraceBuilder
) -> None:
    builder.pool(1, strategy="buddy", min_block=256)
    builder.region(0, 0, 4096)
    for block in (0, *range(3, 16)):
        builder.alloc(1, block + 1, block * 256, 256)
    builder.event(synthetic.FAIL, 2, requested=512, aux=1)  # the extent from 256 to 768 is two blocks
    builder.event(synthetic.FAIL, 3, requested=100, aux=1)  # and each is granted to a request of 100
    builder.free(4, 1)
    builder.event(synthetic.FAIL, 5, requested=300, aux=16)  # 0 to 512 is one
    scattered, refused, fits = measured(builder, tmp_path).failures
    assert (scattered.index, refused.index, fits.index) == (1 - (1 + 512 / 512) / 2, -1, -1)


@given(
    holes=st.lists(st.tuples(st.integers(0, 1 << 40), st.integers(1, 1 << 40)), max_size=20),
)
def test_extents_are_cut_into_blocks_that_are_aligned_and_as_large_as_can_be(
    holes: list[tuple[int, int]],
) -> None:
    expected = []
    for offset, size in holes:
        at, end = offset, offset + size
        while at < end:
            order = 62
            while at % (1 << order) or at + (1 << order) > end:
                order -= 1
            expected.append(1 << order)
            at += 1 << order
    offsets, lengths = (np.array([hole[i] for hole in holes], np.int64) for i in (0, 1))
    assert sorted(metrics.buddies(offsets, lengths).tolist()) == sorted(expected)


def test_a_heap_without_regions_is_measured_by_its_samples(
    tmp_path: Path, builder: synthetic.TraceBuilder
) -> None:
    builder.alloc(0, 1, 0x7F0000001000, 1000, 1008)
    builder.sample(10, R=10000, B=1008, Q=1000, F=4000, L=1000)
    builder.sample(30, R=12000, B=1008, Q=1000, F=4000, L=3000)
    builder.free(40, 1, 0x7F0000001000, 1000, 1008)
    found = measured(builder, tmp_path)
    row = analysis.summary(found.trace)
    assert row.source == "samples"
    assert row.peak_reserved_bytes == 12000
    assert row.external_fragmentation_mean == pytest.approx((0.75 * 20 + 0.25 * 10) / 30)
    assert row.hole_dispersion_at_peak is None
    assert found.compaction is None
    assert found.blame == []
    assert found.violations == []


def test_a_trace_without_regions_and_samples_tells_no_fragmentation(
    tmp_path: Path, builder: synthetic.TraceBuilder
) -> None:
    builder.alloc(0, 1, 0, 1000)
    row = analysis.summary(measured(builder, tmp_path).trace)
    assert row.source == "none"
    assert row.external_fragmentation_mean is None
    assert row.peak_reserved_bytes is None


def test_pools_are_added_up_pool_by_pool(tmp_path: Path, builder: synthetic.TraceBuilder) -> None:
    for pool in (1, 2):
        builder.region(0, 0, 1000, 10, pool=pool)
        builder.alloc(1, 1, 400, 100, pool=pool)
    found = measured(builder, tmp_path)
    swept = found.fragmentation
    assert (int(swept.free[-1]), int(swept.largest[-1])) == (1800, 1000)
    assert swept.external[-1] == pytest.approx(1 - 1000 / 1800)
    assert found.reserved.peak == 2020


def test_a_trace_without_allocations_is_no_report(tmp_path: Path, builder: synthetic.TraceBuilder) -> None:
    builder.process(0, 100, 100)
    with pytest.raises(analysis.TraceError, match="holds no allocation"):
        measured(builder, tmp_path)
