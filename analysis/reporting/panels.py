"""One figure per question, with one panel per trace, all on the same scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import figures, units
from analysis.figures import (
    address_by_time,
    bytes_by_tag,
    fragmentation_over_time,
    leak_bars,
    levels_over_time,
    rates_over_time,
    style,
)
from analysis.metrics import Metrics

_WIDTH = 12.0
_BETWEEN_PANELS = 0.1  # inches on each side, or the last tick of one meets the first of the next
_BETWEEN_ROWS = 0.16  # the same above and below, or a panel's name is read as part of the axis above it


@dataclass(frozen=True, slots=True)
class Question:
    """A figure of the report: its name, heading, one sentence on how to read it, and who draws it."""

    name: str
    heading: str
    reading: str
    draw: Callable[..., Axes]
    finding: Callable[[Metrics], str]
    reach: Callable[[Metrics], float] | None = None  # what all panels' scales must reach
    by_tag: bool = False  # shows tags: the same tag has the same colour on every figure
    height: float = 3.0


QUESTIONS = (
    Question(
        "water_levels",
        "How much memory, when",
        "Live is what the program asked for, granted what it got, reserved what the allocator holds. "
        "The gap between live and granted is internal fragmentation; the gap between granted and "
        "reserved is memory that waits.",
        figures.water_levels,
        levels_over_time.finding,
        levels_over_time.reach,
    ),
    Question(
        "occupancy",
        "Where it lay",
        "Addresses upwards, time to the right, coloured by who held them: solid where held all the time, "
        "pale where hardly ever. Thin lines that go on to the right while their surroundings empty are "
        "what keeps memory from being given back. An arrow points at what leaked.",
        figures.occupancy,
        address_by_time.finding,
        by_tag=True,
        height=3.4,
    ),
    Question(
        "outstanding_by_tag",
        "Who held it",
        "Live bytes by tag, stacked; the number beside each name is its peak. A band that only grows is a "
        "leak in the making.",
        figures.outstanding_by_tag,
        bytes_by_tag.finding,
        bytes_by_tag.reach,
        by_tag=True,
    ),
    Question(
        "fragmentation",
        "How much of it was of no use",
        "Internal: granted but not asked for. External: free, but not in the largest hole. What counts for "
        "the next request is the third line, where there is one: free bytes that a request of the p99 "
        "size cannot use.",
        figures.fragmentation,
        fragmentation_over_time.finding,
    ),
    Question(
        "rates",
        "How fast it changed",
        "Allocations upwards, releases downwards, the difference in black.",
        figures.rates,
        rates_over_time.finding,
        rates_over_time.reach,
        height=2.6,
    ),
    Question(
        "leaks",
        "What was not given back",
        "Bytes that were live when their pool was closed, by tag and acquisition site.",
        figures.leaks,
        leak_bars.finding,
        height=2.0,
    ),
)


def asked(question: Question, traces: Sequence[Metrics]) -> bool:
    """Whether the figure shows more than its title: bars want others to be held against."""
    if question.name != "leaks":
        return True
    return any(len(metrics.certain_leaks or metrics.suspected_leaks) > 1 for metrics in traces)


def panels(question: Question, traces: Sequence[Metrics], palette: dict[str, str]) -> Figure:
    """Draw one panel per trace: side by side, at most three in a row.

    `palette` (label of a tag -> colour) is shared by all figures of a report, and added to.
    """
    columns = {1: 1, 2: 2, 4: 2}.get(len(traces), 3)
    rows = -(-len(traces) // columns)
    extra = 0.5 if len(traces) == 1 else 1.0 if rows == 1 else 1.3
    figure = style.new_figure(_WIDTH, rows * (question.height + extra))
    if columns > 1:
        height_pad = {"h_pad": _BETWEEN_ROWS} if rows > 1 else {}
        figure.set_layout_engine("constrained", w_pad=_BETWEEN_PANELS, **height_pad)
    shared: dict[str, Any] = {}
    if question.reach is not None and len(traces) > 1:
        shared["top"] = max(question.reach(metrics) for metrics in traces)
    if question.by_tag:
        shared["palette"] = palette
    with style.applied():
        grid = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
        for ax, metrics in zip(grid, traces, strict=False):
            question.draw(metrics, ax, **shared)
        for ax in grid[len(traces) :]:
            ax.set_axis_off()
        if len(traces) > 1:
            _name_panels(grid, traces)
        style.footer(figure, [metrics.trace for metrics in traces])
    return figure


def _name_panels(grid: list[Axes], traces: Sequence[Metrics]) -> None:
    """Write each trace's label above its panel, all at the same height."""
    lines = max(ax.get_title(loc="left").count("\n") + 1 for ax in grid[: len(traces)])
    for ax, metrics in zip(grid, traces, strict=False):
        ax.annotate(
            units.label_text(metrics.label, 32),
            (0, 1),
            (0, 12 + 14.5 * lines),
            xycoords="axes fraction",
            textcoords="offset points",
            fontweight="bold",
            fontsize=11.5,
            annotation_clip=False,
        )
