"""What a debug level found in a block, as data and as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from pools._native import CData, ffi, lib

__all__ = ["Fault", "Operation", "history_of", "last_fault"]

_OPERATIONS = {
    lib.PP_OP_ALLOC: "acquired",
    lib.PP_OP_FREE: "released",
    lib.PP_OP_RESIZE: "resized",
    lib.PP_OP_PIN: "pinned",
    lib.PP_OP_UNPIN: "unpinned",
}
_PINS = ("by the kernel", "by an export", "by the user")
_KINDS = {
    lib.PP_DEBUG_OVERRUN: "overrun",
    lib.PP_DEBUG_WRITE_AFTER_RELEASE: "write after release",
}


class Operation(NamedTuple):
    """One line of a block's history."""

    seconds_ago: float
    what: str
    """``acquired``, ``released``, ``resized``, ``pinned`` or ``unpinned``."""
    thread: int
    """The operating system's number."""
    size: int
    """Bytes requested; 0 for pins."""
    pin: str
    """Who pins; empty for what is no pin."""
    tag: str
    site: str
    """Where the block was acquired: the core is not told where it is released."""

    def __str__(self) -> str:
        amount = f"{self.size} bytes" if not self.pin else self.pin
        line = f"{self.seconds_ago:.3f} s ago {self.what} by thread {self.thread}, {amount}"
        line += f", tag {self.tag!r}" if self.tag else ""
        return line + (f", at {self.site}" if self.site and self.what == "acquired" else "")


@dataclass(frozen=True, slots=True)
class Fault:
    """One block that was written to where, or when, its owner may not; sizes and offsets in bytes."""

    kind: str
    """``overrun`` or ``write after release``."""
    pool: str
    handle: int
    requested: int
    size: int
    """What the owner could use."""
    first: int
    """The first damaged byte, from the start of the block."""
    count: int
    """From there to the last damaged one."""
    seen: bytes
    """What was found there, at most 16 bytes of it."""
    tag: str
    site: str
    """Where the block was acquired; empty if the core was not told."""
    age_seconds: float
    """Since it was acquired; 0.0 without history."""
    history: tuple[Operation, ...]
    """The last operations on the block, the oldest first."""

    def __str__(self) -> str:
        block = f"block {self.handle & 0xFFFF_FFFF} of pool {self.pool!r} ({self.requested} bytes requested"
        block += f", {self.size} usable, " + (f"tag {self.tag!r}" if self.tag else "no tag")
        when = f" {self.age_seconds:.3f} s ago" if self.history else ""
        at = f" at {self.site}" if self.site else ""
        block += f", acquired{when}{at})" if when or at else ")"
        last = self.first + self.count - 1
        where = f"byte {self.first}" if self.count == 1 else f"bytes {self.first} to {last}"
        lines = [f"{self.kind} of {block}: {where} now hold {self.seen.hex(' ')}"]
        if len(self.seen) < self.count:
            lines[0] += " ..."
        lines += [f"  {operation}" for operation in self.history]
        return "\n".join(lines)


def _text(pool: CData, tag: int) -> str:
    size = ffi.new("size_t *")
    text = lib.pp_pool_tag_text(pool, tag, size)
    return "" if text == ffi.NULL else bytes(ffi.buffer(text, size[0])).decode("utf-8", "replace")


def _operations(pool: CData, events: CData, count: int, now_ns: int) -> tuple[Operation, ...]:
    pins = (lib.PP_OP_PIN, lib.PP_OP_UNPIN)
    return tuple(
        Operation(
            max(now_ns - event.time_ns, 0) / 1e9,
            _OPERATIONS[event.op],
            event.thread,
            0 if event.op in pins else event.bytes,
            _PINS[event.bytes] if event.op in pins else "",
            _text(pool, event.tag),
            _text(pool, event.site),
        )
        for event in ffi.unpack(events, count)
    )


def last_fault() -> Fault | None:
    """What the last call of this thread that ended with ``CORRUPT_BLOCK`` found.

    To be asked for before the pool is destroyed: its texts are read there.
    """
    found = lib.pp_debug_last_fault()
    if found == ffi.NULL:
        return None
    return Fault(
        kind=_KINDS[found.kind],
        pool=str(ffi.string(lib.pp_pool_name(found.pool)), "utf-8", "replace"),
        handle=found.handle,
        requested=found.requested,
        size=found.size,
        first=found.first,
        count=found.count,
        seen=bytes(found.seen)[: found.count],
        tag=_text(found.pool, found.tag),
        site=_text(found.pool, found.site),
        age_seconds=found.age_ns / 1e9,
        history=_operations(found.pool, found.history, found.events, found.found_ns),
    )


def history_of(pool: CData, handle: int) -> tuple[Operation, ...]:
    """The operations on a block that a C pool remembers, the oldest first."""
    events = ffi.new("pp_debug_event[]", lib.PP_DEBUG_HISTORY_MAX)
    count = lib.pp_debug_history(pool, handle, events, lib.PP_DEBUG_HISTORY_MAX)
    return _operations(pool, events, count, lib.pp_debug_now_ns())
