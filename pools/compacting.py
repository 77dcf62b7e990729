"""Blocks of any size that move together when holes have opened between them."""

from __future__ import annotations

import math
import mmap
import weakref
from collections.abc import Callable
from typing import Any, Unpack

from pools._native import CData, ffi, lib
from pools.compaction import AutoCompact, Compaction, Forecast, PinnedBlock
from pools.errors import error_for
from pools.memory import OwnMemory
from pools.options import RegionOptions, create
from pools.parameters import function, power_of_two, seconds, text, whole
from pools.pinning import CompactingLease
from pools.pool import Pool

__all__ = ["CompactingPool"]

OnMove = Callable[[int, int, int, int], object]
_PINS_LISTED_FIRST = 256
_RANGE = 1 << 63
_CAPACITY_MAX = 1 << 42  # at the largest alignment, of 4 KiB
_SEGMENT_MIN, _SEGMENT_MAX = 1 << 16, 1 << 30


def _set_policy(config: CData, policy: object, name: str) -> None:
    if not isinstance(policy, AutoCompact):
        raise TypeError(f"auto_compact={policy!r} of pool {name!r}: give AutoCompact(), or None for never")
    of = f" of auto_compact of pool {name!r}"
    config.cpu_percent = whole("cpu_percent", policy.cpu_percent, 1, 100, of)
    config.index_percent = whole("index_percent", policy.index_percent, 0, 99, of)
    config.burst_ns = math.ceil(seconds("burst_seconds", policy.burst_seconds, 1e-9, 1e6, of) * 1e9)


@ffi.def_extern()  # type: ignore[untyped-decorator]  # cffi's decorator has no types
def pp_python_moved(context: CData, handle: int, old: CData, new: CData, size: int) -> None:
    """Pass a move on to the pool's callback; called by the core in the middle of a compaction."""
    pool: CompactingPool | None = ffi.from_handle(context)()
    if pool is not None:
        pool._moved(handle, int(ffi.cast("uintptr_t", old)), int(ffi.cast("uintptr_t", new)), size)


