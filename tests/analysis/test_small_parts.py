"""Units, JSON, the comparison table, and what happens without the extra."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import analysis
from analysis import results, units
from analysis.comparison import comparison


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (10 << 20, "10 MiB"),
        (int(1023.9 * 1024), "1 MiB"), (123_456_789, "118 MiB"), (-2048, "-2 KiB"), (None, units.MISSING),
        (math.nan, units.MISSING),
    ],
)  # fmt: skip
def test_bytes_are_binary(value: float | None, text: str) -> None:
    assert units.bytes_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 ns"),
        (950, "950 ns"),
        (1500, "1.5 us"),
        (2_000_000, "2 ms"),
        (90e9, "1.5 min"),
        (None, units.MISSING),
    ],
)
def test_durations_have_the_unit_that_reads_best(value: float | None, text: str) -> None:
    assert units.duration_text(value) == text


def test_counts_and_shares() -> None:
    assert units.count_text(1234567) == "1,234,567"
    assert units.percent_text(0.1234) == "12.3 %"
    assert units.percent_text(1) == "100 %"
    assert units.percent_text(0.0001) == "<0.1 %"
    assert units.byte_rate_text(2 << 20) == "2 MiB/s"
    assert units.rate_text(None) == units.MISSING


@given(st.text(max_size=300), st.integers(12, 100))
def test_labels_are_short_and_printable(text: str, limit: int) -> None:
    label = units.label_text(text, limit)
    assert len(label) <= max(limit, 6)
    assert not any(ord(sign) < 32 or sign in "\u202e\u2066\u200f" for sign in label)


def test_json_holds_dataclasses_arrays_and_no_nan() -> None:
    document = results.document(
        "bench",
        rows=np.array([1, 2]),
        value=np.float64(0.5),
        lost=math.nan,
        path=Path("a") / "b",
        pair=(1, None),
    )
    assert json.loads(results.dumps(document)) == {
        "schema_version": 1, "kind": "bench", "rows": [1, 2], "value": 0.5, "lost": None,
        "path": str(Path("a") / "b"), "pair": [1, None],
    }  # fmt: skip
    with pytest.raises(TypeError, match="object"):
        results.plain(object())


def test_json_is_written_whole_and_not_over_another(tmp_path: Path) -> None:
    target = results.write(tmp_path / "r.json", results.document("bench"))
    assert json.loads(target.read_text()) == {"schema_version": 1, "kind": "bench"}
    with pytest.raises(analysis.OutputError):
        results.write(target, results.document("other"))
    assert json.loads(target.read_text())["kind"] == "bench"


def test_the_table_marks_the_best_and_invents_nothing(leaky: Path) -> None:
    row = analysis.summary(leaky)
    other = dataclasses.replace(row, label="other", peak_granted_bytes=1, notes={"latency_p50_us": "12"})
    rows = {entry.label: entry for entry in comparison([row, other])}
    assert rows["Peak granted"].best == (1,)
    assert rows["Allocations"].best == ()
    assert rows["Latency p50"].texts == (units.MISSING, "12 us")
    assert rows["Latency p50"].best == ()
    assert "Throughput" not in rows


@pytest.mark.parametrize("missing", ["numpy", "matplotlib", "jinja2"])
def test_without_the_extra_one_sentence_names_it(missing: str, leaky: Path) -> None:
    program = f"""
import sys
sys.modules[{missing!r}] = None
import analysis
try:
    analysis.report({str(leaky)!r})
except analysis.MissingExtra as error:
    print(error, error.exit_code)
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        cwd=Path(analysis.__file__).parents[1],
    )  # fmt: skip
    assert run.stdout.strip() == f'{missing} is not installed: run pip install "poolport[analysis]" 4'


def test_a_completion_offers_what_is_for_use() -> None:
    assert dir(analysis) == sorted(analysis.__all__)
    assert all(hasattr(analysis, name) for name in analysis.__all__)


def test_importing_the_package_loads_none_of_the_extra() -> None:
    program = "import sys, analysis; print(sorted({'numpy', 'matplotlib', 'jinja2'} & set(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        cwd=Path(analysis.__file__).parents[1],
    )  # fmt: skip
    assert run.stdout.strip() == "[]"
