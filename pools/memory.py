"""Where a pool's memory comes from, and when it goes back to the system."""

from __future__ import annotations

import itertools
import math
import mmap
import threading
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypedDict

from pools import parameters
from pools._native import CData, ffi, lib
from pools.errors import PoolValueError, error_for

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Loan", "MemoryInfo", "MemoryOptions", "OwnMemory", "claim", "lend"]

_HUGE = ("not asked", "asked for", "refused", "held")
_IDLE_MIN = 0.01
_IDLE_MAX = 1e9


class MemoryOptions(TypedDict, total=False):
    """Keyword parameters of pools that have memory of their own."""

    huge_pages: bool
    """Ask for huge pages where the system gives them on request; ``pool.memory`` tells. Default False."""
    idle_seconds: float | None
    """Memory that nobody used for so long goes back to the system though nobody calls the pool: 0.01 or
    more. Default None: it stays until ``trim()``, because the option costs each call of the owner about a
    nanosecond and a half."""
    memory: Any
    """A writable buffer (``bytearray``, ``mmap``, shared memory) that blocks are cut from, and to which
    nothing else is written, no other pool of this process included. It stays exported for the life of the
    pool and of every view; after ``close()`` with nothing live another pool may have it. Default None."""


class MemoryInfo(NamedTuple):
    """Where a pool's memory comes from, and what becomes of it."""

    lent: bool
    """It is a buffer that the program lent."""
    huge_pages: str
    """``"not asked"``, ``"asked for"``: the system takes the request and gives them as it finds them,
    ``"refused"``: ordinary pages were got, ``"held"``: all of the pool has them, and keeps them until it is
    closed (Windows, where there is no other way and the account must be allowed to lock pages in memory)."""
    idle_seconds: float | None
    idle_bytes: int
    """Of ``stats().trimmed_bytes``: went back because nobody used them."""
    registered_bytes: int
    spared_pieces: int
    """Pieces of free memory that did not go back because they are registered."""


class OwnMemory:
    """What a pool with memory of its own can be asked about it."""

    _c: CData
    _about: dict[str, Any]
    name: str

    @property
    def memory(self) -> MemoryInfo:
        """Where the memory comes from, and what became of it so far."""
        out = ffi.new("pp_memory *")
        lib.pp_pool_memory(self._c, out)
        return MemoryInfo(
            bool(out.lent),
            _HUGE[out.huge],
            out.idle_ns / 1e9 if out.idle_ns else None,
            out.idle_bytes,
            out.registered_bytes,
            out.spared_pieces,
        )

    def set_idle(self, seconds: float | None) -> None:
        """Change what ``idle_seconds`` said when the pool was created; None: memory stays.

        Raises ``PoolValueError``, ``Unsupported``, ``OutOfMemory`` or ``WrongThread``.
        """
        _set_idle(self._c, seconds, self.name)

    def register(self, offset: int = 0, size: int | None = None) -> None:
        """Note that ``size`` bytes at ``offset`` from the pool's origin are registered with the kernel.

        None of their pages goes back to the system until ``unregister`` is called with the same numbers.
        Blocks still move inside. Default: all of the pool. Raises ``PoolValueError``, ``ForeignBlock``
        (outside the pool) or ``WrongThread``.
        """
        self._change(lib.pp_pool_register, "register", offset, size)

    def unregister(self, offset: int = 0, size: int | None = None) -> None:
        """Undo ``register``. Raises ``ForeignBlock`` for a range that is not registered."""
        self._change(lib.pp_pool_unregister, "unregister", offset, size)

    def _range_bytes(self) -> int:
        """Of all that can ever hold blocks."""
        length = ffi.new("size_t *")
        lib.pp_pool_range(self._c, length)
        return int(length[0])

    def _bytes_of(self, _most: int) -> int:
        hard_limit = self._about.get("hard_limit", 0) & -mmap.PAGESIZE
        return min(self._range_bytes(), hard_limit or self._range_bytes())

    def _change(self, call: Any, verb: str, offset: int, size: int | None) -> None:
        whole = ffi.new("size_t *")
        origin = int(ffi.cast("uintptr_t", lib.pp_pool_range(self._c, whole)))
        of = f" of {verb} of pool {self.name!r}"
        offset = parameters.whole("offset", offset, 0, whole[0] - 1, of)
        rest = whole[0] - offset
        size = rest if size is None else parameters.whole("size", size, 1, rest, of)
        what = f"{verb} of {size} bytes at {offset} of pool {self.name!r}"
        status = call(self._c, ffi.cast("void *", origin + offset), size)
        if status:
            remedy = "give the numbers of an earlier register()" if status == lib.PP_FOREIGN else ""
            raise error_for(status, what, remedy, self._c)


def _set_idle(native: CData, seconds: float | None, name: str) -> None:
    if seconds is not None:
        seconds = parameters.seconds(
            "idle_seconds", seconds, _IDLE_MIN, _IDLE_MAX, f" of pool {name!r}", optional=True
        )
    status = lib.pp_pool_set_idle(native, 0 if seconds is None else math.ceil(seconds * 1e9))
    if status:
        why, remedy = _never_idle(native) if status == lib.PP_UNSUPPORTED else ("", "")
        raise error_for(status, f"idle_seconds={seconds} of pool {name!r}", remedy, native, why)


def _never_idle(native: CData) -> tuple[str, str]:
    """Why a pool's memory cannot go back by itself, and what to do."""
    info = ffi.new("pp_memory *")
    lib.pp_pool_memory(native, info)
    if info.lent:
        return "the pool has none to give back, its memory is lent", "leave it out"
    if _HUGE[info.huge] == "held":
        return (
            "the pool's huge pages stay until it is closed",
            "leave it out, or create the pool without huge_pages=True",
        )
    return (
        "the system lacks a process-wide barrier, which a pool of one owner needs for it",
        "create the pool with thread_safe=True, or call trim()",
    )


