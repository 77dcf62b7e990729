"""The general-purpose allocators behind the pools' interface."""

from __future__ import annotations

import ctypes.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pools import DoubleRelease, MallocPool, Pool, PoolExhausted, PoolValueError, Trace, Unsupported
from pools.malloc import _files_in_wheel

LIBRARIES = ("mimalloc", "jemalloc", "tcmalloc")


def opened(library: str | None) -> MallocPool:
    """A pool on that library, or a skipped test where it is not installed."""
    try:
        return MallocPool(library=library)
    except Unsupported as error:
        pytest.skip(str(error))


@pytest.fixture(params=[None, *LIBRARIES])
def pool(request: pytest.FixtureRequest) -> MallocPool:
    return opened(request.param)


def test_the_c_library_is_the_default() -> None:
    pool = MallocPool()
    assert pool.strategy == pool.name == "malloc"
    assert Pool.strategy == ""


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_found_by_name_and_says_which_it_is(library: str) -> None:
    pool = opened(library)
    assert pool.strategy == pool.name == library


@pytest.mark.skipif(sys.platform != "linux", reason="the C library's tunables are Linux's")
def test_jemalloc_opens_with_the_room_that_its_refusal_asks_for() -> None:
    if ctypes.util.find_library("jemalloc") is None:
        pytest.skip("jemalloc is not installed")
    code = "import pools; p = pools.MallocPool('jemalloc'); p.acquire(1001).release(); print(p.strategy)"
    room = {"GLIBC_TUNABLES": "glibc.rtld.optional_static_tls=16384"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | room, capture_output=True, text=True, check=True
    )
    assert run.stdout == "jemalloc\n"


@pytest.mark.parametrize("library", ["mimalloc", "tcmalloc"])
def test_libraries_that_are_loaded_later_keep_the_allocator_they_expect(library: str) -> None:
    opened(library)
    pytest.importorskip("numpy")
    code = f"import pools; pools.MallocPool({library!r}).acquire().release(); import numpy; print(numpy.e)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "2.718281828459045\n"


def test_blocks_are_distinct_and_hold_what_is_written(pool: MallocPool) -> None:
    leases = [pool.acquire(size) for size in (1, 100, 4096, 70_000, 3 << 20) for _ in range(20)]
    for number, lease in enumerate(leases):
        lease.write(bytes([number]) * min(lease.requested, 64))
    for number, lease in enumerate(leases):
        assert lease.read(0, 1) == bytes([number])
        lease.release()
    pool.check()
    assert pool.stats().live_blocks == 0
    assert pool.stats().granted_bytes == 0


def test_a_resize_keeps_the_bytes(pool: MallocPool) -> None:
    with pool.acquire(100) as lease:
        lease.write(b"hello")
        for size in (100_000, 10, 5000):
            lease.resize(size)
            assert lease.read(0, 5) == b"hello"
            assert lease.requested == size
        pool.check()


def test_the_allocator_tells_what_it_really_granted(pool: MallocPool) -> None:
    with pool.acquire(1001):
        stats = pool.stats()
        assert 1001 <= stats.granted_bytes <= 1400
        assert stats.reserved_bytes == stats.granted_bytes + stats.free_bytes + stats.metadata_bytes


def test_misuse_is_refused(pool: MallocPool) -> None:
    lease = pool.acquire(100)
    lease.release()
    with pytest.raises(DoubleRelease):
        lease.release()
    pool.check()


def test_scrub_shows_zeros() -> None:
    for library in (None, *LIBRARIES):
        try:
            pool = MallocPool(library=library, scrub=True)
        except Unsupported:
            continue
        with pool.acquire(3000) as lease:
            lease.write(b"x" * 3000)
        with pool.acquire(3000) as lease:
            assert lease.read() == bytes(3000)


def test_the_limit_holds_for_every_library(pool: MallocPool) -> None:
    library = None if pool.strategy == "malloc" else pool.strategy
    limited = MallocPool(library=library, max_bytes=10_000)
    with limited.acquire(6000), pytest.raises(PoolExhausted, match="larger max_bytes"):
        limited.acquire(6000)
    with pytest.raises(PoolValueError):
        MallocPool(max_bytes=-1)


def test_an_explicit_path_is_opened() -> None:
    for path in _files_in_wheel("mimalloc"):
        assert MallocPool(library=Path(path), name="mine").strategy == "mimalloc"


def test_a_missing_library_is_one_sentence_with_the_remedy() -> None:
    with pytest.raises(Unsupported, match=r"no/such\.so.*give mimalloc") as refused:
        MallocPool(library="/no/such.so")
    assert "\n" not in str(refused.value)
    assert refused.value.status == "UNSUPPORTED"


def test_a_library_that_is_no_allocator_is_refused() -> None:
    """Although every library sees the C library's malloc."""
    found = ctypes.util.find_library("m")
    if found is None:
        pytest.skip("there is no mathematical library to try")
    with pytest.raises(Unsupported):
        MallocPool(library=found)


def test_a_missing_wheel_leaves_the_system_to_look() -> None:
    assert _files_in_wheel("jemalloc") == []


def test_a_trace_names_the_allocator(tmp_path: Path) -> None:
    pool = opened("mimalloc")
    with Trace(tmp_path / "run.pptrace") as trace:
        pool.attach(trace)
        pool.acquire(100).release()
        pool.attach(None)
    assert b'"strategy": "mimalloc"' in (tmp_path / "run.pptrace").read_bytes()
