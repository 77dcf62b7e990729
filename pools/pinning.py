"""Leases of blocks that may move."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from pools._native import ffi, lib
from pools.errors import PoolValueError, Unsupported, error_for
from pools.lease import Lease

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from pools.compacting import CompactingPool

__all__ = ["CompactingLease"]


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

    def write(self, data: Buffer, offset: int = 0) -> int:
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

    def _check_range(self, what: str, offset: int, end: int) -> None:
        if offset < 0 or end < offset or end > self.size:
            raise PoolValueError(
                f"{what} of bytes {offset} to {end}: the block has {self.size}; stay within 0 to {self.size}"
            )
