"""``poolport demo`` end to end, and what it refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import analysis
from analysis.strategies import STRATEGIES

from .conftest import Poolport, parsed, says_in_one_sentence

QUICK = ("demo", "--quick", "--connections", "20", "--duration", "1")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of one demo with a leak, shared by the tests that only look at it."""
    import subprocess
    import sys

    place = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from analysis.commands import main; sys.exit(main())",
            *QUICK,
            "--leak",
            "--seed",
            "7",
            "--output",
            str(place / "out"),
            "--json",
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (place / "stdout.json").write_text(done.stdout)
    (place / "stderr.txt").write_text(done.stderr)
    return place


def test_every_message_comes_back_verified_under_every_strategy(finished: Path) -> None:
    document = parsed((finished / "stdout.json").read_text())
    assert [row["strategy"] for row in document["results"]] == list(STRATEGIES)
    assert all(row["verified"] and row["failures"] == 0 for row in document["results"])
    assert len({row["messages"] for row in document["results"]}) == 1, "the same traffic for each"


def test_the_output_holds_a_page_the_results_and_a_trace_for_each_strategy(finished: Path) -> None:
    out = finished / "out"
    assert {"report.html", "results.json", "slab.pptrace", "malloc.pptrace"} <= {
        p.name for p in out.iterdir()
    }
    assert json.loads((out / "results.json").read_text()) == json.loads(
        (finished / "stdout.json").read_text()
    )
    assert (out / "report.html").stat().st_size < 5 << 20


def test_the_leaked_connection_is_named_everywhere(finished: Path) -> None:
    document = parsed((finished / "stdout.json").read_text())
    page = (finished / "out" / "report.html").read_text("utf-8")
    for row in document["results"]:
        (tag,) = row["leaked_tags"]
        assert tag.startswith("conn-")
        assert tag in page
        summary = analysis.summary(finished / "out" / row["trace"])
        assert summary.leaked_tags == (tag,)
        assert summary.leaked_blocks == 1


def test_the_page_names_the_traces_where_they_lie(finished: Path) -> None:
    page = (finished / "out" / "report.html").read_text("utf-8")
    for strategy in STRATEGIES:
        assert f"{Path('out') / strategy}.pptrace</code>" in page


def test_the_trace_carries_the_run(finished: Path) -> None:
    trace = analysis.load(finished / "out" / "slab.pptrace")
    assert trace.complete
    assert trace.notes["seed"] == "7"
    assert trace.notes["verified"] == "true"
    assert float(trace.notes["server_cpu_us_per_message"]) > 0


def test_the_last_line_says_what_to_run_next(finished: Path) -> None:
    assert (finished / "stderr.txt").read_text().strip().splitlines()[-1].startswith("next: ")


def test_an_existing_output_is_kept_unless_forced(poolport: Poolport, tmp_path: Path) -> None:
    place = tmp_path / "out"
    place.mkdir()
    says_in_one_sentence(poolport(*QUICK, "--output", place), 2, "exists already", "--force")
    (place / "thesis.txt").write_text("mine")
    says_in_one_sentence(poolport(*QUICK, "--output", place, "--force"), 2, "not a demo's output")
    assert (place / "thesis.txt").read_text() == "mine"


def test_an_impossible_output_is_refused_before_any_run(poolport: Poolport, tmp_path: Path) -> None:
    says_in_one_sentence(poolport(*QUICK, "--output", tmp_path / "no" / "such"), 2, "does not exist")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(
    os.name == "nt" or not Path("/proc/self").is_dir(), reason="Linux has it, and nobody can write there"
)
def test_a_place_that_refuses_is_named_as_it_was_given(poolport: Poolport) -> None:
    result = poolport(*QUICK, "--output", "/proc/x")
    says_in_one_sentence(result, 2, "'/proc/x' cannot be made")
    assert ".x." not in result.stderr


@pytest.mark.parametrize(
    ("option", "value", "part"),
    [
        ("--strategies", "slab,magic", "magic"),
        ("--connections", "0", "above 0"),
        ("--duration", "-1", "above 0"),
        ("--backend", "kqueue", "kqueue"),
    ],
)
def test_a_wrong_option_is_a_usage_error(poolport: Poolport, option: str, value: str, part: str) -> None:
    says_in_one_sentence(poolport("demo", option, value), 2, part)


def test_a_forbidden_back_end_is_said_in_one_sentence(poolport: Poolport, tmp_path: Path) -> None:
    result = poolport(
        *QUICK, "--backend", "io_uring", "--output", tmp_path / "out", env={"POOLPORT_NO_IO_URING": "1"}
    )
    assert result.returncode != 0
    assert "io_uring" in result.stderr.strip().splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == [], "nothing half-written"
