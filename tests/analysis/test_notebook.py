"""The notebook runs from any directory, on any traces, and stays small."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
import synthetic
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "fragmentation_report.ipynb"


def executed(folder: Path, traces: Path, monkeypatch: pytest.MonkeyPatch) -> nbformat.NotebookNode:
    monkeypatch.setenv("POOLPORT_DEMO_DIR", str(traces))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook, timeout=90, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    return client.execute()


@pytest.mark.filterwarnings("default")  # what the kernel's own packages warn of is not ours
def test_runs_on_any_traces_from_any_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traces = tmp_path / "traces"
    traces.mkdir()
    for seed in (1, 2):
        work = synthetic.workload(seed, steps=400, leak=1)
        work.builder.write(traces / f"run{seed}.pptrace")
    notebook = executed(tmp_path, traces, monkeypatch)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 6
    assert any("held" in output.get("text", "") for output in outputs)
    assert len(nbformat.writes(notebook)) < 1_500_000


@pytest.mark.filterwarnings("default")
def test_says_what_to_do_where_there_is_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CellExecutionError, match="make demo"):
        executed(tmp_path, tmp_path, monkeypatch)


def test_is_stored_small_and_without_paths_of_a_machine() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 1_500_000
    assert not any(place in text for place in ("/home/", "/work/", "/tmp/", "C:\\\\Users"))