class CompactingPool(OwnMemory, Pool):
    """Blocks of any size in one contiguous range, moved together by ``compact()``.

    ``capacity`` bytes of address space are reserved at once, rounded up to whole segments; with
    ``on_exhausted="grow"`` as many as ``hard_limit`` says, if that is more.
    ``alignment`` is that of blocks and of their sizes: a power of two from 16 to the page, 0 for 64;
    the capacity is at most 2**30 alignments. ``segment_size``, a power of two from 64 KiB to 1 GiB,
    0 to choose, is the unit in which memory comes from and goes back to the system; a compaction gives
    emptied segments back, but for ``keep_bytes`` of free memory. ``auto_compact`` lets the
    pool compact by itself. The other parameters are ``SlabPool``'s.

    Raises ``PoolValueError`` or ``OutOfMemory``.
    """

    strategy = "compacting"
    _together = "compact(), create the pool with auto_compact=AutoCompact(), "
    _larger = "create the pool with a larger capacity"
    _lease_class = CompactingLease

    def __init__(
        self,
        capacity: int = 64 << 20,
        *,
        name: str = "compacting",
        block_size: int = 4096,
        alignment: int = 0,
        segment_size: int = 0,
        keep_bytes: int = 0,
        auto_compact: AutoCompact | None = None,
        **options: Unpack[RegionOptions],
    ):
        about: dict[str, Any] = {
            "name": name,
            "block_size": block_size,
            "capacity": capacity,
            "alignment": alignment,
            "segment_size": segment_size,
            "keep_bytes": keep_bytes,
        }
        of = f" of pool {text('name', name)!r}"
        for what, low, high in (
            ("block_size", 1, _RANGE - 1),
            ("capacity", 1, _CAPACITY_MAX),
            ("keep_bytes", 0, _RANGE - 1),
        ):
            about[what] = whole(what, about[what], low, high, of)
        about["alignment"] = power_of_two("alignment", alignment, 16, mmap.PAGESIZE, of, zero=True)
        about["segment_size"] = power_of_two(
            "segment_size", segment_size, _SEGMENT_MIN, _SEGMENT_MAX, of, zero=True
        )
        config = ffi.new("pp_compacting_config *")
        config.capacity_bytes = capacity
        config.alignment = alignment
        config.segment_bytes = segment_size
        config.keep_bytes = keep_bytes
        if auto_compact is not None:
            _set_policy(config.policy, auto_compact, name)
        status, native = create(lib.pp_compacting_create, config, name, options, about)
        if status:
            raise error_for(
                status,
                f"CompactingPool {name!r} of {about['capacity']} bytes (alignment {alignment}, segment_size "
                f"{segment_size})",
                "capacity, or with on_exhausted='grow' a larger hard_limit, is 1 to 2**30 alignments, "
                "alignment a power of two from 16 to the page, segment_size a power of two from 64 KiB to "
                "1 GiB, or 0",
            )
        super().__init__(native, strict=options.get("strict", False), about=about)
        self.capacity: int = self._range_bytes()
        """Bytes of address space for blocks: what was asked for, rounded up to whole segments."""
        self._on_move: OnMove | None = None
        self._move_errors: list[BaseException] = []
        """None or one, for the next ``compact()`` that looks: of several threads one takes it."""
        self._self_handle = ffi.new_handle(weakref.ref(self))

    # ---- compaction --------------------------------------------------------------------

    def compact(self, max_bytes: int | None = None, max_ns: int | None = None) -> Compaction:
        """Slide unpinned blocks together, within about ``max_bytes`` moved and ``max_ns`` nanoseconds.

        Without bounds all of the pool is compacted, from its beginning. With bounds the next call goes
        on where this one stopped, whatever happened meanwhile, until ``finished``. With ``idle_seconds``
        it is the idle thread that then gives emptied segments back.
        Raises ``PoolValueError``, ``WrongThread``, ``OutOfMemory``, or what the on-move callback raised.
        """
        for what, bound in (("max_bytes", max_bytes), ("max_ns", max_ns)):
            if bound is not None:
                whole(what, bound, 1, _RANGE - 1, " of a compaction")
        self._sweep()
        done = ffi.new("pp_compaction *")
        status = lib.pp_pool_compact(self._c, max_bytes or 0, max_ns or 0, done)
        # What callbacks raised is for the call that they were called from, not for one that they make.
        if status != lib.PP_BUSY:
            try:
                error = self._move_errors.pop()
            except IndexError:
                pass  # no callback has raised, or another thread took it
            else:
                raise error
        if status:
            raise self._error(status, "compaction")
        return Compaction(
            done.moved_blocks,
            done.moved_bytes,
            done.freed_bytes,
            done.pinned_bytes,
            done.elapsed_ns / 1e9,
            bool(done.finished),
        )

    def forecast(self) -> Forecast:
        """What ``compact()`` without bounds would do now. Raises ``WrongThread``."""
        self._sweep()
        out = ffi.new("pp_compacting_forecast *")
        status = lib.pp_compacting_predict(self._c, out)
        if status:
            raise self._error(status, "forecast")
        return Forecast(
            out.moved_blocks, out.moved_bytes, out.freed_bytes, out.pinned_bytes, out.returned_bytes
        )

    def pins(self) -> list[PinnedBlock]:
        """Every pinned block in address order. Raises ``WrongThread``."""
        self._sweep()
        capacity, count = _PINS_LISTED_FIRST, ffi.new("size_t *")
        while True:
            blocks = ffi.new("pp_compacting_pin[]", capacity)
            status = lib.pp_compacting_pins(self._c, blocks, capacity, count)
            if status:
                raise self._error(status, "pins")
            if count[0] <= capacity:
                break
            capacity = count[0] * 2
        return [
            PinnedBlock(
                block.handle,
                block.offset,
                block.granted,
                block.kept_bytes,
                (block.pins[0], block.pins[1], block.pins[2]),
                (block.age_ns[0] / 1e9, block.age_ns[1] / 1e9, block.age_ns[2] / 1e9),
                self.tag_text(block.tag),
            )
            for block in ffi.unpack(blocks, count[0])
        ]

    def on_move(self, callback: OnMove | None) -> None:
        """Call ``callback(handle, old_address, new_address, size)`` after each move of a block.

        It is called within the call that moves, possibly an acquire or a resize, and may use nothing of
        this pool but release leases. What it raises first is raised by the ``compact()`` that moved,
        or by the next one. None: no longer.
        """
        function("callback", callback, f" of on_move of pool {self.name!r}")
        moved = ffi.NULL if callback is None else lib.pp_python_moved
        status = lib.pp_compacting_on_move(self._c, moved, self._self_handle)
        if status:
            raise self._error(status, "on_move")
        self._on_move = callback

    def _moved(self, handle: int, old: int, new: int, size: int) -> None:
        callback = self._on_move
        if callback is None:
            return
        try:
            callback(handle, old, new, size)
        except BaseException as error:  # it cannot pass through the core: compact() raises it
            if not self._move_errors:
                self._move_errors.append(error)
