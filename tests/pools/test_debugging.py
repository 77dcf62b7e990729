"""Debug levels: what each finds, how it is told, and that pools behave with them as without."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pools import (
    BlockCorrupted,
    BuddyPool,
    CompactingPool,
    Debug,
    DoubleRelease,
    MallocPool,
    PoolValueError,
    SizeClassPool,
    SlabPool,
    Unsupported,
    block_history,
)
from pools._native import ffi, lib

POOLS = {
    "slab": lambda **options: SlabPool(1000, 32, **options),
    "sizeclass": lambda **options: SizeClassPool(8192, capacity=1 << 20, **options),
    "buddy": lambda **options: BuddyPool(1 << 18, **options),
    "compacting": lambda **options: CompactingPool(1 << 18, **options),
    "malloc": MallocPool,
}


@pytest.fixture(params=POOLS)
def make_pool(request):
    return POOLS[request.param]


def address_of(lease):
    """Where the block lies; asked without a view, so that nobody has ever looked at it."""
    data = ffi.new("void **")
    assert lib.pp_pool_pin(lease.pool._c, lease.handle, lib.PP_PIN_USER, data) == lib.PP_OK
    assert lib.pp_pool_unpin(lease.pool._c, lease.handle, lib.PP_PIN_USER) == lib.PP_OK
    return int(ffi.cast("uintptr_t", data[0]))


def put(address, offset, data):
    ctypes.memmove(address + offset, data, len(data))


def test_an_overrun_is_raised_by_the_release_with_all_that_is_known(make_pool):
    with make_pool(debug=Debug(canaries=True, history=4), name="echo") as pool:
        lease = pool.acquire(500, tag="route")
        put(address_of(lease), lease.size, b"xyz")
        with pytest.raises(BlockCorrupted) as caught:
            lease.release()
        fault = caught.value.fault
        assert (fault.kind, fault.pool, fault.tag) == ("overrun", "echo", "route")
        assert (fault.first, fault.count, fault.seen) == (fault.size, 3, b"xyz")
        assert fault.requested == 500
        assert "test_an_overrun" in fault.site
        assert [operation.what for operation in fault.history] == [
            "acquired",
            "pinned",
            "unpinned",
            "released",
        ]
        assert fault.history[0].thread == threading.get_native_id()
        for told in ("route", "78 79 7a", "test_an_overrun", "acquired"):
            assert told in str(caught.value)
        assert pool.stats().live_blocks == 0
        assert pool.stats().corrupt_blocks == 1


def test_an_overrun_is_raised_by_resize_check_walk_and_close(make_pool):
    pool = make_pool(debug=Debug(canaries=True))
    lease = pool.acquire(500)
    for call in (lambda: lease.resize(600), pool.check, pool.walk, pool.close):
        put(address_of(lease), lease.size + 1, b"!")
        with pytest.raises(BlockCorrupted):
            call()
    lease.resize(600)
    assert lease.size >= 600
    lease.release()
    assert not pool.close()


def test_a_write_after_release_is_raised_by_the_next_acquire(make_pool):
    with make_pool(debug=Debug(poison=True, history=3)) as pool:
        lease = pool.acquire(500, tag="reader")
        address = address_of(lease)
        lease.release()
        put(address, 10, b"late")
        with pytest.raises(BlockCorrupted) as caught:
            pool.acquire(500)
        assert caught.value.fault.kind == "write after release"
        assert (caught.value.fault.first, caught.value.fault.seen) == (10, b"late")
        assert caught.value.fault.history[-1].what == "released"
        pool.acquire(500).release()


def test_poison_spares_what_is_pinned_or_looked_at(make_pool):
    with make_pool(debug=True) as pool:
        lease = pool.acquire(500)
        with lease.pin() as view:
            view[:4] = b"mine"
            kept = view if pool.strategy == "compacting" else lease.view
            lease.release() if pool.strategy != "compacting" else None
            assert bytes(kept[:4]) == b"mine"
            del kept
        pool.check()
        if pool.strategy == "compacting":
            lease.release()


def test_quarantine_keeps_blocks_from_coming_round_again():
    with SlabPool(64, 8, debug=Debug(quarantine=3)) as pool:
        seen = []
        for _ in range(4):
            lease = pool.acquire()
            seen.append(address_of(lease))
            lease.release()
        assert len(set(seen)) == 4
        assert pool.stats().quarantined_blocks == 3
        assert pool.stats().live_blocks == 0


@pytest.mark.parametrize(("block_size", "waiting"), [(64, 16), (4096, 8), (16384, 2), (1 << 20, 1)])
def test_what_waits_by_default_stays_in_the_first_cache(block_size, waiting):
    with SlabPool(block_size, 32, debug=True) as pool:
        for _ in range(20):
            pool.acquire().release()
        assert pool.stats().quarantined_blocks == waiting


def test_quarantined_blocks_are_given_up_before_the_pool_is_exhausted(make_pool):
    with make_pool(debug=Debug(quarantine=100, poison=True)) as pool:
        for _ in range(100):
            batch = pool.acquire_many(16, 1000)
            pool.release_many(batch)
        assert pool.stats().failed == 0


def test_random_order_is_the_seeds():
    def order(seed):
        with SlabPool(64, 32, debug=Debug(random_order=seed)) as pool:
            first = [pool.acquire() for _ in range(32)]
            addresses = {address_of(lease): index for index, lease in enumerate(first)}
            for lease in first:
                lease.release()
            again = [pool.acquire() for _ in range(32)]
            order = [addresses[address_of(lease)] for lease in again]
            for lease in again:
                lease.release()
            return order

    assert order(1) == order(1) != order(2)
    assert sorted(order(1)) == list(range(32))


def test_history_reads_like_a_list_of_what_happened(make_pool):
    with make_pool(debug=Debug(history=8)) as pool:
        lease = pool.acquire(100, tag="first")
        lease.resize(200)
        with lease.pin():
            pass
        lines = [str(operation) for operation in block_history(lease)]
        for line, texts in zip(
            (lines[0], lines[1], lines[-1]),
            (("acquired", "100 bytes", "'first'"), ("resized", "200 bytes"), ("unpinned", "by the user")),
            strict=True,
        ):
            assert all(text in line for text in texts)
        lease.release()
    with make_pool() as pool, pool.acquire(10) as lease:
        assert block_history(lease) == ()


OVERRUN = """
import ctypes
from pools import {pool}, Debug
pool = {pool}({arguments}, debug=Debug(guard_pages=True))
lease = pool.acquire(512)
array = (ctypes.c_char * 512).from_buffer(lease.view)
ctypes.memset(ctypes.addressof(array), 1, {count})
del array
lease.release()
"""
OVERRUN_ARGUMENTS = {
    "SlabPool": "512, 8",
    "SizeClassPool": "8192",
    "BuddyPool": "1 << 16",
    "MallocPool": "max_bytes=1 << 16",
}


@pytest.mark.parametrize("name", OVERRUN_ARGUMENTS)
def test_a_guard_page_ends_the_process_where_the_overrun_happens(name):
    def run(count):
        program = OVERRUN.format(pool=name, arguments=OVERRUN_ARGUMENTS[name], count=count)
        return subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode

    assert run(512) == 0
    assert run(513) != 0


def test_guard_pages_are_sampled_and_go_with_all_other_levels():
    debug = Debug(guard_pages=3, canaries=True, poison=True, quarantine=4, random_order=1, history=4)
    with SizeClassPool(8192, debug=debug) as pool:
        for size in range(1, 3000, 37):
            with pool.acquire(size, tag="sampled") as lease:
                lease.view[:] = b"g" * lease.size
        pool.check()
        assert pool.stats().live_blocks == 0


def test_a_pool_that_moves_its_blocks_has_no_guard_pages():
    with pytest.raises(Unsupported, match="guard_pages"):
        CompactingPool(1 << 16, debug=Debug(guard_pages=True))


def test_a_release_from_another_thread_is_watched_all_the_same(make_pool):
    with make_pool(debug=Debug(canaries=True, history=8)) as pool:
        lease = pool.acquire(500)
        put(address_of(lease), lease.size, b"x")
        thread = threading.Thread(target=lease.release)
        thread.start()
        thread.join()
        with pytest.raises(BlockCorrupted) as caught:
            pool.acquire(500)
        released = caught.value.fault.history[-1]
        assert released.what == "released"
        assert released.thread != threading.get_native_id()


def test_what_a_release_finds_that_can_raise_nothing_is_raised_by_the_next_call():
    pool = SlabPool(64, 4, debug=Debug(canaries=True))
    lease = pool.acquire(tag="looked at")
    view = lease.view
    put(address_of(lease), 64, b"x")
    lease.release()
    del lease, view  # now the block goes back
    with pytest.raises(BlockCorrupted, match="looked at"):
        pool.acquire()
    assert not pool.close()


def test_misuse_is_told_as_ever(make_pool):
    with make_pool(debug=True) as pool:
        lease = pool.acquire(100)
        handle = lease.handle
        lease.release()
        with pytest.raises(DoubleRelease):
            lease.release()
        assert pool.stats().double_releases == 1
        with pytest.raises(DoubleRelease):
            pool.lease(handle, 0, 100).release()
        with pytest.raises(PoolValueError):
            pool.acquire(0)


def test_the_environment_chooses(monkeypatch):
    assert Debug.from_text("") == Debug()
    assert Debug.from_text("all") == Debug.everything()
    assert Debug.from_text("poison, history=3") == Debug(poison=True, history=3)
    five = replace(Debug.everything(), quarantine=5, quarantine_bytes=0)
    assert Debug.from_text("all,quarantine=5") == five
    assert Debug.from_text("quarantine_bytes=999,quarantine=64,all").quarantine_bytes == 999
    assert Debug.from_text("history").history == Debug.everything().history
    for wrong in ("poisson", "history=many", "history=999", "all=1"):
        with pytest.raises(PoolValueError):
            Debug.from_text(wrong).native()
    monkeypatch.setenv("POOLPORT_DEBUG", "canaries")
    for options, expected in (({}, True), ({"debug": False}, False), ({"debug": Debug(history=1)}, False)):
        pool = SlabPool(64, 4, **options)
        lease = pool.acquire()
        put(address_of(lease), 64, b"x") if expected else None
        if expected:
            with pytest.raises(BlockCorrupted):
                lease.release()
        else:
            lease.release()
    monkeypatch.setenv("POOLPORT_DEBUG", "canary")
    with pytest.raises(PoolValueError, match="POOLPORT_DEBUG"):
        SlabPool(64, 4)


LEVELS = st.builds(
    Debug,
    canaries=st.booleans(),
    poison=st.booleans(),
    poison_bytes=st.sampled_from([16, 128, None]),
    quarantine=st.sampled_from([0, 1, 5]),
    random_order=st.none() | st.integers(0, 3),
    history=st.sampled_from([0, 2, 16]),
)
STEPS = st.lists(
    st.tuples(st.sampled_from("aaarrpuzk"), st.integers(0, 40), st.integers(1, 1000)), max_size=60
)


@pytest.mark.parametrize("shared", [False, True])
@given(debug=LEVELS, steps=STEPS)
@settings(max_examples=40, deadline=None)
def test_a_pool_under_debug_behaves_as_one_without(shared, debug, steps):
    for make in POOLS.values():
        plain, watched = make(thread_safe=shared, debug=False), make(thread_safe=shared, debug=debug)
        pairs = []
        for what, which, size in steps:
            if what == "a" and len(pairs) < 30:
                pairs.append((plain.acquire(size, tag="t"), watched.acquire(size, tag="t")))
                for lease in pairs[-1]:
                    lease.write(bytes([which]) * size)
            elif what == "r" and pairs:
                for lease in pairs.pop(which % len(pairs)):
                    lease.release()
            elif what == "z" and pairs:
                for lease in pairs[which % len(pairs)]:
                    lease.resize(size)
            elif what == "p" and pairs:
                for lease in pairs[which % len(pairs)]:
                    with lease.pin():
                        pass
            elif what == "k":
                watched.check()
            for one, other in pairs:
                assert (one.requested, one.tag) == (other.requested, other.tag)
                assert one.read(0, 1) == other.read(0, 1)
            before, after = plain.stats(), watched.stats()
            for name in ("acquired", "released", "failed", "live_blocks", "requested_bytes", "pinned_blocks"):
                assert getattr(before, name) == getattr(after, name), name
        for pair in pairs:
            for lease in pair:
                lease.release()
        watched.check()
        assert not plain.close()
        assert not watched.close()


def test_a_report_tells_the_site_of_the_acquisition_only_there():
    pool = SlabPool(4096, 4, debug=Debug(history=8, poison=True))
    lease = pool.acquire(tag="recv")
    address = address_of(lease)
    lease.release()
    put(address, 0, b"G")
    with pytest.raises(BlockCorrupted) as caught:
        pool.check()
    text = str(caught.value)
    head, acquired = text.splitlines()[1:3]
    released = text.splitlines()[-1]
    here = r"\(.*test_debugging\.py:[0-9]+\)"
    assert re.search(rf"acquired \d+\.\d+ s ago at test_\w+ {here}\): byte", head)
    assert re.search(rf"s ago acquired by thread \d+, .*, at test_\w+ {here}$", acquired)
    assert re.search(r"s ago released by thread \d+, 4096 bytes, tag 'recv'$", released)
