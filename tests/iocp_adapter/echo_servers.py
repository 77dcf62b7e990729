"""The processes of bench_echo.py that serve: an echo on the engine, on asyncio or on uvloop.

    python tests/iocp_adapter/echo_servers.py NAME [--timed timed_provider.so]

Prints its port and serves until it is killed. NAME is explained in bench_echo.py. With ``--timed`` the pool's
provider counts and times its calls, and each line on standard input is answered with what it told."""

from __future__ import annotations

import argparse
import ctypes
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pools import Pool

ZERO_COPY = "+zero_copy"  # behind a back end's name: no message is copied to be sent
RING = "+ring"  # the same, and perhaps a number: so many blocks lie ready for the kernel; x: of so many bytes
REGISTERED = "+registered"  # the same: the kernel has a table of descriptors, and knows the pool's memory
RING_BLOCKS = 64
BLOCK_BYTES = 128 << 10


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name")
    parser.add_argument("--timed")
    options = parser.parse_args()
    if options.name in ("asyncio", "uvloop"):
        serve_asyncio(options.name)
    else:
        serve_ours(options.name, options.timed)


if __name__ == "__main__":
    main()
