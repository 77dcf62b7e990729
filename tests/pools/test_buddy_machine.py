"""BuddyPool against a plain model: a set of occupied smallest blocks, check() after every step."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from pools import BlockPinned, BuddyPool, PoolExhausted, Unsupported

UNIT = 64
UNITS = 64  # a page of them
LIMIT = 4 * UNITS


def granted_units(size: int) -> int:
    units = -(-size // UNIT)
    return 1 << (units - 1).bit_length()


class BuddyMachine(RuleBasedStateMachine):
    leases = Bundle("leases")

    @initialize(merge=st.sampled_from(["lazy", "eager"]), grows=st.booleans())
    def create(self, merge, grows):
        self.limit = LIMIT if grows else UNITS
        self.pool = BuddyPool(UNITS * UNIT, UNIT, max_capacity=self.limit * UNIT, merge=merge)
        self.places: dict[object, range] = {}
        self.fills: dict[object, int] = {}
        self.count = 0

    def occupied(self, besides=None):
        return {unit for lease, place in self.places.items() if lease is not besides for unit in place}

    def place(self, lease):
        offset = self.pool.inspect(lease.handle).offset
        place = range(offset // UNIT, (offset + lease.size) // UNIT)
        assert not self.occupied(besides=lease) & set(place)
        self.places[lease] = place

    def admit(self, lease):
        self.place(lease)
        self.count = (self.count + 1) % 256
        self.fills[lease] = self.count
        lease.view[:] = bytes([self.count]) * lease.size
        return lease

    def could_hold(self, units):
        occupied = self.occupied()
        return any(
            occupied.isdisjoint(range(start, start + units))
            for start in range(0, self.limit - units + 1, units)
        )

    @rule(target=leases, size=st.integers(1, UNITS * UNIT) | st.integers(1, 4 * UNIT))
    def acquire(self, size):
        if not self.could_hold(granted_units(size)):
            with pytest.raises(PoolExhausted):
                self.pool.acquire(size)
            return multiple()
        lease = self.pool.acquire(size)
        assert lease.size == granted_units(size) * UNIT
        return self.admit(lease)

    @rule(target=leases, first=st.integers(0, UNITS - 1), units=st.integers(1, 12))
    def reserve(self, first, units):
        units = min(units, UNITS - first)
        if self.occupied() & set(range(first, first + units)):
            with pytest.raises(PoolExhausted):
                self.pool.reserve(first * UNIT, units * UNIT)
            return multiple()
        lease = self.admit(self.pool.reserve(first * UNIT, units * UNIT))
        assert self.places[lease] == range(first, first + units)
        return lease

    @rule(lease=leases, size=st.integers(1, UNITS * UNIT))
    def resize(self, lease, size):
        before, place = lease.size, self.places[lease]
        units = granted_units(size)
        shaped = len(place) & (len(place) - 1) == 0 and place.start % len(place) == 0
        capacity = (self.pool.stats().granted_bytes + self.pool.stats().free_bytes) // UNIT
        grown = range(place.start, place.start + units)
        in_place = units <= len(place) or (
            place.start % units == 0 and grown.stop <= capacity and not self.occupied(lease) & set(grown)
        )
        if not shaped:
            with pytest.raises(Unsupported):
                lease.resize(size)
            return
        if not in_place and not self.could_hold(units):
            with pytest.raises(PoolExhausted):
                lease.resize(size)
            return
        lease.resize(size)
        assert lease.size == units * UNIT
        kept = min(before, lease.size)
        assert lease.read(0, kept) == bytes([self.fills[lease]]) * kept
        self.place(lease)
        assert (self.places[lease].start == place.start) == in_place
        lease.view[:] = bytes([self.fills[lease]]) * lease.size

    @rule(lease=leases)
    def resize_under_a_view(self, lease):
        view = lease.view[1:]
        with pytest.raises(BlockPinned):
            lease.resize(UNIT)
        del view

    @rule(lease=consumes(leases))
    def release(self, lease):
        assert bytes(lease.view) == bytes([self.fills[lease]]) * lease.size
        lease.release()
        del self.places[lease], self.fills[lease]

    @rule(keep=st.integers(0, LIMIT * UNIT))
    def trim(self, keep):
        self.pool.trim(keep)

    @invariant()
    def is_sound(self):
        if not hasattr(self, "pool"):
            return
        self.pool.check()
        stats = self.pool.stats()
        occupied = self.occupied()
        assert stats.granted_bytes == len(occupied) * UNIT
        assert stats.live_blocks == len(self.places)
        free = [block for block in self.pool.walk() if not block.handle]
        assert stats.free_extents == len(free)
        assert stats.largest_free_bytes == max((block.granted for block in free), default=0)
        assert {
            unit
            for block in free
            for unit in range(block.offset // UNIT, (block.offset + block.granted) // UNIT)
        } == (set(range((stats.granted_bytes + stats.free_bytes) // UNIT)) - occupied)

    def teardown(self):
        for lease in getattr(self, "places", {}):
            lease.release()
        if hasattr(self, "pool"):
            assert not self.pool.close()


BuddyMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestBuddyMachine = BuddyMachine.TestCase
