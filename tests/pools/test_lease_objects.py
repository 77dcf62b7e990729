"""Leases, batches and pins as objects: their ends, cycles, classes, arguments, and what they leave behind."""

from __future__ import annotations

import gc
import sys
import warnings
import weakref
from contextlib import ExitStack

import pytest

from pools import (
    CompactingPool,
    DoubleRelease,
    Lease,
    MallocPool,
    PoolError,
    PoolValueError,
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


# ---- the ends of objects -----------------------------------------------------------------------------


def test_a_lease_that_is_revived_by_another_finalizer_has_ended(pool):
    revived = []

    class Reviver:
        def __del__(self):
            revived.append(self.lease)

    for _ in range(5):
        reviver = Reviver()
        reviver.lease = pool.acquire()
        reviver.me = reviver
        del reviver
        with pytest.warns(ResourceWarning):
            gc.collect()
        lease = revived.pop()
        assert lease.released
        with pytest.raises(DoubleRelease):
            lease.release()
        del lease
        with pytest.warns(ResourceWarning):
            pool.acquire()  # one that may lie where the revived one was is told of as well
    assert pool.lost_leases == 10


def test_more_leases_than_are_kept_for_reuse(pool):
    for _ in range(3):
        leases = [pool.acquire() for _ in range(256)]
        assert len({lease.handle for lease in leases}) == 256
        for lease in leases:
            lease.write(b"x")
            assert len(lease.view) == lease.size
            lease.release()
        del lease
        leases.clear()


def test_leases_pins_and_batches_in_cycles_with_their_pool():
    for make in (
        lambda pool: pool.acquire(100),
        lambda pool: pool.acquire_many(3, 100),
        lambda pool: pool.acquire(100).pin(),
    ):
        for pool_class in (lambda: SlabPool(128, 8), lambda: CompactingPool(1 << 20), MallocPool):
            pool = pool_class()
            held = make(pool)
            pool.held = [held, held.__enter__(), iter([held])]
            gone = weakref.ref(pool)
            del held, pool
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                gc.collect()
            assert gone() is None


def test_a_view_in_a_cycle_with_its_pool_keeps_only_the_memory():
    pool = SlabPool(64, 2)
    lease = pool.acquire()
    view = lease.view
    view[:4] = b"kept"
    lease.release()
    pool.view = view
    gone = weakref.ref(pool)
    del pool, lease
    gc.collect()
    assert gone() is None
    assert bytes(view[:4]) == b"kept"


def test_an_iterator_over_a_batch_that_is_released_meanwhile(pool):
    batch = pool.acquire_many(3)
    leases = iter(batch)
    first = next(leases)
    batch.release()
    assert list(leases) == []
    assert first.released


# ---- what a lease is to the language -----------------------------------------------------------------


def test_a_lease_works_in_an_exit_stack_and_by_its_type(pool):
    with ExitStack() as stack:
        lease = stack.enter_context(pool.acquire())
        assert not lease.released
    assert lease.released
    lease = pool.acquire()
    assert type(lease).__enter__(lease) is lease
    assert type(lease).__exit__(lease, None, None, None) is None
    assert lease.released
    assert lease.__exit__(None, None, None) is None  # nothing to do
    with pytest.raises(TypeError):
        lease(1)
    with pytest.raises(TypeError):
        lease(1, 2, name=3)


def test_an_error_in_the_with_block_is_raised_after_the_release(pool):
    with pytest.raises(ZeroDivisionError), pool.acquire() as lease:
        1 / 0  # noqa: B018
    assert lease.released


def test_a_lease_is_a_buffer(pool):
    with pool.acquire(64) as lease, pool.acquire(64) as other:
        lease.write(bytes(range(64)))
        assert bytes(lease)[:64] == bytes(range(64))
        assert other.write(lease) == lease.size
        assert other.read(0, 64) == bytes(range(64))
        part = memoryview(lease)[:3]
        part[:] = b"abc"
        assert lease.view[:3] == b"abc"
        index = lease.handle & INDEX
        lease.release()
        with pytest.raises(StaleHandle):
            memoryview(lease)
        others = [pool.acquire() for _ in range(200)]
        assert index not in [taken.handle & INDEX for taken in others]
        assert bytes(part) == b"abc"
        del part
        pool.release_many(others)
    with CompactingPool(1 << 20) as moving, moving.acquire(64) as lease, pytest.raises(PoolError):
        memoryview(lease)


def test_a_class_of_leases_of_ones_own(pool):
    class Named(Lease):
        __slots__ = ("label",)

    class Pool(type(pool)):
        _lease_class = Named

    with Pool(64, 2) if isinstance(pool, SlabPool) else Pool(block_size=64) as own:
        for _ in range(5):
            with own.acquire() as lease:
                lease.label = [lease]
                assert type(lease) is Named
                lease.view[0] = 1
            del lease
        with pytest.warns(ResourceWarning):
            own.acquire()
        gc.collect()
        assert own.lost_leases == 1


def test_a_lease_shows_its_state_and_lets_nobody_change_it(pool):
    with pool.acquire() as lease:
        for name in ("handle", "size", "pool", "view", "tag", "site", "new"):
            with pytest.raises(AttributeError):
                setattr(lease, name, 0)
        assert lease.view is lease.view
        assert sys.getsizeof(lease) > 0
    assert lease.handle == 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (((1, 0, 0), {}), TypeError),
        (((1,), {"size": 1}), TypeError),
        (((), {"bytes": 1}), TypeError),
        (((1.5,), {}), TypeError),
        (((1,), {"tag": -1}), PoolValueError),
        (((1,), {"tag": 1 << 32}), PoolValueError),
        (((1,), {"tag": 1 << 70}), PoolValueError),
        (((1,), {"tag": []}), TypeError),
    ],
)
def test_arguments_that_make_no_sense(pool, arguments, error):
    positional, named = arguments
    with pytest.raises(error):
        pool.acquire(*positional, **named)
    with pytest.raises(error):
        pool.acquire_many(2, *positional, **named)
    with pytest.raises(TypeError):
        pool.acquire_many()
    pool.acquire(**{"".join(["si", "ze"]): 8}).release()  # the text need not be the same object


