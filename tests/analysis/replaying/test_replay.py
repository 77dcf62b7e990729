"""The same requests under every strategy: what is asked, what is told, and that it is the same everywhere."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pytest
import synthetic

import analysis
from analysis.errors import OutputError, UsageError
from analysis.layout import HEADER, Op
from analysis.replaying.requests import Kind, requests_of
from analysis.replaying.strategies import STRATEGIES

OURS = ["slab", "sizeclass", "sizeclass-learned", "buddy", "compacting", "compacting-off"]

# SHA-256 of each strategy's trace of the recorded program, but for the version of its writer. The same on
# every system; a change of what a strategy does with the requests, or of the format, changes its line.
GOLDEN = {
    "slab": "6008304ecca698813771eb5307dc1af17b803b35d14181b0a8e4951698c1e39d",
    "sizeclass": "6ac088bb593273a9a2fdbd80f795b7253afba09acac34a0cd23b2bf04d1310a2",
    "sizeclass-learned": "ec337e404de8e9ca787d11fb41a50f6bff45fda34ab32cef5d5afd564c238777",
    "buddy": "8281652e558c6c987bee2686bb0f41b93888f65e472bf30cf2672a5ceac807d0",
    "compacting": "3640827154617a11424312b4e9992e1757294d3bc0a2fe2c473d6af8c8713a9f",
    "compacting-off": "6a0af30f9c4e15cac243e8404924c890909387382f57da252215064a067973f6",
}


def digest(path: str) -> str:
    content = bytearray(Path(path).read_bytes())
    at = HEADER.fields["writer"][1]
    content[at : HEADER.itemsize] = bytes(HEADER.itemsize - at)
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def replayed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> analysis.Replay:
    return analysis.replay(source, OURS, output=tmp_path_factory.mktemp("replayed") / "traces", reps=0)


def test_the_traces_are_the_same_on_every_system(replayed: analysis.Replay) -> None:
    assert {row.strategy: digest(row.trace) for row in replayed.rows} == GOLDEN


def test_again_gives_the_same_bytes(source: Path, replayed: analysis.Replay, tmp_path: Path) -> None:
    again = analysis.replay(source, ["buddy", "compacting"], output=tmp_path / "x", reps=0)
    firsts = {row.strategy: row.trace for row in replayed.rows}
    for row in again.rows:
        assert Path(row.trace).read_bytes() == Path(firsts[row.strategy]).read_bytes()


def test_a_replay_says_nothing_of_its_machine(replayed: analysis.Replay, tmp_path: Path) -> None:
    for path in replayed.traces:
        trace = analysis.load(path)
        assert trace.complete
        header = trace.header
        assert (header.opened_unix_ns, header.process, header.pointer_bytes) == (0, 0, 0)
        assert set(trace.records["thread"].tolist()) == {1}
        assert not len(trace.where(Op.PROCESS))
        content = Path(path).read_bytes()
        assert b"/" not in trace.notes["replay_of"].encode()
        assert str(tmp_path.parent).encode() not in content


@pytest.mark.parametrize("strategy", OURS)
def test_each_strategy_was_asked_for_the_same(replayed: analysis.Replay, source: Path, strategy: str) -> None:
    """What the trace of a replay says was asked is what the source's requests say, refused or not."""
    wanted = requests_of(analysis.load(source))
    trace = analysis.load(replayed.traces[OURS.index(strategy)])
    granted = trace.records[trace.where(Op.ALLOC)]
    refused = trace.records[trace.where(Op.FAIL)]
    asks = wanted.rows[(wanted.rows["kind"] == Kind.ACQUIRE) | (wanted.rows["kind"] == Kind.TRY)]

    def told(rows: object) -> Counter[tuple[int, int, str]]:
        return Counter(
            (int(row["time_ns"]), int(row["requested"]), trace.tag_text(int(row["tag"]))) for row in rows
        )

    asked = Counter(
        (int(row["time_ns"]), int(row["bytes"]), wanted.tags[row["tag"]] or "untagged") for row in asks
    )
    assert told(granted) + told(refused) - asked == Counter(), "nothing was asked that the source did not"
    assert asked - told(granted) - told(refused) == Counter(), "and nothing was left out"
    assert list(trace.stacks.values()) == ["serve (server.py:10)"]


@pytest.mark.parametrize("strategy", OURS)
def test_each_trace_keeps_the_laws(replayed: analysis.Replay, strategy: str) -> None:
    summary = analysis.summary(replayed.traces[OURS.index(strategy)])
    row = replayed.rows[OURS.index(strategy)]
    assert summary.warnings == ()
    assert summary.strategy == strategy
    assert summary.peak_reserved_bytes == row.peak_reserved_bytes
    assert summary.leaked_blocks > 0, "the recorded program's pool was closed with live blocks"
    assert summary.failures >= row.failures


def test_the_report_puts_them_side_by_side(replayed: analysis.Replay, tmp_path: Path) -> None:
    report = replayed.report()
    report.save(tmp_path / "r.html")
    assert [summary.strategy for summary in report.summaries] == OURS


