"""Very many connections: open at once, and one after the other; nothing may be lost.

    python tests/iocp_adapter/bench_connections.py [--open 10000] [--short 1000000] [--native]

Not a test, since it takes minutes. The server runs in this process and its clients, in C, in
another one. At the end it prints what was asked of the system and what is left: descriptors,
operation slots, endpoints and blocks must be as many as before.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import tempfile
import time
from pathlib import Path

from bench_echo import compile_peers

from iocp_adapter import ECHO, Server
from pools import SlabPool

MESSAGE_BYTES = 512


def echo(connection: object, lease: object, length: int) -> None:
    connection.send(lease, length)  # type: ignore[attr-defined]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def run(peers: Path, server: Server, *arguments: int) -> float:
    mode = "client" if len(arguments) == 3 else "churn"
    started = time.monotonic()
    subprocess.run(
        [peers, mode, *map(str, (server.address[1], *arguments))], check=True, stdout=subprocess.DEVNULL
    )
    return time.monotonic() - started


def settled(server: Server) -> None:
    while server.stats().open:
        time.sleep(0.01)


def measure(options: argparse.Namespace, peers: Path) -> dict[str, object]:
    before = descriptors()
    pool = SlabPool(4096, 256, max_count=1 << 15, name="recv")
    server = Server(
        "127.0.0.1",
        0,
        ECHO if options.native else echo,
        provider=pool,
        backend=options.backend,
        tag=lambda _number, _peer: "",
        backlog=4096,
    )
    server.start()
    found: dict[str, object] = {"backend": server.backend, "native": options.native}
    open_seconds = run(peers, server, options.open, MESSAGE_BYTES, options.open * 5)
    settled(server)
    found |= {"open_at_once": server.stats().accepted, "messages": server.stats().messages}
    found |= {"open_seconds": open_seconds, "rss_after_open": resident()}
    short_seconds = run(peers, server, options.short, MESSAGE_BYTES)
    settled(server)
    stats, port = server.stats(), server.port_stats()
    found |= {"accepted": stats.accepted, "refused": stats.refused, "errors": stats.errors}
    found |= {"short_per_second": options.short / short_seconds, "rss_after_short": resident()}
    found |= {"endpoints_left": port.endpoints, "operations_left": port.outstanding - 1}  # the accept
    server.close()
    pool.adopt()
    pool.check()
    found |= {"blocks_left": pool.stats().live_blocks, "pins_left": pool.stats().pinned_blocks}
    found |= {"peak_blocks": pool.stats().peak_live_blocks, "leaked": len(pool.close())}
    found["descriptors_left"] = descriptors() - before
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--open", type=int, default=10_000)
    parser.add_argument("--short", type=int, default=1_000_000)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--native", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(options, compile_peers(folder)), indent=1))


if __name__ == "__main__":
    main()
