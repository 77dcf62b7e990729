"""Who holds the memory: live bytes by tag over time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from analysis import units
from analysis.figures import style
from analysis.metrics import Metrics, outstanding, tag_group

_TOP = 6
_LEAKED_SHOWN = 3
_WORTH_A_COLOUR = 0.3
_SPIKE_SHARE = 0.01  # of the time: what is shorter is too thin to see, and does not decide the scale
_SPIKE_TIMES = 1.6  # as high as all the rest, at least
_THIN = 0.01  # of the axis: a leak's band below this gets a line


@dataclass(frozen=True)
class TagColours:
    """Which tags have a colour of their own. Tag ids without an entry in `label_of` are others."""

    label_of: dict[int, str]
    colour_of: dict[str, str]
    others: str  # what the rest is called; empty where there is none
    others_colour: str
    short_of: dict[str, str]  # what a label is called where there is little room


def choose_colours(metrics: Metrics, palette: dict[str, str] | None = None, top: int = _TOP) -> TagColours:
    """The tags (or, where tags fall into several groups, the groups) with the most byte-seconds.

    Leaked tags always stand for themselves, in the colour of leaks. `palette` (label -> colour) is
    added to: figures that share one show the same label in the same colour.
    """
    trace = metrics.trace
    leaked = [leak.tag for leak in metrics.certain_leaks][:_LEAKED_SHOWN]
    ids = np.unique(trace.tenures.tag).tolist()
    texts = {tag: trace.tag_text(tag) for tag in ids}
    groups = {tag_group(text) for text in texts.values()}
    grouped = 1 < len(groups) < len(texts)
    label_of = {
        tag: tag_group(text) if grouped and text not in leaked else text for tag, text in texts.items()
    }
    weight: dict[str, float] = {}
    byte_seconds = _byte_seconds(metrics)
    for tag, label in label_of.items():
        weight[label] = weight.get(label, 0.0) + byte_seconds[tag]
    ordered = sorted(weight, key=lambda label: (label not in leaked, -weight[label], label))
    kept = ordered if len(ordered) <= top + 1 else ordered[:top]
    if sum(weight[label] for label in kept) < _WORTH_A_COLOUR * sum(weight.values()):
        # A server with hundreds of equal tags: a few of them in colour would say nothing.
        kept = [label for label in kept if label in leaked]
    palette = {} if palette is None else palette
    short_of = _short_names(ordered)
    for label in kept:
        if label not in leaked:
            palette.setdefault(short_of[label], style.SERIES[len(palette) % len(style.SERIES)])
    colour_of = {
        label: style.QUANTITY["leak"] if label in leaked else palette[short_of[label]] for label in kept
    }
    rest = len(ordered) - len(kept)
    named = {tag: label for tag, label in label_of.items() if label in colour_of}
    others = f"{rest}{' other' if kept else ''} {'groups' if grouped else 'tags'}" if rest else ""
    return TagColours(
        named, colour_of, others, style.OTHER if len(kept) > len(leaked) else style.SKY, short_of
    )


def _short_names(labels: list[str]) -> dict[str, str]:
    """The first word of each label, where no other label begins with it: conn-7 for "conn-7 127.0.0.1:5"."""
    words = [label.partition(" ")[0] for label in labels]
    times = Counter(words)
    return {
        label: word if word and times[word] == 1 else label for label, word in zip(labels, words, strict=True)
    }


def _byte_seconds(metrics: Metrics) -> dict[int, float]:
    tenures = metrics.trace.tenures
    times = np.append(metrics.trace.times, metrics.trace.end_ns)
    lasted = times[tenures.end] - times[np.maximum(tenures.start, 0)]
    tags, which = np.unique(tenures.tag, return_inverse=True)
    sums = np.bincount(which.reshape(-1), weights=lasted / 1e9 * tenures.requested, minlength=len(tags))
    return dict(zip(tags.tolist(), sums.tolist(), strict=True))


@style.figure_function
def outstanding_by_tag(
    metrics: Metrics, ax: Axes, *, top: float | None = None, palette: dict[str, str] | None = None
) -> None:
    """Live bytes requested, by tag, stacked; leaked tags at the bottom. The height of the stack is Q.

    `top` is what the axis reaches, in bytes; for `palette` see `choose_colours`.
    """
    colours = choose_colours(metrics, palette)
    rows = outstanding(metrics.trace, metrics.instants, colours.label_of)
    leak_colour = style.QUANTITY["leak"]
    order = sorted(
        rows.bytes_of,
        key=lambda label: (colours.colour_of[label] != leak_colour, -float(rows.bytes_of[label].sum())),
    )
    bands = [(label, rows.bytes_of[label], colours.colour_of[label]) for label in order]
    if rows.others.any():
        bands.append((colours.others or "others", rows.others, colours.others_colour))
    height = (top or reach(metrics)) * 1.04
    edges = np.cumsum([np.zeros(len(rows.times)), *(values for _, values, _ in bands)], axis=0)
    labels = []
    for (label, values, colour), (low, high) in zip(bands, pairwise(edges), strict=True):
        ax.fill_between(rows.times, low, high, step="post", color=colour, alpha=0.85, linewidth=0)
        if colour == leak_colour and 0 < values.max() < _THIN * height:
            line = np.where(values > 0, high, np.nan)
            ax.step(rows.times, line, where="post", color=colour, linewidth=2.0, clip_on=False)
        leaked = "leak: " if colour == leak_colour else ""
        name = units.label_text(colours.short_of.get(label, label), 16)
        text = f"{leaked}{name} {units.bytes_text(values.max())}"
        labels.append((float((low + high).mean()) / 2, text, style.GREY if colour == style.OTHER else colour))
    ax.set_ylim(0, height)
    _name_spike(ax, rows.times, edges[-1])
    style.byte_axis(ax.yaxis)
    style.time_axis(ax, metrics.trace)
    style.title(ax, finding(metrics))
    style.direct_labels(ax, labels)


def _name_spike(ax: Axes, times: npt.NDArray[np.int64], stack: npt.NDArray[np.int64]) -> None:
    """Say how high a spike is that leaves the axes."""
    at = int(stack.argmax())
    if stack[at] > ax.get_ylim()[1]:
        early = times[at] < (times[0] + times[-1]) / 2
        text = f"to {units.bytes_text(stack[at])}"
        ax.annotate(
            f"↑ {text}" if early else f"{text} ↑",
            (float(times[at]), 1.0),
            (-4 if early else 4, -2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            va="top",
            ha="left" if early else "right",
            fontsize=8,
            color=style.GREY,
        )


def reach(metrics: Metrics) -> float:
    """What the axis reaches, in bytes: the highest level, but for spikes too short to see."""
    levels = metrics.levels.requested[metrics.instants]
    highest = float(levels.max())
    lasted = np.diff(np.append(metrics.trace.times[metrics.instants], metrics.trace.end_ns))
    order = np.argsort(levels, kind="stable")[::-1]
    passed = int(np.searchsorted(np.cumsum(lasted[order]), _SPIKE_SHARE * lasted.sum(), side="right"))
    usual = float(levels[order[min(passed, len(order) - 1)]])
    return (usual * 1.1 if 0 < usual * _SPIKE_TIMES < highest else highest) or 1.0


def finding(metrics: Metrics) -> str:
    """The title: who holds how much of the live bytes."""
    held = metrics.certain_leaks
    if held:
        tags = list(dict.fromkeys(leak.tag for leak in held))
        names = ", ".join(units.label_text(tag, 24) for tag in tags[:2])
        more = f" and {len(tags) - 2} more" if len(tags) > 2 else ""
        return f"{names}{more} never gave back {units.bytes_text(sum(leak.requested for leak in held))}"
    colours = choose_colours(metrics)
    mean = metrics.level("requested").mean()
    if not colours.colour_of:
        return f"{colours.others} hold {units.bytes_text(mean)} on average"
    weight: dict[str, float] = {}
    for tag, amount in _byte_seconds(metrics).items():
        label = colours.label_of.get(tag, colours.others)
        weight[label] = weight.get(label, 0.0) + amount
    named = {label: amount for label, amount in weight.items() if label in colours.colour_of}
    label, amount = max(named.items(), key=lambda pair: pair[1])
    share = units.percent_text(amount / (sum(weight.values()) or 1.0))
    return f"{units.label_text(label, 24)} holds {share} of {units.bytes_text(mean)} live on average"
