"""Figures draw what was measured, on axes given or made, whatever the texts of the trace are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import synthetic
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

import analysis
from analysis import figures, units
from analysis.figures import address_by_time, style
from analysis.metrics import Metrics, Series, outstanding
from analysis.reporting.images import data_uris

DRAWN = [getattr(figures, name) for name in figures.__all__]


def texts_of(figure: Figure) -> list[str]:
    return [artist.get_text() for artist in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


@pytest.mark.parametrize("draw", DRAWN)
def test_takes_axes_and_returns_them(leaky: Path, draw: object) -> None:
    ax = Figure().subplots()
    assert draw(analysis.load(leaky), ax) is ax
    assert ax.get_title(loc="left")


@pytest.mark.parametrize("draw", DRAWN)
def test_makes_axes_with_a_footer_where_none_are_given(leaky: Path, draw: object) -> None:
    figure = draw(Metrics(analysis.load(leaky))).figure
    footer = next(text for text in texts_of(figure) if "leaky.pptrace" in text)
    assert "slab" in footer
    assert "seed 5" in footer
    assert "poolport 0.1.0" in footer


def test_titles_state_the_finding_with_its_number(leaky: Path) -> None:
    metrics = Metrics(analysis.load(leaky))
    title = figures.leaks(metrics).get_title(loc="left")
    assert title.replace("\u00a0", " ").startswith("2 blocks (")
    assert "reserved for at most" in figures.water_levels(metrics).get_title(loc="left")


HOSTILE = [
    "$x_{$",
    "$\\frac{1}$",
    "<script>alert(1)</script>",
    "a\x00b\x1b[31m",
    "\u202egnp",
    "名前",
    "😀",
    "%s{}\\n",
    "x" * 5000,
]


def test_hostile_tags_are_drawn_as_they_are(tmp_path: Path, builder: synthetic.TraceBuilder) -> None:
    builder.region(0, 0, 1 << 16)
    for block, tag in enumerate(HOSTILE, start=1):
        builder.alloc(block, block, block * 100, 100, tag=tag, stack=tag)
        builder.event(synthetic.MARK, block, tag=tag)
    for block, tag in enumerate(HOSTILE, start=1):
        builder.event(synthetic.LEAK, 99, block=block, requested=100, granted=100, tag=tag, stack=tag)
    metrics = Metrics(analysis.load(builder.write(tmp_path / "h.pptrace")))
    for draw in DRAWN:
        uri = data_uris({"one": draw(metrics).figure}, 1 << 20)["one"]
        assert uri.startswith("data:image/")
    drawn = texts_of(figures.leaks(metrics).figure)
    assert any("$x_{$" in text for text in drawn)
    assert not any("\x1b" in text or "\u202e" in text for text in drawn)


def test_the_raster_is_exact(tmp_path: Path, builder: synthetic.TraceBuilder) -> None:
    builder.region(0, 0, 4096)
    builder.alloc(0, 1, 0, 1024, tag="a")
    builder.alloc(250, 2, 1536, 1024, tag="b")
    builder.free(500, 1, 0, 1024)
    builder.free(750, 2, 1536, 1024)
    builder.alloc(1000, 3, 3072, 1024, tag="c")
    trace = analysis.load(builder.write(tmp_path / "r.pptrace"))
    rows = {tag: row for row, name in enumerate("ab") for tag, text in trace.tags.items() if text == name}
    shares, places = address_by_time.occupancy_raster(trace, 1, rows, 2, rows=4, columns=4)
    assert places.span == 4096
    assert shares[0].tolist() == [[1, 1, 0, 0], [0] * 4, [0] * 4, [0] * 4]
    assert shares[1].tolist() == [[0] * 4, [0, 0.5, 0.5, 0], [0, 0.5, 0.5, 0], [0] * 4]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1000), columns=st.integers(1, 50), rows=st.integers(1, 50))
def test_the_raster_holds_all_bytes_and_nanoseconds(
    tmp_path: Path, seed: int, columns: int, rows: int
) -> None:
    work = synthetic.workload(seed, steps=120)
    trace = analysis.load(work.builder.write(tmp_path / "r.pptrace"))
    shares, places = address_by_time.occupancy_raster(trace, 1, {}, 0, rows=rows, columns=columns)
    mean_granted = Series(trace.times, np.array(work.granted), trace.end_ns).mean()
    assert shares.mean() * places.span == pytest.approx(mean_granted, rel=1e-9, abs=1e-6)


def test_malloc_addresses_are_moved_together(tmp_path: Path, builder: synthetic.TraceBuilder) -> None:
    builder.alloc(0, 1, 0x5000_0000_1010, 100)
    builder.alloc(1, 2, 0x5000_0000_1FF0, 100)  # two pages, of which one is known
    builder.alloc(2, 3, 0x7F00_0000_0000, 5000)
    builder.free(9, 3, 0x7F00_0000_0000, 5000)
    trace = analysis.load(builder.write(tmp_path / "a.pptrace"))
    places = address_by_time.address_map(trace, 1)
    assert places.span == 4 * 4096
    assert len(places.start) == 2
    assert places.place(np.array([0x5000_0000_1000, 0x7F00_0000_0000])).tolist() == [0, 8192]


def test_what_no_block_reached_is_left_out_of_the_picture(
    tmp_path: Path, builder: synthetic.TraceBuilder
) -> None:
    builder.region(0, 0, 1 << 20)
    builder.alloc(1, 1, 0, 4096)
    builder.free(9, 1, 0, 4096)
    trace = analysis.load(builder.write(tmp_path / "a.pptrace"))
    places = address_by_time.address_map(trace, 1)
    assert (places.span, places.untouched) == (4096, (1 << 20) - 4096)
    assert "never used" in address_by_time.finding(Metrics(trace))


def test_the_picture_and_its_title_count_of_the_same_whole(
    tmp_path: Path, builder: synthetic.TraceBuilder
) -> None:
    builder.region(0, 0, 1 << 20)
    builder.alloc(0, 1, 0, 4096)
    builder.free(25, 1, 0, 4096)
    builder.process(100, 1, 1)
    ax = figures.occupancy(analysis.load(builder.write(tmp_path / "a.pptrace")))
    assert "held 25.0 % of these 4 KiB" in ax.get_title(loc="left").replace("\u00a0", " ")
    assert any(text.endswith("free 75.0 %") for text in texts_of(ax.figure))


def test_a_leaked_block_is_pointed_at_however_thin_it_is(
    tmp_path: Path, builder: synthetic.TraceBuilder
) -> None:
    builder.region(0, 0, 1 << 30)
    builder.alloc(0, 1, (1 << 30) - 4096, 4096, tag="others")
    builder.free(5, 1, (1 << 30) - 4096, 4096)
    builder.alloc(10, 2, 1 << 29, 64, tag="conn-7 127.0.0.1:5")
    builder.event(synthetic.LEAK, 100, block=2, requested=64, granted=64, tag="conn-7 127.0.0.1:5")
    metrics = Metrics(analysis.load(builder.write(tmp_path / "a.pptrace")))
    ax = figures.occupancy(metrics)
    (arrow,) = [text for text in ax.texts if text.get_text() == "leak: conn-7"]
    assert arrow.xy == (100, (1 << 29) + 32)
    (line,) = ax.lines
    assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([10, 100], [(1 << 29) + 32] * 2)


def test_a_spike_too_short_to_see_does_not_flatten_the_rest(
    tmp_path: Path, builder: synthetic.TraceBuilder
) -> None:
    builder.alloc(0, 1, 0, 4096, tag="stays")
    builder.alloc(500, 2, 8192, 5 << 20, tag="short")
    builder.free(501, 2, 8192, 5 << 20)
    builder.free(1000, 1, 0, 4096)
    metrics = Metrics(analysis.load(builder.write(tmp_path / "a.pptrace")))
    ax = figures.outstanding_by_tag(metrics)
    assert 4096 < ax.get_ylim()[1] < 8192
    assert any(f"to {units.bytes_text((5 << 20) + 4096)}" in text for text in texts_of(ax.figure))


def test_a_leak_s_band_is_seen_beside_a_thousand_times_as_much(
    tmp_path: Path, builder: synthetic.TraceBuilder
) -> None:
    builder.alloc(0, 1, 0, 4 << 20, tag="large")
    builder.alloc(10, 2, 8 << 20, 4096, tag="lost")
    builder.free(90, 1, 0, 4 << 20)
    builder.event(synthetic.LEAK, 100, block=2, requested=4096, granted=4096, tag="lost")
    ax = figures.outstanding_by_tag(analysis.load(builder.write(tmp_path / "a.pptrace")))
    (line,) = ax.lines
    assert line.get_linewidth() >= 2
    assert np.nanmax(line.get_ydata()) == 4096


def test_ticks_of_neighbours_stay_apart(leaky: Path) -> None:
    ax, beside = analysis.report([leaky, leaky]).figures["leaks"].axes
    ax.figure.draw_without_rendering()
    right = max(label.get_window_extent().x1 for label in ax.get_xticklabels())
    left = min(label.get_window_extent().x0 for label in beside.get_xticklabels())
    assert right + 4 < left, "pixels"


def test_bands_of_tags_add_up_to_what_is_live(leaky: Path) -> None:
    metrics = Metrics(analysis.load(leaky))
    labels = dict(list(metrics.trace.tags.items())[:2])
    found = outstanding(metrics.trace, metrics.instants, labels)
    total = sum(found.bytes_of.values()) + found.others
    assert total.tolist() == metrics.levels.requested[metrics.instants].tolist()


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(-100, 100)), min_size=1, max_size=300),
    st.integers(1, 20),
)
def test_thinning_keeps_the_extremes(steps: list[tuple[int, int]], bins: int) -> None:
    times = np.cumsum([step for step, _ in steps])
    series = Series(times, np.array([value for _, value in steps]), int(times[-1]))
    thin = series.thinned(bins)
    assert len(thin) <= max(2 * bins + 1, 1)
    assert thin.values.max() == series.values.max()
    assert thin.values.min() == series.values.min()
    assert (np.diff(thin.times) >= 0).all()
    bands = series.binned(bins)
    assert (bands.low <= bands.mean + 1e-9).all()
    assert (bands.mean <= bands.high + 1e-9).all()


def test_byte_ticks_are_powers_of_two() -> None:
    ticks = style.BinaryLocator(6).tick_values(0, 100_000_000)
    steps = set(np.diff(ticks).tolist())
    assert steps == {float(1 << 24)}
    assert len(ticks) <= 7
