"""Leases of blocks that may move, and what holds such a block in place.

A compacting pool's block has no address until it is pinned. What pins it from Python:

    with lease.pin() as view:      a USER pin from here
        part = view[10:20]
                                   the block's end: the view is released. If no memoryview, array or
                                   other export made from it is left, so is the pin. `part` is left:
    del part                       the pin becomes an EXPORT pin, and goes with the last of them.

No reference is counted for that. The view is made over a buffer that only it and its offspring hold;
when the interpreter drops that buffer, its destructor takes the pin away: at once if that happens in
a thread that may, otherwise the pin waits in the pool for the owner's next call.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from pools._native import CData, ffi, lib
from pools.errors import Unsupported, error_for
from pools.lease import Lease

if TYPE_CHECKING:
    from pools.compacting import CompactingPool

__all__ = ["CompactingLease"]

_unpin = lib.pp_pool_unpin
_LATER = (lib.PP_WRONG_THREAD, lib.PP_BUSY)


def unpin_or_defer(pool: CompactingPool, handle: int, kind: int) -> None:
    """Take a pin away now, or, where this thread or moment may not, at the owner's next call."""
    if _unpin(pool._c, handle, kind) in _LATER:
        pool._dropped_pins.append((handle, kind))


class _Pin:
    """One pin held through a buffer; called by cffi when the buffer is no longer."""

    __slots__ = ("gone", "handle", "kind", "pool")

    def __init__(self, pool: CompactingPool, handle: int):
        self.pool = pool  # and so the C pool, and the memory, live as long as the buffer
        self.handle = handle
        self.kind = lib.PP_PIN_USER
        self.gone = False

    def __call__(self, pointer: CData) -> None:  # noqa: ARG002  # the signature is cffi's
        self.gone = True
        unpin_or_defer(self.pool, self.handle, self.kind)

    def outlive(self) -> None:
        """From now on held by what was exported, no longer by the program."""
        if lib.pp_pool_pin(self.pool._c, self.handle, lib.PP_PIN_EXPORT, ffi.NULL) == lib.PP_OK:
            self.kind = lib.PP_PIN_EXPORT
            unpin_or_defer(self.pool, self.handle, lib.PP_PIN_USER)


class CompactingLease(Lease):
    """A block that has no address until it is pinned: ``pin()``, ``read()``, ``write()``."""

    __slots__ = ()

    pool: CompactingPool

    @property
    def view(self) -> NoReturn:
        """Raises ``Unsupported``: use ``with lease.pin() as view``, or ``read()`` and ``write()``."""
        self._live("view")
        error = Unsupported(
            f"view of a lease of pool {self.pool.name!r}: a compacting pool's block has no address until it "
            "is pinned; use `with lease.pin() as view`, or read() and write()"
        )
        error.status = "UNSUPPORTED"
        raise error

    def read(self, offset: int = 0, size: int | None = None) -> bytes:
        """Copy ``size`` bytes from ``offset`` (default: to the end), wherever the block lies."""
        handle = self._live("read")
        end = self.size if size is None else offset + size
        self._check_range("read", offset, end)
        out = bytearray(end - offset)
        with memoryview(out) as target:
            status = lib.pp_compacting_read(
                self.pool._c, handle, offset, ffi.from_buffer(target), end - offset
            )
        if status:
            raise error_for(status, f"read of a block of pool {self.pool.name!r}")
        return bytes(out)

    def write(self, data: bytes | bytearray | memoryview, offset: int = 0) -> int:
        """Copy ``data`` to ``offset``, wherever the block lies; returns the bytes written."""
        handle = self._live("write")
        with memoryview(data).cast("B") as source:
            self._check_range("write", offset, offset + len(source))
            status = lib.pp_compacting_write(
                self.pool._c, handle, offset, ffi.from_buffer(source), len(source)
            )
            if status:
                raise error_for(status, f"write to a block of pool {self.pool.name!r}")
            return len(source)

    @contextmanager
    def pin(self) -> Iterator[memoryview]:
        """Keep the block where it is for the time of the with-block; gives a writable view of it.

        The view is released at the end. What was made from it, such as a slice or an array, stays
        valid, and keeps the block in place until the last of it is gone.
        """
        pin = _Pin(self.pool, self._live("pin"))
        view = self._lend(pin)
        try:
            yield view
        finally:
            try:
                view.release()
            except BufferError:
                del view  # somebody exports it: then it ends with the last export
            if not pin.gone:
                pin.outlive()

    def _lend(self, pin: _Pin) -> memoryview:
        address = ffi.new("void **")
        status = lib.pp_pool_pin(self.pool._c, pin.handle, pin.kind, address)
        if status:
            raise error_for(status, f"pin in pool {self.pool.name!r}")
        return memoryview(ffi.buffer(ffi.gc(ffi.cast("char *", address[0]), pin), self.size))
