"""Leases, batches, views and pins that several threads use at once.

What must hold is the same with the interpreter's lock and, on a free-threaded interpreter, without.
"""

import contextlib
import gc
import warnings

import pytest

from pools import (
    BuddyPool,
    CompactingPool,
    DoubleRelease,
    MallocPool,
    PoolExhausted,
    SizeClassPool,
    SlabPool,
    StaleHandle,
)

THREADS = 4
ROUNDS = 300

SHARED_POOLS = {
    "slab": lambda: SlabPool(4096, 512, thread_safe=True),
    "sizeclass": lambda: SizeClassPool(4096, thread_safe=True),
    "buddy": lambda: BuddyPool(4 << 20, thread_safe=True),
    "compacting": lambda: CompactingPool(4 << 20, thread_safe=True),
    "malloc": lambda: MallocPool(thread_safe=True),
}


@pytest.fixture(params=SHARED_POOLS)
def pool(request):
    """A pool that every thread may use; at the end it is whole, and nothing is missing."""
    with SHARED_POOLS[request.param]() as made:
        yield made
        gc.collect()
        made.check()
        stats = made.stats()
        assert stats.live_blocks == 0
        assert stats.acquired == stats.released
        assert made.lost_leases == 0


def test_of_many_releases_of_one_lease_one_succeeds(pool, at_once):
    leases = [pool.acquire(64) for _ in range(ROUNDS)]

    def release_all(_):
        released = 0
        for lease in leases:
            try:
                lease.release()
                released += 1
            except DoubleRelease:
                pass
        return released

    assert sum(at_once(release_all)) == ROUNDS
    assert all(lease.released for lease in leases)


def test_a_block_of_a_batch_is_taken_by_one_thread(pool, at_once):
    batches = [pool.acquire_many(16, 64) for _ in range(ROUNDS // 16)]

    def take_all(_):
        taken = []
        for batch in batches:
            for index in range(16):
                with contextlib.suppress(StaleHandle):
                    taken.append(batch.take(index))
        handles = [lease.handle for lease in taken]
        for lease in taken:
            lease.release()
        return handles

    handles = [handle for each in at_once(take_all) for handle in each]
    assert len(handles) == len(set(handles)) == len(batches) * 16
    assert all(len(batch) == 0 for batch in batches)


def test_a_batch_that_is_used_by_many_threads_and_lost_gives_every_block_back(pool, at_once):
    batches = [pool.acquire_many(16, 64) for _ in range(ROUNDS // 16)]

    def use_all(number):
        for batch in batches:
            for index in range(16):
                with contextlib.suppress(StaleHandle):
                    lease = batch[index]
                    lease.write(b"%d" % number)
                    if index % 4 == number % 4:
                        lease.release()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        at_once(use_all)
        batches.clear()
        gc.collect()
    pool.acquire(64).release()  # takes home what other threads released
    assert pool.stats().live_blocks == 0


def test_a_batch_is_released_once(pool, at_once):
    batches = [pool.acquire_many(8, 64) for _ in range(ROUNDS // 8)]

    def release_all(_):
        released = 0
        for batch in batches:
            try:
                batch.release()
                released += 1
            except DoubleRelease:
                pass
        return released

    assert sum(at_once(release_all)) == len(batches)


def test_every_thread_reads_what_it_wrote(pool, at_once):
    def work(number):
        for step in range(ROUNDS):
            text = b"%d %d" % (number, step)
            with pool.acquire(len(text), tag=f"thread {number}") as lease, lease.pin() as view:
                view[: len(text)] = text
                part = view[: len(text)]
                assert bytes(part) == lease.read(0, len(text)) == text
                del part
            with pool.acquire(64) as lease:
                lease.write(text)
                assert lease.read(0, len(text)) == text

    at_once(work)


def test_a_block_that_another_thread_looks_at_is_not_reused(pool, at_once):
    views = [[] for _ in range(THREADS)]

    def work(number):
        kept = []
        for step in range(ROUNDS // 4):
            lease = pool.acquire(64)
            lease.write(b"%d %d." % (number, step))
            with lease.pin() as view:
                part = view[:]
            views[(number + 1) % THREADS].append(part)
            kept.append((part, b"%d %d." % (number, step)))
            del view, part
            lease.release()
        for view, text in kept:
            assert bytes(view[: len(text)]) == text

    at_once(work)
    for each in views:
        each.clear()


def test_one_lease_is_looked_at_by_all_and_ends_once(pool, at_once):
    leases = [pool.acquire(64) for _ in range(ROUNDS)]

    def look(_):
        ended = 0
        for lease in leases:
            try:
                with lease.pin() as view:
                    assert len(view) == lease.size
                del view
                lease.read(0, 8)
                lease.release()
                ended += 1
            except StaleHandle:
                pass
        return ended

    assert sum(at_once(look)) == ROUNDS


def test_pins_of_one_lease_are_all_taken_away(pool, at_once):
    leases = [pool.acquire(64) for _ in range(8)]

    def pin(_):
        for _ in range(ROUNDS // 8):
            for lease in leases:
                with lease.pin() as view:
                    assert len(view) == lease.size

    at_once(pin)
    for lease in leases:
        lease.release()


def test_tags_mean_the_same_in_every_thread(pool, at_once):
    def work(number):
        labels = [f"label {step % 32}" for step in range(ROUNDS)]
        for label in labels:
            with pool.acquire(64, tag=label) as lease:
                assert lease.tag == label

    at_once(work)


def test_a_full_pool_refuses_each_thread_and_loses_nothing(at_once):
    with SlabPool(64, 8, thread_safe=True) as pool:

        def work(_):
            mine = []
            for _ in range(ROUNDS):
                try:
                    mine.append(pool.acquire())
                except PoolExhausted:
                    for lease in mine:
                        lease.release()
                    mine.clear()
            for lease in mine:
                lease.release()

        at_once(work)
        assert pool.stats().live_blocks == 0
        pool.check()


def test_a_pool_of_one_thread_takes_back_what_others_release_and_looked_at(at_once):
    with CompactingPool(4 << 20) as pool:
        leases = [pool.acquire(256) for _ in range(THREADS * 64)]
        for lease in leases:
            lease.write(b"x" * 256)

        def release_share(number):
            for lease in leases[number::THREADS]:
                lease.release()

        at_once(release_share)
        pool.compact()
        pool.check()
        assert pool.stats().live_blocks == 0
