"""What all figures share: colours, binary axes, direct labels, the footer.

Colours are those of M. Okabe and K. Ito, "Color universal design" (2008), which people with any
common colour blindness can tell apart. Each quantity has one colour on every figure. Texts from a
trace are foreign: they are never read as formulas, and never longer than a label.
"""

from __future__ import annotations

import functools
import math
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FuncFormatter, Locator

from analysis import units
from analysis.metrics import Metrics
from analysis.trace import Trace

INK, GREY, PALE = "#1f2328", "#6e7781", "#d8dee4"
BLUE, ORANGE, GREEN, SKY, VERMILION, PURPLE = (
    "#0072B2", "#E69F00", "#009E73", "#56B4E9", "#D55E00", "#CC79A7",
)  # fmt: skip
QUANTITY = {"live": GREEN, "granted": BLUE, "reserved": INK, "resident": PURPLE, "leak": VERMILION}
SERIES = (BLUE, ORANGE, GREEN, PURPLE, SKY, "#7a5195", "#8c6d31", "#b3a000")
OTHER = "#b8bec5"
SWATCH = "■"

RC: Any = {
    "figure.facecolor": "white",
    "figure.dpi": 100,
    "savefig.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,
    "text.usetex": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": PALE,
    "grid.linewidth": 0.6,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "lines.linewidth": 1.5,
    "svg.fonttype": "path",
    "svg.hashsalt": "poolport",
}

P = ParamSpec("P")


@contextmanager
def applied() -> Iterator[None]:
    """Apply the style sheet within a with block."""
    with mpl.rc_context(RC), warnings.catch_warnings():
        # A tag may use a script that the font lacks; a box in its place is all right.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def new_figure(width: float = 12.0, height: float = 4.0) -> Figure:
    """Make an empty figure, in inches; it belongs to no window and no global list."""
    with applied():
        return Figure(figsize=(width, height), layout="constrained")


def figure_function(
    draw: Callable[Concatenate[Metrics, Axes, P], None],
) -> Callable[Concatenate[Metrics | Trace, Axes | None, P], Axes]:
    """Make `draw(metrics, ax, ...)` a public figure function.

    It then takes a Trace as well as Metrics, makes a figure with a footer where `ax` is None,
    applies the style sheet, and returns the axes.
    """

    @functools.wraps(draw)
    def public(source: Metrics | Trace, ax: Axes | None = None, /, *args: P.args, **kwargs: P.kwargs) -> Axes:
        metrics = source if isinstance(source, Metrics) else Metrics(source)
        with applied():
            own = ax is None
            axes = ax if ax is not None else new_figure().add_subplot()
            draw(metrics, axes, *args, **kwargs)
            if own:
                footer(axes.figure, [metrics.trace])
        return axes

    return public


# ---- axes ---------------------------------------------------------------------------------


class BinaryLocator(Locator):
    """Ticks at multiples of a power of two, at most about `most` of them."""

    def __init__(self, most: int = 6) -> None:
        """Keep the number of ticks wished for."""
        self.most = most

    def __call__(self) -> Sequence[float]:
        """Ticks for the current view."""
        low, high = sorted(self.axis.get_view_interval()) if self.axis else (0.0, 1.0)
        return self.tick_values(float(low), float(high))

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        """Ticks for a given view."""
        span = max(vmax - vmin, 1.0)
        step = 2.0 ** math.ceil(math.log2(span / self.most))
        first = math.ceil(vmin / step)
        return [step * at for at in range(first, math.floor(vmax / step) + 1)]


def byte_axis(axis: Axis) -> None:
    """Binary units and binary ticks."""
    axis.set_major_locator(BinaryLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: units.bytes_text(value)))


def count_axis(axis: Axis) -> None:
    """Plain counts, without a sign."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: units.count_text(abs(round(value, 6)))))


def percent_axis(axis: Axis) -> None:
    """Ratios as per cent."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:.0f} %"))


_TIME_UNITS = ((60e9, "minutes"), (1e9, "seconds"), (1e6, "milliseconds"), (1e3, "microseconds"), (1, "ns"))


