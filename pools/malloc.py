"""The C library's allocator as a strategy: the baseline."""

from __future__ import annotations

from typing import Any

from pools._native import ffi, lib
from pools.errors import error_for
from pools.pool import Pool

__all__ = ["MallocPool"]


class MallocPool(Pool):
    """malloc and free behind the pools' interface, with the same handles, checks, tags and traces.

    ``max_bytes`` limits the live bytes; 0 means no limit. ``stats()`` asks the C library for the
    levels of its whole heap, so ``metadata_bytes`` also counts what the program itself allocated.
    The other parameters are ``SlabPool``'s.
    """

    strategy = "malloc"

    def __init__(
        self,
        *,
        name: str = "malloc",
        max_bytes: int = 0,
        block_size: int = 4096,
        thread_safe: bool = False,
        scrub: bool = False,
        ages: bool = True,
        strict: bool = False,
    ):
        about: dict[str, Any] = {
            "name": name,
            "block_size": block_size,
            "max_bytes": max_bytes,
            "thread_safe": thread_safe,
            "scrub": scrub,
        }
        encoded = ffi.new("char[]", name.encode())
        config = ffi.new("pp_malloc_config *")
        config.pool.name = encoded
        config.pool.threads = lib.PP_THREADS_SHARED if thread_safe else 0
        config.pool.scrub = scrub
        config.pool.ages = ages
        config.max_bytes = max_bytes
        out = ffi.new("pp_pool **")
        status = lib.pp_malloc_create(config, out)
        if status:
            raise error_for(status, f"MallocPool {name!r}")
        super().__init__(out[0], strict=strict, about=about)

    def _remedy_when_exhausted(self) -> str:
        return "release blocks sooner, or create the pool with a larger max_bytes"
