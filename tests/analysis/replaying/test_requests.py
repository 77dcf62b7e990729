"""A trace's requests, held against a plain model that reads the records one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import synthetic
from hypothesis import given, settings
from hypothesis import strategies as st

import analysis
from analysis.errors import TraceError, UsageError
from analysis.layout import Op
from analysis.replaying.requests import REQUEST, Kind, Requests, pool_named, requests_of

HEADER = Path(__file__).parents[3] / "analysis" / "core" / "include" / "poolport" / "replay.h"


def asked(requests: Requests) -> list[tuple[object, ...]]:
    """What a reader of the table would say: kind, time, block, and what that kind carries."""
    found: list[tuple[object, ...]] = []
    for row in requests.rows:
        kind, time, block = Kind(row["kind"]), int(row["time_ns"]), int(row["block"])
        named = (int(row["bytes"]), requests.tags[row["tag"]], requests.sites[row["site"]])
        if kind == Kind.TRY:
            found.append((kind, time, *named))
        elif kind == Kind.ACQUIRE:
            found.append((kind, time, block, *named))
        elif kind == Kind.RESIZE:
            found.append((kind, time, block, int(row["bytes"])))
        elif kind == Kind.RELEASE:
            found.append((kind, time, block))
        else:
            found.append((kind, time, block, int(row["pin"])))
    return found


class Model:
    """Reads records in order, one pool, a dictionary of live blocks."""

    def __init__(self, events: list[dict[str, object]]) -> None:
        self.events = events
        self.born = 0
        self.live: dict[int, tuple[int, int]] = {}  # handle -> number, bytes
        self.gone: dict[int, int] = {}  # handle -> number of the block that had it last
        self.level = self.peak = 0
        self.out: list[tuple[object, ...]] = []
        first = events[0]["time"]
        for handle, size, event in self.revealed():
            self.acquire(first, handle, size, event)
        for event in events:
            self.read(event)

    def revealed(self) -> list[tuple[int, int, dict[str, object]]]:
        """Blocks that were there before, by what first tells of them; in order of their handles."""
        seen: dict[int, dict[str, object]] = {}
        for event in self.events:
            if event["op"] in (Op.ALLOC, Op.FREE, Op.RESIZE, Op.MOVE, Op.LEAK):
                seen.setdefault(event["block"], event)
        found = []
        for handle, event in sorted(seen.items()):
            if event["op"] == Op.ALLOC:
                continue
            size = event["aux"] if event["op"] == Op.RESIZE else event["requested"]
            found.append((handle, size, event))
        return found

    def acquire(self, time: object, handle: int, size: int, event: dict[str, object]) -> None:
        self.out.append((Kind.ACQUIRE, time, self.born, size, event["tag"], event["stack"]))
        self.live[handle] = (self.born, size)
        self.gone.pop(handle, None)
        self.born += 1
        self.change(size)

    def release(self, time: object, handle: int) -> None:
        number, size = self.live.pop(handle)
        self.out.append((Kind.RELEASE, time, number))
        self.gone[handle] = number
        self.change(-size)

    def change(self, by: int) -> None:
        self.level += by
        self.peak = max(self.peak, self.level)

    def read(self, event: dict[str, object]) -> None:
        op, time, handle = event["op"], event["time"], event["block"]
        if op == Op.ALLOC:
            if handle in self.live:
                self.release(time, handle)
            self.acquire(time, handle, event["requested"], event)
        elif op == Op.FREE and handle in self.live:
            self.release(time, handle)
        elif op == Op.RESIZE and handle in self.live:
            number, before = self.live[handle]
            self.live[handle] = (number, event["requested"])
            self.out.append((Kind.RESIZE, time, number, event["requested"]))
            self.change(event["requested"] - before)
        elif op == Op.DISCARD_ALL:
            for each, _ in sorted(self.live.items(), key=lambda item: item[1]):
                self.release(time, each)
        elif op == Op.PIN and handle in self.live:
            self.out.append((Kind.PIN, time, self.live[handle][0], event["aux"]))
        elif op == Op.UNPIN and (handle in self.live or handle in self.gone):
            number = self.live[handle][0] if handle in self.live else self.gone[handle]
            self.out.append((Kind.UNPIN, time, number, event["aux"]))
        elif op == Op.FAIL:
            self.out.append((Kind.TRY, time, event["requested"], event["tag"], event["stack"]))


@st.composite
def histories(draw: st.DrawFn) -> list[dict[str, object]]:
    """Records of a few blocks of one pool, as a program, a crash or a liar might leave them.

    A block that was released comes back by ALLOC alone: what else a liar says of it, `tenures` decides.
    """
    events: list[dict[str, object]] = []
    state: dict[int, str] = {}
    time = 0
    for _ in range(draw(st.integers(1, 40))):
        handle = draw(st.integers(1, 6))
        ops = [Op.ALLOC, Op.ALLOC, Op.PIN, Op.UNPIN, Op.FAIL, Op.DISCARD_ALL, Op.MARK]
        if state.get(handle) != "gone":
            ops += [Op.FREE, Op.FREE, Op.RESIZE, Op.MOVE]
        op = draw(st.sampled_from(ops))
        time += draw(st.integers(0, 2))
        size = draw(st.integers(1, 5000))
        if op == Op.ALLOC:
            state[handle] = "live"
        elif op == Op.FREE:
            state[handle] = "gone"
        elif op in (Op.RESIZE, Op.MOVE):
            state[handle] = "live"
        elif op == Op.DISCARD_ALL:
            state = dict.fromkeys(range(1, 7), "gone")
        aux = {
            Op.PIN: draw(st.integers(0, 2)),
            Op.UNPIN: draw(st.integers(0, 2)),
            Op.RESIZE: draw(st.integers(1, 5000)),
        }.get(op, 0)
        about = {
            "tag": draw(st.sampled_from(["", "a", "b"])),
            "stack": draw(st.sampled_from(["", "f (x:1)"])),
        }
        events.append({"op": op, "time": time, "block": handle, "requested": size, "aux": aux, **about})
    return events


def traced(events: list[dict[str, object]], path: Path) -> analysis.Trace:
    builder = synthetic.TraceBuilder()
    builder.pool(1, name="main", strategy="slab")
    for event in events:
        fields = dict(event)
        op, time = int(fields.pop("op")), int(fields.pop("time"))
        builder.event(op, time, granted=event["requested"], **fields)
    return analysis.load(builder.write(path))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("requests") / "made.pptrace"


@given(histories())
@settings(max_examples=300, deadline=None)
def test_requests_are_those_of_the_plain_model(place: Path, events: list[dict[str, object]]) -> None:
    trace = traced(events, place)
    model = Model(events)
    if not model.out:
        with pytest.raises(TraceError):
            requests_of(trace, 1)
        return
    requests = requests_of(trace, 1)
    assert asked(requests) == model.out
    assert requests.blocks == model.born
    assert requests.peak_bytes == model.peak


def test_the_table_is_that_of_the_c_header() -> None:
    text = HEADER.read_text("utf-8")
    body = text[text.index("typedef struct pp_request {") : text.index("} pp_request;")]
    names = [line.split(";")[0].split()[-1] for line in body.splitlines() if ";" in line]
    assert tuple(names) == REQUEST.names
    assert REQUEST.itemsize == 32
    for kind in Kind:
        assert f"PP_REQUEST_{kind.name} = {kind.value}" in text


def test_only_the_pool_that_was_named_is_replayed(tmp_path: Path) -> None:
    builder = synthetic.TraceBuilder()
    builder.pool(1, name="small", strategy="slab")
    builder.pool(2, name="large", strategy="slab")
    builder.alloc(10, 1, 0, 100)
    builder.alloc(20, 1, 0, 9000, pool=2)
    builder.free(30, 1, requested=100)
    trace = analysis.load(builder.write(tmp_path / "two.pptrace"))
    assert requests_of(trace).largest == 9000, "the main pool is the one with the most bytes"
    assert requests_of(trace, pool_named(trace, "small")).rows["bytes"].tolist() == [100, 0]
    with pytest.raises(UsageError, match="small"):
        pool_named(trace, "middle")


def test_a_size_beyond_all_memory_stays_one_that_can_be_asked_for(tmp_path: Path) -> None:
    builder = synthetic.TraceBuilder()
    builder.alloc(1, 1, 0, 64)
    builder.event(synthetic.FAIL, 2, requested=(1 << 64) - 1)
    requests = requests_of(analysis.load(builder.write(tmp_path / "liar.pptrace")))
    assert requests.rows["bytes"].tolist() == [64, (1 << 48) - 1]
    assert requests.largest == 64, "what was refused decides nothing"


def test_texts_are_cut_to_what_a_pool_takes(tmp_path: Path) -> None:
    builder = synthetic.TraceBuilder()
    builder.alloc(1, 1, 0, 64, tag="ä" * 4000)
    requests = requests_of(analysis.load(builder.write(tmp_path / "long.pptrace")))
    assert requests.tags[1] == "ä" * 2048


def test_a_real_workload_peaks_where_its_levels_do(tmp_path: Path) -> None:
    made = synthetic.workload(7, steps=2000)
    requests = requests_of(analysis.load(made.builder.write(tmp_path / "w.pptrace")))
    assert requests.peak_bytes == max(made.requested)
    assert requests.peak_blocks == max(made.blocks)
    live = 0
    sizes: dict[int, int] = {}
    for row in requests.rows[: requests.peak_at + 1]:
        if row["kind"] == Kind.ACQUIRE:
            sizes[int(row["block"])] = int(row["bytes"])
            live += int(row["bytes"])
        else:
            live -= sizes.pop(int(row["block"]))
    assert live == requests.peak_bytes
    assert np.all(np.diff(requests.rows["time_ns"].astype(np.int64)) >= 0)
