"""How much memory was there but of no use."""

from __future__ import annotations

from matplotlib.axes import Axes

from analysis import units
from analysis.figures import style
from analysis.metrics import Metrics, Series

_BINS = 150


@style.figure_function
def fragmentation(metrics: Metrics, ax: Axes) -> None:
    """Internal (1 - Q/B) and external (1 - L/F) fragmentation over time: mean and range.

    Where the holes are known, also the share of free bytes that requests of the p99 size cannot use.
    """
    end = metrics.trace.end_ns
    lines = [("internal", metrics.internal, metrics.internal_mean, style.BLUE)]
    found = metrics.fragmentation
    if found is not None:
        external = Series(found.times, found.external, end)
        lines.append(("external", external, external.mean(), style.VERMILION))
        if found.unusable is not None:
            useless = Series(found.times, found.unusable, end)
            name = f"no use to {units.bytes_text(metrics.typical_request)}"
            lines.append((name, useless, useless.mean(), style.GREEN))
    labels = []
    for name, series, mean, colour in lines:
        bands = series.binned(_BINS)
        ax.fill_between(bands.times, bands.low, bands.high, color=colour, alpha=0.18, linewidth=0)
        ax.plot(bands.times, bands.mean, color=colour)
        tail = bands.mean[-max(len(bands.mean) // 10, 1) :]
        labels.append((float(tail.mean()), f"{name}\nmean {units.percent_text(mean)}", colour))
    ax.set_ylim(-0.02, 1.02)
    style.percent_axis(ax.yaxis)
    style.time_axis(ax, metrics.trace)
    style.title(ax, finding(metrics))
    style.direct_labels(ax, labels)


def finding(metrics: Metrics) -> str:
    """The title: where the loss is."""
    inside = f"{units.percent_text(metrics.internal_mean)} of granted bytes were not asked for"
    found = metrics.fragmentation
    if found is None:
        return f"{inside}; the trace does not tell of free memory"
    end = metrics.trace.end_ns
    outside = Series(found.times, found.external, end).mean()
    if found.unusable is None:
        return f"{inside}; {units.percent_text(outside)} of free bytes lie outside the largest hole"
    useless = Series(found.times, found.unusable, end).mean()
    size = units.bytes_text(metrics.typical_request)
    return f"{inside}; {units.percent_text(useless)} of free bytes are of no use to a request of {size}"
