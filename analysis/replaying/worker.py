"""One strategy under one trace's requests, in a process of its own.

Run as ``python -m analysis.replaying``: the first line of standard input is the order as JSON. Without
a trace to write, every further line asks for one timed replay, answered by one line of JSON. With
one, the requests are replayed once, untimed, into that file.

Two passes, because they cannot be one: a trace in the making takes as long as the allocation it
tells of. No numpy here, whose memory would be counted beside the strategy's.
"""

from __future__ import annotations

import json
import mmap
import sys
from typing import Any, NamedTuple

import psutil

import pools
from analysis.benchmarks._native import CData, ffi, lib
from analysis.benchmarks.allocators import library_functions
from analysis.benchmarks.cell import peak_rss_bytes
from analysis.errors import AnalysisError, PlatformLacks
from analysis.replaying.strategies import STRATEGIES, Shape, Unfit, build
from pools._native import ffi as pools_ffi
from pools._native import lib as pools_lib

__all__ = ["Order", "main"]

_PARTS = 256
"""A heap that tells nothing by events is asked for its levels so often."""


class Order(NamedTuple):
    """What to replay."""

    strategy: str
    requests: str
    """A file of `pp_request`."""
    request_count: int
    blocks: int
    tags: list[str]
    sites: list[str]
    shape: Shape
    peak_at: int
    start_ns: int
    end_ns: int
    trace: str | None
    trace_limit_bytes: int
    logical: bool
    leaks: bool
    notes: dict[str, str]

    @classmethod
    def from_json(cls, text: str) -> Order:
        """The order that the parent sends."""
        fields = json.loads(text)
        return cls(**fields | {"shape": Shape(*fields["shape"])})


class _Replay:
    """The requests, mapped, and the C replay of them."""

    def __init__(self, order: Order):
        self.order = order
        self._file = open(order.requests, "rb")  # noqa: SIM115 - closed with the replay
        self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        self._buffer = ffi.from_buffer(self._map)
        self.target = ffi.new("pp_replay_target *")
        self.tags = ffi.new("uint32_t[]", len(order.tags))
        self.sites = ffi.new("uint32_t[]", len(order.sites))
        self.trace_tags = ffi.new("uint32_t[]", len(order.tags))
        config = ffi.new("pp_replay_config *")
        config.requests = ffi.cast("const pp_request *", self._buffer)
        config.count, config.blocks = order.request_count, order.blocks
        config.tags, config.tag_count = self.tags, len(order.tags)
        config.sites, config.site_count = self.sites, len(order.sites)
        config.touch = order.trace is None
        strategy = STRATEGIES[order.strategy]
        config.compact_every, config.compact_bytes = strategy.compact_every, strategy.compact_bytes
        if strategy.library is not None and order.trace is None:
            config.limit_bytes = order.shape.limit_bytes  # a pool keeps its limit itself
        out, at = ffi.new("pp_replay **"), ffi.new("uint64_t *")
        status = lib.pp_replay_begin(config, self.target, out, at)
        if status == pools_lib.PP_NO_MEMORY:
            raise AnalysisError(f"no memory for a table of {order.blocks} blocks; replay a shorter trace")
        assert status == pools_lib.PP_OK, f"request {at[0]} is unsound"
        self.native: CData = out[0]

    def aim(self, pool: pools.Pool) -> None:
        """Replay upon a pool: through the functions of the module that made it."""
        target = self.target
        target.pool = ffi.cast("pp_pool *", int(pools_ffi.cast("uintptr_t", pool.native)))
        for name in ("acquire", "release", "resize", "pin", "unpin", "compact", "set_site"):
            _point(target, name, f"pp_pool_{name}")
        for number, text in enumerate(self.order.tags):
            self.tags[number] = pool.tag(text) if text else 0
        for number, text in enumerate(self.order.sites):
            self.sites[number] = pool.tag(text) if text else 0

    def aim_trace(self, trace: pools.Trace) -> None:
        """Give the trace its times, and what the pool itself has no record for."""
        target, order = self.target, self.order
        target.trace = ffi.cast("pp_trace *", int(pools_ffi.cast("uintptr_t", trace.native)))
        if order.logical:
            _point(target, "set_time", "pp_trace_set_time")
        _point(target, "write", "pp_trace_write")
        for number, text in enumerate(order.tags):
            data = text.encode()
            kind = pools_lib.PP_TEXT_TAG
            self.trace_tags[number] = (
                pools_lib.pp_trace_text(trace.native, kind, 0, data, len(data)) if text else 0
            )
        target.tags, target.number = self.trace_tags, 1

    def aim_directly(self, library: str) -> Any:
        """Replay upon an allocator's own functions; gives what must live as long."""
        loaded, addresses = library_functions(library) if library else (None, (0, 0, 0))
        lib.pp_replay_direct(*addresses, self.target)
        return loaded

    def run(self, until: int) -> None:
        lib.pp_replay_run(self.native, until)

    def look(self) -> Any:
        result = ffi.new("pp_replay_result *")
        lib.pp_replay_look(self.native, result)
        return result

    def drain(self) -> None:
        """Give back what is left, and go back to the first request."""
        lib.pp_replay_drain(self.native)
        lib.pp_replay_rewind(self.native)

    def close(self) -> None:
        lib.pp_replay_end(self.native)
        ffi.release(self._buffer)
        self._map.close()
        self._file.close()


