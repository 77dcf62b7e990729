"""Server CPU per echoed message: this engine against asyncio, and against a minimal server in C.

    python tests/iocp_adapter/bench_echo.py [--rounds 7] [--sizes 1024,10240,102400] [--connections 50]
    python tests/iocp_adapter/bench_echo.py --lives 20 --rounds 3 --contenders c,native-epoll
    python tests/iocp_adapter/bench_echo.py --pool-share      # of that CPU, in acquire and release
    python tests/iocp_adapter/bench_echo.py --short           # of a connection: opened, one message, closed

Each contender serves in a process of its own and calls a Python handler for every message; ``uvloop`` is
one where ``pip install uvloop`` has been typed. ``c`` is the
minimal server in C, which waits for a peer that does not read; ``nonblocking`` the smallest one in C that
does not, and so has a buffer for each connection. ``c-epoll`` is the engine in a program in C,
examples/c/port_echo_server.c; ``native-epoll`` has its handler in C, and the process is Python's. A name
such as ``io_uring:COOP_TASKRUN`` is the back end without that feature, ``epoll@65536`` ends a batch at so
many bytes, and ``io_uring+ring64`` has so many blocks lie ready for the kernel. A client in C keeps one
message in flight per connection. The rounds are interleaved, so that whatever else the machine does falls
on all; a figure is the median over the rounds of CPU seconds of the server process per message, as the
kernel tells them to this one: a thread in the server that answers would make each of its calls dearer,
since the kernel then counts who uses a descriptor. A ratio is the median of the ratios of one round each.
What it costs to open and close the connections is not in it: --short measures that, of one after the
other.

Which pages a process was given, and what its buffers share a set of the cache with, stays as it is until it
ends, and moves the ratio of two copies of one program by a tenth and more where messages are large. With
``--lives`` all are started anew so many times; a ratio is then the geometric mean of those of the lives, and
its 95 % interval is told.

With ``--pool-share`` the pool's provider is one that counts every block acquired and released, and
times every 31st call (timed_provider.c): the share is the blocks per message times what one costs,
of the CPU per message of the same rounds. The timing is in both, and fences make it an upper bound.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

IN_PEERS = {"c": "server", "nonblocking": "nonblocking"}  # of echo_peers.c
OTHERS = (*IN_PEERS, "asyncio", "uvloop")
IN_C = "c-"  # before a back end's name: the engine in a program in C
CONTENDERS = (*OTHERS, "io_uring", "epoll", "native-io_uring", "native-epoll", "c-io_uring", "c-epoll")
BYTES_PER_ROUND = 256 << 20
MOST_MESSAGES = 60_000
SHORT_CONNECTIONS = 3000


class Contender:
    """One way to serve, with a process in each of its lives."""

    def __init__(self, name: str, peers: Path, timed: Path | None = None):
        self.name = name
        self.peers = peers
        self.timed = timed
        self.lives: list[list[float]] = []
        self.shares: list[Share] = []

    @property
    def median(self) -> float:
        return statistics.median(figure for life in self.lives for figure in life)

    def start(self) -> None:
        served, _, feature = self.name.partition(":")
        peers = self.peers
        command = [sys.executable, str(Path(__file__).with_name("echo_servers.py")), served]
        if self.name in IN_PEERS:
            command = [str(peers), IN_PEERS[self.name]]
        elif self.name.startswith(IN_C):
            command = [str(peers.with_name("port_echo_server")), "0", self.name.removeprefix(IN_C)]
        if self.timed:
            command += ["--timed", str(self.timed)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | ({f"POOLPORT_IO_URING_NO_{feature}": "1"} if feature else {}),
        )
        address = self.line()
        if not address:
            raise SystemExit(f"{self.name} did not start, see above; leave it out with --contenders")
        self.port = int(address.rpartition(":")[2])
        self.lives.append([])

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

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

    def round(self, connections: int, size: int, messages: int) -> None:
        arguments = [str(number) for number in (self.port, connections, size, messages)]
        with subprocess.Popen(
            [self.peers, "client", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as client:
            client.stdout.readline()  # its connections are open
            before = self.usage()
            client.stdin.write("\n")
            client.stdin.flush()
            if not client.stdout.readline():
                raise RuntimeError(f"the client of {self.name} has failed")
            after = self.usage()
            client.stdin.close()
        self.lives[-1].append((after[0] - before[0]) / messages / 1000)
        if after[1:]:
            self.shares.append(Share.of(before, after, messages))

    def short_round(self, count: int, size: int) -> None:
        """So many connections one after the other, of one message each."""
        before = self.usage()
        command = [self.peers, "churn", str(self.port), str(count), str(size)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=120)
        self.lives[-1].append((self.usage()[0] - before[0]) / count / 1000)


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
    options: argparse.Namespace,
    names: list[str],
    peers: Path,
    timed: Path | None = None,
) -> list[Contender]:
    """The contenders, with microseconds of server CPU per message, or connection, of each round."""
    contenders = [Contender(name, peers, timed) for name in names]
    for _ in range(options.lives):
        live(contenders, size, options)
    return contenders


def live(contenders: list[Contender], size: int, options: argparse.Namespace) -> None:
    """Their processes begin, serve so many rounds in turn, and end."""
    messages = max(options.connections * 20, min(MOST_MESSAGES, BYTES_PER_ROUND // size))
    started: list[Contender] = []
    try:
        for contender in contenders:
            contender.start()
            started.append(contender)
        for number in range(options.rounds + 1):
            for contender in contenders if number % 2 else reversed(contenders):
                warm = len(contender.shares)
                if options.short:
                    contender.short_round(SHORT_CONNECTIONS, size)
                else:
                    contender.round(options.connections, size, messages)
                if number == 0:
                    contender.lives[-1].clear()  # warming up
                    del contender.shares[warm:]
    finally:
        for contender in started:
            contender.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="of each life")
    parser.add_argument("--lives", type=int, default=1, help="of each contender's process")
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--sizes", default="1024,10240,102400")
    parser.add_argument("--contenders", default=",".join(CONTENDERS))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--pool-share", action="store_true", help="the share in acquire and release")
    parser.add_argument(
        "--short", action="store_true", help="of a connection that is opened, used once, closed"
    )
    options = parser.parse_args()
    if options.pool_share:
        tell_shares(options)
    else:
        compare(options)


def tell_shares(options: argparse.Namespace) -> None:
    """What the pool costs of each message, for the contenders that have one of ours."""
    names = [name for name in options.contenders.split(",") if name not in OTHERS and IN_C not in name]
    with tempfile.TemporaryDirectory() as folder:
        peers, timed = compile_peers(folder), compile_timed(folder)
        for size in map(int, options.sizes.split(",")):
            contenders = measure(size, options, names, peers, timed)
            print(f"{size} bytes x {options.connections} connections: acquire and release per message")
            print("  (blocks counted; every 31st call timed, fenced: an upper bound)")
            for contender in contenders:
                one = sorted(contender.shares, key=lambda share: share.share)[len(contender.shares) // 2]
                blocks = f"{one.acquired:5.2f} acquired {one.released:5.2f} released"
                cpu = f"{contender.median:8.2f} us"
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
            contenders = measure(size, options, names, peers)
            tell(contenders, size, options)


@dataclass
class Ratio:
    """What one takes of the other's time: the geometric mean of their lives, of the medians of the rounds."""

    value: float
    interval: tuple[float, float] | None  # 95 %, of several lives, drawn from again and again (bootstrap)

    @classmethod
    def of(cls, contender: Contender, base: Contender) -> Ratio:
        of_lives = [
            statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
            for ours, theirs in zip(contender.lives, base.lives, strict=True)
        ]
        value = statistics.geometric_mean(of_lives)
        if len(of_lives) == 1:
            return cls(value, None)
        draws = np.random.default_rng(1).choice(np.log(of_lives), (2000, len(of_lives)))
        low, high = np.exp(np.percentile(draws.mean(axis=1), (2.5, 97.5)))
        return cls(value, (float(low), float(high)))

    def __str__(self) -> str:
        return f"{self.value:.3f}" + (" ({:.3f} to {:.3f})".format(*self.interval) if self.interval else "")


def tell(contenders: list[Contender], size: int, options: argparse.Namespace) -> None:
    what = "connection" if options.short else "message"
    bases = [one for one in contenders if one.name in OTHERS]
    ratios = {base.name: {one.name: Ratio.of(one, base) for one in contenders} for base in bases}
    if options.json:
        figures = {one.name: one.median for one in contenders}
        plain = {base: {name: asdict(one) for name, one in of.items()} for base, of in ratios.items()}
        print(json.dumps({"bytes": size, f"cpu_us_per_{what}": figures, "ratios": plain}))
        return
    width = 10 if options.lives == 1 else 24
    heads = "".join(f" {'x ' + base.name:>{width}}" for base in bases)
    of = "one after the other" if options.short else f"x {options.connections} connections"
    print(f"{size} bytes {of}: {'server CPU us per ' + what:34}{heads}")
    for one in contenders:
        row = "".join(f" {ratios[base.name][one.name]!s:>{width}}" for base in bases)
        print(f"  {one.name:32} {one.median:26.2f}{row}", flush=True)


if __name__ == "__main__":
    main()
