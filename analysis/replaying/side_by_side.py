"""A recorded program's requests under every strategy, side by side.

Each strategy is replayed twice, in processes of their own: once untimed, into a trace of its own,
and then `reps` times for its speed and its memory, all strategies in turn. docs/replay.md tells what
is asked again and what cannot be.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import tempfile
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from analysis.errors import UsageError
from analysis.layout import Op
from analysis.replaying.output import gather, require_place
from analysis.replaying.process import WorkerProcess
from analysis.replaying.requests import Requests, pool_named, requests_of
from analysis.replaying.strategies import STRATEGIES, shape_of
from analysis.replaying.worker import Order
from analysis.trace import Trace
from analysis.units import things_text

if TYPE_CHECKING:
    from analysis.reporting.report import Report

__all__ = ["Replay", "Row", "Settings", "replay"]

_BLOCKS_WORTH_TIMING = 1000
_LIMIT_MIN = 1 << 20
_LIMIT_MAX = 1 << 40
_REPS_MAX = 1000
_TRACE_BYTES_MIN = 256 << 20
_TRACE_BYTES_PER_REQUEST = 512


@dataclass(frozen=True, slots=True)
class Row:
    """One strategy under the requests. None: not measured, or the strategy does not tell."""

    workload: str
    """"replay"."""
    size: int
    """0: sizes as recorded."""
    threads: int
    """1."""
    strategy: str
    ns_per_op: float | None
    """Median over the repetitions of the time of all requests for each block asked for."""
    p99_ns: float | None
    """Median of the 99th percentile of that over runs of 32 blocks."""
    peak_rss_bytes: int | None
    """What the process's resident set grew to in one replay, one word of each page being written."""
    peak_reserved_bytes: int | None
    """The most address space held at once, metadata included, by the strategy's trace."""
    external_fragmentation: float | None
    """When most bytes were live, by the source trace."""
    internal_fragmentation: float | None
    """At the same moment."""
    failures: int
    """Acquires and resizes that were refused."""
    requests: int
    """Blocks asked for."""
    compacted_bytes: int
    """Moved by compactions."""
    trace: str
    """The file that tells the rest."""

    def as_dict(self) -> dict[str, Any]:
        """The row as JSON data."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True)
class Replay:
    """What a replay gave: `.rows`, `.skipped` (strategy -> why), `.traces`, `.warnings`, `.report()`."""

    source: str
    pool: str
    rows: list[Row]
    skipped: dict[str, str]
    requests: int
    blocks: int
    peak_live_bytes: int
    largest_request_bytes: int
    limit_bytes: int
    clock: str
    warnings: list[str]

    @property
    def traces(self) -> list[str]:
        """The paths of the traces written, one for each row."""
        return [row.trace for row in self.rows]

    def report(self, *, title: str | None = None) -> Report:
        """Build the report on the traces side by side; raises as `analysis.report` does."""
        import analysis  # noqa: PLC0415 - it imports us

        return analysis.report(self.traces, title=title)


class Settings(NamedTuple):
    """How to replay; as the parameters of `analysis.replay`."""

    limit_bytes: int
    reps: int
    seed: int
    clock: str
    force: bool


def replay(
    source: Trace,
    strategies: Iterable[str] | None,
    *,
    output: str | os.PathLike[str] | None,
    pool: str | None,
    settings: Settings,
    progress: Callable[[str], None],
) -> Replay:
    """See `analysis.replay`."""
    names = list(STRATEGIES) if strategies is None else list(dict.fromkeys(strategies))
    _check(names, settings)
    number = source.main_pool if pool is None else pool_named(source, pool)
    if output is not None:
        require_place(Path(output), names, force=settings.force)
        return _replay_into(Path(output), source, number, names, settings, progress)
    place = Path(tempfile.mkdtemp(prefix="poolport-replay-"))
    try:
        result = _replay_into(place, source, number, names, settings, progress)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    weakref.finalize(result, shutil.rmtree, place, ignore_errors=True)
    return result


def _replay_into(
    target: Path,
    source: Trace,
    number: int,
    names: Sequence[str],
    settings: Settings,
    progress: Callable[[str], None],
) -> Replay:
    requests = requests_of(source, number)
    with tempfile.TemporaryDirectory(prefix=".replay-", dir=target.parent) as work:
        orders = _orders(source, requests, names, Path(work), settings)
        told, skipped = _write_traces(orders, progress)
        times = _take_times([orders[name] for name in told], settings.reps, settings.seed, progress)
        places = gather({name: str(orders[name].trace) for name in told}, target, force=settings.force)
    return Replay(
        source=source.path,
        pool=source.pool_name(number),
        rows=[_row(name, told[name], times.get(name), places[name]) for name in told],
        skipped=skipped,
        requests=len(requests.rows),
        blocks=requests.blocks,
        peak_live_bytes=requests.peak_bytes,
        largest_request_bytes=requests.largest,
        limit_bytes=settings.limit_bytes,
        clock=settings.clock,
        warnings=[*source.warnings, *_warnings(requests, told, settings)],
    )


def _check(names: Sequence[str], settings: Settings) -> None:
    limit_bytes, reps, clock = settings.limit_bytes, settings.reps, settings.clock
    unknown = [name for name in names if name not in STRATEGIES]
    if unknown or not names:
        what = f"no strategy {unknown[0]!r}" if unknown else "no strategy given"
        raise UsageError(f"{what}; choose from {', '.join(STRATEGIES)}")
    if not _LIMIT_MIN <= limit_bytes <= _LIMIT_MAX:
        raise UsageError(f"a limit of {limit_bytes} bytes: give {_LIMIT_MIN} (1 MiB) to {_LIMIT_MAX} (1 TiB)")
    if not 0 <= reps <= _REPS_MAX:
        raise UsageError(f"{reps} repetitions: give 0 (traces only) to {_REPS_MAX}")
    if clock not in ("logical", "real"):
        raise UsageError(f"no clock {clock!r}; choose logical or real")


def _orders(
    source: Trace, requests: Requests, names: Sequence[str], work: Path, settings: Settings
) -> dict[str, Order]:
    """One order for each strategy; the requests go to a file that all of them map."""
    file = work / "requests"
    requests.rows.tofile(file)
    shape = shape_of(
        requests.largest,
        requests.peak_bytes,
        requests.peak_blocks,
        settings.limit_bytes,
        requests.sizes,
    )
    return {
        name: Order(
            strategy=name,
            requests=str(file),
            request_count=len(requests.rows),
            blocks=requests.blocks,
            tags=requests.tags,
            sites=requests.sites,
            shape=shape,
            peak_at=requests.peak_at,
            start_ns=requests.start_ns,
            end_ns=requests.end_ns,
            trace=str(work / f"{name}.pptrace"),
            trace_limit_bytes=max(_TRACE_BYTES_MIN, _TRACE_BYTES_PER_REQUEST * len(requests.rows)),
            logical=settings.clock == "logical",
            leaks=requests.leaks,
            notes={
                "strategy": name,
                "replay_of": source.label,
                "clock": settings.clock,
                "seed": str(settings.seed),
                "limit_bytes": str(settings.limit_bytes),
            },
        )
        for name in names
    }


def _write_traces(
    orders: dict[str, Order], progress: Callable[[str], None]
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Replay each strategy into its trace; what each told, and why others are left out."""
    told: dict[str, dict[str, Any]] = {}
    skipped: dict[str, str] = {}
    for name, order in orders.items():
        progress(f"{name}: writing its trace")
        with WorkerProcess(order) as process:
            if "unfit" in process.first:
                skipped[name] = process.first["unfit"]
                continue
        told[name] = process.first | {"peak_reserved_bytes": _peak_reserved(str(order.trace))}
    return told, skipped


