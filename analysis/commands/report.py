"""``poolport report``: one HTML page on one trace, or on several side by side."""

from __future__ import annotations

import argparse
from pathlib import Path

import analysis
from analysis.atomic_file import require_writable
from analysis.commands.terminal import note, print_json, print_next, print_table, require_extras, warn
from analysis.comparison import comparison
from analysis.errors import TraceError
from analysis.results import document
from analysis.summaries import Summary

NAME = "report"
OUTPUT = Path("report.html")
HELP = "write an HTML report on one trace, or on several side by side"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("traces", nargs="+", type=Path, metavar="TRACE", help="a .pptrace file")
    parser.add_argument("--output", "-o", type=Path, default=OUTPUT, help=f"default: {OUTPUT}")
    parser.add_argument("--force", action="store_true", help="overwrite the output")
    parser.add_argument("--partial", action="store_true", help="read what is there of a cut-off trace")
    parser.add_argument("--json", action="store_true", help="print the summaries as JSON")


def print_summaries(title: str, summaries: tuple[Summary, ...]) -> None:
    """The comparison table on the terminal, the losing values included."""
    rows = comparison(summaries)
    print_table(
        title,
        ["", *(summary.label for summary in summaries)],
        [[row.label, *row.texts] for row in rows],
        [[at + 1 for at in row.best] for row in rows],
    )


def _require_there(path: Path) -> None:
    """Name a trace that is missing before anything is said about the output."""
    try:
        path.stat()
    except OSError as error:
        raise TraceError(f"{str(path)!r} cannot be read: {error.strerror or error}.") from error


def run(arguments: argparse.Namespace) -> int:
    """Write the page and print the table."""
    require_extras("analysis", *[] if arguments.json else ["cli"])
    for path in arguments.traces:
        _require_there(path)
    require_writable(arguments.output, force=arguments.force)
    report = analysis.report([analysis.load(path, partial=arguments.partial) for path in arguments.traces])
    report.save(arguments.output, force=arguments.force)
    summaries = tuple(report.summaries)
    if arguments.json:
        print_json(document("report", report=str(arguments.output), traces=summaries))
    else:
        print_summaries("What the traces say", summaries)
        note(f"wrote {arguments.output}")
    for summary in summaries:
        for text in summary.warnings:
            warn(f"{summary.label}: {text}")
    print_next(f"open {arguments.output}")
    return 0
