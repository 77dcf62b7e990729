"""Files that are sent: among messages, from a server, and what becomes of one that is shorter than it was."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from iocp_adapter import PortValueError, StaleEndpoint

SIZE = 5 << 20


@pytest.fixture
def path(tmp_path):
    return tmp_path / "täglich.dat"


def read_all(client, size):
    got = bytearray()
    while len(got) < size and (part := client.recv(65536)):
        got += part
    return bytes(got)


def outcomes(port, count):
    return [port.dequeue(10) for _ in range(count)]


def read_beside(client, size):
    """Starts reading; gives what joins that and returns the bytes."""
    got = []
    reader = threading.Thread(target=lambda: got.append(read_all(client, size)))
    reader.start()

    def joined():
        reader.join()
        return got[0]

    return joined


def test_a_file_leaves_between_messages(port, path, pair):
    content = os.urandom(SIZE)
    path.write_bytes(content)
    here, there = pair()
    endpoint, file = port.associate(here, key=1), port.open_file(path, key=2)
    joined = read_beside(there, SIZE + 2 + 50)
    endpoint.send(b"<", user=1)
    endpoint.send_file(file, user=2)
    endpoint.send(b">", user=3)
    endpoint.send_file(file, 100, 50, user=4)
    file.close()
    ends = sorted((done for done in outcomes(port, 5) if done.kind != "close"), key=lambda done: done.user)
    assert [(done.kind, done.result, done.error) for done in ends] == [
        ("send", 1, None), ("send_file", SIZE, None), ("send", 1, None), ("send_file", 50, None)
    ]  # fmt: skip
    assert joined() == b"<" + content + b">" + content[100:150]
    assert port.stats().file_sends == 2


def test_an_open_file_and_a_part_of_it(port, path, pair):
    path.write_bytes(b"0123456789")
    here, there = pair()
    endpoint = port.associate(here)
    with path.open("rb") as file:
        endpoint.send_file(file, 4)
        assert port.dequeue(5).result == 6
        assert there.recv(100) == b"456789"
        endpoint.send_file(file, 8, 5)
        assert port.dequeue(5).result == 2
        assert there.recv(100) == b"89"
        assert file.read(3) == b"012"
        endpoint.send_file(file, 10)
        assert port.dequeue(5).result == 0


def test_what_is_no_part_of_a_file_is_refused(port, path, pair):
    path.write_bytes(b"x")
    endpoint, file = port.associate(pair()[0]), port.open_file(path)
    for offset, count in ((-1, 1), (0, -1), (1 << 63, 1), (1, (1 << 63) - 1)):
        with pytest.raises(PortValueError):
            endpoint.send_file(file, offset, count)
    with pytest.raises(PortValueError):
        file.send_file(file)
    file.close()
    assert port.dequeue(5).kind == "close"
    with pytest.raises(StaleEndpoint):
        endpoint.send_file(file)
    assert port.outstanding() == ()


def test_a_server_sends_files_among_messages(serve, path):
    content = os.urandom(SIZE)
    path.write_bytes(content)
    opened = path.open("rb")

    def handler(connection, lease, length):
        connection.send(b"%d\n" % connection.send_file(path, 0, 10))
        connection.send_file(opened, 1)
        connection.send(lease, length)
        connection.close()

    with opened, socket.create_connection(serve(handler).address, timeout=10) as client:
        client.sendall(b"done")
        assert read_all(client, 1 << 30) == content[:10] + b"10\n" + content[1:] + b"done"


def test_a_file_that_became_shorter_resets_the_connection(serve, path):
    path.write_bytes(b"x" * 100)
    ended, reasons = threading.Event(), []

    class Handler:
        def received(self, connection, lease, length):
            connection.send_file(path, 0, 101)
            connection.send(b"this would be taken for its end")

        def disconnected(self, connection, reason):
            reasons.append(reason)
            ended.set()

    with socket.create_connection(serve(Handler()).address, timeout=10) as client:
        client.sendall(b"?")
        assert ended.wait(10)
    assert isinstance(reasons[0], ConnectionAbortedError)


def test_a_file_that_is_not_there_is_an_error_of_the_call(serve, path):
    seen = []

    def handler(connection, lease, length):
        for wrong in (path, f"{path}\0more"):
            try:  # an exception that is kept keeps the lease
                connection.send_file(wrong)
            except (FileNotFoundError, PortValueError) as error:
                seen.append((type(error), getattr(error, "filename", None)))
        connection.send(b"none")

    with socket.create_connection(serve(handler).address, timeout=10) as client:
        client.sendall(b"?")
        assert client.recv(100) == b"none"
    assert seen == [(FileNotFoundError, str(path)), (PortValueError, None)]


def test_a_directory_is_not_sent(serve, port, pair, tmp_path):
    seen = []

    def handler(connection, lease, length):
        try:
            connection.send_file(tmp_path)
        except (IsADirectoryError, PermissionError) as error:  # Windows says the latter
            seen.append(error.filename)
        connection.send(b"none")

    with socket.create_connection(serve(handler).address, timeout=10) as client:
        client.sendall(b"?")
        assert client.recv(100) == b"none"
    assert seen == [str(tmp_path)]
    if os.name != "nt":  # where no descriptor of a directory is to be had
        descriptor = os.open(tmp_path, os.O_RDONLY)
        with pytest.raises(IsADirectoryError):
            port.associate(pair()[0]).send_file(descriptor)
        os.close(descriptor)
