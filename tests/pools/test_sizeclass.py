"""SizeClassPool from Python: what it grants, refuses, learns; and a state machine against a model."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from pools import (
    BlockPinned,
    DoubleRelease,
    Lease,
    PoolExhausted,
    PoolValueError,
    SizeClassPool,
    Trace,
    WrongThread,
)
from pools.learning import histogram, waste

KIB = 1024

# ---- the pool ------------------------------------------------------------------------------------


def test_a_block_is_granted_its_class() -> None:
    with SizeClassPool() as pool, pool.acquire(100, tag="x") as lease:
        assert lease.size == pool.granted(100) == 104
        assert lease.requested == 100
        assert lease.tag == "x"
        assert len(lease.view) == 104


def test_classes_waste_an_eighth_at_most() -> None:
    pool = SizeClassPool()
    for size in (*range(57, 5000), *range(5000, 1 << 20, 4999)):
        assert 0 <= pool.granted(size) - size <= pool.granted(size) / 8


def test_given_classes_are_used_and_shown() -> None:
    pool = SizeClassPool(classes=[100, 1000], alignment=64)
    assert pool.classes == (128, 1024)
    assert pool.granted(1025) == 4096


@pytest.mark.parametrize(
    "parameters",
    [
        {"max_block": 0},
        {"max_block": 1 << 40},
        {"capacity": 1000},
        {"capacity": 1 << 40},
        {"alignment": 3},
        {"alignment": 8192},
        {"classes": []},
        {"classes": [64, 64]},
        {"classes": [64, 32]},
        {"classes": [0]},
        {"classes": [1 << 21]},
        {"classes": list(range(8, 8 * 300, 8))},
    ],
)
def test_impossible_parameters_are_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(PoolValueError):
        SizeClassPool(**parameters)


def test_sizes_out_of_range_are_refused() -> None:
    pool = SizeClassPool(max_block=1000)
    for size in (0, -1, 1001):
        with pytest.raises(PoolValueError, match=r"1 to 1000|at most 1000"):
            pool.acquire(size)
        with pytest.raises(PoolValueError, match=r"1 to 1000|at most 1000"):
            pool.granted(size)


def test_exhaustion_names_the_remedy_and_recovers() -> None:
    pool = SizeClassPool(max_block=64 * KIB, capacity=64 * KIB)
    lease = pool.acquire(64 * KIB)
    with pytest.raises(PoolExhausted, match="larger capacity"):
        pool.acquire(1)
    lease.release()
    pool.acquire(1).release()
    pool.check()


def test_a_resize_keeps_handle_and_bytes() -> None:
    with SizeClassPool() as pool, pool.acquire(100) as lease:
        lease.write(b"hello")
        handle = lease.handle
        for size in (2000, 70_000, 1 << 20, 50_000, 10):
            lease.resize(size)
            assert lease.handle == handle
            assert lease.requested == size
            assert lease.read(0, 5) == b"hello"
            pool.check()
        with lease.pin(), pytest.raises(BlockPinned):
            lease.resize(1 << 20)


def test_another_thread_may_release_but_not_acquire() -> None:
    pool = SizeClassPool()
    lease = pool.acquire(500)
    seen: list[type[BaseException]] = []

    def elsewhere() -> None:
        lease.release()
        try:
            pool.acquire(500)
        except WrongThread as error:
            seen.append(type(error))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [WrongThread]
    assert pool.stats().live_blocks == 0
    pool.check()


def test_a_batch_is_released_in_one_call() -> None:
    pool = SizeClassPool()
    batch = pool.acquire_many(64, size=300)
    assert pool.stats().granted_bytes == 64 * 320
    pool.release_many(batch)
    with pytest.raises(DoubleRelease):
        pool.release_many(batch)


def test_close_reports_what_leaked() -> None:
    pool = SizeClassPool()
    lease = pool.acquire(5000, tag="left")
    report = pool.close()
    assert [(leak.tag, leak.requested) for leak in report] == [("left", 5000)]
    lease.release()


# ---- learning --------------------------------------------------------------------------------------


def best_by_trying(requests: Counter[int], classes: int) -> int:
    """The least waste of any choice of classes, found by trying all."""
    blocks = sorted({-(-size // 8) * 8 for size in requests})
    choices = itertools.chain.from_iterable(
        itertools.combinations(blocks[:-1], count) for count in range(min(classes, len(blocks)))
    )
    return min(waste(requests, [*choice, blocks[-1]]) for choice in choices)


@given(st.dictionaries(st.integers(1, 600), st.integers(1, 50), min_size=1, max_size=9), st.integers(1, 5))
@settings(deadline=None, max_examples=200)
def test_learned_classes_waste_no_more_than_any_others(counts: dict[int, int], classes: int) -> None:
    requests = Counter(counts)
    learned = SizeClassPool.learn(counts.items(), classes=classes)
    assert len(learned) <= classes
    assert learned == sorted(set(learned))
    assert waste(requests, learned) == best_by_trying(requests, classes)


def test_enough_classes_waste_nothing_but_the_alignment() -> None:
    assert SizeClassPool.learn([8, 24, 800], classes=3) == [8, 24, 800]
    assert SizeClassPool.learn([8, 24, 800], classes=9, alignment=64) == [64, 832]


def test_learning_beats_the_default_classes_on_its_own_requests() -> None:
    requests = Counter({33: 100, 129: 1000, 1025: 500, 9000: 70, 20_001: 3})
    learned = SizeClassPool.learn(requests.items(), classes=5)
    assert waste(requests, learned) < waste(requests, list(SizeClassPool().classes)) / 2
    assert SizeClassPool(classes=learned).classes == tuple(learned)


def test_many_sizes_are_learned_exactly_and_in_time() -> None:
    requests = Counter({size: 40_000 // size + 1 for size in range(1, 32_769)})
    learned = SizeClassPool.learn(requests.items(), classes=64)
    assert len(learned) == 64
    assert learned[-1] == 32_768
    assert waste(requests, learned) < waste(requests, [c for c in SizeClassPool().classes if c > 32])


def test_large_requests_need_no_class() -> None:
    assert SizeClassPool.learn([100, 40_000, 1 << 20], classes=2) == [104]
    assert SizeClassPool.learn([40_000], classes=2) == [16]


@pytest.mark.parametrize(
    ("source", "classes", "alignment"),
    [
        ([], 4, 8),
        ([0], 4, 8),
        ([(8, 0)], 4, 8),
        ([2**70], 4, 8),
        ([(8, 2**63)], 4, 8),
        ([1.5], 4, 8),
        ([(8, 1.5)], 4, 8),
        (["8"], 4, 8),
        ([8], 0, 8),
        ([8], 255, 8),
        ([8], 4, 12),
        ([8], 4, 4),
    ],
)
def test_learning_refuses_nonsense(source: list[Any], classes: int, alignment: int) -> None:
    with pytest.raises(PoolValueError):
        SizeClassPool.learn(source, classes=classes, alignment=alignment)


def test_classes_are_learned_from_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "run.pptrace"
    with Trace(path) as trace, SizeClassPool() as pool:
        pool.attach(trace)
        for size in (100, 100, 5000, 70_000):
            pool.acquire(size).release()
        with pool.acquire(10) as lease:
            lease.resize(300)
        pool.attach(None)
    wanted = Counter({100: 2, 5000: 1, 70_000: 1, 10: 1, 300: 1})
    assert histogram(path) == wanted
    assert histogram(trace) == wanted
    assert SizeClassPool.learn(str(path), classes=4) == [16, 104, 304, 5000]
    data = path.read_bytes()
    path.write_bytes(data[:-1000])  # as a crash would leave it
    assert histogram(path) == wanted


@pytest.mark.parametrize(
    "content", [b"", b"PPTRACE\n", b"x" * 100_000, b"PPTRACE\n" + b"\1\0\0\0" + b"\xff" * 60]
)
def test_a_file_that_is_no_trace_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "hostile"
    path.write_bytes(content)
    with pytest.raises(PoolValueError):
        histogram(path)


# ---- the state machine ---------------------------------------------------------------------------------

SIZES = st.one_of(st.integers(1, 200), st.integers(1, 5000), st.integers(1, 100_000))


class AgainstAModel(RuleBasedStateMachine):
    """Every lease keeps its bytes, and the books balance after each step."""

    leases: Bundle[Lease] = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.pool = SizeClassPool(max_block=100_000, capacity=2 << 20)
        self.live: dict[int, tuple[Lease, bytes]] = {}
        self.stamp = 0

    def _write(self, lease: Lease) -> None:
        self.stamp += 1
        text = self.stamp.to_bytes(8, "little")[: lease.size]
        lease.write(text)
        self.live[lease.handle] = (lease, text)

    @rule(target=leases, size=SIZES)
    def acquire(self, size: int) -> Any:
        try:
            lease = self.pool.acquire(size, tag="model")
        except PoolExhausted:
            return None
        assert lease.size == self.pool.granted(size)
        self._write(lease)
        return lease

    @rule(lease=consumes(leases))
    def release(self, lease: Lease | None) -> None:
        if lease is None:
            return
        del self.live[lease.handle]
        lease.release()
        with pytest.raises(DoubleRelease):
            lease.release()

    @rule(lease=leases, size=SIZES)
    def resize(self, lease: Lease | None, size: int) -> None:
        if lease is None:
            return
        try:
            lease.resize(size)
        except PoolExhausted:
            return
        assert lease.size >= size
        text = self.live[lease.handle][1][: lease.size]
        assert lease.read(0, len(text)) == text
        self._write(lease)

    @rule(keep=st.integers(0, 1 << 20))
    def trim(self, keep: int) -> None:
        assert self.pool.trim(keep) >= 0

    @invariant()
    def holds(self) -> None:
        self.pool.check()
        stats = self.pool.stats()
        assert stats.live_blocks == len(self.live)
        assert stats.reserved_bytes == stats.granted_bytes + stats.free_bytes + stats.metadata_bytes
        for lease, text in self.live.values():
            assert lease.read(0, len(text)) == text

    def teardown(self) -> None:
        for lease, _ in self.live.values():
            lease.release()
        assert not self.pool.close()


AgainstAModel.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestAgainstAModel = AgainstAModel.TestCase
