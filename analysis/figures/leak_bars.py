"""What was not given back."""

from __future__ import annotations

from matplotlib.axes import Axes

from analysis import units
from analysis.figures import style
from analysis.metrics import Leak, Metrics

_SHOWN = 10


@style.figure_function
def leaks(metrics: Metrics, ax: Axes) -> None:
    """Bytes that were live at close, by tag and site; where there are none, blocks that look forgotten."""
    certain, suspected = metrics.certain_leaks, metrics.suspected_leaks
    shown = (certain or suspected)[:_SHOWN]
    style.title(ax, finding(metrics))
    if not shown:
        style.nothing(ax, "No bar to draw: no leaked block, and none that looks forgotten.")
        return
    colour = style.QUANTITY["leak"] if certain else style.ORANGE
    widest = max(leak.requested for leak in shown)
    for row, leak in enumerate(shown):
        ax.barh(row, leak.requested, height=0.36, color=colour)
        ax.text(
            0, row - 0.26, _describe(leak), va="bottom", ha="left", fontsize=9, color=style.INK,
        )  # fmt: skip
        ax.text(
            leak.requested + widest * 0.01, row, units.bytes_text(leak.requested), va="center", fontsize=9
        )
    ax.set_ylim(len(shown) - 0.5, -0.8)
    ax.set_xlim(0, widest * 1.15)
    ax.set_yticks([])
    ax.grid(visible=False)
    ax.grid(visible=True, axis="x")
    style.byte_axis(ax.xaxis)


def _describe(leak: Leak) -> str:
    blocks = "1 block" if leak.blocks == 1 else f"{units.count_text(leak.blocks)} blocks"
    site = leak.site.partition("\n")[0]
    where = f", from {units.label_text(site, 48)}" if site else ""
    return f"{units.label_text(leak.tag, 32)}: {blocks}, held {units.duration_text(leak.oldest_ns)}{where}"


def finding(metrics: Metrics) -> str:
    """The title: how much, whose; or that nothing leaked."""
    certain, suspected = metrics.certain_leaks, metrics.suspected_leaks
    found = certain or suspected
    if found:
        blocks = sum(leak.blocks for leak in found)
        amount = units.bytes_text(sum(leak.requested for leak in found))
        tags = len({leak.tag for leak in found})
        whose = units.label_text(found[0].tag, 32) if tags == 1 else f"{tags} tags"
        verb = "leaked by" if certain else "look forgotten by"
        return f"{units.count_text(blocks)} {'block' if blocks == 1 else 'blocks'} ({amount}) {verb} {whose}"
    live = int(metrics.levels.blocks[-1])
    if live:
        return f"No pool was closed within the trace; {units.count_text(live)} blocks are live at its end"
    return "Nothing leaked: every block came back"
