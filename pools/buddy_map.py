"""Offsets of anything that is counted, handed out as powers of two; no memory behind them."""

from __future__ import annotations

import threading
from typing import NamedTuple

from pools._native import ffi, lib
from pools.errors import PoolCorrupt, PoolError, error_for
from pools.parameters import whole

__all__ = ["BuddyLevels", "BuddyMap"]

_LIMIT = 1 << 63
_ALIGNMENT, _SIZE, _INVALID = lib.PP_ALIGNMENT, lib.PP_SIZE, lib.PP_INVALID
_EXHAUSTED, _STALE = lib.PP_EXHAUSTED, lib.PP_STALE
_DOUBLE_RELEASE, _FOREIGN = lib.PP_DOUBLE_RELEASE, lib.PP_FOREIGN


class BuddyLevels(NamedTuple):
    """How full a ``BuddyMap`` is; in the map's own offsets but for the last three."""

    length: int
    taken: int
    free: int
    largest_take: int
    """The longest that ``take()`` can serve now."""
    largest_free: int
    """The longest free extent, whatever blocks it is made of."""
    free_extents: int
    taken_blocks: int
    metadata_bytes: int


class BuddyMap:
    """Hands out ranges of the offsets 0 to ``length`` - 1: of a file, a device, a table, a set of ports.

    ``unit``, a power of two, is the smallest range; ``length`` is a multiple of it and at most 2**26
    units; ``max_length`` lets ``extend()`` add offsets up to that many. Any thread may call; calls take a
    lock. An offset that was given back and handed out again is the new owner's: offsets carry no
    generation, unlike the leases of a pool.

    Raises ``PoolValueError`` or ``OutOfMemory``.
    """

    def __init__(self, length: int, unit: int = 1, *, max_length: int | None = None):
        limit = length if max_length is None else max_length
        for what, value in (("length", length), ("unit", unit), ("max_length", limit)):
            whole(what, value, 1, _LIMIT - 1, " of a BuddyMap")
        self._unit, self._limit = unit, limit
        config = ffi.new("pp_buddy_map_config *", {"length": length, "max_length": limit, "unit": unit})
        out = ffi.new("pp_buddy_map **")
        status = lib.pp_buddy_map_create(config, out)
        if status:
            raise error_for(
                status,
                f"BuddyMap of {length} offsets (max_length {limit}, unit {unit})",
                "unit is a power of two, length and max_length are multiples of it, at most 2**26 units",
            )
        self._c = ffi.gc(out[0], lib.pp_buddy_map_destroy)
        self._lock = threading.Lock()

    def take(self, length: int) -> int:
        """The offset of a free range of at least ``length``: the next power of two of units, aligned to it.

        Raises ``PoolExhausted`` or ``PoolValueError`` (longer than any range could be).
        """
        out = ffi.new("uint64_t *")
        with self._lock:
            status = lib.pp_buddy_map_take(self._c, _checked(length), out)
        if status:
            levels = self.levels()
            what = f"take of {length} offsets (the longest free and aligned: {levels.largest_take})"
            raise self._refusal(status, what, length, levels)
        return int(out[0])

    def give(self, offset: int) -> None:
        """Give back what ``take`` or ``reserve`` took at ``offset``.

        Raises ``DoubleRelease`` (it is free) or ``ForeignBlock`` (no range starts there).
        """
        with self._lock:
            status = lib.pp_buddy_map_give(self._c, _checked(offset))
        if status:
            raise self._refusal(status, f"give of offset {offset}", 1)

    def reserve(self, offset: int, length: int) -> None:
        """Take exactly the units that ``offset`` to ``offset + length`` touches.

        Raises ``PoolExhausted`` (a part is not free) or ``PoolValueError`` (not managed, or ``offset`` is
        no multiple of the unit).
        """
        with self._lock:
            status = lib.pp_buddy_map_reserve(self._c, _checked(offset), _checked(length))
        if status:
            what = f"reserve of {length} offsets at {offset}"
            if status == _ALIGNMENT:
                why = f"offset {offset} is not a multiple of {self._unit}"
                raise error_for(status, what, f"give a multiple of {self._unit}", why=why)
            if status == _EXHAUSTED:
                why = "a part of them is taken"
                raise error_for(status, what, "reserve others, or give back what is there", why=why)
            raise self._refusal(status, what, length)

    def resize(self, offset: int, length: int) -> None:
        """Change the length of the range taken at ``offset``, which stays where it is.

        Raises ``PoolExhausted`` (what follows is not free), ``PoolValueError``, ``Unsupported`` (a reserved
        range that is no power of two), ``StaleHandle`` (it was given back) or ``ForeignBlock`` (no range
        starts there); nothing has changed then.
        """
        with self._lock:
            status = lib.pp_buddy_map_resize(self._c, _checked(offset), _checked(length))
        if status:
            what = f"resize of the range at {offset} to {length}"
            if status in (_DOUBLE_RELEASE, _FOREIGN, _SIZE):
                raise self._refusal(_STALE if status == _DOUBLE_RELEASE else status, what, length)
            why = "what follows is taken, or the range is not aligned to that length" * (status == _EXHAUSTED)
            raise error_for(status, what, "take another range, and move there what it stands for", why=why)

    def extend(self, length: int) -> None:
        """Manage offsets up to ``length`` from now on. Raises ``PoolValueError`` or ``OutOfMemory``."""
        with self._lock:
            status = lib.pp_buddy_map_extend(self._c, _checked(length))
        if status:
            now = self.levels().length
            if status == _INVALID and length % self._unit == 0:
                why = f"it has {now} now, and max_length={self._limit}"
                remedy = f"give {now} to {self._limit}"
            else:
                why = f"{length} is not a multiple of {self._unit}" * (status == _INVALID)
                remedy = f"give a multiple of {self._unit}" * (status == _INVALID)
            raise error_for(status, f"extend to {length} offsets", remedy, why=why)

    def _refusal(self, status: int, what: str, length: int, levels: BuddyLevels | None = None) -> PoolError:
        """The exception with the one reason that applies."""
        if status == _SIZE and length == 0:
            return error_for(status, what, "give 1 or more", why="a range has at least one offset")
        if status == _SIZE:
            have = (levels or self.levels()).length
            why, remedy = f"no range in a map of {have} offsets reaches so far", "ask for less"
            if have < self._limit:
                remedy += f", or extend() it to as many as {self._limit}"
            return error_for(status, what, remedy, why=why)
        if status in (_DOUBLE_RELEASE, _STALE):
            why = "nothing is taken there: it was given back, or never taken"
            return error_for(status, what, "use each offset that take() gave until it is given back", why=why)
        if status == _FOREIGN:
            return error_for(status, what, "use the offsets that take() gave", why="no range starts there")
        return error_for(status, what, "give ranges back sooner, or extend() the map")

    def granted(self, offset: int) -> int:
        """The length of the range taken at ``offset``; 0 where none starts."""
        with self._lock:
            return lib.pp_buddy_map_granted(self._c, _checked(offset))

    def levels(self) -> BuddyLevels:
        """How full the map is; one pass over its ranges."""
        out = ffi.new("pp_buddy_levels *")
        with self._lock:
            lib.pp_buddy_map_levels(self._c, out)
        return BuddyLevels(*(getattr(out, name) for name in BuddyLevels._fields))

    def check(self) -> None:
        """Validate every bitmap against the ranges there are. Raises ``PoolCorrupt``."""
        fault = ffi.new("pp_fault *")
        with self._lock:
            status = lib.pp_buddy_map_check(self._c, fault)
        if status:
            what = str(ffi.string(fault.what), "ascii")
            raise PoolCorrupt(f"BuddyMap: {what}, at {fault.where}; please report this")

    def __repr__(self) -> str:
        levels = self.levels()
        return f"<BuddyMap {levels.taken} of {levels.length} taken>"


def _checked(number: int) -> int:
    return whole("offset or length", number, 0, _LIMIT - 1, " of a BuddyMap")
