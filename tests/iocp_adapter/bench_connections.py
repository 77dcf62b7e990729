"""Very many connections: open at once, one after the other, and more than there are blocks for.

    python tests/iocp_adapter/bench_connections.py [--open 10000] [--short 1000000] [--hungry 1000] [--native]

Not a test, since it takes minutes. The server runs in this process and its clients, in C, in
another one, which end with an error where an answer is missing or wrong. At the end it prints what
was asked of the system and what is left: descriptors, operation slots, endpoints and blocks must be
as many as before, or it names what is not, and exits with 1. The hungry ones each send messages of
four blocks to a server whose pool has 64 for all of them, and which has no mark that would end a
batch before they are used up.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_echo import compile_peers

from iocp_adapter import ECHO, Server
from pools import SlabPool

MESSAGE_BYTES = 512
HUNGRY_BLOCKS = 64
BLOCK_BYTES = 4096
HUNGRY_BLOCK_BYTES = 1024  # so that all of them are less than a batch may carry
HUNGRY_MESSAGE_BYTES = 4 * HUNGRY_BLOCK_BYTES
HUNGRY_ROUNDS = 20

NONE = ("refused", "errors", "endpoints_left", "operations_left", "blocks_left", "pins_left", "leaked")


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
        [peers, mode, *map(str, (server.address[1], *arguments))],
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    return time.monotonic() - started


def settled(server: Server) -> None:
    while server.stats().open:
        time.sleep(0.01)


def serve(options: argparse.Namespace, pool: SlabPool, port_high_bytes: int | None = None) -> Server:
    server = Server(
        "127.0.0.1",
        0,
        ECHO if options.native else echo,
        provider=pool,
        backend=options.backend,
        tag=lambda _number, _peer: "",
        backlog=4096,
        port_high_bytes=port_high_bytes,
    )
    server.start()
    return server


def what_is_left(server: Server, pool: SlabPool) -> dict[str, int]:
    """Closes both."""
    settled(server)
    stats, port = server.stats(), server.port_stats()
    left = {"accepted": stats.accepted, "refused": stats.refused, "errors": stats.errors}
    left |= {"endpoints_left": port.endpoints - 1, "operations_left": port.outstanding - 1}  # the listener
    left |= {"peak_operations": port.peak_operations, "tables_grown": port.grown}
    server.close()
    pool.adopt()
    pool.check()
    left |= {"blocks_left": pool.stats().live_blocks, "pins_left": pool.stats().pinned_blocks}
    return left | {"peak_blocks": pool.stats().peak_live_blocks, "leaked": len(pool.close())}


def feed_the_hungry(options: argparse.Namespace, peers: Path) -> dict[str, object]:
    before, messages = descriptors(), options.hungry * HUNGRY_ROUNDS
    pool = SlabPool(HUNGRY_BLOCK_BYTES, HUNGRY_BLOCKS, name="few")
    server = serve(options, pool, 0)
    found: dict[str, object] = {"connections": options.hungry, "blocks": HUNGRY_BLOCKS, "answered": messages}
    found["seconds"] = run(peers, server, options.hungry, HUNGRY_MESSAGE_BYTES, messages)
    port = server.port_stats()
    found |= {"buffer_waits": port.buffer_waits, "buffer_polls": port.buffer_polls}
    found |= what_is_left(server, pool)
    return found | {"descriptors_left": descriptors() - before}


def measure(options: argparse.Namespace, peers: Path) -> dict[str, object]:
    before = descriptors()
    pool = SlabPool(BLOCK_BYTES, 256, max_count=1 << 15, name="recv")
    server = serve(options, pool)
    found: dict[str, object] = {"backend": server.backend, "native": options.native}
    open_seconds = run(peers, server, options.open, MESSAGE_BYTES, options.open * 5)
    settled(server)
    found |= {"open_at_once": server.stats().accepted, "messages": server.stats().messages}
    found |= {"open_seconds": open_seconds, "rss_after_open": resident()}
    short_seconds = run(peers, server, options.short, MESSAGE_BYTES)
    settled(server)
    found |= {"short_per_second": options.short / short_seconds, "rss_after_short": resident()}
    found |= what_is_left(server, pool)
    return found | {"descriptors_left": descriptors() - before}


def not_none(found: dict[str, object], where: str) -> list[str]:
    wanted = (*NONE, "descriptors_left")
    return [f"{name} {where}: {found[name]}, and it must be 0" for name in wanted if found[name]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--open", type=int, default=10_000)
    parser.add_argument("--short", type=int, default=1_000_000)
    parser.add_argument("--hungry", type=int, default=1_000)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--native", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        peers = compile_peers(folder)
        found = measure(options, peers)
        hungry = feed_the_hungry(options, peers)
    print(json.dumps(found | {"hungry": hungry}, indent=1))
    wrong = not_none(found, "after very many") + not_none(hungry, "after the hungry ones")
    if hungry["buffer_waits"] == 0:
        wrong.append("nobody has waited for a block: give --hungry more than there are")
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
