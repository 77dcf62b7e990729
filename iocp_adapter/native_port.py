"""A port in C memory: creation, closing, and the fork rule; what ``CompletionPort`` and ``Server`` share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from iocp_adapter._native import CData, Submitter, ffi, lib
from iocp_adapter.errors import PortValueError, error_for
from iocp_adapter.features import Region, read_features, read_regions
from iocp_adapter.options import LARGEST_64, whole
from iocp_adapter.stats import EndpointInfo, Outstanding, read_endpoint, read_outstanding, read_stats
from pools import Pool

__all__ = ["CloseReport", "NativePort", "delay_ns", "limit_ns", "nanoseconds"]

_BACKENDS = {
    "auto": lib.PP_BACKEND_AUTO,
    "io_uring": lib.PP_BACKEND_IO_URING,
    "epoll": lib.PP_BACKEND_EPOLL,
    "iocp": lib.PP_BACKEND_IOCP,
    "sim": lib.PP_BACKEND_SIM,
}
_FOREVER_SECONDS = 1 << 32
_LONGEST_DELAY_SECONDS = 9e9  # 285 years; more would not fit
_GROWTH = 256
_LARGEST_MARK = (1 << 63) - 1
_LIMITS = {
    "concurrency": (65536, "no limit"),
    "entries": (lib.PP_ENTRIES, "the default"),
    "max_operations": (1 << 26, "the default"),
    "max_endpoints": (1 << 26, "the default"),
    "batch_bytes": (LARGEST_64, "the default"),
    "zero_copy_bytes": (LARGEST_64, "never"),
    "ring_blocks": (lib.PP_RING_BLOCKS, "none"),
    "ring_bytes": ((1 << 32) - 1, "16 KiB"),
    "registered_files": (1, "no"),
    "registered_buffers": (1, "no"),
    "seed": (LARGEST_64, ""),
}
"""Of a port's numbers: the largest, and what 0 means."""


class CloseReport(NamedTuple):
    """What closing a port found."""

    outstanding: tuple[Outstanding, ...]
    """Operations that had not completed when the close began; they were cancelled."""
    complete: bool
    """Whether every one of them came back before the timeout."""
    endpoints: tuple[EndpointInfo, ...] = ()
    """Handles that had not ended when the close began; they were reset."""
    unnamed: int = 0
    """Operations that other threads submitted while the report was made, besides those in it."""

    def __str__(self) -> str:
        head = "closed" if self.complete else "closed, but the kernel still holds operations"
        head += f"; {len(self.outstanding) + self.unnamed} outstanding, {len(self.endpoints)} handles left"
        return "\n  ".join([head, *map(str, self.outstanding), *map(str, self.endpoints)])


