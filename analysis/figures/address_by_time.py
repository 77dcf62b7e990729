"""The picture of memory: addresses upwards, time to the right.

Each pixel is a piece of address space during a piece of time; its colour is mixed from those who
held it, in proportion to the bytes and nanoseconds that they held it for. Nothing is sampled, so a
block that lived a microsecond counts for a microsecond, and the size of the picture does
not depend on the length of the run.

How: let b bytes of a row be held from s to e. Up to an instant x, it has collected
b * max(x - s, 0) - b * max(x - e, 0). Summed over all blocks, that needs only, per row and
column, the sum of b and of b * s; cumulated over the columns and differenced between column
borders, this gives every pixel exactly, in time linear in the number of blocks.

The address axis shows only addresses that matter: a pool's regions, or, where the trace has none
(malloc), the 4 KiB pages that blocks touched, moved together; borders between ranges are drawn
while they are few.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from analysis import units
from analysis.figures import style
from analysis.figures.bytes_by_tag import TagColours, choose_colours
from analysis.layout import Op
from analysis.metrics import Metrics
from analysis.tenures import Tenures
from analysis.trace import Trace

Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]

PAGE = 4096
_ROWS, _COLUMNS = 360, 720
_BORDERS_DRAWN = 24
_WORTH_LEAVING_OUT = 0.25
_FREE = "#eef1f4"
_LEAKS_LINED, _LEAKS_NAMED = 50, 3
_NAMES_APART = 0.2  # of the axis


@dataclass(frozen=True)
class AddressMap:
    """Ranges of addresses, moved together. `base` is where each begins on the axis; bytes."""

    start: Int64s
    end: Int64s
    compressed: bool  # pages that blocks touched, instead of a pool's regions
    untouched: int = 0  # bytes above the highest block that ever was, which are left out

    @property
    def base(self) -> Int64s:
        """Where each range begins on the axis."""
        sizes = self.end - self.start
        bases: Int64s = np.cumsum(sizes) - sizes
        return bases

    @property
    def span(self) -> int:
        """Length of the axis."""
        return int((self.end - self.start).sum())

    def place(self, addresses: Int64s) -> Int64s:
        """Positions on the axis."""
        at = np.maximum(np.searchsorted(self.start, addresses, side="right") - 1, 0)
        places: Int64s = self.base[at] + np.minimum(addresses, self.end[at]) - self.start[at]
        return places


def address_map(trace: Trace, pool: int) -> AddressMap:
    """The ranges that a pool's blocks can lie in, or where that is unknown, did lie in."""
    regions = trace.regions.of_pool(pool)
    tenures = trace.tenures
    mine = tenures.pool == pool
    if len(regions):
        whole = _union(regions.offset, regions.offset + regions.size, compressed=False)
        return _without_top(whole, int((tenures.offset[mine] + tenures.granted[mine]).max(initial=0)))
    first = tenures.offset[mine] // PAGE * PAGE
    last = -(-(tenures.offset[mine] + np.maximum(tenures.granted[mine], 1)) // PAGE) * PAGE
    return _union(first, last, compressed=True)


def _without_top(places: AddressMap, highest: int) -> AddressMap:
    """Leave out what no block ever reached, where that is much of the picture."""
    used = places.start < highest
    start, end = places.start[used], np.minimum(places.end[used], highest)
    untouched = places.span - int((end - start).sum())
    if untouched < _WORTH_LEAVING_OUT * places.span or not len(start):
        return places
    return AddressMap(start, end, places.compressed, untouched)


def _union(start: Int64s, end: Int64s, *, compressed: bool) -> AddressMap:
    order = np.argsort(start, kind="stable")
    start, reach = start[order], np.maximum.accumulate(end[order])
    begins = np.append(True, start[1:] > reach[:-1])[: len(start)]
    ends = np.append(begins[1:], True)[: len(start)]
    return AddressMap(start[begins], reach[ends], compressed)


def occupancy_raster(
    trace: Trace,
    pool: int,
    row_of_tag: dict[int, int],
    classes: int,
    *,
    rows: int = _ROWS,
    columns: int = _COLUMNS,
) -> tuple[Float64s, AddressMap]:
    """Shares of each pixel, 0 to 1: array (classes + 1, rows, columns), lowest addresses first.

    The last class is for tags that are not in `row_of_tag`. Bytes that are released but still
    pinned count as held by their tag.
    """
    tenures = trace.tenures.select(trace.tenures.pool == pool)
    places = address_map(trace, pool)
    rows = int(min(rows, max(places.span // 64, 1)))
    height = places.span / rows
    times = np.append(trace.times, trace.end_ns)
    start = _columns_of(trace, times[np.maximum(tenures.start, 0)], columns)
    end = _columns_of(trace, times[tenures.held], columns)
    low = places.place(tenures.offset) / height
    high = low + tenures.granted / height
    kind = _classes_of(tenures, row_of_tag, classes)

    piece, row = _rows_covered(low, high, rows)
    share = np.minimum(high[piece], row + 1) - np.maximum(low[piece], row)
    cell = kind[piece] * rows + row
    shape = (classes + 1, rows, columns + 1)
    slope, moment = np.zeros(shape).ravel(), np.zeros(shape).ravel()
    for when, sign in ((start, 1.0), (end, -1.0)):
        # Counted from the next column border on; what the column itself gets is in the moment.
        border = np.minimum(np.ceil(when[piece]).astype(np.int64), columns)
        index = cell * (columns + 1) + border
        slope += np.bincount(index, weights=sign * share, minlength=len(slope))
        moment += np.bincount(index, weights=sign * share * when[piece], minlength=len(moment))
    slope, moment = np.cumsum(slope.reshape(shape), axis=2), np.cumsum(moment.reshape(shape), axis=2)
    collected = slope * np.arange(columns + 1) - moment
    return np.clip(np.diff(collected, axis=2), 0.0, 1.0), places


def _columns_of(trace: Trace, times: Int64s, columns: int) -> Float64s:
    return (times - trace.start_ns) / max(trace.duration_ns, 1) * columns


def _classes_of(tenures: Tenures, row_of_tag: dict[int, int], classes: int) -> Int64s:
    tags, which = np.unique(tenures.tag, return_inverse=True)
    kinds = np.array([row_of_tag.get(tag, classes) for tag in tags.tolist()], np.int64)
    return kinds[which.reshape(-1)] if len(tags) else np.empty(0, np.int64)


def _rows_covered(low: Float64s, high: Float64s, rows: int) -> tuple[Int64s, Int64s]:
    """All pairs (position, row that it covers)."""
    first = np.clip(np.floor(low).astype(np.int64), 0, rows - 1)
    last = np.clip(np.ceil(high).astype(np.int64), first + 1, rows)
    count = last - first
    piece = np.repeat(np.arange(len(low)), count)
    before = np.repeat(np.cumsum(count) - count, count)
    return piece, np.repeat(first, count) + np.arange(len(piece)) - before


@style.figure_function
def occupancy(
    metrics: Metrics, ax: Axes, *, pool: int | None = None, palette: dict[str, str] | None = None
) -> None:
    """Who held which addresses when, for one pool (the one with the most bytes if not given).

    `palette` (label -> colour) is added to; figures that share one show a tag in the same colour.
    """
    trace = metrics.trace
    number = trace.main_pool if pool is None else pool
    colours = choose_colours(metrics, palette)
    names = list(colours.colour_of)
    row_of_tag = {tag: names.index(label) for tag, label in colours.label_of.items()}
    shares, places = occupancy_raster(trace, number, row_of_tag, len(names))
    image = _mixed(shares, [*colours.colour_of.values(), colours.others_colour])
    ax.imshow(
        image, origin="lower", aspect="auto", interpolation="nearest",
        extent=(trace.start_ns, trace.start_ns + max(trace.duration_ns, 1), 0, max(places.span, 1)),
    )  # fmt: skip
    ax.grid(visible=False)
    if 1 < len(places.start) <= _BORDERS_DRAWN:
        for base in places.base[1:].tolist():
            ax.axhline(base, color="white", linewidth=1.0)
    style.byte_axis(ax.yaxis)
    ax.set_ylabel("touched pages" if places.compressed else "offset in the pool")
    style.time_axis(ax, trace)
    style.title(ax, finding(metrics, number))
    _legend(ax, colours, shares)
    _mark_leaks(metrics, ax, number, places)


def _mark_leaks(metrics: Metrics, ax: Axes, pool: int, places: AddressMap) -> None:
    """Point at the leaked blocks, each a line of a few pixels at most."""
    trace, tenures = metrics.trace, metrics.trace.tenures
    records = trace.where(Op.LEAK)
    records = records[trace.records["pool"][records] == pool]
    leaked = np.isin(tenures.block, trace.records["block"][records]) & (tenures.end == len(trace.records))
    lost = np.flatnonzero(leaked & (tenures.pool == pool))
    times = np.append(trace.times, trace.end_ns)
    heights = places.place(tenures.offset[lost]) + tenures.granted[lost] / 2
    ends = times[tenures.held[lost]]
    for start, end, y in list(zip(tenures.start[lost], ends, heights, strict=True))[:_LEAKS_LINED]:
        ax.plot((times[max(start, 0)], end), (y, y), color=style.QUANTITY["leak"], linewidth=1.4)
    named: list[float] = []
    for end, y, tag in zip(ends, heights, tenures.tag[lost], strict=True):
        if len(named) == _LEAKS_NAMED or any(abs(y - other) < _NAMES_APART * places.span for other in named):
            continue  # its name would lie on another's
        named.append(float(y))
        name = units.label_text(trace.tag_text(int(tag)).partition(" ")[0], 20)
        ax.annotate(
            f"leak: {name}",
            (float(end), float(y)),
            (-16, -30 if y > places.span / 2 else 30),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=9,
            fontweight="bold",
            color=style.QUANTITY["leak"],
            bbox={"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": style.QUANTITY["leak"]},
            arrowprops={"arrowstyle": "-|>", "color": style.INK, "linewidth": 1.2},
        )


def _mixed(shares: Float64s, colours: list[str]) -> Float64s:
    paint = np.array([to_rgb(colour) for colour in colours])
    free = np.clip(1 - shares.sum(axis=0), 0, 1)
    mixed = np.einsum("crt,ck->rtk", shares, paint) + free[..., None] * np.array(to_rgb(_FREE))
    image: Float64s = np.clip(mixed, 0, 1)
    return image


def _legend(ax: Axes, colours: TagColours, shares: Float64s) -> None:
    """Names at the right, in the order of their bytes and nanoseconds, most at the top."""
    total = shares.mean(axis=(1, 2))
    named = [(*pair, float(total[at])) for at, pair in enumerate(colours.colour_of.items())]
    if total[-1] > 0:
        named.append((colours.others or "others", colours.others_colour, float(total[-1])))
    named.append(("free", "#dfe4e9", float(max(1 - total.sum(), 0))))
    top = ax.get_ylim()[1]
    leak = style.QUANTITY["leak"]
    labels = []
    for at, (name, colour, share) in enumerate(named):
        prefix = "leak: " if colour == leak else ""
        short = units.label_text(colours.short_of.get(name, name), 16)
        text = f"{style.SWATCH}{prefix}{short} {units.percent_text(share)}"
        labels.append((top * (1 - (at + 0.5) / max(len(named), 8)), text, colour))
    style.direct_labels(ax, labels)


def finding(metrics: Metrics, pool: int | None = None) -> str:
    """The title: how full the addresses were."""
    trace = metrics.trace
    number = trace.main_pool if pool is None else pool
    tenures, places = trace.tenures, address_map(trace, number)
    times = np.append(trace.times, trace.end_ns)
    lasted = times[tenures.held] - times[np.maximum(tenures.start, 0)]
    held = float((tenures.granted * (lasted / max(trace.duration_ns, 1)))[tenures.pool == number].sum())
    used = units.percent_text(held / max(places.span, 1))  # of what is drawn, as beside the picture
    span = units.bytes_text(places.span)
    if places.compressed:
        ranges = units.count_text(len(places.start))
        return f"Blocks touched {span} of pages in {ranges} separate ranges, and held {used} of it on average"
    if places.untouched:
        never = units.bytes_text(places.untouched)
        return f"Blocks held {used} of these {span} on average; the {never} above were never used"
    return f"Blocks held {used} of the pool's {span} on average"
