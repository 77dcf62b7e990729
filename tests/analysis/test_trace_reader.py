"""What is written is read; what is damaged is refused with a sentence."""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path

import pytest
import synthetic
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import analysis
from analysis import TraceError, layout
from analysis.layout import Op
from analysis.metrics import Metrics

SAMPLE = synthetic.workload(11, steps=60, leak=1).builder.to_bytes()


def opened(tmp_path: Path, data: bytes, **options: object) -> analysis.Trace:
    path = tmp_path / "x.pptrace"
    path.write_bytes(data)
    return analysis.Trace.open(path, **options)


def patched(data: bytes, at: int, layout_of: str, *values: object) -> bytes:
    packed = struct.pack(layout_of, *values)
    return data[:at] + packed + data[at + len(packed) :]


def test_reads_records_names_and_notes(tmp_path: Path, builder: synthetic.TraceBuilder) -> None:
    builder.note("strategy", "slab")
    builder.note("odd", "a=b")
    builder.alloc(10, 5, 4096, 100, 256, tag="conn-1", stack="f (a.py:1)\ng (b.py:2)")
    builder.event(synthetic.MARK, 20, tag="half time", pool=0)
    trace = analysis.load(builder.write(tmp_path / "a.pptrace"))
    assert trace.complete
    assert trace.warnings == []
    assert trace.notes == {"strategy": "slab", "odd": "a=b"}
    assert trace.pools[1].name == "recv"
    record = trace.records[0]
    assert [int(record[name]) for name in ("time_ns", "block", "offset", "requested", "granted")] == [
        10, 5, 4096, 100, 256,
    ]  # fmt: skip
    assert trace.tag_text(int(record["tag"])) == "conn-1"
    assert trace.site_text(int(record["stack"])) == "f (a.py:1)\ng (b.py:2)"
    assert trace.marks() == [(20, "half time")]
    assert trace.header.writer == "poolport 0.1.0"


def test_merges_threads_by_time_and_keeps_the_order_of_equal_times(
    tmp_path: Path, builder: synthetic.TraceBuilder
) -> None:
    for time in range(3000):
        builder.alloc(time // 2, time + 1, 0, 1, thread=time % 3)
    trace = analysis.load(builder.write(tmp_path / "a.pptrace"))
    assert (trace.times[1:] >= trace.times[:-1]).all()
    for thread in range(3):
        blocks = trace.records["block"][trace.records["thread"] == thread]
        assert blocks.tolist() == list(range(thread + 1, 3001, 3))


@pytest.mark.parametrize("sealed", [True, False])
def test_reads_a_trace_that_was_never_closed(tmp_path: Path, sealed: bool) -> None:
    work = synthetic.workload(3, steps=2500)
    trace = opened(tmp_path, work.builder.to_bytes(closed=False, sealed=sealed) + bytes(40 * synthetic.CHUNK))
    assert len(trace.records) == len(work.requested)
    assert not trace.complete
    assert "never closed" in trace.warnings[0]


@pytest.mark.parametrize("lost", [1, 63, 64, 65, 5000, 65535])
def test_reads_an_unclosed_trace_up_to_its_last_whole_record(tmp_path: Path, lost: int) -> None:
    builder = synthetic.TraceBuilder()
    for time in range(1023):
        builder.alloc(time, time + 1, 0, 8)
    data = builder.to_bytes(closed=False)[:-lost]
    whole = max((synthetic.CHUNK - lost - 64) // 64, 0)
    assert len(opened(tmp_path, data).records) == whole


def test_refuses_a_closed_trace_that_was_cut_unless_asked_for_the_part(tmp_path: Path) -> None:
    work = synthetic.workload(3, steps=2500)
    data = work.builder.to_bytes()[: -synthetic.CHUNK - 100]
    with pytest.raises(TraceError, match=r"holds \d of \d chunks.*partial"):
        opened(tmp_path, data)
    trace = opened(tmp_path, data, partial=True)
    assert 1023 < len(trace.records) < 2500
    assert not trace.complete


def test_a_trace_that_dropped_records_says_so(tmp_path: Path) -> None:
    work = synthetic.workload(3)
    work.builder.dropped = 1200
    trace = opened(tmp_path, work.builder.to_bytes())
    assert not trace.complete
    assert "1,200 records were dropped" in trace.warnings[0]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04 something else", "not a poolport trace"),
        (b"PPTRACE\n", "cut off within its header"),
        (bytes(70000), "not a poolport trace"),
        (patched(SAMPLE, 8, "<I", 99), r"has trace version 99.*up to version 1.*upgrade"),
        (patched(SAMPLE, 8, "<I", 0), "never existed"),
        (patched(SAMPLE, 12, "<I", 1 << 31), "header_bytes = 2147483648"),
        (patched(SAMPLE, 16, "<I", 0), "chunk_bytes = 0"),
        (patched(SAMPLE, 20, "<I", 65), "record_bytes = 65"),
        (patched(SAMPLE, 40, "<Q", 1 << 63), "chunks"),
    ],
)
def test_refuses_a_header_that_is_not_ours(tmp_path: Path, data: bytes, sentence: str) -> None:
    with pytest.raises(TraceError, match=sentence):
        opened(tmp_path, data)


