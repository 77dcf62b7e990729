"""How much memory was there but of no use."""

from __future__ import annotations

from matplotlib.axes import Axes

from analysis import units
from analysis.figures import style
from analysis.metrics import Metrics, Series

_BINS = 400


@style.figure_function
def fragmentation(metrics: Metrics, ax: Axes) -> None:
    """Internal (1 - Q/B) and external (1 - L/F) fragmentation over time.

    Where the holes are known, also the share of free bytes that requests of the p99 size cannot use.
    """
    labels: list[tuple[float, str, str]] = []
    internal = metrics.internal.thinned(_BINS)
    ax.plot(internal.times, internal.values, color=style.BLUE, drawstyle="steps-post", linewidth=1.0)
    labels.append(
        (_middle(internal), f"internal\nmean {units.percent_text(metrics.internal_mean)}", style.BLUE)
    )
    found = metrics.fragmentation
    if found is not None:
        lines = [("external", found.external, style.VERMILION)]
        if found.unusable is not None:
            size = units.bytes_text(metrics.typical_request)
            lines.append((f"no use to {size}", found.unusable, style.GREEN))
        for name, values, colour in lines:
            series = Series(found.times, values, metrics.trace.end_ns)
            thin = series.thinned(_BINS)
            ax.plot(thin.times, thin.values, color=colour, drawstyle="steps-post", linewidth=1.3)
            labels.append((_middle(series), f"{name}\nmean {units.percent_text(series.mean())}", colour))
    ax.set_ylim(-0.02, 1.02)
    style.percent_axis(ax.yaxis)
    style.time_axis(ax, metrics.trace)
    style.title(ax, finding(metrics))
    style.direct_labels(ax, labels)


def _middle(series: Series) -> float:
    """Where the label of a line belongs: the mean of its last tenth."""
    tail = series.values[-max(len(series) // 10, 1) :]
    return float(tail.mean())


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