def _peak_reserved(path: str) -> int | None:
    """The most that was reserved at once: by regions, else by samples; None where neither tells."""
    trace = Trace.open(path)
    at = trace.where(Op.REGION_ADD, Op.REGION_REMOVE)
    if len(at):
        rows = trace.records[at]
        sizes = (rows["granted"] + rows["aux"]).astype(np.int64)
        return int(np.cumsum(np.where(rows["op"] == Op.REGION_ADD, sizes, -sizes)).max())
    sampled = trace.records["block"][trace.where(Op.SAMPLE)]
    return int(sampled.max()) if len(sampled) else None


def _take_times(
    orders: Sequence[Order], reps: int, seed: int, progress: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """Replay all in turn, in another order each time, so that nobody always comes after the same one."""
    if not reps:
        return {}
    answers: dict[str, list[dict[str, Any]]] = {order.strategy: [] for order in orders}
    processes: list[WorkerProcess] = []
    turns = random.Random(seed)  # noqa: S311 - an order, no secret
    try:
        processes += [WorkerProcess(order._replace(trace=None)) for order in orders]
        for number in range(reps):
            for process in turns.sample(processes, len(processes)):
                progress(f"{process.strategy}: repetition {number + 1} of {reps}")
                answers[process.strategy].append(process.ask("again"))
    finally:
        for process in processes:
            process.close()
    return {
        process.strategy: {
            "ns_per_op": statistics.median(answer["ns_per_op"] for answer in answers[process.strategy]),
            "p99_ns": statistics.median(answer["p99_ns"] for answer in answers[process.strategy]),
            "peak_rss_bytes": max(
                0, answers[process.strategy][0]["peak_rss_bytes"] - process.first["rss_before_bytes"]
            ),
        }
        for process in processes
    }


def _row(name: str, told: dict[str, Any], times: dict[str, Any] | None, trace: str) -> Row:
    timed = times or {"ns_per_op": None, "p99_ns": None, "peak_rss_bytes": None}
    return Row(
        workload="replay",
        size=0,
        threads=1,
        strategy=name,
        peak_reserved_bytes=told["peak_reserved_bytes"],
        external_fragmentation=told.get("external_fragmentation"),
        internal_fragmentation=told.get("internal_fragmentation"),
        failures=told["failures"],
        requests=told["acquired"],
        compacted_bytes=told["compacted_bytes"],
        trace=trace,
        **timed,
    )


def _warnings(requests: Requests, told: dict[str, dict[str, Any]], settings: Settings) -> list[str]:
    limit, reps = settings.limit_bytes, settings.reps
    found = []
    if requests.peak_bytes > limit:
        found.append(
            f"the recorded program had {requests.peak_bytes} bytes live at once, more than the limit of "
            f"{limit}: what is beyond it is refused. Raise the limit as far as this machine's memory goes."
        )
    if reps and requests.blocks < _BLOCKS_WORTH_TIMING:
        found.append(
            f"the trace has only {things_text(requests.blocks, 'block')}: below {_BLOCKS_WORTH_TIMING} the "
            "times are those of the first touch of memory, and say little of the strategies."
        )
    for name, facts in told.items():
        if facts.get("dropped"):
            found.append(f"{name}: its trace is full, {facts['dropped']} records are missing from it.")
    return found
