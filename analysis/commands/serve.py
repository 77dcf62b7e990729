"""``poolport serve``: a server in the foreground."""

from __future__ import annotations

import argparse
import signal
import threading
import time
from collections import Counter
from types import FrameType
from typing import TYPE_CHECKING, Any

from analysis.commands.demo import OUTPUT
from analysis.commands.terminal import (
    note,
    poolport_words,
    print_json,
    print_next,
    print_table,
    require_tables,
)
from analysis.errors import UsageError
from analysis.results import document
from analysis.strategies import STRATEGIES
from analysis.units import bytes_text, count_text, things_text

if TYPE_CHECKING:
    from iocp_adapter import ServerGroup

NAME = "serve"
HELP = "run an echo or discard server whose buffers come from a pool, until SIGINT or SIGTERM"

_CAPACITY_BYTES = 256 << 20
_CLOSE_SECONDS = 5.0
_POLL_SECONDS = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1; or unix:PATH, pipe:NAME")
    parser.add_argument("--port", type=int, help="0 for any free port; unix:PATH and pipe:NAME have none")
    parser.add_argument("--backend", choices=("auto", "io_uring", "epoll", "iocp"), default="auto")
    parser.add_argument("--strategy", choices=tuple(STRATEGIES), default=next(iter(STRATEGIES)))
    parser.add_argument("--handler", choices=("echo", "discard"), default="echo")
    parser.add_argument(
        "--native", action="store_true", help="keep the handler in C; without it Python sees every message"
    )
    parser.add_argument(
        "--workers", type=int, default=1, help="threads, each with a port and a pool of its own; default: 1"
    )
    parser.add_argument("--json", action="store_true", help="print the statistics as JSON")


def _drain(server: ServerGroup, connections: int, again: threading.Event) -> None:
    """Close the server; say what that waits for, and what did not end by itself."""
    if connections:
        draining = things_text(connections, "connection")
        note(f"draining {draining} for up to {_CLOSE_SECONDS:g} s; stop again to abort")
    handles = server.close(_CLOSE_SECONDS).endpoints
    if left := sum(handle.kind != "listener" for handle in handles):
        why = "aborted" if again.is_set() else f"not drained in {_CLOSE_SECONDS:g} s"
        note(f"{why}: {things_text(left, 'connection')} reset")


def run(arguments: argparse.Namespace) -> int:
    """Serve; the statistics come last."""
    from iocp_adapter import DISCARD, ECHO, Connection, ServerGroup  # noqa: PLC0415  # compiled: only when it is needed
    from iocp_adapter.errors import address_text, is_local  # noqa: PLC0415
    from pools import Lease, Pool  # noqa: PLC0415

    if arguments.port is None and not is_local(arguments.host):
        raise UsageError(f"no port on {arguments.host!r}: give --port, with 0 for any that is free")
    require_tables(json_output=arguments.json)

    def echo(connection: Connection, lease: Lease, length: int) -> None:
        connection.send(lease, length)

    def discard(_connection: Connection, lease: Lease, _length: int) -> None:
        lease.release()

    handler: Any = echo if arguments.handler == "echo" else discard
    if arguments.native:
        handler = ECHO if arguments.handler == "echo" else DISCARD
    pools: list[Pool] = []

    def provider() -> Pool:
        pools.append(STRATEGIES[arguments.strategy].build(_CAPACITY_BYTES // arguments.workers))
        return pools[-1]

    stop, again = threading.Event(), threading.Event()
    server: ServerGroup | None = None

    def ask_to_stop(_number: int, _frame: FrameType | None) -> None:
        (again if stop.is_set() else stop).set()
        if again.is_set() and server is not None:
            server.abort()

    for name in ("SIGINT", "SIGTERM", "SIGBREAK"):  # the last is what a parent can send on Windows
        if (number := getattr(signal, name, None)) is not None:
            signal.signal(number, ask_to_stop)
    server = ServerGroup(
        arguments.host,
        arguments.port or 0,
        handler,
        workers=arguments.workers,
        provider=provider,
        backend=arguments.backend,
    )
    server.start()
    where = address_text(*server.address)
    note(f"listening on {where} backend={server.backend} strategy={arguments.strategy}")
    started = time.monotonic()
    while not stop.wait(_POLL_SECONDS):  # a wait without a timeout would not see the signal on Windows
        pass
    statistics = server.stats()
    _drain(server, statistics.open, again)
    in_pools = Counter[str]()
    for pool in pools:
        in_pools.update(pool.stats().as_dict())
    leaked = sum(len(pool.close()) for pool in pools)
    if arguments.json:
        print_json(
            document(
                "serve",
                backend=server.backend,
                backend_reason=server.reason,
                strategy=arguments.strategy,
                seconds=time.monotonic() - started,
                server=statistics,
                workers=arguments.workers,
                pool=dict(in_pools),
                leaked_blocks=leaked,
            )
        )
    else:
        rows = [
            ("connections", count_text(statistics.accepted)),
            ("messages", count_text(statistics.messages)),
            ("received", bytes_text(statistics.received_bytes)),
            ("sent", bytes_text(statistics.sent_bytes)),
            ("connections that ended with an error", count_text(statistics.errors)),
            ("waits for a buffer", count_text(statistics.buffer_waits)),
            ("peak blocks live", count_text(in_pools["peak_live_blocks"])),
            ("blocks leaked", count_text(leaked)),
        ]
        workers = f" in {arguments.workers} workers" if arguments.workers > 1 else ""
        title = f"{arguments.handler} on {server.backend} with {arguments.strategy}{workers}"
        print_table(title, ["", "total"], rows)
    print_next(poolport_words("demo", output=OUTPUT))
    return 0