def time_axis(ax: Axes, trace: Trace) -> None:
    """Nanoseconds of the trace as time since its first record, in one unit."""
    start, span = trace.start_ns, max(trace.duration_ns, 1)
    scale, unit = next(pair for pair in _TIME_UNITS if span >= 2 * pair[0] or pair[0] == 1)
    step = _decimal_step(span / scale / 5)
    count = int(span / scale / step)
    ax.set_xlim(start, start + span)
    ax.set_xticks([start + at * step * scale for at in range(count + 1)])
    ax.set_xticklabels([f"{at * step:g}" for at in range(count + 1)])
    ax.set_xlabel(f"{unit} since the first record")


def _decimal_step(wished: float) -> float:
    power = 10.0 ** math.floor(math.log10(wished)) if wished > 0 else 1.0
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= wished)


# ---- texts ----------------------------------------------------------------------------------


def title(ax: Axes, finding: str) -> None:
    """Say what the figure shows, with its number, wrapped to the width of the axes."""
    together = re.sub(r"(?<=\d) (?=[A-Za-z%])", "\u00a0", finding)  # a number and its unit
    ax.set_title("\n".join(textwrap.wrap(together, columns_of(ax))), loc="left")


def columns_of(ax: Axes) -> int:
    """About how many characters of text fit across the axes."""
    return max(int(ax.get_position().width * _inches(ax.figure)[0] * 12), 24)


def _inches(figure: Figure | SubFigure) -> tuple[float, float]:
    width, height = _root(figure).get_size_inches()
    return float(width), float(height)


def _root(figure: Figure | SubFigure) -> Figure:
    """The figure that everything is drawn on."""
    return figure.figure if isinstance(figure, SubFigure) else figure


def direct_labels(ax: Axes, labels: list[tuple[float, str, str]]) -> None:
    """Write (y in data, text, colour) to the right of the axes, pushed apart where they would overlap.

    A text that begins with SWATCH gets a square of its colour, and is itself black.
    """
    low, high = ax.get_ylim()
    height = ax.get_position().height * _inches(ax.figure)[1]
    room = 0.22 / max(height, 0.5)
    spots: list[tuple[float, str, str]] = sorted(
        ((y - low) / ((high - low) or 1.0), text, colour) for y, text, colour in labels
    )
    places = [spot[0] for spot in spots]
    for at in range(1, len(places)):
        places[at] = max(places[at], places[at - 1] + room * _lines(spots[at - 1][1]))
    over = places[-1] - max(1.0, places[0]) if places else 0.0
    if over > 0:
        places = [place - over for place in places]
    for place, (_, text, colour) in zip(places, spots, strict=True):
        if text.startswith(SWATCH):
            _beside(ax, place, 6, SWATCH, colour)
            _beside(ax, place, 18, text.removeprefix(SWATCH), INK)
        else:
            _beside(ax, place, 6, text, colour)


def _beside(ax: Axes, place: float, points: float, text: str, colour: str) -> None:
    ax.annotate(
        text,
        (1.0, place),
        (points, 0),
        xycoords="axes fraction",
        textcoords="offset points",
        color=colour,
        va="center",
        ha="left",
        fontsize=9,
        annotation_clip=False,
    )


def _lines(text: str) -> int:
    return text.count("\n") + 1


def nothing(ax: Axes, reason: str) -> None:
    """Say why there is nothing to draw, where the drawing would be."""
    ax.set_axis_off()
    text = textwrap.fill(reason, min(columns_of(ax), 48))
    ax.text(0.5, 0.5, text, ha="center", va="center", color=GREY, transform=ax.transAxes)


def footer(figure: Figure | SubFigure, traces: list[Trace]) -> None:
    """Trace, strategy, seed and version, small, at the bottom."""
    _root(figure).supxlabel(footer_text(traces), x=0.005, ha="left", fontsize=7.5, color=GREY)


def footer_text(traces: list[Trace]) -> str:
    """One line; foreign texts are cut."""
    names = ", ".join(_file_name(trace.path) for trace in traces[:4]) + (", ..." if len(traces) > 4 else "")
    parts = [names, ", ".join(dict.fromkeys(units.label_text(trace.strategy, 24) for trace in traces))]
    seeds = dict.fromkeys(trace.notes["seed"] for trace in traces if "seed" in trace.notes)
    if seeds:
        parts.append("seed " + ", ".join(units.label_text(seed, 24) for seed in seeds))
    parts.append(", ".join(dict.fromkeys(units.label_text(trace.header.writer, 24) for trace in traces)))
    return "  ·  ".join(part for part in parts if part)


def _file_name(path: str) -> str:
    return units.label_text(path.replace("\\", "/").rpartition("/")[2], 40)
