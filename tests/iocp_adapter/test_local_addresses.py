"""What programs of one machine talk over: Unix sockets, and on Windows named pipes."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import threading

import pytest

from iocp_adapter import (
    ECHO,
    BackendUnavailable,
    CompletionPort,
    ListenError,
    PortValueError,
    Server,
    ServerGroup,
)
from pools import SlabPool

from .conftest import echo

ON_WINDOWS = os.name == "nt"
only_windows = pytest.mark.skipif(not ON_WINDOWS, reason="named pipes are of Windows")

_numbers = itertools.count(1)


class Client:
    """A blocking client that knows nothing of ports."""

    def __init__(self, address: str):
        kind, _, name = address.partition(":")
        if kind == "pipe":
            self.raw = open("\\\\.\\pipe\\" + name, "r+b", buffering=0)  # noqa: SIM115
        else:
            with socket.socket(socket.AF_UNIX) as connected:
                connected.settimeout(10)
                connected.connect(name)
                self.raw = connected.makefile("rwb", buffering=0)

    def ask(self, message: bytes) -> bytes:
        """Send a message, and receive as much."""
        self.raw.write(message)
        got = b""
        while len(got) < len(message) and (part := self.raw.read(len(message) - len(got))):
            got += part
        return got

    def close(self) -> None:
        self.raw.close()


@pytest.fixture
def address(tmp_path):
    number = next(_numbers)
    return f"pipe:poolport-{os.getpid()}-{number}" if ON_WINDOWS else f"unix:{tmp_path}/socket-{number}"


@pytest.fixture
def dial():
    clients = []

    def connect(address):
        clients.append(Client(address))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.mark.parametrize("handler", [echo, ECHO], ids=["python", "native"])
def test_a_server_of_this_machine_only_echoes(handler, address, backend, pool, dial):
    with Server(address, 0, handler, provider=pool, backend=backend).start() as server:
        assert server.address == (address, 0)
        clients = [dial(address) for _ in range(3)]
        for size in (1, 5000, 50_000):
            for number, client in enumerate(clients):
                message = bytes([number]) * size
                assert client.ask(message) == message
        assert server.stats().accepted == 3


def test_a_local_connection_ends_in_order(address, backend, pool, dial):
    ended = threading.Semaphore(0)
    reasons, tags = [], []

    class Handler:
        def connected(self, connection):
            tags.append(connection.tag)

        def received(self, connection, lease, length):
            connection.send(lease, length)

        def disconnected(self, _connection, reason):
            reasons.append(reason)
            ended.release()

    with Server(address, 0, Handler(), provider=pool, backend=backend).start():
        client = dial(address)
        assert client.ask(b"hello") == b"hello"
        client.close()
        assert ended.acquire(timeout=10)
    assert reasons == [None]
    assert tags == [f"conn-1 process {os.getpid()}" if ON_WINDOWS else "conn-1 unix"]


def test_more_local_connections_than_allowed_are_closed(address, backend, pool, dial):
    with Server(address, 0, echo, provider=pool, backend=backend, max_connections=1).start() as server:
        first = dial(address)
        assert first.ask(b"one") == b"one"
        second = dial(address)
        with contextlib.suppress(OSError):  # which is how the end of a pipe may be told
            assert second.raw.read(1) == b""
        assert first.ask(b"two") == b"two"
        assert server.stats().refused == 1


def test_a_local_address_is_free_again_when_its_server_is_closed(address, backend, pool, dial):
    for _ in range(2):
        with Server(address, 0, echo, provider=pool, backend=backend).start():
            assert dial(address).ask(b"again") == b"again"
    with pytest.raises(FileNotFoundError):
        dial(address)


def test_a_local_address_in_use_is_one_sentence(address, backend, pool):
    with Server(address, 0, echo, provider=pool, backend=backend):
        if ON_WINDOWS and _is_wine():
            pytest.skip("Wine gives the name of a pipe to two programs")
        with pytest.raises(ListenError, match="in use"):
            Server(address, 0, echo, provider=pool, backend=backend)


def test_the_other_systems_kind_of_address_is_refused_with_the_remedy(backend, pool):
    if ON_WINDOWS:
        with pytest.raises(ListenError, match="pipe:NAME"):
            Server("unix:/tmp/socket", 0, echo, provider=pool, backend=backend)
        return
    with pytest.raises(BackendUnavailable, match=r"named pipes are of Windows.*unix:PATH"):
        Server("pipe:name", 0, echo, provider=pool, backend=backend)
    with CompletionPort(backend) as port:
        for call in (port.listen_pipe, port.connect_pipe):
            with pytest.raises(BackendUnavailable, match="unix:PATH"):
                call("pipe:name")


def test_a_pipe_is_served_where_it_was_accepted(address, backend, dial):
    def group(workers):
        return ServerGroup(
            address, 0, ECHO, workers=workers, provider=lambda: SlabPool(4096, 16), backend=backend
        )

    if ON_WINDOWS:
        with pytest.raises(PortValueError, match="1 worker"):
            group(2)
    with group(1 if ON_WINDOWS else 2) as servers:
        servers.start()
        assert dial(address).ask(b"hello") == b"hello"


@pytest.mark.skipif(ON_WINDOWS, reason="Python has no Unix sockets there")
def test_a_socket_that_a_killed_server_left_behind_is_replaced(address, backend, pool, dial):
    left = socket.socket(socket.AF_UNIX)
    left.bind(address.removeprefix("unix:"))
    left.close()
    with Server(address, 0, echo, provider=pool, backend=backend).start():
        assert dial(address).ask(b"hello") == b"hello"


# ---- without a server ------------------------------------------------------------------------


@only_windows
def test_both_ends_of_a_pipe_on_one_port(address, backend, pool):
    with CompletionPort(backend) as port:
        port.listen_pipe(address, key=1).accept("in")
        client = port.connect_pipe(address, 2, pool, user="out")
        first, second = sorted((port.dequeue(5), port.dequeue(5)), key=lambda done: done.kind)
        assert (first.kind, first.key, first.user, first.error) == ("accept", 1, "in", None)
        assert (second.kind, second.key, second.user, second.error) == ("connect", 2, "out", None)
        server = port.associate(first.result, 3, pool, pipe=True, own=True)
        server.recv_stream()
        client.recv_stream()
        client.send(b"question")
        for key, answer in ((3, b"question"), (2, b"answer")):
            done = port.dequeue(5)
            while done.kind == "send":
                done = port.dequeue(5)
            assert (done.key, bytes(done.lease.view[: done.result])) == (key, answer)
            done.lease.release()
            if key == 3:
                server.send(b"answer")
        server.close()
        done = port.dequeue(5)
        while done.kind != "recv" or done.key != 2:
            done = port.dequeue(5)
        assert (done.result, done.error) == (0, None)


@only_windows
def test_opening_a_pipe_that_is_not_there_is_an_error(backend):
    with CompletionPort(backend) as port:
        port.connect_pipe("pipe:poolport-nobody", 1)
        assert isinstance(port.dequeue(5).error, FileNotFoundError)
        for wrong in ("nowhere", "127.0.0.1"):
            with pytest.raises(PortValueError, match="pipe:NAME"):
                port.connect_pipe(wrong)


@only_windows
def test_a_pipe_of_an_impossible_name_is_one_sentence(backend):
    with CompletionPort(backend) as port:
        for wrong in ("pipe:", "pipe:a\\b", "pipe:" + "n" * 300):
            with pytest.raises(ListenError, match="1 to 246 characters"):
                port.listen_pipe(wrong)


def _is_wine():
    import ctypes

    return hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")
