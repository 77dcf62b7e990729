"""The strategies that a benchmark can run, each built to fit a workload's shape."""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import pools
from analysis.benchmarks._native import CData, ffi, lib
from analysis.benchmarks.workloads import Shape
from analysis.errors import AnalysisError, PlatformLacks

__all__ = ["NOTHING", "STRATEGIES", "Allocator", "build", "largest_request", "library_functions"]

NOTHING = "nothing"
"""Not an allocator: what it takes is the workload's own time, which is in every other row as well."""


class Allocator(NamedTuple):
    """Something that serves a workload."""

    provider: CData
    """``pp_provider *``."""
    pool: Any
    """The pool behind it; None for an allocator that is called directly."""
    keep: AbstractContextManager[Any] | Any
    """Whatever must live as long as the provider."""


def largest_request(shape: Shape) -> int:
    """The largest block that a workload of this shape asks for, in bytes."""
    return shape.size or shape.max_size


def _of_pool(pool: pools.Pool) -> Allocator:
    return Allocator(ffi.cast("pp_provider *", pool.provider_address), pool, pool)


def _slab(shape: Shape, threads: int, alignment: int = 0) -> Allocator:
    # Room for the live set, for what is on its way between threads, and for what magazines hold.
    count = 2 * shape.live + 2048
    size = largest_request(shape)
    return _of_pool(
        pools.SlabPool(size, count, name="slab", alignment=alignment, thread_safe=threads > 1, ages=False)
    )


def _slab_coloured(shape: Shape, threads: int) -> Allocator:
    return _slab(shape, threads, alignment=64)


def _capacity(shape: Shape) -> int:
    """Address space for twice the largest live set there can be: room for fragmentation to show."""
    return max(64 << 20, 2 * largest_request(shape) * shape.live)


def _sizeclass(shape: Shape, threads: int, *, huge_pages: bool = False) -> Allocator:
    pool = pools.SizeClassPool(
        max(4096, largest_request(shape)),
        capacity=_capacity(shape),
        name="sizeclass",
        thread_safe=threads > 1,
        huge_pages=huge_pages,
        ages=False,
    )
    return _of_pool(pool)


def _sizeclass_huge(shape: Shape, threads: int) -> Allocator:
    return _sizeclass(shape, threads, huge_pages=True)


def _buddy(shape: Shape, threads: int) -> Allocator:
    # A power of two may be twice the request.
    capacity = 2 * _capacity(shape)
    pool = pools.BuddyPool(
        1 << 20, 64, max_capacity=capacity, name="buddy", thread_safe=threads > 1, ages=False
    )
    return _of_pool(pool)


def _compacting(shape: Shape, threads: int) -> Allocator:
    pool = pools.CompactingPool(
        _capacity(shape),
        name="compacting",
        thread_safe=threads > 1,
        ages=False,
        auto_compact=pools.AutoCompact(),
    )
    return _of_pool(pool)


def _direct(acquire: int, release: int, keep: Any) -> Allocator:
    provider = ffi.new("pp_provider *")
    lib.pp_workload_direct(acquire, release, provider)
    return Allocator(provider, None, keep)


def _malloc(_shape: Shape, _threads: int) -> Allocator:
    return _direct(0, 0, nullcontext())


def _nothing(shape: Shape, threads: int) -> Allocator:
    provider = ffi.new("pp_provider *")
    if lib.pp_workload_nothing(shape.live, largest_request(shape), threads, provider):
        raise AnalysisError(f"the strategy {NOTHING} found no memory for {shape}; give a smaller --size")
    return Allocator(ffi.gc(provider, lib.pp_workload_nothing_end), None, provider)


def _mimalloc_path() -> str | None:
    spec = importlib.util.find_spec("cmeel")
    for root in spec.submodule_search_locations or [] if spec else []:
        found = sorted(Path(root).parent.glob("cmeel.prefix/lib/libmimalloc.so*"))
        if found:
            return str(found[0])
    return ctypes.util.find_library("mimalloc")


class _Library(NamedTuple):
    """An allocator in a shared library."""

    find: Callable[[], str | None]
    acquire: str
    release: str
    resize: str
    remedy: str


_LIBRARIES = {
    "mimalloc": _Library(
        _mimalloc_path, "mi_malloc", "mi_free", "mi_realloc", 'pip install "poolport[bench]"'
    ),
    "jemalloc": _Library(
        lambda: ctypes.util.find_library("jemalloc"),
        "malloc",
        "free",
        "realloc",
        "apt-get install libjemalloc2",
    ),
    "tcmalloc": _Library(
        lambda: ctypes.util.find_library("tcmalloc_minimal"),
        "malloc",
        "free",
        "realloc",
        "apt-get install libtcmalloc-minimal4",
    ),
}


def library_functions(name: str) -> tuple[ctypes.CDLL, tuple[int, int, int]]:
    """An allocator's library, and the addresses of its malloc, free and realloc. Raises ``PlatformLacks``."""
    entry = _LIBRARIES[name]
    path = entry.find()
    if path is None:
        raise PlatformLacks(f"the strategy {name} needs its library, which is not here; {entry.remedy}")
    library = ctypes.CDLL(path)
    acquire, release, resize = (
        ctypes.cast(getattr(library, symbol), ctypes.c_void_p).value or 0
        for symbol in (entry.acquire, entry.release, entry.resize)
    )
    return library, (acquire, release, resize)


def _in_library(name: str) -> Allocator:
    library, (acquire, release, _) = library_functions(name)
    return _direct(acquire, release, library)


STRATEGIES: dict[str, Callable[[Shape, int], Allocator]] = {
    "slab": _slab,
    "slab-coloured": _slab_coloured,
    "sizeclass": _sizeclass,
    "sizeclass-huge": _sizeclass_huge,
    "buddy": _buddy,
    "compacting": _compacting,
    "malloc": _malloc,
    "mimalloc": lambda _shape, _threads: _in_library("mimalloc"),
    "jemalloc": lambda _shape, _threads: _in_library("jemalloc"),
    "tcmalloc": lambda _shape, _threads: _in_library("tcmalloc"),
    NOTHING: _nothing,
}
"""Name to builder, ours first; a builder takes the shape of the run and how many threads acquire."""


def build(strategy: str, shape: Shape, threads: int) -> Allocator:
    """The allocator of that name. Raises ``PlatformLacks`` where its library is missing."""
    return STRATEGIES[strategy](shape, threads)