def test_a_program_that_never_closed_its_pool_is_not_said_to_leak(tmp_path: Path) -> None:
    builder = synthetic.TraceBuilder()
    builder.alloc(1, 1, 0, 100)
    path = builder.write(tmp_path / "open.pptrace")
    replayed = analysis.replay(path, ["buddy"], reps=0)
    assert not len(analysis.load(replayed.traces[0]).where(Op.LEAK))


def test_times_are_taken_of_every_strategy_that_is_here(source: Path) -> None:
    replayed = analysis.replay(source, reps=2, clock="real")
    assert [row.strategy for row in replayed.rows] + list(replayed.skipped) == sorted(
        STRATEGIES, key=lambda name: (name in replayed.skipped, list(STRATEGIES).index(name))
    )
    for row in replayed.rows:
        assert row.ns_per_op > 0
        assert row.p99_ns > 0
        assert row.peak_rss_bytes >= 0
    assert analysis.load(replayed.traces[0]).header.opened_unix_ns > 0
    for why in replayed.skipped.values():
        assert why


def test_what_cannot_fit_is_a_counted_failure(tmp_path: Path) -> None:
    builder = synthetic.TraceBuilder()
    for block in range(1, 40):
        builder.alloc(block, block, 0, 1 << (4 + block))  # to 8 TiB
    builder.event(synthetic.FAIL, 99, requested=1 << 62)
    builder.event(synthetic.FREE, 100, block=39, offset=(1 << 61) + 7, requested=5)
    path = builder.write(tmp_path / "huge.pptrace")
    replayed = analysis.replay(path, [*OURS, "malloc"], limit_bytes=8 << 20, reps=1)
    assert "limit of 8 MiB" in replayed.skipped["slab"]
    for row in replayed.rows:
        assert row.requests == 40
        assert 20 <= row.failures < 40, row.strategy
        assert row.peak_rss_bytes < 64 << 20
    assert "more than the limit" in replayed.warnings[0]


def test_a_million_blocks_can_be_live(tmp_path: Path) -> None:
    count = 1_000_000
    import numpy as np

    from analysis import layout

    records = np.zeros(count, layout.RECORD)
    records["op"], records["pool"] = Op.ALLOC, 1
    records["block"] = np.arange(1, count + 1)
    records["time_ns"] = np.arange(count)
    records["requested"] = records["granted"] = 1 + np.arange(count) % 40
    path = tmp_path / "many.pptrace"
    chunks = -(-count // layout.RECORDS_PER_CHUNK)
    body = np.zeros((chunks, layout.CHUNK_BYTES), np.uint8)
    heads = np.zeros(chunks, layout.CHUNK_HEAD)
    heads["magic"], heads["kind"] = layout.CHUNK_MAGIC, 1
    heads["sequence"] = np.arange(chunks)
    padded = np.zeros(chunks * layout.RECORDS_PER_CHUNK, layout.RECORD)
    padded[:count] = records
    body[:, :64] = heads.view(np.uint8).reshape(chunks, 64)
    body[:, 64:] = padded.view(np.uint8).reshape(chunks, -1)
    empty = synthetic.TraceBuilder().to_bytes(closed=False)
    path.write_bytes(empty[: layout.HEADER_BYTES] + body.tobytes())
    replayed = analysis.replay(path, ["sizeclass", "malloc"], reps=1)
    assert replayed.blocks == count
    assert [row.failures for row in replayed.rows] == [0, 0]
    assert "never closed" in replayed.warnings[0]


def test_older_traces_in_the_output_go_only_by_force(source: Path, tmp_path: Path) -> None:
    place = tmp_path / "out"
    analysis.replay(source, ["buddy", "slab"], output=place, reps=0)
    (place / "mine.txt").write_text("stays")
    with pytest.raises(OutputError, match="force"):
        analysis.replay(source, ["buddy"], output=place, reps=0)
    analysis.replay(source, ["buddy"], output=place, reps=0, force=True)
    assert sorted(path.name for path in place.iterdir()) == ["buddy.pptrace", "mine.txt"]


def test_one_strategy_may_go_to_one_file(source: Path, tmp_path: Path) -> None:
    replayed = analysis.replay(source, ["buddy"], output=tmp_path / "b.pptrace", reps=0)
    assert replayed.traces == [str(tmp_path / "b.pptrace")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.pptrace"]
    with pytest.raises(UsageError, match="one file"):
        analysis.replay(source, ["buddy", "slab"], output=tmp_path / "c.pptrace", reps=0)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"strategies": ["sla"]}, "sla"),
        ({"strategies": []}, "no strategy"),
        ({"limit_bytes": 5}, "1 MiB"),
        ({"reps": -1}, "-1"),
        ({"clock": "sand"}, "sand"),
        ({"pool": "absent"}, "absent"),
    ],
)
def test_arguments_out_of_range_are_said(source: Path, wrong: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        analysis.replay(source, **wrong)
