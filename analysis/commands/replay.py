"""``poolport replay``: the requests of a trace under every strategy, side by side."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import analysis
from analysis.commands.bench import environment
from analysis.commands.terminal import (
    note,
    poolport_words,
    print_json,
    print_next,
    print_table,
    progress,
    require_extras,
    shell_words,
    unused,
    warn,
)
from analysis.results import document
from analysis.units import MISSING, bytes_text, count_text, duration_text, percent_text, things_text

if TYPE_CHECKING:
    from analysis.replaying.side_by_side import Replay, Row

NAME = "replay"
HELP = "make a trace's requests again under every strategy and compare time and memory"

_SIZE = re.compile(r"(\d+)([KMGT]?)(i?B)?", re.IGNORECASE)


def _size(text: str) -> int:
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; give bytes, or a number with K, M, G or T")
    return int(found[1]) << 10 * "KMGT".find(found[2].upper()) + 10 if found[2] else int(found[1])


def _names(text: str) -> list[str]:
    from analysis.replaying.strategies import STRATEGIES  # noqa: PLC0415  # compiled

    names = text.split(",")
    for name in names:
        if name not in STRATEGIES:
            raise argparse.ArgumentTypeError(f"no strategy {name!r}; choose from {','.join(STRATEGIES)}")
    return list(dict.fromkeys(names))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("trace", type=Path, metavar="TRACE", help="a .pptrace file")
    parser.add_argument("--partial", action="store_true", help="read what is there of a cut-off trace")
    parser.add_argument(
        "--strategies",
        type=_names,
        metavar="A,B",
        help="from slab,sizeclass,sizeclass-learned,buddy,compacting,compacting-off,malloc,mimalloc,jemalloc,"
        "tcmalloc (default: all that the machine has)",
    )
    parser.add_argument("--pool", help="name of the pool to replay (default: the one with the most bytes)")
    parser.add_argument(
        "--output",
        "-o",
        type=Path,
        help="directory for the traces, or one .pptrace file for one strategy (default: TRACE-replay)",
    )
    parser.add_argument("--force", action="store_true", help="replace the traces in the output")
    parser.add_argument(
        "--limit",
        type=_size,
        default=1 << 30,
        metavar="BYTES",
        help="memory for blocks that each strategy may take, as 512M or 4G (default: 1G)",
    )
    parser.add_argument(
        "--clock",
        choices=("logical", "real"),
        default="logical",
        help="times in the traces: the source's, or those of the replay (default: logical)",
    )
    parser.add_argument(
        "--reps", type=int, default=3, help="timed repetitions, interleaved; 0: traces only (default: 3)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the order of repetitions (default: 1)")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")


_COLUMNS: tuple[tuple[str, Callable[[Row], float | None], Callable[[float | None], str], bool], ...] = (
    ("per block", lambda row: row.ns_per_op, duration_text, True),
    ("p99", lambda row: row.p99_ns, duration_text, True),
    ("peak RSS", lambda row: row.peak_rss_bytes, bytes_text, True),
    ("peak reserved", lambda row: row.peak_reserved_bytes, bytes_text, True),
    ("external frag.", lambda row: row.external_fragmentation, percent_text, True),
    ("internal frag.", lambda row: row.internal_fragmentation, percent_text, True),
    ("moved", lambda row: row.compacted_bytes, bytes_text, False),
    ("failures", lambda row: row.failures, count_text, False),
)


def _print_rows(result: Replay) -> None:
    best = [
        min((value for row in result.rows if (value := value_of(row)) is not None), default=None)
        for _, value_of, _, _ in _COLUMNS
    ]
    fastest = best[0]
    cells, bold = [], []
    for row in result.rows:
        texts = [text_of(value_of(row)) for _, value_of, text_of, _ in _COLUMNS]
        times = f"{row.ns_per_op / fastest:.2f}" if fastest and row.ns_per_op is not None else MISSING
        cells.append((row.strategy, texts[0], times, *texts[1:]))
        won = [
            ranked and value_of(row) is not None and value_of(row) == least
            for (_, value_of, _, ranked), least in zip(_COLUMNS, best, strict=True)
        ]
        bold.append([at + 1 + (at > 0) for at, hit in enumerate(won) if hit])
    names = [name for name, *_ in _COLUMNS]
    print_table(
        f"{result.pool}: {things_text(result.blocks, 'block')}, at most {bytes_text(result.peak_live_bytes)} "
        f"live, the largest {bytes_text(result.largest_request_bytes)}",
        ["strategy", names[0], "x best", *names[1:]],
        cells,
        bold,
    )


def _print_json(result: Replay, arguments: argparse.Namespace) -> None:
    print_json(
        document(
            "replay",
            environment=environment(arguments.seed, arguments.reps),
            source={
                "trace": result.source,
                "pool": result.pool,
                "requests": result.requests,
                "blocks": result.blocks,
                "peak_live_bytes": result.peak_live_bytes,
                "largest_request_bytes": result.largest_request_bytes,
            },
            clock=result.clock,
            limit_bytes=result.limit_bytes,
            skipped=[{"strategy": name, "reason": why} for name, why in result.skipped.items()],
            results=[row.as_dict() for row in result.rows],
        )
    )


def _output_of(trace: Path) -> Path:
    return Path(f"{trace.stem}-replay")


def _following(result: Replay, output: Path) -> str:
    """The report on the traces; only the shells of Unix find them by a pattern."""
    if not result.rows:
        again = ["replay", result.source, "--strategies", "malloc,sizeclass"]
        return poolport_words(*again, output=_output_of(Path(result.source)))
    # Not report.html, which may be the page of the source.
    page = ["--output", unused(output.with_name(output.name.removesuffix(".pptrace") + ".html"))]
    if os.name != "nt" and output.is_dir() and len(list(output.glob("*.pptrace"))) == len(result.rows):
        return shell_words(["poolport", "report", output]) + "/*.pptrace " + shell_words(page)
    return shell_words(["poolport", "report", *result.traces, *page])


def run(arguments: argparse.Namespace) -> int:
    """Replay, and print every row, also those that ours lose."""
    require_extras("analysis", "cli")  # the second also for the progress
    output: Path = arguments.output or _output_of(arguments.trace)
    with progress("reading the trace") as tell:
        result = analysis.replay(
            analysis.load(arguments.trace, partial=arguments.partial),
            arguments.strategies,
            output=output,
            pool=arguments.pool,
            limit_bytes=arguments.limit,
            reps=arguments.reps,
            seed=arguments.seed,
            clock=arguments.clock,
            force=arguments.force,
            progress=tell,
        )
    for name, why in result.skipped.items():
        warn(f"{name} is left out: {why}")
    for text in result.warnings:
        warn(text)
    if arguments.json:
        _print_json(result, arguments)
    elif result.rows:
        _print_rows(result)
        note(f"wrote {things_text(len(result.rows), 'trace')}: {output}")
    print_next(_following(result, output))
    return 0
