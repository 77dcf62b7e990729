"""General-purpose allocators as strategies: the baselines."""

from __future__ import annotations

import os
from importlib import metadata
from typing import Any, Unpack

from pools._native import CData, ffi, lib
from pools.errors import Unsupported, error_for
from pools.options import PoolOptions, create
from pools.parameters import text, whole
from pools.pool import Pool

__all__ = ["MallocPool"]

_RANGE = 1 << 63
_INSTALL = {
    "mimalloc": "pip install cmeel-mimalloc, or install libmimalloc",
    "jemalloc": "install libjemalloc2, and start Python with "
    "GLIBC_TUNABLES=glibc.rtld.optional_static_tls=16384, for its thread-local storage",
    "tcmalloc": "install libtcmalloc-minimal4",
}
_WHEELS = {"mimalloc": "cmeel-mimalloc"}


class MallocPool(Pool):
    """malloc and free behind the pools' interface, with the same handles, checks, tags and traces.

    ``library`` chooses whose: None for the C library's; ``"mimalloc"``, ``"jemalloc"`` or
    ``"tcmalloc"``, opened at run time from a wheel or from where the system keeps libraries; or the
    path of such a library. ``strategy`` then says which one it is.
    ``max_bytes`` limits the live bytes; 0 means no limit. ``stats()`` asks the C library for the
    levels of its whole heap, so ``metadata_bytes`` also counts what the program itself allocated;
    of other libraries only what this pool holds is known.
    The other parameters are ``SlabPool``'s but for ``memory``, ``huge_pages`` and ``idle_seconds``: the
    memory is the library's.

    Raises ``Unsupported`` where there is no such library or it is no allocator.
    """

    strategy = "malloc"
    _larger = "create the pool with a larger max_bytes"
    _wider = ""

    def __init__(
        self,
        library: str | os.PathLike[str] | None = None,
        *,
        name: str | None = None,
        max_bytes: int = 0,
        block_size: int = 4096,
        **options: Unpack[PoolOptions],
    ):
        of = " of a MallocPool"
        if library is not None and not isinstance(library, (str, bytes, os.PathLike)):
            raise TypeError(f"library={library!r}{of}: give a name, a path, or None for the C library's")
        wanted = None if library is None else os.fspath(library)
        if name is not None:
            text("name", name, of)
        whole("block_size", block_size, 1, _RANGE - 1, of)
        whole("max_bytes", max_bytes, 0, _RANGE - 1, of, "give 0 for no limit, or up to 2**63 - 1")
        config = ffi.new("pp_malloc_config *")
        config.max_bytes = max_bytes
        about: dict[str, Any] = {
            "name": name,
            "block_size": block_size,
            "max_bytes": max_bytes,
            "library": wanted,
        }

        def constructor(config: CData, out: CData) -> int:
            return _create(config, wanted, out)

        status, native = create(constructor, config, name, options, about, PoolOptions)
        if status:
            raise _refusal(status, wanted)
        self.strategy = str(ffi.string(lib.pp_pool_strategy(native)), "ascii")
        about["name"] = name or self.strategy
        super().__init__(native, strict=options.get("strict", False), about=about)


def _create(config: Any, library: str | None, out: Any) -> int:
    """Create the pool with the first library that can be opened."""
    if library is None:
        return lib.pp_malloc_create(config, out)
    status = 0
    for place in (*_files_in_wheel(library), library):
        path = ffi.new("char[]", os.fsencode(place))
        config.library = path
        status = lib.pp_malloc_create(config, out)
        if not status:
            break
    return status


def _files_in_wheel(library: str) -> list[str]:
    """Where an installed wheel keeps the library, if there is one."""
    try:
        files = metadata.files(_WHEELS[library]) or []
    except (KeyError, metadata.PackageNotFoundError):
        return []
    return [str(file.locate()) for file in files if file.name in _LIBRARY_NAMES]


_LIBRARY_NAMES = ("libmimalloc.so", "libmimalloc.dylib", "mimalloc.dll")


def _refusal(status: int, library: str | None) -> Exception:
    error = error_for(status, f"MallocPool(library={library!r})")
    if not isinstance(error, Unsupported):
        return error
    remedy = _INSTALL.get(str(library), f"give {', '.join(_INSTALL)}, or the path of one of them")
    better = Unsupported(
        f"MallocPool(library={library!r}): no allocator could be opened under that name; {remedy}"
    )
    better.status = error.status
    return better