def test_a_pool_that_was_never_made_refuses():
    pool = SlabPool.__new__(SlabPool)
    for use in (
        pool.acquire,
        lambda: pool.acquire(8),
        lambda: pool.acquire_many(2),
        lambda: pool.lease(1 << 32, 0, 8),
        lambda: pool._bind(0, pool, 0, Lease, {}),
    ):
        with pytest.raises((ValueError, AttributeError)):
            use()
    pool._sweep()
    with SlabPool(64, 1) as made, pytest.raises(ValueError, match="once"):
        made._bind(1, made, 0, Lease, {})


# ---- views of blocks that others release -------------------------------------------------------------


def test_whoever_releases_a_detached_block_does_not_have_it_reused_under_a_view(pool):
    lease = pool.acquire()
    index = lease.handle & INDEX
    part = lease.view[:4]
    part[:] = b"mine"
    handle = lease.detach()
    assert pool.inspect(handle).pins == (0, 1, 0)
    pool.lease(handle, 0, 64).release()  # as the engine does
    others = [pool.acquire() for _ in range(200)]
    assert index not in [other.handle & INDEX for other in others]
    assert bytes(part) == b"mine"
    del part
    assert pool.stats().deferred_blocks == 0
    pool.release_many(others)


def test_a_detached_lease_that_was_viewed_but_is_no_longer_holds_no_pin(pool):
    lease = pool.acquire()
    lease.view[0] = 1
    handle = lease.detach()
    assert pool.inspect(handle).pins == (0, 0, 0)
    pool.lease(handle, 0, 64).release()


def test_bytes_that_have_no_address_are_refused(pool):
    handle = pool.acquire().detach()
    with pool.lease(handle, 0, 64) as lease:
        for use in (lambda: lease.view, lease.read, lambda: lease.write(b"x")):
            with pytest.raises(PoolError, match="no address"):
                use()


# ---- what is left behind -----------------------------------------------------------------------------


def lose_one(pool):
    pool.acquire()
    pool.acquire_many(2)


def end_all_ways(pool):
    with pool.acquire(tag="a tag") as lease, lease.pin() as view:
        part = view[:4]
    pool.release_many(pool.acquire_many(5))
    for taken in pool.acquire_many(3):
        taken.release()
    with pool.acquire_many(4) as batch:
        for each in batch:
            each.view[0] = 1
        batch[0].release()
        batch.take(1).release()
    lease = pool.acquire()
    del part, view
    pool.lease(lease.detach(), 0, 64).release()
    for refused in (lease.release, lambda: pool.acquire(0), lambda: pool.acquire_many(1 << 20, 64)):
        with pytest.raises(PoolError):
            refused()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lose_one(pool)


def test_a_thousand_rounds_leave_no_object_behind():
    with SlabPool(64, 16) as pool:
        for _ in range(10):
            end_all_ways(pool)
        gc.collect()
        before = sys.getallocatedblocks()
        for _ in range(1000):
            end_all_ways(pool)
        gc.collect()
        # One left behind by each round would be a thousand; a free-threaded interpreter frees some later.
        assert sys.getallocatedblocks() - before < 900
        assert pool.stats().live_blocks == 0
