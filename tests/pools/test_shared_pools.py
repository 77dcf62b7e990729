"""A pool as a whole, used by several threads at once: labels, looks, callbacks, lent memory, its end.

What must hold is the same with the interpreter's lock and, on a free-threaded interpreter, without.
"""

import contextlib
import gc
import threading

import pytest

from pools import (
    BuddyMap,
    CompactingPool,
    DoubleRelease,
    MallocPool,
    PoolClosed,
    PoolExhausted,
    PoolValueError,
    Quota,
    SizeClassPool,
    SlabPool,
    StaleHandle,
    WrongThread,
    quota_levels,
)
from pools.leaks import sites_of_leases

ROUNDS = 200
BEYOND_SHARED_NUMBERS = 2000
"""Of small numbers the interpreter has one object each; larger ones are made anew each time."""


def test_a_label_that_all_meet_at_once_has_one_number_object(at_once):
    with SlabPool(64, 64, thread_safe=True) as pool:
        for number in range(BEYOND_SHARED_NUMBERS):
            pool.tag(f"before {number}")

        def meet(_):
            numbers = []
            for step in range(ROUNDS):
                numbers.append(pool.tag(f"label {step}"))
                with pool.acquire(tag=f"label {step}") as lease:
                    assert lease.tag == f"label {step}"
            return numbers

        for found in zip(*at_once(meet), strict=True):
            assert all(one is found[0] for one in found), "acquire() would borrow one that another replaces"


def test_looks_at_a_pool_that_others_use_are_of_one_moment(at_once):
    with SlabPool(64, 256, thread_safe=True) as pool:

        def work(number):
            for step in range(ROUNDS):
                if number % 2:
                    levels = pool.stats()
                    assert levels.live_blocks + levels.free_blocks + levels.cached_blocks == 256
                    owned = pool.walk("owned")
                    assert len({block.ordinal for block in owned}) == len(owned)
                    assert all(block.tag in {"", "looked at"} for block in owned)
                    pool.check()
                    pool.held(0.0)
                    repr(pool)
                else:
                    batch = pool.acquire_many(step % 32 + 1, tag="looked at")
                    with batch.take(0) as lease:
                        lease.write(b"x")
                    batch.release()

        at_once(work)
        assert pool.stats().live_blocks == 0


@pytest.mark.parametrize("strategy", [SizeClassPool, CompactingPool, MallocPool])
def test_a_lease_that_one_resizes_and_others_use_ends_once(at_once, strategy):
    with strategy(thread_safe=True) as pool:
        leases = [pool.acquire(64) for _ in range(ROUNDS)]

        def work(number):
            ended = 0
            for step, lease in enumerate(leases):
                with contextlib.suppress(DoubleRelease, StaleHandle, PoolValueError):
                    if number == 0:
                        lease.resize(64 + 64 * (step % 8))
                    lease.write(b"%d" % number)
                    assert len(lease.read(0, 8)) == 8
                    lease.release()
                    ended += 1
            return ended

        assert sum(at_once(work)) == ROUNDS
        assert pool.stats().live_blocks == 0
        pool.check()


def test_a_close_lets_every_thread_end_with_what_it_has(at_once):
    for _ in range(20):
        pool = SlabPool(64, 256, thread_safe=True)

        def work(number, pool=pool):
            if number == 0:
                pool.close()
                return
            mine, batches = [], []
            try:
                while True:
                    mine.append(pool.acquire())
                    mine[-1].view[:1] = b"x"
                    batches.append(pool.acquire_many(4))
                    mine.append(batches[-1].take(0))
                    if len(mine) > 16:
                        mine.pop(0).release()
                        batches.pop(0).release()
            except (PoolClosed, PoolExhausted):
                for owned in mine + batches:
                    owned.release()

        at_once(work)
        gc.collect()
        assert pool.closed
        assert pool.stats().live_blocks == 0


def test_a_report_of_leaks_disturbs_nothing_that_other_threads_are_making(at_once):
    with SlabPool(64, 64, thread_safe=True) as pool:
        leases = [pool.acquire() for _ in range(32)]

        def work(number):
            for _ in range(ROUNDS):
                if number == 0:
                    assert set(sites_of_leases(pool)) == {lease.handle for lease in leases}
                else:
                    assert tuple(step for step in range(100)) == tuple(range(100))

        at_once(work)
        pool.release_many(leases)


