"""The demo's server: a real echo server on the completion port, traced.

``python -m analysis.demo.server`` with a JSON object on the first line of standard input. It
prints one JSON object when it listens; on the second line, a JSON object of notes for the trace,
it closes, and prints what it did.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import deque
from typing import Any

import psutil

from analysis.demo.traffic import LEAK, RESIDENT, VISITOR
from analysis.strategies import STRATEGIES
from iocp_adapter import Connection, Server
from pools import Lease, Pool, Trace

__all__ = ["EchoHandler", "main"]

CAPACITY_BYTES = 64 << 20
SAMPLE_SECONDS = 0.02
HISTORY_BYTES = 192 * 1024
"""What the server keeps of a resident connection's latest messages, as a chat room or a cache would."""


class _History:
    """The latest bytes of one connection, each message in a block that fits it.

    The receive buffer itself goes back at once, echoed: it is the one still in the cache.
    """

    def __init__(self) -> None:
        self._leases: deque[Lease] = deque()
        self._bytes = 0

    def keep(self, connection: Connection, lease: Lease, length: int) -> None:
        """Copy what arrived, and release the oldest copies beyond the bound."""
        copy = lease.pool.acquire(length, connection.tag)
        copy.write(lease.read(0, length))
        self._leases.append(copy)
        self._bytes += length
        while self._bytes > HISTORY_BYTES:
            oldest = self._leases.popleft()
            self._bytes -= oldest.requested
            oldest.release()

    def clear(self) -> None:
        """Release everything."""
        for lease in self._leases:
            lease.release()
        self._leases.clear()


class EchoHandler:
    """Echoes everything; keeps what resident connections sent, and loses a block of the leaking one."""

    def __init__(self) -> None:
        self.lost: list[Lease] = []

    def received(self, connection: Connection, lease: Lease, length: int) -> None:
        """Echo, without a copy."""
        kept = connection.data
        if kept is None:
            kept = self._first(connection, lease)
        if kept is LEAK:
            connection.data = VISITOR
            self.lost.append(lease)  # the leak: nobody will ever release it
            connection.send(lease.read(0, length))
            return
        if kept is not VISITOR:
            kept.keep(connection, lease, length)
        connection.send(lease, length)

    def _first(self, connection: Connection, lease: Lease) -> Any:
        """What kind of connection its first byte announces."""
        kinds = {RESIDENT: _History(), LEAK: LEAK}
        connection.data = kinds.get(lease.read(0, 1), VISITOR)
        return connection.data

    def disconnected(self, connection: Connection, reason: Exception | None) -> None:  # noqa: ARG002
        """Release what was kept for the connection."""
        if isinstance(connection.data, _History):
            connection.data.clear()


class _Ticker(threading.Thread):
    """Samples the pool and the process into the trace, at a fixed pace."""

    def __init__(self, pool: Pool, trace: Trace):
        super().__init__(name="sampler", daemon=True)
        self._pool = pool
        self._trace = trace
        self._done = threading.Event()

    def run(self) -> None:
        while True:
            self._pool.sample()
            self._trace.process()
            if self._done.wait(SAMPLE_SECONDS):
                return

    def stop(self) -> None:
        """End the sampling and wait for it."""
        self._done.set()
        self.join()


def _cpu_seconds() -> float:
    times = psutil.Process().cpu_times()
    return float(times.user + times.system)


def _number_alone(number: int, peer: str) -> str:  # noqa: ARG001
    """A connection's label: the same in every run, whatever port the client was given."""
    return f"conn-{number}"


def serve(wanted: dict[str, Any]) -> None:
    """Serve one run of one strategy."""
    pool = STRATEGIES[wanted["strategy"]].build(CAPACITY_BYTES)
    code = EchoHandler.received.__code__
    pool.mark_site(f"receive for {code.co_qualname} ({code.co_filename}:{code.co_firstlineno})")
    handler = EchoHandler()
    with Trace(wanted["trace"]) as trace:
        pool.attach(trace)
        server = Server("127.0.0.1", 0, handler, provider=pool, backend=wanted["backend"], tag=_number_alone)
        server.start()
        ticker = _Ticker(pool, trace)
        ticker.start()
        ready = {"port": server.address[1], "backend": server.backend, "reason": server.reason}
        cpu_before = _cpu_seconds()
        print(json.dumps(ready), flush=True)
        notes = json.loads(sys.stdin.readline() or "{}")
        cpu_seconds = _cpu_seconds() - cpu_before
        server.close(5.0)
        ticker.stop()
        pool.adopt()
        pool.sample()
        messages = max(int(notes.get("messages", 0)), 1)
        notes |= {
            "strategy": wanted["strategy"],
            "backend": server.backend,
            "server_cpu_us_per_message": round(cpu_seconds * 1e6 / messages, 3),
        }
        for key, value in notes.items():
            trace.note(key, value)
        pool.check()
        stats = pool.stats().as_dict()
        leaks = pool.close()
        print(
            json.dumps(
                {
                    "cpu_seconds": cpu_seconds,
                    "server_cpu_us_per_message": notes["server_cpu_us_per_message"],
                    "rss_bytes": psutil.Process().memory_info().rss,
                    "trace_dropped": trace.dropped,
                    "pool": stats,
                    "leaked_tags": sorted({leak.tag for leak in leaks}),
                    "handler_errors": server.stats().handler_errors,
                }
            ),
            flush=True,
        )
    for lease in handler.lost:
        lease.release()


def main() -> int:
    """Read the run from standard input and serve it."""
    serve(json.loads(sys.stdin.readline()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