def _point(target: CData, field: str, function: str) -> None:
    address = int(pools_ffi.cast("uintptr_t", pools_ffi.addressof(pools_lib, function)))
    kind = ffi.typeof(target[0]).fields
    setattr(target, field, ffi.cast(dict(kind)[field].type, address))


# ---- the trace --------------------------------------------------------------------------------


def _write_trace(replay: _Replay) -> dict[str, Any]:
    order = replay.order
    pool = build(order.strategy, order.shape)
    assert order.trace is not None
    trace = pools.Trace(order.trace, limit_bytes=order.trace_limit_bytes)
    if order.logical:
        trace.set_time(order.start_ns)
    replay.aim_trace(trace)
    for key, value in order.notes.items():
        trace.note(key, value)
    pool.attach(trace)
    replay.aim(pool)
    at_peak = _run_in_parts(replay, pool, trace)
    result = replay.look()
    if order.logical:
        trace.set_time(order.end_ns)
    if order.leaks:
        pool.close()  # which writes what is live, as the recorded program's did
    else:
        pool.attach(None)
    if trace.dropped:
        at_peak["dropped"] = trace.dropped
    trace.close()
    replay.drain()
    if not pool.closed:
        pool.close()
    return at_peak | {
        "requests": result.requests,
        "acquired": result.acquired,
        "failures": result.failures,
        "peak_bytes": result.peak_bytes,
        "peak_blocks": result.peak_blocks,
        "compacted_bytes": result.compacted_bytes,
    }


def _run_in_parts(replay: _Replay, pool: pools.Pool, trace: pools.Trace) -> dict[str, Any]:
    """Replay all, and give the fragmentation at the moment when most was requested."""
    order = replay.order
    peak: dict[str, Any] = {}
    # Another library than the C one tells nothing of its heap: a sample would claim that it wastes nothing.
    tells = pool.strategy not in ("mimalloc", "jemalloc", "tcmalloc")
    stops = {order.request_count * part // _PARTS for part in range(1, _PARTS + 1)} | {order.peak_at + 1}
    for stop in sorted(stops):
        replay.run(stop)
        if tells and isinstance(pool, pools.MallocPool):
            pool.sample()
        trace.process()
        if stop == order.peak_at + 1:
            stats = pool.stats()
            peak = {
                "external_fragmentation": stats.external_fragmentation if tells else None,
                "internal_fragmentation": stats.internal_fragmentation,
            }
    return peak


# ---- the time ---------------------------------------------------------------------------------


class _Timed:
    """Timed replays, one after the other, on one pool or heap: all but the first find it used."""

    def __init__(self, replay: _Replay):
        self._replay = replay
        self._pool: pools.Pool | None = None
        self._keep: Any = None

    def __call__(self) -> dict[str, Any]:
        replay, order = self._replay, self._replay.order
        library = STRATEGIES[order.strategy].library
        if library is not None:
            self._keep = replay.aim_directly(library)
        elif self._pool is None:
            self._pool = build(order.strategy, order.shape)
            replay.aim(self._pool)
            replay.target.set_site = ffi.NULL  # nobody asks for sites without a trace or a debug level
        replay.run(order.request_count)
        result = replay.look()
        answer = {
            "ns_per_op": result.elapsed_ns / result.acquired if result.acquired else 0.0,
            "p99_ns": result.p99_ns,
            "peak_rss_bytes": peak_rss_bytes(),
        }
        replay.drain()
        return answer


def _answer(data: dict[str, Any]) -> None:
    print(json.dumps(data), flush=True)


def main() -> int:
    """Do what the parent asks until it closes standard input."""
    order = Order.from_json(sys.stdin.readline())
    try:
        replay = _Replay(order)
        if order.trace is not None:
            _answer(_write_trace(replay))
        else:
            _answer({"rss_before_bytes": psutil.Process().memory_info().rss})
            timed = _Timed(replay)
            for _ in sys.stdin:
                _answer(timed())
        replay.close()
    except Unfit as verdict:
        _answer({"unfit": str(verdict)})
    except PlatformLacks as error:
        _answer({"unfit": str(error)})
    except (AnalysisError, pools.PoolError, OSError) as error:
        _answer({"error": str(error)})
    return 0
