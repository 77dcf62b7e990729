"""Offsets of anything that is counted, handed out as powers of two; no memory behind them."""

from __future__ import annotations

import threading
from typing import NamedTuple

from pools._native import ffi, lib
from pools.errors import PoolCorrupt, PoolError, PoolValueError, error_for
from pools.parameters import power_of_two, whole

__all__ = ["BuddyLevels", "BuddyMap"]

_LIMIT = 1 << 63
_UNITS_MAX, _LENGTH_MAX = 1 << 26, 1 << 62
_OF = " of a BuddyMap"
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
        unit = power_of_two("unit", unit, 1, _LENGTH_MAX, _OF)
        length = _length_of("length", length, unit)
        limit = length if max_length is None else _length_of("max_length", max_length, unit)
        if limit < length:
            raise PoolValueError(
                f"max_length={limit}{_OF}: it begins with length={length}; give that or more, or leave it out"
            )
        self._unit, self._limit = unit, limit
        config = ffi.new("pp_buddy_map_config *", {"length": length, "max_length": limit, "unit": unit})
        out = ffi.new("pp_buddy_map **")
        status = lib.pp_buddy_map_create(config, out)
        if status:
            raise error_for(status, f"BuddyMap of {length} offsets (max_length {limit}, unit {unit})")
        self._c = ffi.gc(out[0], lib.pp_buddy_map_destroy)
        self._lock = threading.Lock()

    def take(self, length: int) -> int:
        """The offset of a free range of at least ``length``: the next power of two of units, aligned to it.

        Raises ``PoolExhausted`` or ``PoolValueError`` (longer than any range could be).
        """
        out = ffi.new("uint64_t *")
        with self._lock:
            status = lib.pp_buddy_map_take(self._c, _checked("length", length), out)
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
            status = lib.pp_buddy_map_give(self._c, _checked("offset", offset))
        if status:
            raise self._refusal(status, f"give of offset {offset}", 1)

    def reserve(self, offset: int, length: int) -> None:
        """Take exactly the units that ``offset`` to ``offset + length`` touches.

        Raises ``PoolExhausted`` (a part is not free) or ``PoolValueError`` (not managed, or ``offset`` is
        no multiple of the unit).
        """
        with self._lock:
            status = lib.pp_buddy_map_reserve(self._c, _checked("offset", offset), _checked("length", length))
        if status:
            what = f"reserve of {length} offsets at {offset}"
            if status == _ALIGNMENT:
                why = f"offset {offset} is not a multiple of {self._unit}"
                raise error_for(status, what, f"give a multiple of {self._unit}", why=why)
            if status == _EXHAUSTED:
                why = "a part of them is taken"
                raise error_for(status, what, "reserve others, or give back what is there", why=why)
            raise self._refusal(status, what, length, end=offset + length)

    def resize(self, offset: int, length: int) -> None:
        """Change the length of the range taken at ``offset``, which stays where it is.

        Raises ``PoolExhausted`` (what follows is not free), ``PoolValueError``, ``Unsupported`` (a reserved
        range that is no power of two), ``StaleHandle`` (it was given back) or ``ForeignBlock`` (no range
        starts there); nothing has changed then.
        """
        with self._lock:
            status = lib.pp_buddy_map_resize(self._c, _checked("offset", offset), _checked("length", length))
        if status:
            what = f"resize of the range at {offset} to {length}"
            if status in (_DOUBLE_RELEASE, _FOREIGN, _SIZE):
                raise self._refusal(_STALE if status == _DOUBLE_RELEASE else status, what, length)
            why = (
                "what follows is taken, or the range is not aligned to that length"
                if status == _EXHAUSTED
                else "it is a reserved range that is no block: a power of two of units at a multiple of that"
            )
            raise error_for(status, what, "take another range, and move there what it stands for", why=why)

    def extend(self, length: int) -> None:
        """Manage offsets up to ``length`` from now on. Raises ``PoolValueError`` or ``OutOfMemory``."""
        with self._lock:
            status = lib.pp_buddy_map_extend(self._c, _checked("length", length))
        if status:
            now = self.levels().length
            if status == _INVALID and length % self._unit == 0:
                why = f"it has {now} now, and max_length={self._limit}"
                remedy = f"give {now} to {self._limit}"
            else:
                why = f"{length} is not a multiple of {self._unit}" * (status == _INVALID)
                remedy = f"give a multiple of {self._unit}" * (status == _INVALID)
            raise error_for(status, f"extend to {length} offsets", remedy, why=why)

    def _refusal(
        self, status: int, what: str, length: int, levels: BuddyLevels | None = None, end: int | None = None
    ) -> PoolError:
        """The exception with the one reason that applies; ``end`` is that of a range that was chosen."""
        if status == _SIZE and length == 0:
            return error_for(status, what, "give 1 or more", why="a range has at least one offset")
        if status == _SIZE:
            return self._size_refusal(what, (levels or self.levels()).length, end)
        if status in (_DOUBLE_RELEASE, _STALE):
            why = "nothing is taken there: it was given back, or never taken"
            return error_for(status, what, "use each offset that take() gave until it is given back", why=why)
        if status == _FOREIGN:
            return error_for(status, what, "use the offsets that take() gave", why="no range starts there")
        remedy = "give ranges back sooner"
        if (levels or self.levels()).length < self._limit:
            remedy += f", or extend() the map to as many as {self._limit}"
        why = "no free and aligned range is so long" * (status == _EXHAUSTED)
        return error_for(status, what, remedy, why=why)

    def _size_refusal(self, what: str, have: int, end: int | None) -> PoolError:
        if end is not None:
            why, remedy = f"the map ends at {have}", f"stay within offsets 0 to {have}"
            if have < end <= self._limit:
                remedy += f", or extend() it to {end} or more, at most {self._limit}"
            return error_for(_SIZE, what, remedy, why=why)
        most = self._unit << ((self._limit // self._unit).bit_length() - 1)
        limit = f"max_length={self._limit}"
        why = f"the longest range of a map with {limit} is {most}, the largest power of two of units"
        return error_for(
            _SIZE, what, f"ask for 1 to {most}, or create the map with a larger max_length", why=why
        )

    def granted(self, offset: int) -> int:
        """The length of the range taken at ``offset``; 0 where none starts."""
        with self._lock:
            return lib.pp_buddy_map_granted(self._c, _checked("offset", offset))

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


def _checked(name: str, number: int) -> int:
    return whole(name, number, 0, _LIMIT - 1, _OF)


def _length_of(name: str, length: int, unit: int) -> int:
    """A length that a map of such units can have."""
    most = min(_UNITS_MAX * unit, _LENGTH_MAX)
    remedy = f"give {unit} to {most}, which are 2**26 of unit={unit}, or a larger unit"
    length = whole(name, length, 1, most, _OF, f"give {unit} to {most}" if most == _LENGTH_MAX else remedy)
    if length % unit:
        raise PoolValueError(f"{name}={length}{_OF}: it is not a multiple of unit={unit}; give one")
    return length
