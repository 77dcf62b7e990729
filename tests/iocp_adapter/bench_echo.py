"""Server CPU per echoed message: this engine against asyncio, and against a minimal server in C.

    python tests/iocp_adapter/bench_echo.py [--rounds 7] [--sizes 1024,10240,102400] [--connections 50]

Each contender serves in a process of its own and calls a Python handler for every message
(the C server excepted). A name such as ``io_uring:COOP_TASKRUN`` is the back end without that
feature, and ``epoll@65536`` ends a batch at so many bytes. A client in C keeps one message in flight per connection. The rounds are interleaved, so
that whatever else the machine does falls on all; a figure is the median over the rounds of CPU
seconds of the server process (getrusage) per message.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

CONTENDERS = ("c", "asyncio", "uvloop", "io_uring", "epoll", "native-io_uring", "native-epoll")
ZERO_COPY = "+zero_copy"  # behind a back end's name: no message is copied to be sent
BLOCK_BYTES = 128 << 10
BYTES_PER_ROUND = 96 << 20
MOST_MESSAGES = 60_000


def answer_cpu() -> None:
    """Answer each line on standard input with this process's CPU nanoseconds."""
    for _ in sys.stdin:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        print(int((usage.ru_utime + usage.ru_stime) * 1e9), flush=True)


def serve_asyncio(loop_of: str) -> None:
    import asyncio

    class Echo(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0, backlog=1024)
        print(server.sockets[0].getsockname()[1], flush=True)
        threading.Thread(target=answer_cpu, daemon=True).start()
        await server.serve_forever()

    if loop_of == "uvloop":
        import uvloop

        uvloop.run(serve())
    else:
        asyncio.run(serve())


def serve_ours(backend: str) -> None:
    from iocp_adapter import ECHO, Connection, Server
    from pools import Lease, SlabPool

    class Echo:
        def received(self, connection: Connection, lease: Lease, length: int) -> None:
            connection.send(lease, length)

    backend, _, batch_bytes = backend.partition("@")
    pool = SlabPool(BLOCK_BYTES, 256, name="recv")
    handler = ECHO if backend.startswith("native-") else Echo()
    server = Server(
        "127.0.0.1",
        0,
        handler,
        provider=pool,
        backend=backend.removeprefix("native-").removesuffix(ZERO_COPY),
        zero_copy_bytes=int(backend.endswith(ZERO_COPY)),
        batch_bytes=int(batch_bytes or 0),
    )
    print(server.address[1], flush=True)
    threading.Thread(target=answer_cpu, daemon=True).start()
    server.serve_forever()


class Contender:
    """A serving process."""

    def __init__(self, name: str, peers: Path):
        self.name = name
        served, _, feature = name.partition(":")
        command = [str(peers), "server"] if name == "c" else [sys.executable, __file__, "--serve", served]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | ({f"POOLPORT_IO_URING_NO_{feature}": "1"} if feature else {}),
        )
        self.port = int(self.line())
        self.figures: list[float] = []

    def line(self) -> str:
        return self.process.stdout.readline()

    def cpu_ns(self) -> int:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return int(self.line())

    def round(self, peers: Path, connections: int, size: int, messages: int) -> None:
        before = self.cpu_ns()
        arguments = [str(number) for number in (self.port, connections, size, messages)]
        subprocess.run([peers, "client", *arguments], check=True, stdout=subprocess.DEVNULL, timeout=120)
        self.figures.append((self.cpu_ns() - before) / messages / 1000)


def compile_peers(folder: str) -> Path:
    target = Path(folder) / "echo_peers"
    source = Path(__file__).with_name("echo_peers.c")
    subprocess.run(["cc", "-O2", "-o", target, source], check=True)
    return target


def measure(size: int, rounds: int, connections: int, names: list[str], peers: Path) -> dict[str, float]:
    """Microseconds of server CPU per message, by contender."""
    messages = max(connections * 20, min(MOST_MESSAGES, BYTES_PER_ROUND // size))
    contenders = [Contender(name, peers) for name in names]
    try:
        for number in range(rounds + 1):
            for contender in contenders:
                contender.round(peers, connections, size, messages)
                if number == 0:
                    contender.figures.clear()  # warming up
    finally:
        for contender in contenders:
            contender.process.kill()
            contender.process.wait()
    return {contender.name: statistics.median(contender.figures) for contender in contenders}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--sizes", default="1024,10240,102400")
    parser.add_argument("--contenders", default=",".join(CONTENDERS))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve in ("asyncio", "uvloop"):
        serve_asyncio(options.serve)
    elif options.serve:
        serve_ours(options.serve)
    else:
        compare(options)


def compare(options: argparse.Namespace) -> None:
    names = options.contenders.split(",")
    with tempfile.TemporaryDirectory() as folder:
        peers = compile_peers(folder)
        for size in map(int, options.sizes.split(",")):
            figures = measure(size, options.rounds, options.connections, names, peers)
            base = figures.get("asyncio", next(iter(figures.values())))
            if options.json:
                print(json.dumps({"bytes": size, "cpu_us_per_message": figures}))
                continue
            print(f"{size} bytes x {options.connections} connections: server CPU us per message (x asyncio)")
            for name, figure in figures.items():
                print(f"  {name:32} {figure:8.2f}  {figure / base:5.2f}", flush=True)


if __name__ == "__main__":
    main()
