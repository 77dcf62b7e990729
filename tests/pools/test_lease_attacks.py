"""Misuse of leases, batches and pins: from many threads, in the middle of calls, at the end of objects."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

from pools import (
    CompactingPool,
    DoubleRelease,
    MallocPool,
    PoolClosed,
    PoolError,
    PoolExhausted,
    SlabPool,
    StaleHandle,
)

INDEX = 0xFFFF_FFFF


@pytest.fixture(params=["slab", "shared slab", "malloc", "shared malloc"])
def pool(request):
    shared = request.param.startswith("shared")
    made = SlabPool(64, 256, thread_safe=shared) if "slab" in request.param else None
    with made or MallocPool(block_size=64, thread_safe=shared) as pool:
        yield pool
        pool.check()
        assert pool.stats().live_blocks == 0


def in_threads(count, function):
    """Run the function in so many threads that start together; what each returned or raised."""
    barrier = threading.Barrier(count)
    outcomes = []

    def run():
        barrier.wait()
        try:
            outcomes.append(function())
        except PoolError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


# ---- threads ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("viewed", [False, True])
def test_of_many_threads_that_release_one_lease_one_succeeds(pool, viewed):
    for _ in range(30):
        lease = pool.acquire()
        if viewed:
            lease.view[0] = 1
        outcomes = in_threads(6, lease.release)
        assert outcomes.count(None) == 1
        assert sum(isinstance(outcome, DoubleRelease) for outcome in outcomes) == 5
    pool.acquire().release()  # takes home what other threads released


def test_of_many_threads_that_release_one_handle_one_succeeds(pool):
    for _ in range(30):
        handle = pool.acquire().detach()
        outcomes = in_threads(6, lambda handle=handle: pool.lease(handle, 0, 64).release())
        assert outcomes.count(None) == 1
        assert sum(isinstance(outcome, StaleHandle) for outcome in outcomes) == 5
    pool.acquire().release()


def test_of_many_threads_that_release_one_batch_one_succeeds(pool):
    for _ in range(20):
        batch = pool.acquire_many(20)
        outcomes = in_threads(6, batch.release)
        assert outcomes.count(None) == 1
    pool.acquire().release()


def test_a_view_that_ends_in_another_thread_gives_the_block_back(pool):
    for _ in range(30):
        lease = pool.acquire()
        index = lease.handle & INDEX
        views = [lease.view[:8], lease.view[8:16]]
        lease.release()
        taken = [pool.acquire() for _ in range(100)]
        assert index not in [other.handle & INDEX for other in taken]
        pool.release_many(taken)
        in_threads(2, views.pop)
        assert pool.stats().live_blocks == 0


def test_threads_that_pass_views_around_see_their_own_bytes():
    with SlabPool(64, 16, thread_safe=True) as pool:
        torn = []

        def work():
            mark = threading.get_ident() & 0xFF
            kept = []
            for number in range(300):
                try:
                    lease = pool.acquire()
                except PoolExhausted:
                    kept.clear()
                    continue
                lease.view[:] = bytes([mark]) * 64
                kept.append(lease.view[number % 8 : 32])
                lease.release()
                torn.extend(part for part in kept if set(part) != {mark})
                if len(kept) > 3:
                    kept.pop(0)

        in_threads(4, work)
        assert not torn
        pool.check()


def test_a_pin_that_ends_in_another_thread_is_taken_away_by_the_owners_next_call():
    with CompactingPool(1 << 20) as pool:
        leases = [pool.acquire(100), pool.acquire(100)]
        pins = [lease.pin() for lease in leases]
        for pin in pins:
            pin.__enter__()[0] = 1
        assert pool.stats().pinned_blocks == 2
        in_threads(2, lambda: pins.pop().__exit__(None, None, None))
        del pin
        pool.compact()
        assert pool.stats().pinned_blocks == 0
        pool.release_many(leases)


# ---- code that runs in the middle of a call ------------------------------------------------------------


class Meddler:
    """A number that does something when it is read."""

    def __init__(self, number, deed):
        self.number = number
        self.deed = deed

    def __index__(self):
        self.deed()
        return self.number


def test_a_number_that_ends_the_lease_while_it_is_read(pool):
    for use in (
        lambda lease, number: lease.read(number),
        lambda lease, number: lease.read(0, number),
        lambda lease, number: lease.write(b"text", number),
        lambda lease, number: lease.resize(number),
    ):
        lease = pool.acquire()
        with pytest.raises(StaleHandle):
            use(lease, Meddler(8, lease.release))
    batch = pool.acquire_many(4)
    with pytest.raises(IndexError):
        batch[Meddler(1, batch.release)]


def test_a_number_that_closes_the_pool_while_it_is_read(pool):
    with pytest.raises(PoolClosed):
        pool.acquire(Meddler(8, pool.close))


def test_a_weak_reference_to_the_view_that_uses_the_lease_when_it_goes(pool):
    seen = []

    def meddle(reference):
        for use in (lease.release, lease.detach, lambda: lease.view):
            with pytest.raises(StaleHandle):
                use()
        seen.append(reference)

    lease = pool.acquire()
    reference = weakref.ref(lease.view, meddle)
    lease.release()
    assert seen == [reference]


def test_a_weak_reference_that_looks_again_during_a_resize(pool):
    lease = pool.acquire()
    kept = []
    reference = weakref.ref(lease.view, lambda _: kept.append(lease.view))
    with pytest.raises(PoolError) as caught:
        lease.resize(32)
    assert caught.value.status == "PINNED"
    del reference
    kept[0][:4] = b"mine"
    lease.release()
    assert bytes(kept[0][:4]) == b"mine"
    kept.clear()


def test_a_collection_that_ends_the_lease_while_it_is_viewed(pool):
    """Making a memoryview may run the collector, and that anything."""
    threshold = gc.get_threshold()
    ended = []

    def meddle(phase, info):
        if not lease.released:
            lease.release()
            ended.append(pool.acquire())

    for _ in range(20):
        lease = pool.acquire()
        view = None
        gc.callbacks.append(meddle)
        gc.set_threshold(1)
        try:
            view = lease.view
        except StaleHandle:
            pass
        finally:
            gc.set_threshold(*threshold)
            gc.callbacks.remove(meddle)
        if view is not None and lease.released:
            assert ended[-1].view.obj is not view.obj
        if not lease.released:
            lease.release()
        while ended:
            ended.pop().release()
        del view


class Chain:
    """Releases its lease and acquires another when it goes, and takes the next link with it."""

    def __init__(self, pool, following):
        self.lease = pool.acquire()
        self.following = following
        self.view = self.lease.view[:4]

    def __del__(self):
        pool = self.lease.pool
        self.lease.release()
        with pool.acquire() as another:
            another.view[:4] = b"over"


def test_releases_in_a_chain_of_finalizers(pool):
    chain = None
    for _ in range(100):
        chain = Chain(pool, chain)
    del chain
    pool.acquire().release()


def test_an_exception_passes_a_lease_that_is_lost_on_its_way(pool):
    def fail():
        lease = pool.acquire()
        lease.view[0] = 1
        raise KeyError("kept")

    with pytest.warns(ResourceWarning), pytest.raises(KeyError, match="kept"):
        fail()
    gc.collect()
    assert pool.lost_leases == 1


def test_a_move_that_drops_leases_and_views():
    with CompactingPool(1 << 20) as pool:
        leases = [pool.acquire(1000) for _ in range(40)]
        pins = [lease.pin() for lease in leases[30:]]
        parts = [pin.__enter__()[:10] for pin in pins]
        dropped = leases[10:20]
        pool.release_many(leases[:10])

        def moved(handle, old, new, size):
            if dropped:
                dropped.pop().release()
            if pins:
                pins.pop().__exit__(None, None, None)
                parts.pop()

        pool.on_move(moved)
        del leases[10:20]
        while not pool.compact().finished:
            pass
        pool.on_move(None)
        pool.check()
        for pin in pins:
            pin.__exit__(None, None, None)
        parts.clear()
        pool.compact()
        assert pool.stats().pinned_blocks == 0
        pool.release_many([lease for lease in (*dropped, *leases[10:]) if not lease.released])


def test_threads_that_pin_and_release_while_a_shared_pool_calls_back():
    """A compaction calls Python with the pool locked: who waits for the pool may not hold the interpreter."""
    with CompactingPool(1 << 20, thread_safe=True) as pool:
        moves = []
        pool.on_move(lambda *move: moves.append(move))
        kept = [pool.acquire(500) for _ in range(8)]

        def compact():
            while len(moves) < 20_000:
                leases = list(pool.acquire_many(40, 300))
                pool.release_many(leases[::2])
                pool.compact()
                pool.release_many(leases[1::2])

        def use():
            while len(moves) < 20_000:
                for lease in kept:
                    with lease.pin() as view:
                        part = view[:4]
                    lease.write(b"x")
                    del part
                    with pool.acquire(100) as other:
                        other.resize(200)

        roles = [use, use, compact]

        def play():
            role = roles.pop()
            role()

        assert in_threads(3, play) == [None] * 3
        pool.on_move(None)
        pool.release_many(kept)
        assert pool.stats().pinned_blocks == 0
        pool.check()
