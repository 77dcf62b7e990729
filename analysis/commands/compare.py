"""``poolport compare``: what got better and what got worse between two runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis.commands.report import OUTPUT
from analysis.commands.terminal import (
    poolport_words,
    print_json,
    print_next,
    print_table,
    require_tables,
    warn,
)
from analysis.regressions import Change, Comparison, compare
from analysis.results import document
from analysis.units import MISSING

NAME = "compare"
HELP = "compare two traces, or two --json results of bench, replay or demo; exit code 1 where it got worse"


def _percent(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"{text!r}: give a number of per cent, 0 or more")
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("before", type=Path, metavar="BEFORE", help="a .pptrace file, or a result in JSON")
    parser.add_argument("after", type=Path, metavar="AFTER", help="another one of the same kind")
    parser.add_argument(
        "--threshold",
        type=_percent,
        default=10.0,
        metavar="PERCENT",
        help="changes up to this are none; percentage points where the value is a share (default: 10; "
        "--json gives it as a ratio, 0.1)",
    )
    parser.add_argument("--measures", metavar="A,B", help="what to compare (default: all that both tell)")
    parser.add_argument("--json", action="store_true", help="print the changes as JSON")


def _change_text(change: Change) -> str:
    if change.change is None:
        return MISSING
    return f"{change.change * 100:+.1f} {'points' if change.is_share else '%'}"


def _print(result: Comparison, arguments: argparse.Namespace) -> None:
    rows = [
        (c.row, c.measure, c.before_text, c.after_text, _change_text(c), c.verdict) for c in result.changes
    ]
    named = any(c.row for c in result.changes)  # two traces have no rows
    print_table(
        f"{arguments.before} and {arguments.after}",
        ["row", "measure", "before", "after", "change", "verdict"][not named :],
        [row[not named :] for row in rows],
        [[4 + named] if c.verdict == "better" else [] for c in result.changes],
        texts=1 + named,
    )
    counts = {verdict: sum(c.verdict == verdict for c in result.changes) for verdict in ("better", "worse")}
    print(f"{counts['better']} better, {counts['worse']} worse, by more than {arguments.threshold:g} %")


def run(arguments: argparse.Namespace) -> int:
    """Print every change; 1 where something got worse."""
    require_tables(json_output=arguments.json)
    result = compare(
        arguments.before,
        arguments.after,
        threshold=arguments.threshold / 100,
        measures=arguments.measures.split(",") if arguments.measures else None,
    )
    for rows, where in ((result.only_before, arguments.before), (result.only_after, arguments.after)):
        for row in rows:
            warn(f"{row}: only in {where}")
    if arguments.json:
        print_json(
            document(
                "compare",
                before=str(arguments.before),
                after=str(arguments.after),
                threshold=result.threshold,
                regressions=len(result.regressions),
                changes=[
                    {
                        name: getattr(change, name)
                        for name in ("row", "measure", "before", "after", "change", "verdict")
                    }
                    for change in result.changes
                ],
            )
        )
    else:
        _print(result, arguments)
    following = (
        poolport_words("report", arguments.before, arguments.after, output=OUTPUT)
        if arguments.before.suffix == ".pptrace"
        else "poolport bench --bars"
    )
    print_next(following)
    return int(bool(result.regressions))
