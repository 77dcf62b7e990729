"""What a reader should know before looking at any figure: sentences, the worst first.

Each is computed from the metrics by a rule that stands here, with the threshold it passed; none is
written where its rule does not hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from analysis import units
from analysis.metrics import Metrics
from analysis.summaries import Summary

_INTERNAL_WORTH_A_WORD = 0.25  # of granted bytes not asked for, mean over time
_USELESS_WORTH_A_WORD = 0.10  # of free bytes too small for the p99 request, at the peak
_TAGS_NAMED = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence; `level` is "bad", "note" or "good"."""

    level: str
    text: str
    held_ns: float | None = field(default=None, compare=False)
    """How long the oldest block of a leak was held: differs where the same is true of several runs."""


def findings(traces: Sequence[Metrics], rows: Sequence[Summary]) -> list[Finding]:
    """Judge each trace, then compare them. What is true of several runs is said once."""
    said: dict[Finding, list[str]] = {}
    held: dict[Finding, float] = {}
    for metrics, row in zip(traces, rows, strict=True):
        for finding in (*_trust(row), *_leaks(metrics, row), *_refusals(row), *_waste(row)):
            said.setdefault(finding, []).append(units.label_text(row.label))
            if finding.held_ns is not None:
                held[finding] = max(held.get(finding, 0.0), finding.held_ns)
    found = []
    for finding, runs in said.items():
        how_long = f", held for up to {units.duration_text(held[finding])}." if finding in held else ""
        found.append(Finding(finding.level, _whose(runs, len(rows)) + finding.text + how_long))
    if len(rows) > 1:
        found += _compared(rows)
    order = {"bad": 0, "note": 1, "good": 2}
    return sorted(found, key=lambda finding: order[finding.level])


def _whose(runs: Sequence[str], all_runs: int) -> str:
    if all_runs == 1:
        return ""
    if len(runs) == all_runs:
        return "Both runs: " if all_runs == 2 else f"All {all_runs} runs: "
    return f"{', '.join(dict.fromkeys(runs))}: "


def _trust(row: Summary) -> list[Finding]:
    return [Finding("bad", warning) for warning in row.warnings]


def _leaks(metrics: Metrics, row: Summary) -> list[Finding]:
    if row.leaked_blocks:
        oldest_ns = max(leak.oldest_ns for leak in metrics.certain_leaks)
        return [Finding("bad", _leaked(metrics, row), float(oldest_ns))]
    if row.suspected_blocks:
        tags = ", ".join(units.label_text(leak.tag) for leak in metrics.suspected_leaks[:_TAGS_NAMED])
        blocks = units.things_text(row.suspected_blocks, "block")
        looks = "looks forgotten: it is" if row.suspected_blocks == 1 else "look forgotten: they are"
        text = (
            f"{blocks} ({units.bytes_text(row.suspected_bytes)}) {looks} far older than others of {tags}, "
            "whose number grows."
        )
        return [Finding("bad", text)]
    live = int(metrics.levels.blocks[-1])
    if live:
        are = "is" if live == 1 else "are"
        text = (
            f"{units.things_text(live, 'block')} {are} live at the trace's end, and no pool was closed in it."
        )
        return [Finding("note", text)]
    return [Finding("good", "Every block came back.")]


def _leaked(metrics: Metrics, row: Summary) -> str:
    """Who leaked how much, from where."""
    shown = ", ".join(units.label_text(tag) for tag in row.leaked_tags[:_TAGS_NAMED])
    more = len(row.leaked_tags) - _TAGS_NAMED
    named = f"{shown} and {units.things_text(more, 'more tag')}" if more > 0 else shown
    blocks = units.things_text(row.leaked_blocks, "block")
    leaks = metrics.certain_leaks
    sites = list(dict.fromkeys(leak.site.partition("\n")[0] for leak in leaks if leak.site))
    where = f", acquired at {units.label_text(sites[0], 80)}" if len(sites) == 1 else ""
    return f"{named} leaked {blocks} ({units.bytes_text(row.leaked_bytes)}){where}"


def _refusals(row: Summary) -> list[Finding]:
    if not row.failures:
        return []
    requests = units.things_text(row.failures, "request")
    return [Finding("bad", f"{requests} got no block.")]


def _waste(row: Summary) -> list[Finding]:
    found = []
    if row.internal_fragmentation_mean > _INTERNAL_WORTH_A_WORD:
        share = units.percent_text(row.internal_fragmentation_mean)
        text = (
            f"{share} of granted bytes were never asked for (internal fragmentation): smaller blocks or "
            f"size classes would fit these requests better."
        )
        found.append(Finding("note", text))
    useless = row.unusable_free_index_at_peak
    if useless is not None and useless > _USELESS_WORTH_A_WORD:
        size = units.bytes_text(row.typical_request_bytes)
        text = f"At the peak, {units.percent_text(useless)} of free bytes lay in holes too small for {size}."
        found.append(Finding("note", text))
    return found


def _compared(rows: Sequence[Summary]) -> list[Finding]:
    """Who did best, for the three measures that decide most choices."""
    found = []
    memory = [(row.peak_rss_bytes, row) for row in rows if row.peak_rss_bytes is not None]
    if len(memory) > 1:
        found.append(_best(memory, "peak RSS", units.bytes_text))
    cpu = [(row.number("server_cpu_us_per_message"), row) for row in rows]
    known_cpu = [(value * 1e3, row) for value, row in cpu if value is not None]
    if len(known_cpu) > 1:
        found.append(_best(known_cpu, "server CPU per message", units.duration_text))
    return found


def _best(values: Sequence[tuple[float, Summary]], what: str, text: object) -> Finding:
    ordered = sorted(values, key=lambda pair: pair[0])
    (low, best), (high, worst) = ordered[0], ordered[-1]
    show = text if callable(text) else str
    ratio = f", {units.ratio_text(high / low)} times as much" if low else ""
    sentence = (
        f"Lowest {what}: {units.label_text(best.label)} with {show(low)}; "
        f"highest: {units.label_text(worst.label)} with {show(high)}{ratio}."
    )
    return Finding("note", sentence)
