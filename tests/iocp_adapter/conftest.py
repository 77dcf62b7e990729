"""Every back end of the platform, a pool that must end empty, and what listens, dials and echoes."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from iocp_adapter import CompletionPort, Connection, Server
from pools import Lease, SlabPool

BACKENDS = ["iocp"] if os.name == "nt" else ["io_uring", "epoll"]

only_unix = pytest.mark.skipif(os.name == "nt", reason="the platform has no such thing")


@pytest.fixture(autouse=True, scope="module")
def nothing_of_a_file_outlives_it() -> Iterator[None]:
    """A fork takes the locks of all pools that there are, and ThreadSanitizer counts to 64."""
    yield
    gc.collect()


@pytest.fixture
def backends() -> list[str]:
    return BACKENDS


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def pool() -> Iterator[SlabPool]:
    pool = SlabPool(16384, 64, name="recv", strict=True, thread_safe=True)
    yield pool
    pool.check()
    pool.close()


@pytest.fixture
def port(backend: str) -> Iterator[CompletionPort]:
    with CompletionPort(backend) as port:
        yield port


@pytest.fixture
def serve(backend: str, pool: SlabPool) -> Iterator[Callable[..., Server]]:
    """Starts servers and closes them; the pool must be empty afterwards."""
    with contextlib.ExitStack() as stack:

        def start(handler: Any, **options: Any) -> Server:
            options.setdefault("provider", pool)
            return stack.enter_context(Server("127.0.0.1", 0, handler, backend=backend, **options)).start()

        yield start


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    opened: list[socket.socket] = []
    yield opened
    for one in opened:
        one.close()


@pytest.fixture
def pair(sockets: list[socket.socket]) -> Callable[[], tuple[socket.socket, socket.socket]]:
    def make() -> tuple[socket.socket, socket.socket]:
        made = socket.socketpair()
        for one in made:
            one.settimeout(10)
        sockets.extend(made)
        return made

    return make


@pytest.fixture
def dial(sockets: list[socket.socket]) -> Callable[[Server], socket.socket]:
    def connect(server: Server) -> socket.socket:
        client = socket.create_connection(server.address, timeout=10)
        sockets.append(client)
        return client

    return connect


def listening(sockets: list[socket.socket]) -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0))
    sockets.append(listener)
    return listener


def receive(client: socket.socket, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        part = client.recv(1 << 20)
        if not part:
            break
        got += part
    return bytes(got)


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def echo(connection: Connection, lease: Lease, length: int) -> None:
    connection.send(lease, length)


class Recorder:
    """An echo that writes down what it was told."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.ended = threading.Semaphore(0)
        self.began = threading.Semaphore(0)

    def connected(self, connection: Connection) -> None:
        self.events.append(("connected", connection.number))
        self.began.release()

    def received(self, connection: Connection, lease: Lease, length: int) -> None:
        self.events.append(("received", connection.number, bytes(lease.view[:length])))
        connection.send(lease, length)

    def disconnected(self, connection: Connection, reason: Any) -> None:
        self.events.append(("disconnected", connection.number, reason))
        self.ended.release()
