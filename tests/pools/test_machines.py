"""Every pool against one plain model: a dictionary of what is live; check() after every step.

What is special about a strategy has a machine of its own beside this one.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from pools import (
    BlockPinned,
    BuddyPool,
    CompactingPool,
    DoubleRelease,
    Lease,
    MallocPool,
    PoolExhausted,
    PoolValueError,
    SizeClassPool,
    SlabPool,
    StaleHandle,
    Unsupported,
)

MAX = 5000
TAGS = ["", "a", "connection 7", "größer"]


@dataclass
class Owned:
    """What the model knows of a live block."""

    content: bytes
    requested: int
    tag: str
    pins: ExitStack = field(default_factory=ExitStack)


def elsewhere(call):
    """Run it in another thread; gives its exception, if any."""
    raised = []

    def run():
        try:
            call()
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return raised[0] if raised else None


class PoolMachine(RuleBasedStateMachine):
    """The rules that hold for every pool."""

    leases = Bundle("leases")
    resizes = True
    tells_its_memory = True

    def make(self, options):
        """A new pool whose largest request is at least MAX."""
        raise NotImplementedError

    @initialize(options=st.fixed_dictionaries({"thread_safe": st.booleans(), "scrub": st.booleans()}))
    def create(self, options):
        self.options = options
        self.pool = self.make(options)
        self.live: dict[Lease, Owned] = {}
        self.acquired = 0
        self.views: list[memoryview] = []
        self.looked_at = 0
        self.dead: list[int] = []

    def admit(self, lease, requested, tag):
        assert lease.size >= requested
        assert not any(lease.handle == other.handle for other in self.live)
        if self.options["scrub"]:
            assert not any(lease.read(0, requested))
        self.acquired += 1
        self.live[lease] = Owned(lease.read(0, requested), requested, tag)
        return lease

    # ---- acquiring -----------------------------------------------------------------------

    @rule(target=leases, size=st.integers(1, MAX) | st.integers(1, 64), tag=st.sampled_from(TAGS))
    def acquire(self, size, tag):
        try:
            lease = self.pool.acquire(size, tag=tag or 0)
        except PoolExhausted:
            return multiple()
        assert (lease.requested, lease.tag) == (size, tag)
        return self.admit(lease, size, tag)

    @rule(target=leases, count=st.integers(1, 6), size=st.integers(1, MAX), taken=st.integers(0, 6))
    def acquire_many(self, count, size, taken):
        try:
            batch = self.pool.acquire_many(count, size, tag="many")
        except PoolExhausted:
            passing = self.pool.stats().acquired - self.acquired  # blocks that came, and went back
            assert 0 <= passing < count
            self.acquired += passing
            return multiple()
        assert len(batch) == count
        own = [self.admit(batch.take(index), size, "many") for index in range(min(taken, count))]
        self.pool.release_many(batch)
        self.acquired += count - len(own)
        return multiple(*own)

    @rule(size=st.sampled_from([0, -1, 1 << 62]))
    def sizes_out_of_range_are_refused(self, size):
        with pytest.raises(PoolValueError):
            self.pool.acquire(size)

    # ---- using ------------------------------------------------------------------------------

    @rule(lease=leases, data=st.binary(min_size=1, max_size=200), offset=st.integers(0, MAX))
    def write(self, lease, data, offset):
        owned = self.live[lease]
        data = data[: owned.requested]
        offset = min(offset, owned.requested - len(data))
        lease.write(data, offset)
        owned.content = owned.content[:offset] + data + owned.content[offset + len(data) :]

    @rule(lease=leases)
    def pin(self, lease):
        view = self.live[lease].pins.enter_context(lease.pin())
        assert bytes(view[: len(self.live[lease].content)]) == self.live[lease].content

    @rule(lease=leases)
    def unpin(self, lease):
        self.live[lease].pins.close()

    @rule(lease=leases, size=st.integers(1, MAX))
    def resize(self, lease, size):
        owned = self.live[lease]
        try:
            lease.resize(size)
        except (BlockPinned, PoolExhausted, Unsupported):
            return
        kept = min(size, owned.requested)
        assert lease.requested == size
        assert lease.read(0, kept) == owned.content[:kept]
        owned.content, owned.requested = lease.read(0, size), size

    # ---- releasing -------------------------------------------------------------------------

    def forget(self, lease):
        owned = self.live.pop(lease)
        owned.pins.close()
        assert lease.read(0, owned.requested) == owned.content

    @rule(lease=consumes(leases))
    def release(self, lease):
        self.forget(lease)
        self.dead.append(lease.handle)
        lease.release()
        with pytest.raises(DoubleRelease):
            lease.release()

    @rule(lease=consumes(leases))
    def release_in_another_thread(self, lease):
        self.forget(lease)
        assert elsewhere(lease.release) is None
        assert isinstance(elsewhere(lease.release), DoubleRelease)

    @rule(lease=consumes(leases))
    def release_while_somebody_looks(self, lease):
        owned = self.live[lease]
        if isinstance(self.pool, CompactingPool):
            with lease.pin() as pinned:
                view = pinned[: owned.requested]
        else:
            view = lease.view[: owned.requested]
        self.forget(lease)
        lease.release()
        self.views.append(view)
        self.looked_at += 1
        assert bytes(view) == owned.content, "nobody else has it"

    @rule()
    def look_away(self):
        self.views.clear()

    @rule()
    def a_handle_of_the_past_is_refused(self):
        for handle in self.dead[-3:]:
            with pytest.raises((StaleHandle, DoubleRelease)):
                self.pool.inspect(handle)

    # ---- the pool as a whole ------------------------------------------------------------------

    @rule(keep=st.integers(0, 1 << 20))
    def trim(self, keep):
        self.pool.trim(keep)

    @invariant()
    def is_sound(self):
        if not hasattr(self, "pool"):
            return
        self.pool.check()
        stats = self.pool.stats()
        assert stats.acquired == self.acquired
        assert stats.acquired == stats.released + stats.live_blocks
        # What was released while somebody looked may come home at the next call only.
        assert len(self.live) <= stats.live_blocks <= len(self.live) + self.looked_at
        if not self.looked_at:
            assert stats.requested_bytes == sum(owned.requested for owned in self.live.values())
        if self.tells_its_memory:
            assert stats.reserved_bytes == stats.granted_bytes + stats.free_bytes + stats.metadata_bytes
        seen = {block.handle: (block.requested, block.tag) for block in self.pool.walk() if block.handle}
        for lease, owned in self.live.items():
            assert seen[lease.handle] == (owned.requested, owned.tag)
        for lease, owned in self.live.items():
            assert lease.read(0, owned.requested) == owned.content

    def teardown(self):
        if not hasattr(self, "pool"):
            return
        self.views.clear()
        for lease in list(self.live):
            self.forget(lease)
            lease.release()
        with self.pool.acquire(1):
            pass  # brings home what was looked at
        assert not self.pool.close()
        stats = self.pool.stats()
        assert (stats.live_blocks, stats.requested_bytes) == (0, 0)


class SlabMachine(PoolMachine):
    def make(self, options):
        return SlabPool(MAX, 8, max_count=32, **options)


class SizeClassMachine(PoolMachine):
    def make(self, options):
        return SizeClassPool(8192, capacity=1 << 18, **options)


class BuddyMachine(PoolMachine):
    def make(self, options):
        return BuddyPool(1 << 16, 64, max_capacity=1 << 18, **options)


class CompactingMachine(PoolMachine):
    def make(self, options):
        return CompactingPool(1 << 18, segment_size=1 << 16, **options)

    @rule(max_bytes=st.none() | st.integers(1, 1 << 16))
    def compact(self, max_bytes):
        forecast = self.pool.forecast()
        done = self.pool.compact(max_bytes=max_bytes)
        if max_bytes is None:
            assert done.finished
            assert done.moved_bytes == forecast.moved_bytes
            pinned = any(block.pins != (0, 0, 0) for block in self.pool.walk() if block.handle)
            assert pinned or self.pool.stats().free_extents <= 1


class MallocMachine(PoolMachine):
    tells_its_memory = False

    def make(self, options):
        return MallocPool(max_bytes=1 << 18, **options)


for machine in (SlabMachine, SizeClassMachine, BuddyMachine, CompactingMachine, MallocMachine):
    machine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

TestSlab = SlabMachine.TestCase
TestSizeClass = SizeClassMachine.TestCase
TestBuddy = BuddyMachine.TestCase
TestCompacting = CompactingMachine.TestCase
TestMalloc = MallocMachine.TestCase
