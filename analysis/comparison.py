"""The comparison table: one row per measure, one column per trace, for the page and the terminal.

Needs no numpy. A measure that no trace tells is left out; one that some do not tell shows a dash
for those, never a zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from analysis import units
from analysis.summaries import Summary


@dataclass(frozen=True, slots=True)
class Row:
    """One measure. `best` holds the positions of the best values, empty where there is nothing to choose."""

    group: str
    label: str
    meaning: str
    values: tuple[float | None, ...]
    texts: tuple[str, ...]
    best: tuple[int, ...]


_Value = Callable[[Summary], float | None]
_Text = Callable[[float | None], str]


@dataclass(frozen=True, slots=True)
class Measure:
    """What a column says of a trace."""

    group: str
    label: str
    meaning: str
    value: _Value
    text: _Text
    better: str = ""  # "low", "high", or neither

    @property
    def name(self) -> str:
        """As on the command line: "peak-reserved"."""
        return self.label.lower().replace(",", "").replace(" ", "-")


def _note(key: str, scale: float = 1.0) -> _Value:
    def value(row: Summary) -> float | None:
        number = row.number(key)
        return None if number is None else number * scale

    return value


_TRAFFIC, _MEMORY, _FRAGMENTATION, _CHANGE, _LOSS = (
    "Traffic", "Memory", "Fragmentation", "Allocation", "What went wrong",
)  # fmt: skip

MEASURES = (
    Measure(_TRAFFIC, "Messages", "echoed in the run", _note("messages"), units.count_text),
    Measure(_TRAFFIC, "Connections", "opened in the run", _note("connections"), units.count_text),
    Measure(
        _TRAFFIC, "Throughput", "messages a second", _note("throughput_msgs_per_s"), units.rate_text, "high"
    ),
    Measure(
        _TRAFFIC, "Payload", "bytes a second", _note("throughput_bytes_per_s"), units.byte_rate_text, "high"
    ),
    Measure(
        _TRAFFIC,
        "Server CPU per message",
        "user and system time of the server",
        _note("server_cpu_us_per_message", 1e3),
        units.duration_text,
        "low",
    ),
    Measure(
        _TRAFFIC, "Latency p50", "as clients saw it", _note("latency_p50_us", 1e3), units.duration_text, "low"
    ),
    Measure(
        _TRAFFIC, "Latency p99", "as clients saw it", _note("latency_p99_us", 1e3), units.duration_text, "low"
    ),
    Measure(_MEMORY, "Peak live", "Q, bytes requested", lambda row: row.peak_live_bytes, units.bytes_text),
    Measure(
        _MEMORY,
        "Peak granted",
        "B, bytes handed out",
        lambda row: row.peak_granted_bytes,
        units.bytes_text,
        "low",
    ),
    Measure(
        _MEMORY,
        "Peak reserved",
        "R, address space held",
        lambda row: row.peak_reserved_bytes,
        units.bytes_text,
        "low",
    ),
    Measure(
        _MEMORY,
        "Peak RSS",
        "resident set of the whole process",
        lambda row: row.peak_rss_bytes,
        units.bytes_text,
        "low",
    ),
    Measure(
        _MEMORY,
        "Overhead",
        "metadata / B at the peak",
        lambda row: row.overhead_at_peak,
        units.percent_text,
        "low",
    ),
    Measure(
        _FRAGMENTATION,
        "Internal, at peak",
        "1 - Q/B",
        lambda row: row.internal_fragmentation_at_peak,
        units.percent_text,
        "low",
    ),
    Measure(
        _FRAGMENTATION,
        "Internal, mean",
        "1 - Q/B",
        lambda row: row.internal_fragmentation_mean,
        units.percent_text,
        "low",
    ),
    Measure(
        _FRAGMENTATION,
        "External, at peak",
        "1 - L/F",
        lambda row: row.external_fragmentation_at_peak,
        units.percent_text,
        "low",
    ),
    Measure(
        _FRAGMENTATION,
        "External, mean",
        "1 - L/F",
        lambda row: row.external_fragmentation_mean,
        units.percent_text,
        "low",
    ),
    Measure(
        _FRAGMENTATION,
        "Free but useless",
        "to requests of the p99 size, at peak",
        lambda row: row.unusable_free_index_at_peak,
        units.percent_text,
        "low",
    ),
    Measure(_CHANGE, "Allocations", "in the trace", lambda row: row.allocations, units.count_text),
    Measure(_CHANGE, "Allocation rate", "a second", lambda row: row.allocations_per_s, units.rate_text),
    Measure(_CHANGE, "Churn", "bytes allocated / mean Q", lambda row: row.churn, units.count_text),
    Measure(_CHANGE, "Lifetime p50", "of blocks", lambda row: row.lifetime_p50_ns, units.duration_text),
    Measure(_CHANGE, "Lifetime p99", "of blocks", lambda row: row.lifetime_p99_ns, units.duration_text),
    Measure(
        _LOSS, "Refused requests", "no block was given", lambda row: row.failures, units.count_text, "low"
    ),
    Measure(
        _LOSS,
        "Failed messages",
        "lost or wrong",
        _note("failures"),
        units.count_text,
        "low",
    ),
    Measure(_LOSS, "Leaked blocks", "live at close", lambda row: row.leaked_blocks, units.count_text, "low"),
    Measure(_LOSS, "Leaked bytes", "live at close", lambda row: row.leaked_bytes, units.bytes_text, "low"),
    Measure(
        _LOSS,
        "Suspected leaks",
        "blocks that look forgotten",
        lambda row: row.suspected_blocks,
        units.count_text,
        "low",
    ),
)


def comparison(summaries: Sequence[Summary]) -> list[Row]:
    """Compute the rows, in the order in which they should be read."""
    rows = []
    for measure in MEASURES:
        values = tuple(measure.value(row) for row in summaries)
        if all(value is None for value in values):
            continue
        texts = tuple(measure.text(value) for value in values)
        rows.append(
            Row(
                measure.group,
                measure.label,
                measure.meaning,
                values,
                texts,
                _best(values, texts, measure.better),
            )
        )
    return rows


def _best(values: tuple[float | None, ...], texts: tuple[str, ...], better: str) -> tuple[int, ...]:
    """Positions of the best value; none where all read the same, since no reader could tell why."""
    known = [value for value in values if value is not None]
    if not better or len(known) < 2 or len(set(texts)) < 2:
        return ()
    target = min(known) if better == "low" else max(known)
    shown = {text for value, text in zip(values, texts, strict=True) if value == target}
    return tuple(at for at, text in enumerate(texts) if text in shown)
