"""What is sent of a buffer: its bytes in their logical order, as they are when the call is made."""

from __future__ import annotations

import array
import ctypes
import socket

import numpy as np
import pytest

from iocp_adapter import CompletionPort, PortValueError

from .conftest import receive

_NUMBERS = np.arange(24, dtype=np.uint16)
SHAPES = {
    "two dimensions": lambda: memoryview(bytes(range(24))).cast("B", (4, 6)),
    "three dimensions": lambda: memoryview(bytes(range(24))).cast("B", (2, 3, 4)),
    "larger items": lambda: array.array("I", [1, 2, 3]),
    "Fortran's order": lambda: memoryview(np.asfortranarray(_NUMBERS.reshape(4, 6))),
    "every other row": lambda: memoryview(_NUMBERS.reshape(4, 6)[::2]),
    "every other column": lambda: memoryview(_NUMBERS.reshape(4, 6)[:, ::2]),
    "backwards": lambda: memoryview(bytes(range(24)))[::-1],
    "transposed": lambda: _NUMBERS.reshape(2, 3, 4).T,
    "no dimension": lambda: ctypes.c_uint32(0x01020304),
}


@pytest.fixture(params=SHAPES)
def buffer(request):
    return SHAPES[request.param]()


def in_order(buffer):
    """The bytes of its items, the last index fastest, one by one."""
    return memoryview(buffer).tobytes("C")


@pytest.fixture
def udp(sockets):
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind(("127.0.0.1", 0))
    one.settimeout(10)
    sockets.append(one)
    return one


def test_a_stream_gets_the_bytes_in_their_logical_order(port, pair, buffer):
    ours, theirs = pair()
    endpoint = port.associate(ours, 1)
    endpoint.send(buffer)
    endpoint.send(b".")
    assert port.dequeue(5).result == len(in_order(buffer))
    assert receive(theirs, len(in_order(buffer)) + 1) == in_order(buffer) + b"."


def test_so_does_a_datagram(port, udp, buffer):
    sender = port.associate(udp, 1)
    sender.sendto(buffer, udp.getsockname())
    assert port.dequeue(5).result == len(in_order(buffer))
    assert udp.recvfrom(100)[0] == in_order(buffer)


def test_so_does_a_file(port, buffer, tmp_path):
    path = tmp_path / "file"
    port.open_file(path, "w").write_at(0, buffer)
    assert port.dequeue(5).result == len(in_order(buffer))
    assert path.read_bytes() == in_order(buffer)


def test_so_does_the_peer_of_a_server(serve, dial, buffer):
    def answer(connection, lease, length):
        connection.send(buffer)
        connection.send(b".")

    client = dial(serve(answer))
    client.sendall(b"?")
    assert receive(client, len(in_order(buffer)) + 1) == in_order(buffer) + b"."


def test_a_length_is_one_of_bytes(port, pair):
    ours, theirs = pair()
    endpoint = port.associate(ours, 1)
    items = array.array("I", [0x01010101, 0x02020202])
    endpoint.send(items, 5)
    assert receive(theirs, 5) == b"\1\1\1\1\2"
    with pytest.raises(PortValueError):
        endpoint.send(items, 9)


MUTABLE = {
    "bytearray": lambda: bytearray(b"before"),
    "a view": lambda: memoryview(bytearray(b"before")),
    "an array": lambda: np.frombuffer(b"before", np.uint8).copy(),
}


def overwrite(data):
    memoryview(data).cast("B")[:] = b"after!"


@pytest.mark.parametrize("make", MUTABLE.values(), ids=MUTABLE)
def test_what_waits_is_as_it_was_when_it_was_sent(backend, pair, make):
    """Behind far more than the socket takes, so that nothing of it has left when it changes."""
    ours, theirs = pair()
    with CompletionPort(backend) as port:
        endpoint = port.associate(ours, 1)
        endpoint.send(bytes(4 << 20))
        data = make()
        endpoint.send(data)
        overwrite(data)
        assert endpoint.queued_bytes > 6
        got = 0
        while got < 4 << 20:
            got += len(theirs.recv((4 << 20) - got))
            port.dequeue_many(10, 0)
        port.dequeue(0)
        assert receive(theirs, 6) == b"before"


@pytest.mark.parametrize("make", MUTABLE.values(), ids=MUTABLE)
def test_so_is_what_goes_to_a_file(port, tmp_path, make):
    data, path = make(), tmp_path / "file"
    file = port.open_file(path, "w")
    for _ in range(20):
        file.write_at(0, data)
    overwrite(data)
    for _ in range(20):
        assert port.dequeue(5).result == 6
    assert path.read_bytes() == b"before"


@pytest.mark.parametrize("make", MUTABLE.values(), ids=MUTABLE)
def test_so_is_what_a_handler_sends(serve, dial, make):
    def answer(connection, lease, length):
        connection.send(bytes(4 << 20))
        data = make()
        connection.send(data)
        overwrite(data)

    client = dial(serve(answer))
    client.sendall(b"?")
    assert receive(client, (4 << 20) + 6)[-6:] == b"before"


def test_only_memory_in_one_piece_is_received_into(port, pair):
    ours, theirs = pair()
    endpoint = port.associate(ours, 1)
    for where in (
        memoryview(bytearray(8))[::2],
        memoryview(bytearray(8))[::-1],
        memoryview(np.asfortranarray(np.zeros((2, 4), np.uint8))),
        b"read only",
        memoryview(bytearray(8)).toreadonly(),
    ):
        with pytest.raises(PortValueError):
            endpoint.recv(where)
    memory = bytearray(24)
    endpoint.recv(memoryview(memory).cast("B", (2, 3, 4)))
    theirs.sendall(b"three dimensions are fine")
    assert port.dequeue(5).result == 24
    assert memory == b"three dimensions are fin"
