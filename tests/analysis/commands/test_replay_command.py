"""``poolport replay``: the same requests under every strategy, on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.units import MISSING
from pools import SizeClassPool, Trace

from .conftest import Poolport, parsed, says_in_one_sentence


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A small real trace of a pool with blocks of many sizes."""
    path = tmp_path / "run.pptrace"
    pool = SizeClassPool(65536, name="buffers")
    with Trace(path) as writer:
        pool.attach(writer)
        held = [pool.acquire(64 + 37 * number % 6000, tag=f"conn-{number % 5}") for number in range(300)]
        for lease in held[::2] + held[1::2]:
            lease.release()
        pool.close()
    return path


def test_every_row_is_printed_and_the_report_comes_next(poolport: Poolport, trace: Path) -> None:
    result = poolport("replay", trace, "--strategies", "slab,buddy,malloc", "--reps", "1")
    assert result.returncode == 0, result.stderr
    for text in ("buffers: 300 blocks", "slab", "buddy", "malloc", "x best"):
        assert text in result.stdout
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("next: poolport report run-replay")
    assert last.endswith(" --output run-replay.html"), "not over a page on the trace itself"
    assert "'" not in last
    assert "300 blocks: below" in result.stderr, "who times so few is told that they are few"
    written = sorted((trace.parent / "run-replay").iterdir())
    assert [path.name for path in written] == ["buddy.pptrace", "malloc.pptrace", "slab.pptrace"]
    assert poolport("report", *written).returncode == 0
    (trace.parent / "run-replay.html").write_text("another page")
    again = poolport("replay", trace, "--strategies", "slab", "--reps", "0", "--force")
    assert again.stderr.strip().splitlines()[-1].endswith(" --output run-replay-2.html")


def test_json_follows_the_schema(poolport: Poolport, trace: Path) -> None:
    result = poolport("replay", trace, "--strategies", "sizeclass-learned,compacting", "--json", "-o", "x")
    document = parsed(result.stdout)
    assert [row["strategy"] for row in document["results"]] == ["sizeclass-learned", "compacting"]
    assert all(row["ns_per_op"] > 0 and row["failures"] == 0 for row in document["results"])
    assert document["source"]["blocks"] == 300
    assert result.stderr.strip().splitlines()[-1].startswith("next: ")


def test_without_repetitions_there_are_traces_and_no_times(poolport: Poolport, trace: Path) -> None:
    arguments = ("replay", trace, "--strategies", "buddy", "--reps", "0", "-o", "one.pptrace")
    result = poolport(*arguments, "--json")
    assert parsed(result.stdout)["results"][0]["ns_per_op"] is None
    assert "only 300 blocks" not in result.stderr
    assert (trace.parent / "one.pptrace").exists()
    says_in_one_sentence(poolport(*arguments), 2, "one.pptrace", "exists already", "--force")
    assert MISSING in poolport(*arguments, "--force").stdout, "what was not measured is no zero"


def test_a_strategy_that_cannot_fit_is_left_out_with_the_reason(poolport: Poolport, trace: Path) -> None:
    arguments = ("replay", trace, "--limit", "1M", "--reps", "0", "--strategies")
    result = poolport(*arguments, "slab,sizeclass", "--json")
    document = parsed(result.stdout)
    assert [row["strategy"] for row in document["results"]] == ["sizeclass"]
    assert "limit of 1 MiB" in document["skipped"][0]["reason"]
    assert "slab is left out" in result.stderr
    alone = poolport(*arguments, "slab", "-o", "none")
    assert alone.returncode == 0
    assert alone.stdout == ""
    assert "next: " in alone.stderr


def test_what_is_no_trace_is_refused(poolport: Poolport, tmp_path: Path) -> None:
    text = tmp_path / "text.pptrace"
    text.write_text("hello")
    says_in_one_sentence(poolport("replay", text), 3, "text.pptrace")
    says_in_one_sentence(poolport("replay", tmp_path / "absent.pptrace"), 3, "absent.pptrace")
    assert not (tmp_path / "text-replay").exists()


def test_a_trace_without_a_pool_is_said_to_have_none(poolport: Poolport, tmp_path: Path) -> None:
    with Trace(tmp_path / "idle.pptrace"):
        pass
    says_in_one_sentence(poolport("replay", "idle.pptrace"), 3, "idle.pptrace", "no pool was attached")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--strategies", "sla"), "sla"),
        (("--limit", "much"), "much"),
        (("--limit", "3"), "1 MiB"),
        (("--reps", "-3"), "-3"),
        (("--pool", "absent"), "buffers"),
        (("-o", "no/where"), "does not exist"),
        (("-o", "all.pptrace"), "one file"),
    ],
)
def test_a_wrong_call_is_said_in_one_sentence(
    poolport: Poolport, trace: Path, arguments: tuple[str, ...], said: str
) -> None:
    says_in_one_sentence(poolport("replay", trace, *arguments), 2, said)


def test_completion_knows_the_command(poolport: Poolport) -> None:
    script = poolport("completion", "bash").stdout
    for option in ("--strategies", "--limit", "--clock", "--pool"):
        assert f"{option}" in script[script.index("_replay_option_strings") :].splitlines()[0]
