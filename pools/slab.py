"""Fixed-size blocks."""

from __future__ import annotations

import sys
from typing import Any, Unpack

from pools._native import CData, ffi, lib
from pools.errors import PoolValueError, error_for
from pools.lease import Lease
from pools.options import RegionOptions, create
from pools.pool import _HANDLE_MIN, _INDEX, Pool

__all__ = ["SlabPool"]

_acquire = lib.pp_pool_acquire_handle
_getframe = sys._getframe


class SlabPool(Pool):
    """Blocks of one size in one contiguous region, handed out last-in-first-out.

    ``block_size`` is in bytes (1 to 1 GiB), ``block_count`` blocks are reserved at once.
    ``max_count`` lets the pool grow up to that many blocks; without it the pool never grows.
    ``alignment`` is a power of two from 16 to the page; 0 means the cache line, or the page for
    blocks that are whole pages. ``scrub`` zeroes a block before its next owner sees it;
    ``ages`` keeps the acquisition time of each block; ``huge_pages`` asks for huge pages;
    ``strict`` makes ``close()`` raise ``LeakError`` when something is live.

    Raises ``PoolValueError`` or ``OutOfMemory``.
    """

    strategy = "slab"
    _cached_references = 1

    def __init__(
        self,
        block_size: int,
        block_count: int,
        *,
        name: str = "slab",
        max_count: int | None = None,
        alignment: int = 0,
        **options: Unpack[RegionOptions],
    ):
        about: dict[str, Any] = {
            "name": name,
            "block_size": block_size,
            "block_count": block_count,
            "max_count": block_count if max_count is None else max_count,
            "alignment": alignment,
        }
        for what in ("block_size", "block_count", "max_count", "alignment"):
            if not 0 <= about[what] < 1 << 63:
                raise PoolValueError(
                    f"{what}={about[what]} of pool {name!r}: give a number from 0 to 2**63 - 1"
                )
        config = ffi.new("pp_slab_config *")
        config.block_bytes = block_size
        config.block_count = block_count
        config.max_count = about["max_count"]
        config.alignment = alignment
        status, native = create(lib.pp_slab_create, config, name, options, about)
        if status:
            raise error_for(
                status,
                f"SlabPool {name!r} of {block_count} x {block_size} bytes (max_count {about['max_count']}, "
                f"alignment {alignment})",
                "block_size is 1 to 2**30, block_count 1 to 2**28 and at most max_count, alignment a power "
                "of two from 16 to the page",
            )
        super().__init__(native, strict=options.get("strict", False), about=about)
        self.block_size = block_size
        stride = ffi.new("size_t *")
        self._memory = int(ffi.cast("uintptr_t", lib.pp_slab_memory(native, stride)))
        self._stride = int(stride[0])
        self._buffers: dict[int, CData] = {}

    def acquire(self, size: int | None = None, tag: str | int = 0) -> Lease:
        """One block of at least ``size`` bytes (default: the block size), labelled ``tag``.

        Raises ``PoolExhausted``, ``PoolValueError`` (size out of range), ``PoolClosed``,
        ``WrongThread`` or ``OutOfMemory``.
        """
        frame = _getframe(1)
        size = self.block_size if size is None else size
        if (
            self._trace is not None
            or self._exported
            or tag.__class__ is not int
            or not 0 < size <= self.block_size
        ):
            tag = self._prepare(size, tag, frame)
        handle = _acquire(self._c, size, tag)
        if self._trace is not None:
            self._site_done()
        if handle < _HANDLE_MIN:
            raise self._refusal(handle, 1, size)
        return Lease(self, handle, None, self.block_size, frame.f_code, frame.f_lasti)

    def lease(self, handle: int, address: int, size: int) -> Lease:  # noqa: ARG002  # a slab knows both
        """Wrap a block that C code acquired from this pool's provider and hands over."""
        return Lease(self, handle, None, self.block_size)

    def _buffer_of(self, lease: Lease) -> CData:
        index = lease.handle & _INDEX
        buffer = self._buffers.get(index)
        if buffer is None:
            address = ffi.cast("char *", self._memory + index * self._stride)
            buffer = self._buffers.setdefault(index, self._buffer(address, self.block_size))
        return buffer

    def _remedy_when_exhausted(self) -> str:
        return "release blocks sooner, or create the pool with a larger block_count or max_count"
