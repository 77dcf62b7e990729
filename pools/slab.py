"""Fixed-size blocks."""

from __future__ import annotations

from types import CodeType
from typing import Any

from pools._native import CData, ffi, lib
from pools.errors import PoolValueError, error_for
from pools.lease import Lease
from pools.pool import _HANDLE_MIN, _INDEX, Pool

__all__ = ["SlabPool"]


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
        thread_safe: bool = False,
        scrub: bool = False,
        ages: bool = True,
        huge_pages: bool = False,
        strict: bool = False,
    ):
        about: dict[str, Any] = {
            "name": name,
            "block_size": block_size,
            "block_count": block_count,
            "max_count": block_count if max_count is None else max_count,
            "alignment": alignment,
            "thread_safe": thread_safe,
            "scrub": scrub,
        }
        for what in ("block_size", "block_count", "max_count", "alignment"):
            if not 0 <= about[what] < 1 << 63:
                raise PoolValueError(
                    f"{what}={about[what]} of pool {name!r}: give a number from 0 to 2**63 - 1"
                )
        encoded = ffi.new("char[]", name.encode())
        config = ffi.new("pp_slab_config *")
        config.pool.name = encoded
        config.pool.threads = lib.PP_THREADS_SHARED if thread_safe else 0
        config.pool.scrub = scrub
        config.pool.ages = ages
        config.pool.huge_pages = huge_pages
        config.block_bytes = block_size
        config.block_count = block_count
        config.max_count = about["max_count"]
        config.alignment = alignment
        out = ffi.new("pp_pool **")
        status = lib.pp_slab_create(config, out)
        if status:
            raise error_for(
                status,
                f"SlabPool {name!r} of {block_count} x {block_size} bytes (max_count {about['max_count']}, "
                f"alignment {alignment})",
                "block_size is 1 to 2**30, block_count 1 to 2**28 and at most max_count, alignment a power "
                "of two from 16 to the page",
            )
        super().__init__(out[0], strict=strict, about=about)
        self.block_size = block_size
        stride = ffi.new("size_t *")
        self._memory = int(ffi.cast("uintptr_t", lib.pp_slab_memory(out[0], stride)))
        self._stride = int(stride[0])
        self._buffers: dict[int, CData] = {}

    def _acquire(self, size: int, tag: int, site: tuple[CodeType, int]) -> Lease:
        handle = lib.pp_pool_acquire_handle(self._c, size if size > 0 else self._checked_size(size), tag)
        if handle < _HANDLE_MIN:
            self._checked_size(size)
            raise self._refusal(handle, 1, size)
        index = handle & _INDEX
        return Lease(self, handle, self._buffers.get(index) or self._view_block(index), self.block_size, site)

    # A slab's address follows from the handle, so what the caller knows of it is not needed.

    def _wrap(self, handle: int, address: CData, size: int, site: tuple[CodeType, int] | None) -> Lease:  # noqa: ARG002
        index = handle & _INDEX
        buffer = self._buffers.get(index) or self._view_block(index)
        return Lease(self, handle, buffer, self.block_size, site)

    def lease(self, handle: int, address: int, size: int) -> Lease:  # noqa: ARG002
        """Wrap a block that C code acquired from this pool's provider and hands over."""
        index = handle & _INDEX
        return Lease(self, handle, self._buffers.get(index) or self._view_block(index), self.block_size)

    def _view_block(self, index: int) -> CData:
        address = ffi.cast("char *", self._memory + index * self._stride)
        return self._buffers.setdefault(index, self._buffer(address, self.block_size))

    def _remedy_when_exhausted(self) -> str:
        return "release blocks sooner, or create the pool with a larger block_count or max_count"