@pytest.mark.filterwarnings("ignore:a lease of pool:ResourceWarning")
def test_leases_that_are_lost_by_any_thread_come_back_and_are_counted(at_once):
    with SlabPool(64, 4 * (64 + ROUNDS), thread_safe=True) as pool:
        heap = [[pool.acquire() for _ in range(64)] for _ in range(4)]

        def lose(number):
            mine, heap[(number + 1) % 4] = heap[(number + 1) % 4], None
            for _ in range(ROUNDS):
                cycle = [pool.acquire()]
                cycle.append(cycle)
            del mine, cycle
            gc.collect()

        at_once(lose)
        heap.clear()
        gc.collect()
        assert pool.lost_leases == 4 * (64 + ROUNDS)
        assert pool.stats().live_blocks == 0
        pool.check()


def test_callbacks_of_a_policy_come_in_the_thread_that_caused_them(at_once):
    told = [[] for _ in range(4)]
    local = threading.local()

    def exhausted(_size, tag):
        told[local.number].append(tag)
        for lease in local.kept:
            lease.release()
        local.kept.clear()
        return True

    crossed = []
    with SlabPool(
        64,
        8,
        thread_safe=True,
        on_exhausted=exhausted,
        quota=Quota(high=64 * 6, low=64 * 2),
        on_watermark=crossed.append,
    ) as pool:

        def work(number):
            local.number, local.kept = number, []
            for _ in range(ROUNDS):
                local.kept.append(pool.acquire(tag=f"thread {number}"))
                quota_levels(pool)
            for lease in local.kept:
                lease.release()

        at_once(work)
        assert pool.stats().live_blocks == 0
        for number, tags in enumerate(told):
            assert set(tags) <= {f"thread {number}"}
        assert {one.rising for one in crossed} == {True, False}


def test_moves_are_told_whoever_compacts_and_what_that_raises_is_raised_once(at_once):
    class Moved(Exception):
        pass

    def raise_moved(*_move):
        raise Moved

    with CompactingPool(4 << 20, thread_safe=True) as pool:

        def work(number):
            raised = 0
            for step in range(ROUNDS // 4):
                leases = [pool.acquire(512) for _ in range(16)]
                for lease in leases[::2]:
                    lease.release()
                if number == 0:
                    pool.on_move((raise_moved, None, lambda *_: None)[step % 3])
                try:
                    pool.compact()
                except Moved:
                    raised += 1
                for lease in leases[1::2]:
                    lease.release()
            return raised

        assert sum(at_once(work)) > 0
        pool.on_move(None)
        with contextlib.suppress(Moved):
            pool.compact()
        pool.compact()  # nothing is left to be raised
        assert pool.stats().live_blocks == 0


def test_what_one_move_raises_reaches_one_of_those_who_compact(at_once):
    with CompactingPool(1 << 20, thread_safe=True) as pool:
        for _ in range(ROUNDS):
            pool._move_errors.append(KeyError("a move"))

            def compact(_):
                try:
                    pool.compact()
                except KeyError:
                    return 1
                return 0

            assert sum(at_once(compact)) == 1


def test_of_pools_in_the_same_memory_one_is_made(at_once):
    memory = bytearray(1 << 16)

    def make(number):
        try:
            return SlabPool(64, 64, name=f"lent {number}", memory=memory)
        except PoolValueError:
            return None

    for _ in range(ROUNDS // 4):
        (made,) = [pool for pool in at_once(make) if pool is not None]
        made.adopt()
        made.close()


def test_an_owner_hands_its_pool_on_and_the_others_are_refused(at_once):
    with SlabPool(64, 64) as pool:
        turn = [0]
        passed = threading.Condition()

        def work(number):
            for step in range(20):
                with passed:
                    assert passed.wait_for(lambda step=step: turn[0] == step * 4 + number, 30)
                pool.adopt()
                pool.acquire().release()
                with passed:
                    turn[0] += 1
                    passed.notify_all()
                with contextlib.suppress(WrongThread):
                    pool.acquire().release()

        at_once(work)
        pool.adopt()
        assert pool.stats().live_blocks == 0
        pool.check()


def test_a_map_of_offsets_gives_each_range_to_one(at_once):
    table = BuddyMap(1 << 12)

    def work(_):
        taken = []
        for step in range(ROUNDS):
            with contextlib.suppress(PoolExhausted):
                taken.append(table.take(step % 8 + 1))
            table.levels()
        return taken

    found = [offset for taken in at_once(work) for offset in taken]
    assert len(found) == len(set(found))
    for offset in found:
        table.give(offset)
    table.check()
    assert table.levels().taken == 0
