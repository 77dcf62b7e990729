"""Which line of Python a block is said to come from."""

from __future__ import annotations

import gc
import threading
import time

import pytest

from pools import BuddyPool, SlabPool, Trace
from pools._native import lib

from .conftest import make, release


def site_of(pool, lease):
    return pool.inspect(lease.handle).site


def waits(pool, count):
    while pool.stats().waiting != count:
        time.sleep(0)


def test_who_waits_keeps_the_line_from_which_he_asked(strategy):
    got = {}

    def first(pool):
        got["first"] = pool.acquire(4096)

    def second(pool):
        got["second"] = pool.acquire_many(1, 4096)[0]

    with make(strategy, on_exhausted="wait", thread_safe=True, quota=2 * 4096) as pool:
        pool.record_sites()
        held = [pool.acquire(4096) for _ in range(2)]
        threads = [threading.Thread(target=run, args=(pool,)) for run in (first, second)]
        for number, thread in enumerate(threads, 1):
            thread.start()
            waits(pool, number)
        for lease, thread in zip(held, threads, strict=True):
            lease.release()
            thread.join()
        for name, lease in got.items():
            assert f"<locals>.{name} " in site_of(pool, lease) == lease.site
        release(got.values())


def test_what_a_callback_acquires_does_not_change_whose_line_it_is():
    inner = []

    def crossed(crossing):
        if crossing.rising and not inner:
            inner.append(pool.acquire())

    def outer():
        return pool.acquire()

    pool = SlabPool(64, 8, on_watermark=crossed, high_watermark=64, low_watermark=1)
    with pool:
        pool.record_sites()
        lease = outer()
        assert "outer" in site_of(pool, lease)
        assert "crossed" in site_of(pool, inner[0])
        release([lease, *inner])


def test_what_a_finalizer_acquires_does_not_change_whose_line_it_is():
    pool = SlabPool(64, 100)
    pool.record_sites()
    held = []

    class Acquires:
        def __init__(self):
            self.me = self

        def __del__(self):
            held.append(pool.acquire())

    thresholds = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(30):
            Acquires()
            held.append(pool.acquire())
    finally:
        gc.set_threshold(*thresholds)
        gc.collect()
    assert len(held) > 30
    assert [site_of(pool, lease) for lease in held] == [lease.site for lease in held]
    release(held)


def test_a_reserved_range_and_a_block_beyond_the_pool_have_a_line_too():
    with BuddyPool(1 << 16) as pool:
        pool.record_sites()
        pool.mark_site("C code")
        with pool.reserve(0, 4096) as lease:
            assert site_of(pool, lease) == lease.site != ""
    with SlabPool(64, 1, on_exhausted="fallback") as pool:
        pool.record_sites()
        with pool.acquire(), pool.acquire() as beyond:
            assert site_of(pool, beyond) == beyond.site != ""


@pytest.mark.parametrize("wanted", [False, True])
def test_sites_are_recorded_while_a_trace_is_attached_or_they_were_asked_for(tmp_path, wanted):
    with SlabPool(64, 4) as pool, Trace(tmp_path / "run.pptrace") as trace:
        if wanted:
            pool.record_sites()
        pool.attach(trace)
        with pool.acquire() as lease:
            assert site_of(pool, lease) == lease.site
        pool.attach(None)
        with pool.acquire() as lease:
            assert site_of(pool, lease) == (lease.site if wanted else "")


# ---- at the end -----------------------------------------------------------------------------------


def test_a_leak_report_has_the_line_of_every_lease_and_batch_that_is_alive(strategy):
    pool = make(strategy)

    def leaks_one():
        return pool.acquire(100, tag="one")

    def leaks_three():
        return pool.acquire_many(3, 100, tag="three")

    lease, batch, others = leaks_one(), leaks_three(), make(strategy)
    elsewhere = others.acquire(100)  # with the same handle, in another pool
    taken = batch.take(1)
    detached = pool.acquire(100, tag="detached").detach()
    report = pool.close()
    assert len(report) == 5
    sites = {leak.tag: leak.site for leak in report}
    assert "leaks_one" in sites["one"]
    assert "leaks_three" in sites["three"] == batch.site == taken.site
    assert sites["detached"] == ""
    assert {group[:3] for group in report.by_tag_and_site()} == {
        ("one", lease.site, 1),
        ("three", batch.site, 3),
        ("detached", "", 1),
    }
    assert "leaks_three" in str(report)
    release([lease, taken, elsewhere])
    batch.release()
    others.close()
    del detached


class InTheMiddle:
    """The library, but another thread begins to record sites just before they are given up."""

    def __init__(self, library, pool):
        self.library, self.pool = library, pool

    def __getattr__(self, name):
        return getattr(self.library, name)

    def pp_pool_keep_sites(self, pool, keep):
        if not keep and not self.pool._sites_wanted:
            other = threading.Thread(target=self.pool.record_sites)
            other.start()
            other.join()
        return self.library.pp_pool_keep_sites(pool, keep)


def test_sites_that_are_wanted_while_a_trace_ends_are_recorded(tmp_path, monkeypatch):
    pool = SlabPool(256, 4, thread_safe=True)
    with Trace(tmp_path / "x.pptrace") as trace:
        pool.attach(trace)
        monkeypatch.setattr("pools.pool.lib", InTheMiddle(lib, pool))
        pool.attach(None)
        monkeypatch.undo()
    with pool.acquire() as lease:
        assert "test_sites_that_are_wanted" in site_of(pool, lease)
    pool.close()
