"""From metrics to HTML: what the templates are given, and nothing that they must compute.

Every text of a trace (tags, sites, notes, names) is hostile until escaped. jinja2 escapes all of
them (autoescape), and before that `units.label_text` makes control and direction characters
visible, so that no tag can hide, or reorder what stands beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2

from analysis import units
from analysis.comparison import comparison
from analysis.metrics import Leak, Metrics
from analysis.reporting.findings import findings
from analysis.reporting.panels import QUESTIONS, Question
from analysis.summaries import Summary

_LEAKS_SHOWN = 100
_BLAMED_SHOWN = 5
_FAILURES_SHOWN = 8
_SITE_LINES = 8
_NOTES_SHOWN = 40
_KNOWN_NOTES = frozenset({"strategy", "seed", "backend"})

_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters.update(
    label=units.label_text,
    amount=units.bytes_text,
    duration=units.duration_text,
    count=units.count_text,
    things=units.things_text,
    percent=units.percent_text,
)


def fragment(context: dict[str, Any]) -> str:
    """The report as a part of a page, with its own style; what Jupyter shows."""
    return _templates.get_template("report.html.j2").render(context)


def whole_page(context: dict[str, Any]) -> str:
    """The report as a page of its own."""
    return _templates.get_template("page.html.j2").render(context)


def context_of(
    title: str | None, traces: Sequence[Metrics], rows: Sequence[Summary], images: dict[str, str]
) -> dict[str, Any]:
    """Everything that the templates print."""
    pairs = [(metrics, row.label) for metrics, row in zip(traces, rows, strict=True)]
    table = groupby(comparison(rows), lambda row: row.group)
    shown = [question for question in QUESTIONS if question.name in images]
    return {
        "title": title or "Memory report",
        "several": len(traces) > 1,
        "traces": [_identity(metrics, row) for metrics, row in zip(traces, rows, strict=True)],
        "findings": findings(traces, rows),
        "groups": [(group, list(members)) for group, members in table],
        "figures": [_figure(question, traces, images[question.name]) for question in shown],
        "leaks": _leak_rows(traces, suspected=False),
        "suspects": _leak_rows(traces, suspected=True),
        "blame": [(label, metrics.blame[:_BLAMED_SHOWN]) for metrics, label in pairs if metrics.blame],
        "compactions": [(label, metrics.compaction) for metrics, label in pairs if metrics.compaction],
        "failures": [
            (label, metrics.failures[:_FAILURES_SHOWN]) for metrics, label in pairs if metrics.failures
        ],
        "heap": [label for metrics, label in pairs if metrics.source == "samples"],
    }


def _identity(metrics: Metrics, row: Summary) -> dict[str, Any]:
    opened = metrics.trace.header.opened_unix_ns
    try:
        when = datetime.fromtimestamp(opened / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if opened else ""
    except (OverflowError, ValueError, OSError):
        when = ""
    # A pool that was attached twice has two numbers and one name.
    pools = list(dict.fromkeys(f"{info.name} ({info.strategy})" for info in metrics.trace.pools.values()))
    notes = sorted((key, value) for key, value in row.notes.items() if key not in _KNOWN_NOTES)
    return {
        "label": row.label,
        "path": row.path,
        "when": when,
        "writer": row.writer,
        "records": row.records,
        "duration_ns": row.duration_ns,
        "seed": row.notes.get("seed", ""),
        "pools": pools[:16],
        "notes": notes[:_NOTES_SHOWN],
        "complete": row.complete,
        "source": row.source,
    }


def _figure(question: Question, traces: Sequence[Metrics], image: str) -> dict[str, Any]:
    said = [f"{metrics.label}: {question.finding(metrics)}" for metrics in traces]
    return {
        "name": question.name,
        "heading": question.heading,
        "reading": question.reading,
        "image": image,
        "alternative": ". ".join(said),
    }


def _leak_rows(traces: Sequence[Metrics], *, suspected: bool) -> dict[str, Any]:
    found: list[tuple[str, Leak, list[str]]] = []
    for metrics in traces:
        leaks = metrics.suspected_leaks if suspected else metrics.certain_leaks
        found += [(metrics.label, leak, leak.site.split("\n")[:_SITE_LINES]) for leak in leaks]
    return {"rows": found[:_LEAKS_SHOWN], "more": max(len(found) - _LEAKS_SHOWN, 0)}