RECORDS = synthetic.HEADER + synthetic.CHUNK  # the second chunk holds the records
FIRST = RECORDS + 64


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (patched(SAMPLE, RECORDS, "<4s", b"oops"), "chunk 1 has no chunk signature"),
        (patched(SAMPLE, RECORDS + 4, "<I", 9), "kind this version does not have"),
        (patched(SAMPLE, RECORDS + 8, "<I", 77), "another chunk's number"),
        (patched(SAMPLE, RECORDS + 16, "<I", 1024), "more than 1023 records"),
        (patched(SAMPLE, RECORDS + 16, "<I", 1023), "never written"),
        (patched(SAMPLE, FIRST + 62, "<B", 200), "operation 200"),
        (patched(SAMPLE, FIRST, "<Q", 1 << 63), "time"),
        (patched(SAMPLE, FIRST + 32, "<Q", (1 << 64) - 1), "granted"),
        (patched(SAMPLE, FIRST + 16, "<Q", (1 << 64) - 1), "offset"),
        (patched(SAMPLE, FIRST + 52, "<I", 4_000_000_000), "tag 4000000000 has no text"),
        (patched(SAMPLE, FIRST + 56, "<I", 4_000_000_000), "stack 4000000000 has no text"),
        (patched(SAMPLE, synthetic.HEADER + 16, "<I", 1 << 30), "more text than a chunk holds"),
        (patched(SAMPLE, synthetic.HEADER + 64, "<I", 8), "unknown kind 8"),
        (patched(SAMPLE, synthetic.HEADER + 72, "<I", 1 << 31), "claims 2147483648 bytes"),
        (patched(SAMPLE, synthetic.HEADER + 68, "<I", 1 << 20), "pool number 1048576"),
    ],
)
def test_refuses_damage_and_says_what_it_is(tmp_path: Path, data: bytes, sentence: str) -> None:
    with pytest.raises(TraceError, match=sentence):
        opened(tmp_path, data)


def test_refuses_blocks_that_add_up_to_more_than_any_memory(
    tmp_path: Path, builder: synthetic.TraceBuilder
) -> None:
    for block in range(1, 40000):
        builder.alloc(block, block, 0, (1 << 48) - 1)
    with pytest.raises(TraceError, match="add up to"):
        opened(tmp_path, builder.to_bytes())


def test_refuses_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="nowhere"):
        analysis.load(tmp_path / "nowhere.pptrace")
    with pytest.raises(TraceError, match=r"director|regular"):
        analysis.load(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="no named pipes in the file system")
def test_refuses_a_fifo_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TraceError, match="not a regular file"):
        analysis.load(tmp_path / "pipe")


def test_a_huge_hole_in_the_file_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "sparse.pptrace"
    path.write_bytes(synthetic.workload(1).builder.to_bytes(closed=False))
    os.truncate(path, 8 << 30)
    assert len(analysis.load(path).records) > 0


def test_refuses_a_file_beyond_the_limit(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="more than the limit of 64 KiB"):
        opened(tmp_path, SAMPLE, max_bytes=65536)


def test_a_pool_whose_description_is_no_json_gets_a_plain_name(tmp_path: Path) -> None:
    builder = synthetic.TraceBuilder()
    builder.texts.append((synthetic.POOL, 1, b"[" * 16000))
    builder.texts.append((synthetic.POOL, 2, b'{"name": 7}'))
    builder.alloc(0, 1, 0, 8)
    trace = opened(tmp_path, builder.to_bytes())
    assert [trace.pools[number].name for number in (1, 2)] == ["pool 1", "pool 2"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_bytes_are_read_or_refused_but_never_crash(tmp_path: Path, data: st.DataObject) -> None:
    mutated = bytearray(SAMPLE)
    interesting = st.one_of(
        st.integers(0, 127),
        st.integers(synthetic.HEADER, synthetic.HEADER + 300),
        st.integers(RECORDS, RECORDS + 64 * 64),
        st.integers(0, len(SAMPLE) - 1),
    )
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(interesting)
        mutated[at : at + 1] = data.draw(st.binary(min_size=1, max_size=1))
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(mutated))))
    with suppress(TraceError):
        trace = opened(tmp_path, bytes(mutated[:cut]), partial=data.draw(st.booleans()))
        metrics = Metrics(trace)
        assert metrics.levels.granted.shape == trace.times.shape
        _ = (
            metrics.violations,
            metrics.certain_leaks,
            metrics.fragmentation,
            metrics.blame,
            metrics.failures,
        )
        _ = (metrics.suspected_leaks, metrics.compaction, metrics.rates)


def test_ops_are_the_ones_that_the_builder_wrote(tmp_path: Path) -> None:
    trace = opened(tmp_path, SAMPLE)
    assert set(trace.ops.tolist()) <= {member.value for member in Op}
    assert trace.records.dtype == layout.RECORD
