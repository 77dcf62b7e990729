"""Leases that nobody releases: collected, forked, or live at the end of the process."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import warnings

import pytest

from pools import Lease, MallocPool, PoolClosed, SlabPool


@pytest.fixture(params=["slab", "shared slab", "malloc"])
def pool(request):
    if request.param == "malloc":
        made = MallocPool(block_size=64)
    else:
        made = SlabPool(64, 64, thread_safe=request.param == "shared slab")
    with made as pool:
        yield pool
        pool.check()
        assert pool.stats().live_blocks == 0


def forget(pool, look):
    lease = pool.acquire()
    if look:
        lease.view[0] = 1


@pytest.mark.parametrize("look", [False, True])
def test_a_lost_lease_warns_with_its_site_and_goes_back(pool, look):
    with pytest.warns(ResourceWarning, match=rf"{pool.name}.*forget \(.*test_lost_leases.py:\d+\)"):
        forget(pool, look)
    assert pool.lost_leases == 1


def test_the_warning_names_the_line(pool):
    line = sys._getframe().f_lineno + 1
    lease = pool.acquire()
    assert lease.site.endswith(f"test_lost_leases.py:{line})")
    lease.release()


def test_where_the_warning_is_an_error_the_block_still_goes_back(pool):
    unraised = []
    hook, sys.unraisablehook = sys.unraisablehook, lambda seen: unraised.append(seen.exc_type)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            forget(pool, look=True)
            batch = pool.acquire_many(2)
            del batch
            gc.collect()
    finally:
        sys.unraisablehook = hook
    assert unraised == [ResourceWarning, ResourceWarning]
    assert pool.lost_leases == 3


def test_a_lease_lost_in_a_cycle_goes_back_at_the_next_collection(pool):
    lease = pool.acquire()
    lease.write(b"x")
    cycle = [lease, lease.view]
    cycle.append(cycle)
    del lease, cycle
    with pytest.warns(ResourceWarning):
        gc.collect()
    pool.acquire().release()  # takes home what was looked at in the cycle


def test_a_detached_lease_is_not_lost(pool):
    lease = pool.acquire()
    assert len(lease.view) >= 64
    handle = lease.detach()
    del lease
    gc.collect()
    pool.lease(handle, 0, 64).release()
    assert pool.lost_leases == 0


def test_collections_in_the_middle_of_every_call_lose_nothing(pool):
    """Garbage that holds leases is collected wherever the interpreter allocates: also inside the pool."""
    threshold = gc.get_threshold()
    views = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.set_threshold(1)
        try:
            for round_number in range(300):
                lease = pool.acquire()
                view = lease.view
                cycle = [lease, view]
                cycle.append(cycle)
                views.append(view[:1])
                del lease, view, cycle
                if round_number % 3 == 0:
                    views.clear()
                if round_number % 30 == 0:
                    gc.collect()  # what has grown old meanwhile, before the pool runs out
                with pool.acquire() as held:
                    held.view[0] = 1
                pool.walk()
                pool.stats()
        finally:
            gc.set_threshold(*threshold)
        views.clear()
        gc.collect()  # the last of them, while its warning is still ignored
    pool.acquire().release()
    assert pool.lost_leases == 300


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the platform has no interval timers")
def test_a_signal_handler_may_use_the_pool_in_the_middle_of_a_call(pool):
    handled = []

    def interrupt(number, frame):
        with pool.acquire(tag="signal") as lease:
            kept = lease.view[:4]
            kept[:] = b"wait"
        handled.append(kept)  # released while somebody looks

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        while len(handled) < 40:
            with pool.acquire(tag="main") as lease:
                view = lease.view[:4]
                view[:] = b"main"
            assert bytes(view) == b"main"
            del view
            if len(handled) % 8 == 0:
                for kept in handled:
                    assert kept is None or bytes(kept) == b"wait"
                handled[:] = [None] * len(handled)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    del kept
    handled.clear()
    pool.acquire().release()


# ---- fork ----------------------------------------------------------------------------------------------


def run_in_child(function) -> int:
    """The exit code of a forked child that runs the function."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            function()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
def test_a_child_has_its_own_copy_of_the_pool(pool):
    lease = pool.acquire()
    lease.write(b"parent")

    def use_and_close():
        assert lease.read(0, 6) == b"parent"
        lease.write(b"child!")
        lease.release()
        with pool.acquire(tag="child") as other:
            other.view[:] = bytes(other.size)
        pool.check()
        assert not pool.close()

    assert run_in_child(use_and_close) == 0
    assert lease.read(0, 6) == b"parent"
    assert not pool.closed
    assert pool.stats().live_blocks == 1
    lease.release()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
def test_the_child_of_another_thread_has_a_closed_pool():
    """Its owner is not there, and may have been in the middle of anything."""
    with SlabPool(64, 4) as pool:
        codes = []

        def find_it_closed():
            with pytest.raises(PoolClosed):
                pool.adopt()

        thread = threading.Thread(target=lambda: codes.append(run_in_child(find_it_closed)))
        thread.start()
        thread.join()
        assert codes == [0]
        pool.acquire().release()


# ---- the end of the process -----------------------------------------------------------------------------

ENDS = {
    "a live lease": "lease = pool.acquire(); lease.write(b'x')",
    "a live view": "lease = pool.acquire(); view = lease.view[:10]; lease.release()",
    "a live view, the pool gone": "view = pool.acquire().view; del pool",
    "a live batch": "batch = pool.acquire_many(3)",
    "a pin": "lease = pool.acquire(); pin = lease.pin(); pin.__enter__()",
    "a cycle": "lease = pool.acquire(); pool.me = [pool, lease, lease.view]",
    "a live lease in a thread that died": (
        "import threading; kept = []\n"
        "thread = threading.Thread(target=lambda: kept.append(pool.acquire()))\n"
        "pool.adopt() if not pool.thread_safe else None; thread.start(); thread.join()"
    ),
    "an attached trace": (
        "import tempfile, os; trace = pools.Trace(os.path.join(tempfile.mkdtemp(), 't'))\n"
        "pool.attach(trace); lease = pool.acquire()"
    ),
    "an error": "lease = pool.acquire(); raise SystemExit(0)",
}


@pytest.mark.parametrize(
    "kind", ["SlabPool(64, 8, thread_safe=True)", "MallocPool(block_size=64, thread_safe=True)"]
)
@pytest.mark.parametrize("what", ENDS)
def test_the_process_ends_quietly_with(what, kind):
    code = f"import pools\npool = pools.{kind}\npool.thread_safe = True\n{ENDS[what]}\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_half_made_objects_are_collected_quietly():
    for kind in (Lease, SlabPool, MallocPool):
        kind.__new__(kind)
    with pytest.raises(TypeError):
        Lease()  # type: ignore[call-arg]
    gc.collect()
