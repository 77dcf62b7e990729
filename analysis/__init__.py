"""Reads traces, measures what happened to the memory, and draws it.

    import analysis

    trace = analysis.load("run.pptrace")            # -> Trace; TraceError if it cannot be read
    analysis.summary(trace)                         # -> Summary, plain numbers for a comparison table
    report = analysis.report(["slab.pptrace", "malloc.pptrace"])
    report.save("report.html")                      # one self-contained page; also rich in Jupyter
    analysis.replay("run.pptrace").rows             # the same requests under every strategy

numpy, matplotlib and jinja2 come with the extra `poolport[analysis]`. Importing this package
needs none of them: the first use that does raises `MissingExtra`, which names the remedy.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from os import PathLike
from typing import TYPE_CHECKING

from analysis.errors import AnalysisError, BalanceError, MissingExtra, OutputError, TraceError
from analysis.summaries import Summary

if TYPE_CHECKING:
    from analysis import figures, metrics
    from analysis.replaying.side_by_side import Replay
    from analysis.reporting.report import Report
    from analysis.trace import Trace

__all__ = [
    "AnalysisError",
    "BalanceError",
    "MissingExtra",
    "OutputError",
    "Replay",
    "Report",
    "Summary",
    "Trace",
    "TraceError",
    "figures",
    "load",
    "metrics",
    "replay",
    "report",
    "summary",
]

_LAZY = {
    "Trace": ("analysis.trace", "Trace"),
    "Replay": ("analysis.replaying.side_by_side", "Replay"),
    "Report": ("analysis.reporting.report", "Report"),
    "metrics": ("analysis.metrics", None),
    "figures": ("analysis.figures", None),
}
_EXTRA_PACKAGES = frozenset({"numpy", "matplotlib", "jinja2", "markupsafe"})


def _load_lazily(module: str) -> object:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in _EXTRA_PACKAGES:
            raise MissingExtra(package) from error
        raise


def __getattr__(name: str) -> object:
    """Import what needs numpy or matplotlib when it is first asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module 'analysis' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    loaded = _load_lazily(module)
    return loaded if attribute is None else getattr(loaded, attribute)


def __dir__() -> list[str]:
    """Only what is for use, in a completion as in `__all__`."""
    return sorted(__all__)


def load(path: str | PathLike[str], *, partial: bool = False) -> Trace:
    """Read a trace file.

    A trace whose writer died before closing it is read up to its last whole record, and says so in
    `trace.complete`. A trace that was closed but is shorter than its header says (an interrupted
    copy) is refused unless `partial` is true.

    Raises `TraceError` (not a trace, newer version, damaged, unreadable) and `MissingExtra`.
    """
    _load_lazily("analysis.trace")
    from analysis.trace import Trace  # noqa: PLC0415

    return Trace.open(path, partial=partial)


def summary(source: str | PathLike[str] | Trace) -> Summary:
    """Compute the values of the comparison table for one trace; bytes, nanoseconds and ratios.

    Raises as `load` does, and `TraceError` where the trace holds no allocation at all.
    """
    _load_lazily("analysis.trace")
    from analysis.summaries import summarise  # noqa: PLC0415
    from analysis.trace import Trace  # noqa: PLC0415

    return summarise(source if isinstance(source, Trace) else Trace.open(source))


def report(
    sources: str | PathLike[str] | Trace | Iterable[str | PathLike[str] | Trace],
    *,
    title: str | None = None,
) -> Report:
    """Build the report on one trace, or on several side by side (one per strategy).

    The result has `.summaries` (one `Summary` per trace, in the order given), `.metrics` (name of
    the trace -> Metrics), `.figures` (name -> matplotlib Figure), `_repr_html_()` for Jupyter, and
    `.save(path, force=False)`, which writes one self-contained HTML page of at most 5 MB and
    raises `OutputError` where the path exists (without `force`) or cannot be written.

    Raises as `summary` does.
    """
    _load_lazily("analysis.reporting.report")
    from analysis.reporting.report import Report  # noqa: PLC0415

    return Report.build(sources, title=title)


def replay(
    source: str | PathLike[str] | Trace,
    strategies: Iterable[str] | None = None,
    *,
    output: str | PathLike[str] | None = None,
    pool: str | None = None,
    limit_bytes: int = 1 << 30,
    reps: int = 3,
    seed: int = 1,
    clock: str = "logical",
    force: bool = False,
    progress: Callable[[str], None] = lambda _text: None,
) -> Replay:
    """Ask every strategy for what a recorded program asked for, in the same order.

    `strategies` are names of `analysis.replaying.strategies.STRATEGIES` (default: all; those that
    the machine lacks, or that cannot fit the sizes, are in `.skipped` with the reason). `pool` names
    the pool of the trace (default: the one with the most bytes). `limit_bytes` bounds the memory for
    blocks; what is beyond it is refused and counted. Each strategy writes a trace to the directory
    `output` (default: one that goes with the result; or a file that ends in `.pptrace`, for one strategy),
    and is then timed `reps` times, which may be 0. With the clock `"logical"` a trace carries the source's
    times and is the same, byte for byte, for the same source, strategy and seed; `"real"` takes
    the times of the replay. `seed` orders the turns of the timed repetitions.

    The result has `.rows` (one `Row` per strategy), `.traces`, `.skipped`, `.warnings`, `.report()`.

    Raises as `load` does, `UsageError` for arguments, `OutputError` where the traces cannot be written,
    `AnalysisError` where a strategy's process dies.
    """
    _load_lazily("analysis.trace")
    from analysis.replaying.side_by_side import Settings  # noqa: PLC0415
    from analysis.replaying.side_by_side import replay as run  # noqa: PLC0415
    from analysis.trace import Trace  # noqa: PLC0415

    return run(
        source if isinstance(source, Trace) else Trace.open(source),
        strategies,
        output=output,
        pool=pool,
        settings=Settings(limit_bytes, reps, seed, clock, force),
        progress=progress,
    )
