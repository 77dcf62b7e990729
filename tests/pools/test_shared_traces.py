"""Traces that several threads attach pools to, and close: a pool writes to none that is closed."""

import contextlib
import gc

import pytest

from pools import PoolClosed, SlabPool, Trace
from pools.learning import histogram

ROUNDS = 100


def test_a_trace_is_not_closed_while_a_view_of_a_pool_that_is_gone_may_still_be_told(tmp_path):
    trace = Trace(tmp_path / "run.pptrace")
    pool = SlabPool(4096, 8)
    pool.attach(trace)
    lease = pool.acquire()
    part = lease.view[:4]
    lease.release()
    del lease, pool
    gc.collect()
    with pytest.raises(RuntimeError, match="still write"):
        trace.close()
    del part
    gc.collect()
    trace.close()


def test_a_pool_that_all_turn_to_their_own_traces_writes_to_one(at_once, tmp_path):
    with SlabPool(64, 64, thread_safe=True) as pool:

        def turn(number):
            with Trace(tmp_path / f"{number}.pptrace", replace=True) as mine:
                for _ in range(ROUNDS):
                    pool.attach(mine)
                    pool.acquire().release()
                while True:
                    try:
                        mine.close()
                    except RuntimeError:
                        pool.attach(None)
                    else:
                        break

        at_once(turn)
        assert pool._trace is None
        pool.acquire().release()


def test_who_attaches_to_a_trace_that_another_closes_succeeds_or_is_refused(at_once, tmp_path):
    for number in range(ROUNDS // 4):
        trace = Trace(tmp_path / f"{number}.pptrace")

        def work(mine, trace=trace):
            if mine == 0:
                with contextlib.suppress(RuntimeError):
                    trace.close()
                return
            with SlabPool(64, 4) as pool, contextlib.suppress(PoolClosed):
                pool.attach(trace)
                pool.acquire().release()

        at_once(work)
        trace.close()


def test_of_several_threads_that_close_a_trace_one_does(at_once, tmp_path):
    for number in range(ROUNDS // 4):
        trace = Trace(tmp_path / f"{number}.pptrace")
        at_once(lambda _, trace=trace: trace.close())
        assert "closed" in repr(trace)


def test_what_all_threads_write_to_one_trace_is_there(at_once, tmp_path):
    path = tmp_path / "run.pptrace"
    with Trace(path) as trace, SlabPool(64, 64, thread_safe=True, name="traced") as pool:
        pool.attach(trace)

        def work(number):
            for step in range(ROUNDS):
                with pool.acquire(tag=f"thread {number}"):
                    pass
                pool.release_many(pool.acquire_many(4))
                if step % 10 == 0:
                    trace.mark(f"step {step}")
                    pool.sample()
                    assert trace.now_ns > 0
                    assert trace.dropped == 0

        at_once(work)
    assert histogram(path) == {64: 4 * ROUNDS * 5}
