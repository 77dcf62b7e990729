"""``poolport demo``: real traffic over loopback once per strategy, and a report on it."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.commands.report import print_summaries
from analysis.commands.terminal import note, print_json, print_next, progress, require_extras, warn
from analysis.demo.runs import Run, run_strategy
from analysis.demo.traffic import plan_traffic
from analysis.errors import AnalysisError, OutputError
from analysis.results import document
from analysis.strategies import STRATEGIES

if TYPE_CHECKING:
    from analysis.trace import Trace

NAME = "demo"
OUTPUT = Path("demo")
HELP = "echo real traffic over loopback once per strategy, and report what it did to the memory"

_SECONDS, _QUICK_SECONDS = 6.0, 2.0
_CONNECTIONS, _QUICK_CONNECTIONS = 200, 60


def _strategies(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in STRATEGIES:
            raise argparse.ArgumentTypeError(f"no strategy {name!r}; choose from {','.join(STRATEGIES)}")
    return list(dict.fromkeys(names))


def _positive(kind: type[int] | type[float], limit: float) -> Any:
    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = -1
        if not 0 < value <= limit:
            raise argparse.ArgumentTypeError(f"{text!r}: give a number above 0, at most {limit:g}")
        return value

    return parse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--quick", action="store_true", help="2 seconds and 60 connections per strategy")
    parser.add_argument("--leak", action="store_true", help="have the server lose one connection's block")
    parser.add_argument("--seed", type=int, default=1, help="of the traffic (default: 1)")
    parser.add_argument("--output", "-o", type=Path, default=OUTPUT, help=f"directory (default: {OUTPUT})")
    parser.add_argument("--force", action="store_true", help="replace the output directory")
    parser.add_argument("--backend", choices=("auto", "io_uring", "epoll", "iocp"), default="auto")
    parser.add_argument(
        "--strategies",
        type=_strategies,
        default=list(STRATEGIES),
        metavar="A,B",
        help=f"from {','.join(STRATEGIES)} (default: all)",
    )
    parser.add_argument("--connections", type=_positive(int, 10_000), help="default: 200")
    parser.add_argument(
        "--duration", type=_positive(float, 3600), metavar="SECONDS", help="per strategy (default: 6)"
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def _require_place(output: Path, force: bool) -> None:
    """Refuse at once what would fail at the end."""
    if output.exists() and not force:
        raise OutputError(
            f"{str(output)!r} exists already: choose another --output, or replace it with --force."
        )
    if output.exists() and not (output.is_dir() and _is_ours(output)):
        raise OutputError(
            f"{str(output)!r} is not a demo's output, so it is not replaced: choose another --output."
        )
    if not output.parent.is_dir():
        raise OutputError(
            f"{str(output)!r} cannot be made: the directory {str(output.parent)!r} does not exist."
        )
    if not os.access(output.parent, os.W_OK):
        raise OutputError(f"{str(output)!r} cannot be made: no permission in {str(output.parent)!r}.")


def _is_ours(directory: Path) -> bool:
    """Whether a directory holds nothing but what a demo writes."""
    return all(
        entry.suffix == ".pptrace" or entry.name in {"report.html", "results.json"}
        for entry in directory.iterdir()
    )


def _put_in_place(made: Path, output: Path) -> None:
    """Give the finished directory its name; what was there before goes only then."""
    made.chmod(0o755)
    if not output.exists():
        made.rename(output)
        return
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as aside:
        output.rename(Path(aside) / "old")
        made.rename(output)


def _results(arguments: argparse.Namespace, runs: list[Run], summaries: Any) -> dict[str, Any]:
    rows = [
        {
            "strategy": run.strategy,
            "backend": run.backend,
            "backend_reason": run.reason,
            "connections": run.outcome.connections,
            "messages": run.outcome.messages,
            "failures": run.outcome.failures,
            "first_failure": run.outcome.first_failure,
            "verified": run.outcome.verified,
            "throughput_msgs_per_s": run.throughput_msgs_per_s,
            "throughput_bytes_per_s": run.outcome.payload_bytes / max(run.outcome.elapsed_s, 1e-9),
            "server_cpu_us_per_message": run.server["server_cpu_us_per_message"],
            "latency_p50_us": run.outcome.latency_p50_us,
            "latency_p99_us": run.outcome.latency_p99_us,
            "peak_reserved_bytes": summary.peak_reserved_bytes,
            "peak_rss_bytes": summary.peak_rss_bytes,
            "external_fragmentation": summary.external_fragmentation_mean,
            "internal_fragmentation": summary.internal_fragmentation_mean,
            "leaked_tags": run.server["leaked_tags"],
            "trace": f"{run.strategy}.pptrace",
        }
        for run, summary in zip(runs, summaries, strict=True)
    ]
    return document("demo", seed=arguments.seed, leak=arguments.leak, results=rows)


def _placed(trace: Trace, output: Path) -> Trace:
    """The trace under the path that it will have when all runs are done, for the page to name."""
    trace.path = str(output / Path(trace.path).name)
    return trace


def _produce(arguments: argparse.Namespace, place: Path) -> tuple[dict[str, Any], Any]:
    """Run everything into a directory; the results and the report."""
    import analysis  # noqa: PLC0415  # its extras are asked for only now
    from analysis.atomic_file import write_whole  # noqa: PLC0415

    connections = arguments.connections or (_QUICK_CONNECTIONS if arguments.quick else _CONNECTIONS)
    duration = arguments.duration or (_QUICK_SECONDS if arguments.quick else _SECONDS)
    traffic = plan_traffic(arguments.seed, connections=connections, duration_s=duration, leak=arguments.leak)
    runs: list[Run] = []
    with progress("starting") as tell:
        for strategy in arguments.strategies:
            runs.append(
                run_strategy(
                    strategy,
                    traffic,
                    connections=connections,
                    leak=arguments.leak,
                    trace=place / f"{strategy}.pptrace",
                    backend=arguments.backend,
                    progress=tell,
                )
            )
        tell("drawing the report")
        traces = [_placed(analysis.load(run.trace), arguments.output) for run in runs]
        report = analysis.report(traces, title="The same traffic under each strategy")
        report.save(place / "report.html")
    results = _results(arguments, runs, report.summaries)
    import json  # noqa: PLC0415

    write_whole(place / "results.json", json.dumps(results, indent=2) + "\n")
    return results, report


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; exit code 1 where a message came back wrong."""
    require_extras("analysis", "cli")  # the second also for the progress
    output: Path = arguments.output
    _require_place(output, arguments.force)
    try:
        made = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    except OSError as error:  # a file system that refuses what the permissions allow
        raise OutputError(f"{str(output)!r} cannot be made: {error.strerror or error}.") from error
    try:
        results, report = _produce(arguments, made)
        summaries = tuple(report.summaries)
        _put_in_place(made, output)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    if arguments.json:
        print_json(results)
    else:
        print_summaries(f"The same traffic under each strategy (seed {arguments.seed})", summaries)
        note(f"wrote {output / 'report.html'}, {output / 'results.json'} and a trace for each strategy")
    for row in results["results"]:
        for tag in row["leaked_tags"]:
            warn(f"{row['strategy']}: {tag} leaked" + (", as --leak asked for" if arguments.leak else ""))
    failed = [row for row in results["results"] if not row["verified"]]
    for row in failed:
        warn(f"{row['strategy']}: {row['failures']} messages failed; first: {row['first_failure']}")
    print_next(f"open {output / 'report.html'}, then: poolport bench")
    if failed:
        raise AnalysisError("messages were lost or came back wrong; the table and the warnings say how many")
    return 0
