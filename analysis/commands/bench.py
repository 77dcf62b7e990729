"""``poolport bench``: allocation workloads under every strategy, in one interleaved run."""

from __future__ import annotations

import argparse
import platform
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from analysis.benchmarks import Result
from analysis.commands.demo import OUTPUT
from analysis.commands.terminal import (
    poolport_words,
    print_json,
    print_next,
    print_table,
    progress,
    warn,
)
from analysis.results import document
from analysis.units import MISSING, bytes_text, count_text, duration_text, percent_text, things_text

if TYPE_CHECKING:
    from analysis.benchmarks.bars import Standing

NAME = "bench"
HELP = "run allocation workloads under every strategy and compare time and memory"

_IDLE_WORKLOAD = "burst-idle"


def _names(what: str, known: list[str]) -> Any:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"no {what} {name!r}; choose from {','.join(known)}")
        return list(dict.fromkeys(names))

    return parse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from analysis.benchmarks.allocators import STRATEGIES  # noqa: PLC0415  # compiled
    from analysis.benchmarks.workloads import WORKLOADS  # noqa: PLC0415

    parser.add_argument(
        "workloads",
        nargs="*",
        metavar="WORKLOAD",
        help=f"from {', '.join(WORKLOADS)} (default: all)",
    )
    parser.add_argument(
        "--strategies",
        type=_names("strategy", list(STRATEGIES)),
        default=list(STRATEGIES),
        metavar="A,B",
        help=f"from {','.join(STRATEGIES)} (default: all that the machine has)",
    )
    parser.add_argument(
        "--bars",
        action="store_true",
        help="measure where each of the project's bars stands, with the rivals that the machine has",
    )
    parser.add_argument("--size", type=int, help="bytes of each block; 0: the workload's mixed sizes")
    parser.add_argument("--threads", type=int, default=2, help="for larson and mstress (default: 2)")
    parser.add_argument("--reps", type=int, default=9, help="repetitions, interleaved (default: 9)")
    parser.add_argument("--seed", type=int, default=1, help="of sizes and order (default: 1)")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")


