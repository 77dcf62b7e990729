"""The report object: what `analysis.report` gives."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from os import PathLike
from pathlib import Path

from matplotlib.figure import Figure

from analysis import results
from analysis.atomic_file import require_writable, write_whole
from analysis.errors import TraceError
from analysis.metrics import Metrics
from analysis.reporting import page
from analysis.reporting.images import data_uris
from analysis.reporting.panels import QUESTIONS, asked, panels
from analysis.summaries import Summary, summary_of
from analysis.trace import Trace

MAX_PAGE_BYTES = 5_000_000
_IMAGE_BUDGET = 4_000_000
_NOTEBOOK_BUDGET = 1_200_000

Source = str | PathLike[str] | Trace


class Report:
    """One trace, or several side by side. Figures and tables are made when first asked for."""

    def __init__(self, traces: list[Metrics], title: str | None = None) -> None:
        """Take metrics of at least one trace."""
        self._traces = traces
        self.title = title

    @classmethod
    def build(cls, sources: Source | Iterable[Source], *, title: str | None = None) -> Report:
        """Read whatever is not a Trace yet; see `analysis.report`."""
        several = [sources] if isinstance(sources, (str, PathLike, Trace)) else list(sources)
        if not several:
            raise TraceError("No trace was given: name at least one file.")
        traces = [source if isinstance(source, Trace) else Trace.open(source) for source in several]
        labelled = zip(traces, _unique_labels(traces), strict=True)
        return cls([Metrics(trace, label) for trace, label in labelled], title)

    @property
    def metrics(self) -> dict[str, Metrics]:
        """Metrics by the trace's label."""
        return {metrics.label: metrics for metrics in self._traces}

    @cached_property
    def summaries(self) -> list[Summary]:
        """The comparison table's columns, in the order given."""
        return [summary_of(metrics) for metrics in self._traces]

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """The figures by name, in the page's order; each has one panel per trace."""
        palette: dict[str, str] = {}
        wanted = [question for question in QUESTIONS if asked(question, self._traces)]
        return {question.name: panels(question, self._traces, palette) for question in wanted}

    def save(self, path: str | PathLike[str], force: bool = False) -> Path:
        """Write the page: one file of at most 5 MB that needs no network. Returns its path.

        Raises OutputError where it exists (without `force`) or cannot be written; nothing is then
        left behind.
        """
        require_writable(Path(path), force=force)
        html = page.whole_page(self._context(_IMAGE_BUDGET))
        return write_whole(path, html, force=force)

    def to_json(self) -> str:
        """The numbers of the report as a JSON document of kind "report"."""
        return results.dumps(results.document("report", traces=self.summaries))

    def _context(self, image_budget: int) -> dict[str, object]:
        return page.context_of(
            self.title, self._traces, self.summaries, data_uris(self.figures, image_budget)
        )

    def _repr_html_(self) -> str:
        return page.fragment(self._context(_NOTEBOOK_BUDGET))

    def __repr__(self) -> str:
        """One line."""
        return f"<Report on {', '.join(self.metrics)}: use .save(path), or show it in Jupyter>"


def _unique_labels(traces: list[Trace]) -> list[str]:
    """The traces' labels; where one repeats, a number tells them apart."""
    seen: dict[str, int] = {}
    labels = []
    for trace in traces:
        seen[trace.label] = seen.get(trace.label, 0) + 1
        labels.append(trace.label if seen[trace.label] == 1 else f"{trace.label} #{seen[trace.label]}")
    return labels
