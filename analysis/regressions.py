"""What got better and what got worse between two traces, or between two results of a command.

    from analysis.regressions import compare
    compare("before.pptrace", "after.pptrace").regressions

A change counts from a threshold on: a share of the first value, or, for what is a share itself
(fragmentation, overhead), so many percentage points. From nothing to something is a change of any size.
Needs no numpy for results.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from analysis import units
from analysis.comparison import MEASURES
from analysis.errors import TraceError, UsageError

__all__ = ["Change", "Comparison", "compare"]

_MAX_RESULT_BYTES = 64 << 20
_TRACE_MAGIC = b"PPTRACE\n"  # as in analysis.layout, which needs numpy
_Text = Callable[[float | None], str]


class Change(NamedTuple):
    """One measure of one row, before and after."""

    row: str
    """Workload and strategy; empty for traces."""
    measure: str
    before: float
    after: float
    before_text: str
    after_text: str
    change: float | None
    """(after - before) / before, or after - before for shares; None where before is 0."""
    verdict: str
    """``better``, ``worse`` or ``same``."""
    is_share: bool
    """Fragmentation, overhead: ``change`` is a difference, in hundreds of percentage points."""


class Comparison(NamedTuple):
    """All that both sides tell."""

    changes: list[Change]
    only_before: list[str]
    """Rows that the other side does not have."""
    only_after: list[str]
    threshold: float

    @property
    def regressions(self) -> list[Change]:
        """What got worse."""
        return [change for change in self.changes if change.verdict == "worse"]


class _Field(NamedTuple):
    text: _Text
    better: str = "low"
    scale: float = 1.0


_FIELDS = {
    "ns_per_op": _Field(units.duration_text),
    "p99_ns": _Field(units.duration_text),
    "server_cpu_us_per_message": _Field(units.duration_text, scale=1e3),
    "latency_p50_us": _Field(units.duration_text, scale=1e3),
    "latency_p99_us": _Field(units.duration_text, scale=1e3),
    "throughput_msgs_per_s": _Field(units.rate_text, "high"),
    "peak_rss_bytes": _Field(units.bytes_text),
    "rss_bytes": _Field(units.bytes_text),
    "peak_reserved_bytes": _Field(units.bytes_text),
    "external_fragmentation": _Field(units.percent_text),
    "internal_fragmentation": _Field(units.percent_text),
    "failures": _Field(units.count_text),
}
"""What is compared of the rows of `bench`, `replay` and `demo`."""

_KINDS = ("bench", "replay", "demo")


class _Value(NamedTuple):
    value: float
    text: str
    better: str
    is_share: bool


_Rows = dict[str, dict[str, _Value]]


def compare(
    before: str | os.PathLike[str],
    after: str | os.PathLike[str],
    *,
    threshold: float = 0.1,
    measures: Iterable[str] | None = None,
) -> Comparison:
    """Hold two traces, or two JSON results of one command, against each other.

    `measures` limits what is compared, by the names that `Change.measure` has.

    Raises `TraceError` (neither a trace nor a result), `UsageError` (two of different kinds, no such
    measure, a threshold below 0, nothing in common).
    """
    if not threshold >= 0:
        raise UsageError(f"a threshold of {threshold:g}: give 0 or more")
    kinds, (one, other) = zip(*(_read(Path(path)) for path in (before, after)), strict=True)
    if kinds[0] != kinds[1]:
        raise UsageError(
            f"{str(before)!r} is a {kinds[0]} and {str(after)!r} a {kinds[1]}: give two of a kind"
        )
    chosen = _chosen(measures, one, other)
    changes = [
        change
        for row in one
        if row in other
        for name in one[row]
        if name in other[row] and name in chosen
        for change in [_change(row, name, one[row][name], other[row][name], threshold)]
    ]
    if not changes:
        raise UsageError(f"{str(before)!r} and {str(after)!r} have no measure of a row in common")
    return Comparison(
        changes, [row for row in one if row not in other], [row for row in other if row not in one], threshold
    )


def _chosen(measures: Iterable[str] | None, *sides: _Rows) -> set[str]:
    known = dict.fromkeys(name for rows in sides for values in rows.values() for name in values)
    if measures is None:
        return set(known)
    wanted = set(measures)
    if wanted - known.keys():
        raise UsageError(f"no measure {min(wanted - known.keys())!r}; choose from {', '.join(known)}")
    return wanted


def _change(row: str, name: str, one: _Value, other: _Value, threshold: float) -> Change:
    difference = other.value - one.value
    change: float | None = difference
    if not one.is_share:
        change = difference / one.value if one.value else None if difference else 0.0
    verdict = "same"
    if difference and (change is None or abs(change) > threshold):
        verdict = "worse" if (difference > 0) == (one.better == "low") else "better"
    return Change(row, name, one.value, other.value, one.text, other.text, change, verdict, one.is_share)


# ---- reading ------------------------------------------------------------------------------------


def _read(path: Path) -> tuple[str, _Rows]:
    try:
        with path.open("rb") as file:
            head = file.read(len(_TRACE_MAGIC))
            if head == _TRACE_MAGIC or path.suffix == ".pptrace":
                return "trace", _rows_of_trace(path)
            content = head + file.read(_MAX_RESULT_BYTES)
    except OSError as error:
        raise TraceError(f"{str(path)!r} cannot be read: {error.strerror or error}.") from error
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise TraceError(f"{str(path)!r} is neither a trace nor a result in JSON.") from error
    kind = document.get("kind") if isinstance(document, dict) else None
    if kind not in _KINDS:
        raise TraceError(
            f"{str(path)!r} is no result that can be compared: its kind is {kind!r}, known are "
            f"{', '.join(_KINDS)}."
        )
    rows = document.get("results")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise TraceError(f"{str(path)!r} is damaged: it has no list of results.")
    return str(kind), {_name_of(row): dict(_values_of(row)) for row in rows}


def _rows_of_trace(path: Path) -> _Rows:
    import analysis  # noqa: PLC0415 - it imports what is above us

    summary = analysis.summary(path)
    values = {}
    for measure in MEASURES:
        value = measure.value(summary)
        if measure.better and value is not None:
            is_share = measure.text is units.percent_text
            values[measure.name] = _Value(float(value), measure.text(value), measure.better, is_share)
    return {"": values}


def _name_of(row: dict[str, Any]) -> str:
    parts = [str(row[key]) for key in ("workload", "strategy") if key in row]
    if row.get("size"):
        parts.append(f"{row['size']} B")
    if row.get("threads", 1) != 1:
        parts.append(f"{row['threads']} threads")
    return " ".join(parts)


def _values_of(row: dict[str, Any]) -> Iterator[tuple[str, _Value]]:
    for name, field in _FIELDS.items():
        value = row.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            text = field.text(value * field.scale)
            yield name, _Value(float(value), text, field.better, field.text is units.percent_text)
