"""``poolport compare``: better, worse, the same, and the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analysis.regressions import compare
from pools import SlabPool, Trace

from .conftest import Poolport, parsed, says_in_one_sentence


def result(path: Path, *, kind: str = "bench", **values: object) -> Path:
    row = {"workload": "steady", "size": 0, "threads": 1, "strategy": "slab", "ns_per_op": 100.0}
    path.write_text(json.dumps({"schema_version": 1, "kind": kind, "results": [row | values]}))
    return path


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ({"ns_per_op": 100}, {"ns_per_op": 109}, "same"),
        ({"ns_per_op": 100}, {"ns_per_op": 111}, "worse"),
        ({"ns_per_op": 100}, {"ns_per_op": 80}, "better"),
        ({"failures": 0}, {"failures": 1}, "worse"),
        ({"external_fragmentation": 0.02}, {"external_fragmentation": 0.09}, "same"),
        ({"external_fragmentation": 0.0}, {"external_fragmentation": 0.2}, "worse"),
        ({"throughput_msgs_per_s": 100}, {"throughput_msgs_per_s": 50}, "worse"),
    ],
)
def test_a_change_counts_beyond_the_threshold(
    poolport: Poolport, tmp_path: Path, before: dict[str, object], after: dict[str, object], verdict: str
) -> None:
    names = ",".join(after)
    paths = (result(tmp_path / "a.json", **before), result(tmp_path / "b.json", **after))
    told = poolport("compare", *paths, "--measures", names, "--json")
    document = parsed(told.stdout)
    assert [change["verdict"] for change in document["changes"]] == [verdict]
    assert told.returncode == int(verdict == "worse") == document["regressions"]


def test_every_change_is_printed_and_a_smaller_threshold_finds_more(
    poolport: Poolport, tmp_path: Path
) -> None:
    paths = (result(tmp_path / "a.json", p99_ns=10), result(tmp_path / "b.json", ns_per_op=105, p99_ns=5))
    told = poolport("compare", *paths)
    assert told.returncode == 0
    for text in ("ns_per_op", "p99_ns", "+5.0 %", "1 better, 0 worse"):
        assert text in told.stdout
    assert "next: " in told.stderr
    assert poolport("compare", *paths, "--threshold", "2").returncode == 1


@pytest.mark.parametrize("text", ["-5", "nan", "much"])
def test_a_threshold_that_is_none_is_quoted_as_it_was_given(
    poolport: Poolport, tmp_path: Path, text: str
) -> None:
    path = result(tmp_path / "a.json")
    says_in_one_sentence(poolport("compare", path, path, "--threshold", text), 2, f"'{text}'", "0 or more")


def test_rows_that_only_one_has_are_named(poolport: Poolport, tmp_path: Path) -> None:
    one, other = result(tmp_path / "a.json"), result(tmp_path / "b.json")
    document = json.loads(other.read_text())
    document["results"].append(document["results"][0] | {"strategy": "buddy"})
    other.write_text(json.dumps(document))
    assert "steady buddy: only in" in poolport("compare", one, other).stderr


def test_two_traces_are_compared_by_what_they_say(poolport: Poolport, tmp_path: Path) -> None:
    def traced(name: str, size: int) -> Path:
        pool = SlabPool(size, 8)
        with Trace(tmp_path / name) as trace:
            pool.attach(trace)
            pool.acquire(100).release()
            pool.close()
        return tmp_path / name

    small, large = traced("small.pptrace", 128), traced("large.pptrace", 8192)
    assert poolport("compare", small, small).returncode == 0
    told = poolport("compare", small, large, "--json")
    assert told.returncode == 1
    worse = {change["measure"] for change in parsed(told.stdout)["changes"] if change["verdict"] == "worse"}
    assert {"peak-granted", "peak-reserved", "internal-mean"} <= worse
    (tmp_path / "report.html").write_text("of the user")
    following = (
        poolport("compare", "small.pptrace", "large.pptrace")
        .stderr.strip()
        .splitlines()[-1]
        .removeprefix("next: poolport ")
        .split()
    )
    assert poolport(*following).returncode == 0
    assert (tmp_path / "report.html").read_text() == "of the user"


def test_replays_are_compared_row_by_row(poolport: Poolport, tmp_path: Path) -> None:
    pool = SlabPool(128, 8)
    with Trace(tmp_path / "run.pptrace") as trace:
        pool.attach(trace)
        pool.acquire(100).release()
        pool.close()
    for name in ("a", "b"):
        told = poolport(
            "replay", "run.pptrace", "--strategies", "buddy,slab", "--reps", "0", "-o", name, "--json"
        )
        (tmp_path / f"{name}.json").write_text(told.stdout)
    assert poolport("compare", "a.json", "b.json").returncode == 0
    assert compare(tmp_path / "a.json", tmp_path / "b.json").regressions == []


def test_what_cannot_be_compared_is_said(poolport: Poolport, tmp_path: Path) -> None:
    good = result(tmp_path / "a.json")
    says_in_one_sentence(poolport("compare", good, tmp_path / "absent.json"), 3, "absent.json")
    (tmp_path / "text.json").write_text("hello")
    says_in_one_sentence(poolport("compare", good, tmp_path / "text.json"), 3, "text.json")
    (tmp_path / "odd.json").write_text('{"kind": "bench", "results": [5]}')
    says_in_one_sentence(poolport("compare", good, tmp_path / "odd.json"), 3, "odd.json")
    demo = result(tmp_path / "demo.json", kind="demo")
    says_in_one_sentence(poolport("compare", good, demo), 2, "two of a kind")
    says_in_one_sentence(poolport("compare", good, good, "--measures", "beauty"), 2, "beauty")
    says_in_one_sentence(poolport("compare", good, good, "--threshold", "-1"), 2, "threshold")
    other = result(tmp_path / "o.json", strategy="buddy")
    says_in_one_sentence(poolport("compare", good, other), 2, "in common")
