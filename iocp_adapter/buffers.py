"""What an operation moves: a lease of its endpoint's pool, or memory of Python's, kept alive meanwhile."""

from __future__ import annotations

from typing import Any

from iocp_adapter._native import CData, ffi, lib
from iocp_adapter.errors import PortValueError
from iocp_adapter.options import bytes_of
from pools import Lease, Pool

__all__ = ["file_offset", "message", "room"]

_LAST_OFFSET = (1 << 63) - 1


def room(into: Lease | bytearray | memoryview, pool: Pool | None) -> tuple[CData, Lease | None, Any]:
    """Where to receive: the native block, the lease, and what else must be kept alive.

    ``pool`` is the endpoint's. Raises ``PortValueError``.
    """
    block = ffi.new("pp_block *")
    if isinstance(into, Lease):
        _require_pool(into, pool)
        block.handle, block.size = into.handle, into.size
        return block, into, None
    try:
        exported = ffi.from_buffer(into, require_writable=True)
    except (TypeError, BufferError):
        raise PortValueError(
            f"receive into {type(into).__name__}: give a lease, or a writable buffer such as a bytearray"
        ) from None
    block.data, block.size = exported, len(exported)
    return block, None, exported


def message(
    data: Lease | bytes | bytearray | memoryview, length: int | None, pool: Pool | None, *, take: bool
) -> tuple[CData, Any]:
    """What to send, without an endpoint and a ``user``, and what must be kept alive for it.

    Raises ``PortValueError``.
    """
    native = ffi.new("pp_send *")
    held: Any = None
    if isinstance(data, Lease):
        _require_pool(data, pool)
        native.block, size = data.handle, data.size
        native.flags = lib.PP_SEND_TAKE if take else 0
    else:
        kept = bytes_of(data)
        held, size = ffi.from_buffer(kept), len(kept)
        native.address = int(ffi.cast("uintptr_t", held))
    wanted = size if length is None else length
    if not isinstance(wanted, int) or not 0 <= wanted <= size:
        raise PortValueError(f"send of {length} bytes from {size}: stay within the data")
    native.bytes = wanted
    return native, held


def file_offset(offset: int, size: int) -> int:
    """Where in a file ``size`` bytes begin. Raises ``PortValueError``."""
    if not isinstance(offset, int) or not 0 <= offset <= _LAST_OFFSET - max(size, 0):
        raise PortValueError(
            f"{size} bytes at offset {offset!r} of a file: give an offset from 0, all of them below 2**63"
        )
    return offset


def _require_pool(lease: Lease, pool: Pool | None) -> None:
    if lease.pool is not pool:
        mine = "none" if pool is None else repr(pool.name)
        raise PortValueError(
            f"a lease of pool {lease.pool.name!r} on an endpoint whose provider is {mine}; use its own"
        )
    lease._live("submit")
