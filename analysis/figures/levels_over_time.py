"""How high memory stood over time."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from analysis import units
from analysis.figures import style
from analysis.metrics import Metrics, Series

_BINS = 600
_MARKS = 8
_DASHED: Any = (0, (4, 2))


@style.figure_function
def water_levels(metrics: Metrics, ax: Axes, *, top: float | None = None) -> None:
    """Live Q, granted B, reserved R and the process's RSS over time, in bytes.

    R of a heap (source "samples") is drawn with a dot at each sample, as nothing is known between.
    `top` is what the axis reaches, in bytes: give the same to figures that are to be compared.
    """
    labels: list[tuple[float, str, str]] = []
    for name, series, alpha in (
        ("granted", metrics.level("granted"), 0.20),
        ("live", metrics.level("requested"), 0.35),
    ):
        thin = series.thinned(_BINS)
        colour = style.QUANTITY[name]
        ax.fill_between(thin.times, thin.values, step="post", color=colour, alpha=alpha, linewidth=0)
        ax.plot(thin.times, thin.values, color=colour, drawstyle="steps-post", linewidth=1.0)
        labels.append((_height(thin), f"{name}\npeak {units.bytes_text(series.peak)}", colour))
    sampled = metrics.source == "samples"
    for name, line, text in (
        ("reserved", metrics.reserved, "reserved heap" if sampled else "reserved"),
        ("resident", metrics.resident, "process RSS"),
    ):
        if line is None:
            continue
        thin = line.thinned(_BINS)
        colour = style.QUANTITY[name]
        ax.plot(
            [*thin.times, metrics.trace.end_ns],
            [*thin.values, thin.values[-1]],
            color=colour,
            linestyle=_DASHED if name == "resident" else "solid",
            drawstyle="steps-post",
            marker="." if sampled and name == "reserved" else "",
            markersize=3.0,
        )
        labels.append((_height(thin), f"{text}\npeak {units.bytes_text(line.peak)}", colour))
    ax.set_ylim(0, (top or reach(metrics)) * 1.04)
    style.byte_axis(ax.yaxis)
    style.time_axis(ax, metrics.trace)
    _draw_marks(metrics, ax)
    style.title(ax, finding(metrics))
    style.direct_labels(ax, labels)


def reach(metrics: Metrics) -> float:
    """The highest level that is drawn, in bytes."""
    lines = (metrics.level("granted"), metrics.reserved, metrics.resident)
    return max((line.peak for line in lines if line is not None), default=1.0) or 1.0


def _height(series: Series) -> float:
    """Where the label of a line belongs: the median of its last third, as runs often end at nothing."""
    return float(np.median(series.values[-max(len(series) // 3, 1) :]))


def finding(metrics: Metrics) -> str:
    """The title: the peak, against what was reserved for it."""
    live = metrics.level("requested").peak
    if metrics.reserved is None:
        return f"At most {units.bytes_text(live)} live; the trace does not tell what was reserved"
    reserved = metrics.reserved.peak
    times = reserved / live if live else 0.0
    whose = " by the whole heap" if metrics.source == "samples" else ""
    found = f"{units.bytes_text(reserved)} reserved{whose} for at most {units.bytes_text(live)} live"
    return f"{found}: {times:.1f} times"


def _draw_marks(metrics: Metrics, ax: Axes) -> None:
    for at, text in metrics.trace.marks()[:_MARKS]:
        ax.axvline(at, color=style.GREY, linewidth=0.8, linestyle=(0, (2, 2)))
        ax.annotate(
            units.label_text(text, 20),
            (at, 1.0),
            (3, -2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            rotation=90,
            va="top",
            ha="left",
            fontsize=7.5,
            color=style.GREY,
        )
