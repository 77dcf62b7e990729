"""Server CPU per echoed message: this engine against asyncio, and against a minimal server in C.

    python tests/iocp_adapter/bench_echo.py [--rounds 7] [--sizes 1024,10240,102400] [--connections 50]
    python tests/iocp_adapter/bench_echo.py --pool-share      # of that CPU, in acquire and release
    python tests/iocp_adapter/bench_echo.py --short           # of a connection: opened, one message, closed

Each contender serves in a process of its own and calls a Python handler for every message. ``c`` is the
minimal server in C, and ``c-epoll`` the engine in a program in C, examples/c/port_echo_server.c;
``native-epoll`` has its handler in C, and the process is Python's. A name such as ``io_uring:COOP_TASKRUN``
is the back end without that feature, ``epoll@65536`` ends a batch at so many bytes, and
``io_uring+ring64`` has so many blocks lie ready for the kernel. A client in C keeps one message in
flight per connection. The rounds are interleaved, so that whatever else the machine does falls on all;
a figure is the median over the rounds of CPU seconds of the server process per message, as the kernel
tells them to this one: a thread in the server that answers would make each of its calls dearer, since the
kernel then counts who uses a descriptor. A ratio is the median of the ratios of one round each. What it costs
to open and close the connections is not in it: --short measures that, of connections one after the other.

With ``--pool-share`` the pool's provider is one that counts every block acquired and released, and
times every 31st call (timed_provider.c): the share is the blocks per message times what one costs,
of the CPU per message of the same rounds. The timing is in both, and fences make it an upper bound.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pools import Pool

OTHERS = ("c", "asyncio", "uvloop")
IN_C = "c-"  # before a back end's name: the engine in a program in C
CONTENDERS = (*OTHERS, "io_uring", "epoll", "native-io_uring", "native-epoll", "c-io_uring", "c-epoll")
ZERO_COPY = "+zero_copy"  # behind a back end's name: no message is copied to be sent
RING = "+ring"  # the same, and perhaps a number: so many blocks lie ready for the kernel; x: of so many bytes
REGISTERED = "+registered"  # the same: the kernel has a table of descriptors, and knows the pool's memory
RING_BLOCKS = 64
BLOCK_BYTES = 128 << 10
BYTES_PER_ROUND = 256 << 20
MOST_MESSAGES = 60_000
SHORT_CONNECTIONS = 3000


def answer_times(timed: ctypes.CDLL) -> None:
    """Answer each line on standard input with what ``timed`` tells."""
    times = (ctypes.c_double * 5)()
    for _ in sys.stdin:
        timed.read_times(times)
        print(*times, flush=True)


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
        await server.serve_forever()

    if loop_of == "uvloop":
        import uvloop

        uvloop.run(serve())
    else:
        asyncio.run(serve())


def time_pool(pool: Pool, library: str) -> ctypes.CDLL:
    """Put the functions of timed_provider.c in front of a pool's."""
    timed = ctypes.CDLL(library)
    timed.time_provider.argtypes = [ctypes.c_void_p]
    timed.time_provider(pool.provider_address)
    return timed