def nanoseconds(seconds: float | None) -> int:
    """A timeout for the core: None and very long ones never end, others round up."""
    if seconds is None or seconds > _FOREVER_SECONDS:
        return -1
    return max(0, -int(-seconds * 1e9 // 1))


def delay_ns(seconds: float) -> int:
    """A timer's delay for the core, rounded up. Raises ``PortValueError``."""
    if not isinstance(seconds, int | float) or not 0 <= seconds < float("inf"):
        raise PortValueError(f"a timer of {seconds!r} seconds: give 0 or more")
    return -int(-min(seconds, _LONGEST_DELAY_SECONDS) * 1e9 // 1)


def limit_ns(name: str, seconds: float | None) -> int:
    """A limit of time for the core: 0 where there is none."""
    if seconds is None:
        return 0
    if not isinstance(seconds, int | float) or not 0 < seconds < float("inf"):
        raise error_for(_INVALID, f"{name}={seconds!r}", "give more than 0 seconds, or None for no limit")
    return max(1, int(min(seconds, _FOREVER_SECONDS) * 1e9))


def budget(
    high_bytes: int, low_bytes: int | None, high_sends: int, low_sends: int | None, prefix: str = ""
) -> dict[str, int]:
    """A ``pp_budget``; low marks that are not given are a quarter of the high ones."""
    marks: dict[str, int] = {}
    for what, high, given in (("bytes", high_bytes, low_bytes), ("sends", high_sends, low_sends)):
        whole(f"{prefix}high_{what}", high, _LARGEST_MARK, means="no limit")
        low = high // 4 if given is None else whole(f"{prefix}low_{what}", given, _LARGEST_MARK)
        if high and low > high:
            found = f"{prefix}low_{what}={low} above {prefix}high_{what}={high}"
            raise error_for(_INVALID, found, "give a low mark that is at most the high one")
        marks |= {f"high_{what}": high, f"low_{what}": low}
    return marks


class NativePort:
    """Owns one ``pp_port``; freed when nobody refers to it any more."""

    def __init__(
        self,
        backend: str,
        concurrency: int,
        entries: int,
        limits: dict[str, int],
        marks: dict[str, int] | None = None,
    ):
        if backend not in _BACKENDS:
            known = ", ".join(_BACKENDS)
            raise error_for(_INVALID, f"backend {backend!r}", f"no such back end; use one of {known}")
        config = ffi.new("pp_port_config *", {"backend": _BACKENDS[backend], "budget": marks or {}})
        for name, value in {"concurrency": concurrency, "entries": entries, **limits}.items():
            most, default = _LIMITS[name]
            setattr(config, name, whole(name, value, most, means=default))
        out, os_error = ffi.new("pp_port **"), ffi.new("int *")
        reason = ffi.new("char[]", lib.PP_REASON_BYTES)
        status = lib.pp_port_create(config, out, reason, os_error)
        if status:
            why = str(ffi.string(reason), "utf-8")
            raise error_for(status, f"a completion port on back end {backend!r}", why)
        self._providers: dict[Pool, CData] = {}
        self.c: CData = ffi.gc(out[0], _Destroyer(self._providers))
        self.backend = str(ffi.string(lib.pp_port_backend(self.c)), "ascii")
        self.reason = str(ffi.string(lib.pp_port_reason(self.c)), "utf-8")
        self.features = read_features(self.c)

    def provider(self, pool: Pool | None) -> CData:
        """The pool's function table; the pool is kept alive as long as the port."""
        if pool is None:
            return ffi.NULL
        if pool not in self._providers:
            self._providers[pool] = ffi.cast("pp_provider *", pool.provider_address)
        return self._providers[pool]

    def associate(self, entry: Submitter | None = None, **config: Any) -> int:
        """``pp_port_associate``; the fields are those of ``pp_endpoint_config``; ``entry`` has the key."""
        native = ffi.new("pp_endpoint_config *", config)
        out = ffi.new("pp_endpoint *")
        call = lib.pp_port_associate
        status = entry.submit(call, self.c, native, out) if entry else call(self.c, native, out)
        if status:
            raise error_for(status, f"associate descriptor {config['descriptor']}")
        return int(out[0])

    def regions(self) -> tuple[Region, ...]:
        """The pools that ``registered_buffers`` was about so far."""
        rows, count = self._all("pp_region_info[]", lib.pp_port_regions)
        known = list(self._providers.items())  # other threads associate meanwhile
        names = {int(ffi.cast("uintptr_t", native)): pool.name for pool, native in known}
        return read_regions(rows[0:count], names)

    def stats(self) -> Any:
        """Counters now, as ``PortStats``."""
        return read_stats(self.c)

    def outstanding(self) -> tuple[Outstanding, ...]:
        """Operations that have not completed."""
        rows, count = self._all("pp_outstanding[]", lib.pp_port_outstanding)
        return read_outstanding(rows, count)

    def endpoints(self) -> tuple[EndpointInfo, ...]:
        """Handles associated now."""
        rows, count = self._all("pp_endpoint_info[]", lib.pp_port_endpoints)
        return tuple(read_endpoint(rows[index]) for index in range(count))

    def _all(self, kind: str, fill: Callable[[CData, CData, int], int]) -> tuple[CData, int]:
        """Every row that ``fill`` has; other threads may add some between its answers."""
        room = fill(self.c, ffi.NULL, 0)
        while True:
            rows = ffi.new(kind, room + _GROWTH)
            count = fill(self.c, rows, room + _GROWTH)
            if count <= room + _GROWTH:
                return rows, count
            room = count

    def endpoint(self, name: int) -> EndpointInfo | None:
        """One of them; None when it has ended."""
        row = ffi.new("pp_endpoint_info *")
        return None if lib.pp_port_endpoint(self.c, name, row) else read_endpoint(row)

    def close(self, timeout: float | None) -> CloseReport:
        """Cancel everything, wake every waiting thread; see ``pp_port_close``."""
        endpoints = self.endpoints()
        room = lib.pp_port_outstanding(self.c, ffi.NULL, 0) + _GROWTH
        rows, count = ffi.new("pp_outstanding[]", room), ffi.new("size_t *")
        status = lib.pp_port_close(self.c, nanoseconds(timeout), rows, room, count)
        named = min(count[0], room)
        complete = status != lib.PP_TIMEOUT
        return CloseReport(read_outstanding(rows, named), complete, endpoints, count[0] - named)


class _Destroyer:
    """Keeps the pools until the port, which may still give blocks back to them, is freed."""

    __slots__ = ("_pools",)

    def __init__(self, pools: dict[Pool, CData]):
        self._pools = pools

    def __call__(self, port: CData) -> None:
        lib.pp_port_destroy(port)


_INVALID = lib.PP_INVALID
