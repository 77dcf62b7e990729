"""Quotas, watermarks and the fallback against a model: a dictionary of what is live."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from pools import (
    BuddyPool,
    CompactingPool,
    Crossing,
    Lease,
    MallocPool,
    PoolExhausted,
    Quota,
    QuotaExceeded,
    SizeClassPool,
    SlabPool,
    quota_levels,
    set_quota,
)

MOST = 2000
TAGS = ["", "a", "b"]

bounds = st.none() | st.integers(1, 6 * MOST)


@st.composite
def quotas(draw):
    """Bounds and marks in every combination."""
    high = draw(bounds)
    low = draw(st.none() | st.integers(1, high - 1)) if high and high > 1 else None
    return Quota(draw(bounds), draw(st.none() | st.integers(1, 6)), high, low)


@dataclass
class Account:
    """What the model counts for a tag, or for the pool."""

    quota: Quota
    bytes: int = 0
    blocks: int = 0
    above: bool = False

    def room(self, size, blocks=1):
        return (self.quota.bytes is None or self.bytes + size <= self.quota.bytes) and (
            not blocks or self.quota.blocks is None or self.blocks < self.quota.blocks
        )

    def change(self, size, blocks, tag):
        """Counts; gives the crossing, if there is one."""
        self.bytes += size
        self.blocks += blocks
        return self.look(tag)

    def look(self, tag):
        quota, crossed = self.quota, []
        if quota.high is None:
            self.above = False
        elif not self.above and self.bytes >= quota.high:
            self.above = True
            crossed = [Crossing("machine", tag, True, self.bytes, quota.high)]
        elif self.above and self.bytes <= (quota.low or 0):
            self.above = False
            crossed = [Crossing("machine", tag, False, self.bytes, quota.low or 0)]
        return crossed


def elsewhere(call):
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


class PolicyMachine(RuleBasedStateMachine):
    """Requests from one thread, releases from any."""

    leases = Bundle("leases")

    @initialize(whole=quotas(), each=quotas(), shared=st.booleans(), fallback=st.booleans())
    def create(self, whole, each, shared, fallback):
        self.seen: list[Crossing] = []
        self.expected: list[Crossing] = []
        self.fallback = fallback
        self.pool = self.make(
            name="machine",
            quota=whole,
            tag_quota={"a": each, "b": Quota()},
            thread_safe=shared,
            on_watermark=self.seen.append,
            on_exhausted="fallback" if fallback else "raise",
        )
        self.accounts = {"": Account(whole), "a": Account(each), "b": Account(Quota())}
        self.live: dict[Lease, tuple[int, str]] = {}

    def counted(self, tag):
        return {"", tag}

    def count(self, size, blocks, tag):
        for name in sorted(self.counted(tag)):
            self.expected += self.accounts[name].change(size, blocks, name)

    @rule(target=leases, size=st.integers(1, MOST), tag=st.sampled_from(TAGS))
    def acquire(self, size, tag):
        room = all(self.accounts[name].room(size) for name in self.counted(tag))
        try:
            lease = self.pool.acquire(size, tag or 0)
        except QuotaExceeded:
            assert not room
            return multiple()
        except PoolExhausted:
            assert room
            assert not self.fallback
            return multiple()
        assert room
        self.live[lease] = (size, tag)
        self.count(size, 1, tag)
        return lease

    @rule(lease=consumes(leases), remote=st.booleans())
    def release(self, lease, remote):
        size, tag = self.live.pop(lease)
        if remote:
            elsewhere(lease.release)
        else:
            lease.release()
        self.count(-size, -1, tag)

    @rule(lease=leases, size=st.integers(1, MOST))
    def resize(self, lease, size):
        before, tag = self.live[lease]
        grows = size > before
        room = all(self.accounts[name].room(size - before, 0) for name in self.counted(tag))
        try:
            lease.resize(size)
        except QuotaExceeded:
            assert grows
            assert not room
            return
        except PoolExhausted:
            return
        assert room or not grows
        self.live[lease] = (size, tag)
        self.count(size - before, 0, tag)

    @rule(quota=quotas(), tag=st.sampled_from(TAGS))
    def change_quota(self, quota, tag):
        set_quota(self.pool, quota, tag)
        self.accounts[tag].quota = quota
        self.expected += self.accounts[tag].look(tag)

    @invariant()
    def adds_up(self):
        if not hasattr(self, "pool"):
            return
        self.pool.check()
        for name, account in self.accounts.items():
            levels = quota_levels(self.pool, name)
            assert levels[:3] == (account.quota, account.bytes, account.blocks)
            assert levels.above == account.above
        assert self.seen == self.expected
        stats = self.pool.stats()
        assert stats.acquired == stats.released + stats.live_blocks
        assert stats.live_blocks == len(self.live)
        assert stats.reserved_bytes == stats.granted_bytes + stats.free_bytes + stats.metadata_bytes

    def teardown(self):
        if hasattr(self, "pool"):
            for lease in self.live:
                lease.release()
            self.pool.check()
            assert not self.pool.close()


class SlabMachine(PolicyMachine):
    make = staticmethod(lambda **options: SlabPool(MOST, 5, **options))


class SizeClassMachine(PolicyMachine):
    make = staticmethod(lambda **options: SizeClassPool(MOST, capacity=16384, **options))


class BuddyMachine(PolicyMachine):
    make = staticmethod(lambda **options: BuddyPool(8192, **options))


class CompactingMachine(PolicyMachine):
    make = staticmethod(lambda **options: CompactingPool(1 << 16, segment_size=1 << 16, **options))


class MallocMachine(PolicyMachine):
    make = staticmethod(lambda **options: MallocPool(max_bytes=8192, **options))


for machine in (SlabMachine, SizeClassMachine, BuddyMachine, CompactingMachine, MallocMachine):
    machine.TestCase.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)

TestSlab = SlabMachine.TestCase
TestSizeClass = SizeClassMachine.TestCase
TestBuddy = BuddyMachine.TestCase
TestCompacting = CompactingMachine.TestCase
TestMalloc = MallocMachine.TestCase