def serve_ours(backend: str, library: str | None) -> None:
    from iocp_adapter import ECHO, Connection, Server
    from pools import Lease, SlabPool

    class Echo:
        def received(self, connection: Connection, lease: Lease, length: int) -> None:
            connection.send(lease, length)

    backend, _, batch_bytes = backend.partition("@")
    backend, registered, _ = backend.partition(REGISTERED)
    backend, ring, blocks = backend.partition(RING)
    blocks, _, ring_bytes = blocks.partition("x")
    block_bytes = int(ring_bytes or BLOCK_BYTES)
    pool = SlabPool(block_bytes, 256 * BLOCK_BYTES // block_bytes, name="recv")
    timed = time_pool(pool, library) if library else None
    handler = ECHO if backend.startswith("native-") else Echo()
    server = Server(
        "127.0.0.1",
        0,
        handler,
        provider=pool,
        backend=backend.removeprefix("native-").removesuffix(ZERO_COPY),
        zero_copy_bytes=int(backend.endswith(ZERO_COPY)),
        batch_bytes=int(batch_bytes or 0),
        ring_blocks=int(blocks or RING_BLOCKS) if ring else 0,
        ring_bytes=block_bytes,
        registered_files=bool(registered),
        registered_buffers=bool(registered),
    )
    print(server.address[1], flush=True)
    if timed:
        threading.Thread(target=answer_times, args=[timed], daemon=True).start()
    server.serve_forever()


class Contender:
    """A serving process."""

    def __init__(self, name: str, peers: Path, timed: Path | None = None):
        self.name = name
        self.timed = timed is not None
        served, _, feature = name.partition(":")
        command = [sys.executable, __file__, "--serve", served]
        if name == "c":
            command = [str(peers), "server"]
        elif name.startswith(IN_C):
            command = [str(peers.with_name("port_echo_server")), "0", name.removeprefix(IN_C)]
        if timed:
            command += ["--timed", str(timed)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | ({f"POOLPORT_IO_URING_NO_{feature}": "1"} if feature else {}),
        )
        self.port = int(self.line().rpartition(":")[2])
        self.figures: list[float] = []
        self.shares: list[Share] = []

    def line(self) -> str:
        return self.process.stdout.readline()

    def usage(self) -> list[float]:
        """CPU nanoseconds; blocks acquired and released, nanoseconds for each, samples left out."""
        tasks = Path("/proc", str(self.process.pid), "task").glob("*/schedstat")
        cpu_ns = sum(float(task.read_text().split()[0]) for task in tasks)
        if not self.timed:
            return [cpu_ns]
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return [cpu_ns, *(float(word) for word in self.line().split())]

    def round(self, peers: Path, connections: int, size: int, messages: int) -> None:
        arguments = [str(number) for number in (self.port, connections, size, messages)]
        with subprocess.Popen(
            [peers, "client", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as client:
            client.stdout.readline()  # its connections are open
            before = self.usage()
            client.stdin.write("\n")
            client.stdin.flush()
            if not client.stdout.readline():
                raise RuntimeError(f"the client of {self.name} has failed")
            after = self.usage()
            client.stdin.close()
        self.figures.append((after[0] - before[0]) / messages / 1000)
        if after[1:]:
            self.shares.append(Share.of(before, after, messages))

    def short_round(self, peers: Path, count: int, size: int) -> None:
        """So many connections one after the other, of one message each."""
        before = self.usage()
        command = [peers, "churn", str(self.port), str(count), str(size)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=120)
        self.figures.append((self.usage()[0] - before[0]) / count / 1000)


@dataclass
class Share:
    """What a message costs in acquire and release."""

    acquired: float
    released: float
    ns: float
    share: float

    @classmethod
    def of(cls, before: list[float], after: list[float], messages: int) -> Share:
        acquired, released = ((after[at] - before[at]) / messages for at in (1, 2))
        ns = acquired * after[3] + released * after[4]
        return cls(acquired, released, ns, ns * messages / (after[0] - before[0]))


def compile_peers(folder: str) -> Path:
    target = Path(folder) / "echo_peers"
    source = Path(__file__).with_name("echo_peers.c")
    subprocess.run(["cc", "-O2", "-o", target, source], check=True)
    return target


def compile_engine(folder: str) -> None:
    """The example server on the engine, beside the peers."""
    root, build = Path(__file__).parents[2], Path(folder) / "engine"
    cmake = shutil.which("cmake", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    options = ["-DPOOLPORT_PYTHON=OFF", "-DPOOLPORT_TESTS=ON", "-DCMAKE_BUILD_TYPE=Release"]
    for command in (
        [cmake, "-S", root, "-B", build, *options],
        [cmake, "--build", build, "--target", "port_echo_server"],
    ):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (build / "examples" / "c" / "port_echo_server").rename(Path(folder) / "port_echo_server")


def compile_timed(folder: str) -> Path:
    target = Path(folder) / "timed_provider.so"
    source = Path(__file__).with_name("timed_provider.c")
    headers = Path(__file__).parents[2] / "pools" / "core" / "include"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-I", headers, "-o", target, source], check=True)
    return target


def measure(
    size: int,
    rounds: int,
    connections: int,
    names: list[str],
    peers: Path,
    timed: Path | None = None,
    short: bool = False,
) -> list[Contender]:
    """The contenders, with microseconds of server CPU per message, or connection, for each round."""
    messages = max(connections * 20, min(MOST_MESSAGES, BYTES_PER_ROUND // size))
    contenders = [Contender(name, peers, timed) for name in names]
    try:
        for number in range(rounds + 1):
            for contender in contenders if number % 2 else reversed(contenders):
                if short:
                    contender.short_round(peers, SHORT_CONNECTIONS, size)
                else:
                    contender.round(peers, connections, size, messages)
                if number == 0:
                    contender.figures.clear()  # warming up
                    contender.shares.clear()
    finally:
        for contender in contenders:
            contender.process.kill()
            contender.process.wait()
    return contenders


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--sizes", default="1024,10240,102400")
    parser.add_argument("--contenders", default=",".join(CONTENDERS))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--pool-share", action="store_true", help="the share in acquire and release")
    parser.add_argument(
        "--short", action="store_true", help="of a connection that is opened, used once, closed"
    )
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--timed", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve in ("asyncio", "uvloop"):
        serve_asyncio(options.serve)
    elif options.serve:
        serve_ours(options.serve, options.timed)
    elif options.pool_share:
        tell_shares(options)
    else:
        compare(options)


def tell_shares(options: argparse.Namespace) -> None:
    """What the pool costs of each message, for the contenders that have one of ours."""
    names = [name for name in options.contenders.split(",") if name not in OTHERS and IN_C not in name]
    with tempfile.TemporaryDirectory() as folder:
        peers, timed = compile_peers(folder), compile_timed(folder)
        for size in map(int, options.sizes.split(",")):
            contenders = measure(size, options.rounds, options.connections, names, peers, timed)
            print(f"{size} bytes x {options.connections} connections: acquire and release per message")
            print("  (blocks counted; every 31st call timed, fenced: an upper bound)")
            for contender in contenders:
                one = sorted(contender.shares, key=lambda share: share.share)[len(contender.shares) // 2]
                blocks = f"{one.acquired:5.2f} acquired {one.released:5.2f} released"
                cpu = f"{statistics.median(contender.figures):8.2f} us"
                print(
                    f"  {contender.name:20} {blocks} {one.ns:7.1f} ns of {cpu}  {one.share:6.2%}", flush=True
                )


def compare(options: argparse.Namespace) -> None:
    names = options.contenders.split(",")
    with tempfile.TemporaryDirectory() as folder:
        peers = compile_peers(folder)
        if any(name.startswith(IN_C) for name in names):
            compile_engine(folder)
        for size in map(int, options.sizes.split(",")):
            contenders = measure(size, options.rounds, options.connections, names, peers, short=options.short)
            tell(contenders, size, options)


def ratio(contender: Contender, base: Contender) -> float:
    return statistics.median(a / b for a, b in zip(contender.figures, base.figures, strict=True))


def tell(contenders: list[Contender], size: int, options: argparse.Namespace) -> None:
    what = "connection" if options.short else "message"
    bases = [one for one in contenders if one.name in OTHERS]
    figures = {one.name: statistics.median(one.figures) for one in contenders}
    if options.json:
        ratios = {base.name: {one.name: ratio(one, base) for one in contenders} for base in bases}
        print(json.dumps({"bytes": size, f"cpu_us_per_{what}": figures, "ratios": ratios}))
        return
    heads = "".join(f" {'x ' + base.name:>10}" for base in bases)
    of = "one after the other" if options.short else f"x {options.connections} connections"
    print(f"{size} bytes {of}: {'server CPU us per ' + what:34}{heads}")
    for one in contenders:
        ratios = "".join(f" {ratio(one, base):10.3f}" for base in bases)
        print(f"  {one.name:32} {figures[one.name]:26.2f}{ratios}", flush=True)


if __name__ == "__main__":
    main()