class Loan:
    """A buffer that a pool cuts blocks from: kept exported, and from other pools until it ends."""

    _running: ClassVar[dict[int, Loan]] = {}
    _numbers: ClassVar[itertools.count[int]] = itertools.count()
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, buffer: CData, name: str):
        self.buffer = buffer
        self.pool = name
        self.begin = int(ffi.cast("uintptr_t", buffer))
        self.end = self.begin + len(buffer)
        with self._lock:  # the end takes no lock: the collector may bring it about at any moment
            self._number = next(self._numbers)
            for other in self._running.copy().values():
                if self.begin < other.end and other.begin < self.end:
                    raise PoolValueError(self._overlap(other))
            self._running[self._number] = self

    def _overlap(self, other: Loan) -> str:
        shared = min(self.end, other.end) - max(self.begin, other.begin)
        return (
            f"memory= of pool {self.pool!r}: {shared} of its {self.end - self.begin} bytes are lent to pool "
            f"{other.pool!r}; close that one first, with nothing live, or lend other bytes"
        )

    def finish(self) -> None:
        """Other pools may have the buffer."""
        self._running.pop(self._number, None)


def _has_buffer(memory: Any) -> bool:
    try:
        memoryview(memory).release()
    except TypeError:
        return False
    return True


def lend(config: CData, options: Mapping[str, Any], name: str) -> Loan | None:
    """Have ``config.pool`` use the buffer of the options, which ``claim`` then keeps exported."""
    memory = options.get("memory")
    if memory is None:
        return None
    try:
        buffer = ffi.from_buffer("char[]", memory, require_writable=True)
    except (TypeError, BufferError, ValueError) as error:
        why = "it is read-only, or not in one piece" if _has_buffer(memory) else "it has no buffer"
        raise PoolValueError(
            f"memory= of pool {name!r}: a {type(memory).__name__} cannot be lent, {why}; lend a writable, "
            "contiguous buffer, such as a bytearray or an mmap"
        ) from error
    loan = Loan(buffer, name)
    config.pool.memory = buffer
    config.pool.memory_bytes = len(buffer)
    return loan


_SEGMENT, _SEGMENTS = 1 << 18, 1024  # of a compacting pool that was not told: larger ones beyond so many


def _smaller(about: Mapping[str, Any], fits: int) -> str:
    """The parameters that a pool fits with, of those that are larger; empty where none help."""
    if "max_count" in about and about.get("widened"):
        return ""  # the limit counts blocks as requested, memory as granted
    limits = ("capacity", "max_capacity", "max_block", "block_count", "max_count")
    bounds = {name: int(about[name]) for name in limits if name in about}
    for base, limit in (("capacity", "max_capacity"), ("block_count", "max_count")):
        if base in bounds and bounds.get(limit) == bounds[base]:
            del bounds[limit]
    if about.get("widened"):
        bounds.pop("max_capacity", None)
        bounds["hard_limit"] = about["widened"]
    return " and ".join(f"{name}={fits}" for name, value in bounds.items() if value > fits)


def _piece(about: Mapping[str, Any], wanted: int, room: int) -> tuple[int, int]:
    """In what steps the bounds count, and how many bytes of memory a step takes."""
    if "max_count" in about:
        return 1, wanted // about["max_count"]
    if "segment_size" in about:
        step = about["segment_size"] or _SEGMENT
        while not about["segment_size"] and room // step > _SEGMENTS:
            step *= 2
        return step, step
    step = max(about.get("min_block", 0), mmap.PAGESIZE)
    doubled = "min_block" in about and about.get("debug", {}).get("canaries", False)
    return (step // 2, step) if doubled else (step, step)


def _does_not_fit(lent: CData, about: Mapping[str, Any]) -> str:
    out = ffi.new("size_t[2]")
    lib.pp_lent_wanted(out, out + 1)
    wanted, alignment = out[0], out[1]
    room = max(len(lent) - -int(ffi.cast("uintptr_t", lent)) % alignment, 0)
    step, taken = _piece(about, wanted, room)
    remedy = f"lend {wanted + alignment - 1} bytes or more"
    fits = room // taken * step
    if smaller := _smaller(about, fits or step):
        remedy = (
            f"give {smaller} or less, or {remedy}"
            if fits
            else f"{remedy}, or {taken + alignment - 1} and give {smaller}"
        )
    return (
        f"pool {about['name']!r} does not fit in {len(lent)} bytes of lent memory: it takes {wanted} from a "
        f"place aligned to {alignment} on, and the first of those has {room}; {remedy}"
    )


def claim(
    status: int, native: CData, lent: Loan | None, options: Mapping[str, Any], about: dict[str, Any]
) -> tuple[int, CData]:
    """What memory has to do with a pool that was just created, or refused.

    Leaves the loan in ``about``, for the pool to end it. Raises ``PoolValueError`` where the lent memory
    does not do, or what ``set_idle`` raises.
    """
    if status and lent is not None and status in (lib.PP_SIZE, lib.PP_ALIGNMENT):
        raise PoolValueError(_does_not_fit(lent.buffer, about))
    if status:
        if lent is not None:
            lent.finish()
        return status, native
    if options.get("idle_seconds") is not None:
        try:
            _set_idle(native, options["idle_seconds"], about["name"])
        except Exception:
            lib.pp_pool_destroy(native)
            raise
    if lent is not None:
        about["loan"] = lent
        native = ffi.gc(native, lambda _native, lent=lent: lent.finish())
    return status, native
