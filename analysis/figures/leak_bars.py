"""What was not given back."""

from __future__ import annotations

from matplotlib.axes import Axes

from analysis import units
from analysis.figures import style
from analysis.metrics import Leak, Metrics

_SHOWN = 8
_ROWS_AT_LEAST = 2


@style.figure_function
def leaks(metrics: Metrics, ax: Axes) -> None:
    """Bytes that were live at close, by tag and site; where there are none, blocks that look forgotten."""
    certain, suspected = metrics.certain_leaks, metrics.suspected_leaks
    shown = (certain or suspected)[:_SHOWN]
    style.title(ax, finding(metrics))
    if not shown:
        style.nothing(ax, "No leaked block, and none that looks forgotten")
        return
    colour = style.QUANTITY["leak"] if certain else style.ORANGE
    room = style.columns_of(ax)
    for row, leak in enumerate(shown):
        ax.barh(row, leak.requested, height=0.2, color=colour)
        for text, up, size, ink, fit in (
            (_what(leak), 0.48, 9.5, style.INK, 1.5),
            (_where(leak), 0.24, 8.0, style.GREY, 1.85),
        ):
            label = ax.text(
                0,
                row - up,
                units.label_text(text, int(room * fit)),
                va="center",
                fontsize=size,
                color=ink,
                clip_on=True,
            )
            label.set_in_layout(False)
    ax.set_ylim(max(len(shown), _ROWS_AT_LEAST) - 0.6, -0.8)
    ax.set_xlim(0, max(leak.requested for leak in shown) * 1.02 or 1)
    ax.set_yticks([])
    ax.grid(visible=False)
    ax.spines["left"].set_visible(False)
    style.byte_axis(ax.xaxis)


def _what(leak: Leak) -> str:
    blocks = units.things_text(leak.blocks, "block")
    amount = units.bytes_text(leak.requested)
    return (
        f"{units.label_text(leak.tag, 32)}: {amount} in {blocks}, held {units.duration_text(leak.oldest_ns)}"
    )


def _where(leak: Leak) -> str:
    site = leak.site.partition("\n")[0]
    return f"from {site}" if site else "acquisition site not recorded"


def finding(metrics: Metrics) -> str:
    """The title: how much, whose; or that nothing leaked."""
    certain, suspected = metrics.certain_leaks, metrics.suspected_leaks
    found = certain or suspected
    if found:
        blocks = sum(leak.blocks for leak in found)
        amount = units.bytes_text(sum(leak.requested for leak in found))
        tags = len({leak.tag for leak in found})
        whose = units.label_text(found[0].tag, 32) if tags == 1 else f"{tags} tags"
        verb = "leaked by" if certain else f"look{'s' if blocks == 1 else ''} forgotten by"
        return f"{units.things_text(blocks, 'block')} ({amount}) {verb} {whose}"
    live = int(metrics.levels.blocks[-1])
    if live:
        are = "is" if live == 1 else "are"
        return (
            f"No pool was closed within the trace; {units.things_text(live, 'block')} {are} live at its end"
        )
    return "Nothing leaked: every block came back"