def environment(seed: int, reps: int) -> dict[str, Any]:
    """What a reader needs to judge the figures."""
    return {
        "poolport": version("poolport"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "seed": seed,
        "reps": reps,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _environment_text(arguments: argparse.Namespace) -> str:
    facts = environment(arguments.seed, arguments.reps)
    return (
        f"poolport {facts['poolport']}, Python {facts['python']}, {facts['system']} on {facts['machine']}; "
        f"medians of {facts['reps']} repetitions in turn, seed {facts['seed']}"
    )


def _check(arguments: argparse.Namespace) -> list[str]:
    from analysis.benchmarks.workloads import WORKLOADS  # noqa: PLC0415  # compiled
    from analysis.errors import UsageError  # noqa: PLC0415

    for name in arguments.workloads:
        if name not in WORKLOADS:
            raise UsageError(f"no workload {name!r}; choose from {', '.join(WORKLOADS)}")
    for name, low, high in (("threads", 1, 64), ("reps", 1, 1000), ("size", 0, 1 << 30)):
        value = getattr(arguments, name)
        if value is not None and not low <= value <= high:
            raise UsageError(f"--{name} {value}: give {low} to {high}")
    if arguments.bars and (arguments.workloads or arguments.size is not None):
        raise UsageError("--bars has workloads and sizes of its own; leave yours out")
    return arguments.workloads or list(WORKLOADS)


def _print_idle(rows: list[Result]) -> None:
    """What stays of bursts that are over: the point of the workload that waits for it."""
    smallest = min(row.rss_bytes for row in rows)
    print_table(
        f"{rows[0].workload}, after an idle second",
        ["strategy", "RSS", "live", "x live"],
        [
            (
                row.strategy,
                bytes_text(row.rss_bytes),
                bytes_text(int(row.live_bytes)),
                f"{row.rss_bytes / row.live_bytes:.2f}" if row.live_bytes else MISSING,
            )
            for row in rows
        ],
        [[1, 3] if row.rss_bytes == smallest else [] for row in rows],
    )


def _print_workload(workload: str, rows: list[Result]) -> None:
    from analysis.benchmarks.allocators import NOTHING  # noqa: PLC0415  # compiled

    allocators = [row for row in rows if row.strategy != NOTHING] or rows
    fastest = min(row.ns_per_op for row in allocators)
    smallest = min(row.peak_rss_bytes for row in allocators)
    print_table(
        f"{workload}, {'mixed sizes' if rows[0].size == 0 else bytes_text(rows[0].size)}, "
        f"{things_text(rows[0].threads, 'thread')}",
        [
            "strategy",
            "per operation",
            "x best",
            "p99",
            "peak RSS",
            "external frag.",
            "internal frag.",
            "failures",
        ],
        [
            (
                row.strategy,
                duration_text(row.ns_per_op),
                f"{row.ns_per_op / fastest:.2f}",
                duration_text(row.p99_ns),
                bytes_text(row.peak_rss_bytes),
                percent_text(row.external_fragmentation),
                percent_text(row.internal_fragmentation),
                count_text(row.failures),
            )
            for row in rows
        ],
        [
            [at for at, hit in ((1, row.ns_per_op == fastest), (4, row.peak_rss_bytes == smallest)) if hit]
            for row in rows
        ],
    )
    if workload == _IDLE_WORKLOAD:
        _print_idle(rows)


def _value_text(value: float, text: str) -> str:
    """A measured value in the unit that the bar's words imply."""
    if "RSS" in text:
        return bytes_text(int(value))
    if "fragmentation" in text:
        return percent_text(value)
    return duration_text(value)


def _print_bars(standings: list[Standing]) -> None:
    print_table(
        "bars: ours over theirs, or the share of theirs reached where a bar says so; "
        "net: without the workload's own time",
        ["bar", "ours", "theirs", "against", "ratio", "must", "aim", "stands", "workload", "net"],
        [
            (
                row.bar,
                _value_text(row.ours, row.bar),
                _value_text(row.theirs, row.bar),
                row.against,
                f"{row.ratio:.2f}",
                f"{row.must:g}",
                f"{row.aim:g}",
                row.verdict,
                "-" if row.harness is None else duration_text(row.harness),
                "-" if row.net_ratio is None else f"{row.net_ratio:.2f}",
            )
            for row in standings
        ],
        [[7] if row.verdict == "aim" else [] for row in standings],
    )


def _run_bars(arguments: argparse.Namespace) -> int:
    from analysis.benchmarks import bars  # noqa: PLC0415  # compiled

    with progress("starting") as tell:
        standings, rows = bars.stand(
            reps=arguments.reps,
            seed=arguments.seed,
            skipped=lambda _name, why: warn(why),
            progress=tell,
        )
    if arguments.json:
        print_json(
            document(
                "bench",
                environment=environment(arguments.seed, arguments.reps),
                bars=[standing._asdict() for standing in standings],
                results=[row.as_dict() for row in rows],
            )
        )
    else:
        _print_bars(standings)
        print(_environment_text(arguments))
    print_next("poolport bench steady")
    return 0


def run(arguments: argparse.Namespace) -> int:
    """Run the workloads and print every row, also those that ours lose."""
    from analysis import benchmarks  # noqa: PLC0415  # compiled

    workloads = _check(arguments)
    if arguments.bars:
        return _run_bars(arguments)
    with progress("starting") as tell:
        rows = benchmarks.run(
            workloads,
            arguments.strategies,
            size=arguments.size,
            threads=arguments.threads,
            reps=arguments.reps,
            seed=arguments.seed,
            skipped=lambda _strategy, why: warn(why),
            progress=tell,
        )
    if arguments.json:
        print_json(
            document(
                "bench",
                environment=environment(arguments.seed, arguments.reps),
                results=[row.as_dict() for row in rows],
            )
        )
    else:
        for workload in workloads:
            _print_workload(workload, [row for row in rows if row.workload == workload])
        print(_environment_text(arguments))
    print_next(poolport_words("demo", output=OUTPUT))
    return 0
