"""How fast blocks came and went."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from analysis import units
from analysis.figures import style
from analysis.metrics import Metrics, rate_series

_BINS = 120


@style.figure_function
def rates(metrics: Metrics, ax: Axes, *, top: float | None = None) -> None:
    """Allocations a second upwards, releases a second downwards; a difference is growth or a leak.

    `top` is what the axis reaches both ways, per second.
    """
    series = rate_series(metrics.trace, _BINS)
    up, down = series.allocations_per_s, -series.releases_per_s
    for values, colour in ((up, style.BLUE), (down, style.ORANGE)):
        ax.stairs(values, series.edges, fill=True, color=colour, alpha=0.35)
        ax.stairs(values, series.edges, color=colour, linewidth=1.0)
    net = np.convolve(up + down, np.ones(5) / 5, mode="same")
    ax.plot((series.edges[1:] + series.edges[:-1]) / 2, net, color=style.INK, linewidth=1.0)
    ax.axhline(0, color=style.GREY, linewidth=0.6)
    high = top or reach(metrics)
    ax.set_ylim(-high * 1.04, high * 1.04)
    style.count_axis(ax.yaxis)
    ax.set_ylabel("per second")
    style.time_axis(ax, metrics.trace)
    style.title(ax, finding(metrics))
    names = (
        (high / 2, "allocations", style.BLUE),
        (0.0, "net", style.INK),
        (-high / 2, "releases", style.ORANGE),
    )
    style.direct_labels(ax, list(names))


def reach(metrics: Metrics) -> float:
    """The highest rate that is drawn."""
    series = rate_series(metrics.trace, _BINS)
    return max(float(series.allocations_per_s.max()), float(series.releases_per_s.max()), 1.0)


def finding(metrics: Metrics) -> str:
    """The title: how much was allocated, how fast, and how often live memory was replaced."""
    rate = metrics.rates
    speed = f"{units.rate_text(rate.allocations_per_s)} allocations"
    volume = units.byte_rate_text(rate.allocated_bytes_per_s)
    return f"{speed} ({volume}); live memory was replaced {units.count_text(rate.churn)} times"
