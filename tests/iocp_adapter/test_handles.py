"""The table of handles: what each has moved, and which were left at the close."""

from __future__ import annotations

import socket

from iocp_adapter import CompletionPort, Server


def pairs(sockets, count):
    listener = socket.create_server(("127.0.0.1", 0))
    sockets.append(listener)
    found = []
    for _ in range(count):
        client = socket.create_connection(listener.getsockname(), 20)
        accepted, _ = listener.accept()
        sockets += [client, accepted]
        found.append((client, accepted))
    return found


def test_a_port_lists_its_handles(backend, pool, sockets):
    (one, other), (silent, _) = pairs(sockets, 2)
    with CompletionPort(backend) as port:
        endpoint = port.associate(one, key=3, provider=pool)
        port.associate(silent, key=4)
        endpoint.recv_stream()
        other.sendall(b"hello")
        received = port.dequeue(20)
        endpoint.send(received.lease, 2)
        assert port.dequeue(20).kind == "send"
        talking, quiet = port.endpoints()
        assert (talking.key, talking.descriptor, talking.doing) == (3, one.fileno(), ("recv",))
        assert (talking.received_bytes, talking.receives, talking.sent_bytes) == (5, 1, 2)
        assert 0 <= talking.idle_seconds <= talking.age_seconds
        assert (quiet.key, quiet.doing, quiet.received_bytes) == (4, (), 0)
        assert (talking.kind, talking.waits, talking.pauses, talking.cancels) == ("tcp", 0, 0, 0)
        assert str(quiet).startswith("tcp endpoint 4, ")
        assert port.stats().tcp_endpoints == 2


def test_a_close_names_the_handles_that_were_left(backend, sockets):
    ((one, _),) = pairs(sockets, 1)
    port = CompletionPort(backend)
    port.associate(one, key=12)
    report = port.close()
    assert [handle.key for handle in report.endpoints] == [12]
    assert "1 handles left" in str(report)
    assert f"descriptor {one.fileno()}" in str(report)


def test_a_connection_tells_what_it_has_moved(backend, pool, sockets):
    seen = []

    def echo(connection, lease, length):
        connection.send(lease, length)
        seen.append(connection)

    with Server("127.0.0.1", 0, echo, provider=pool, backend=backend) as server:
        server.start()
        client = socket.create_connection(server.address, 20)
        sockets.append(client)
        client.sendall(b"hello")
        assert client.recv(10) == b"hello"
        info = seen[0].info
        assert info.key == 1
        assert info.received_bytes == 5
        report = server.close()
        assert seen[0].info is None
    assert report.endpoints == (), "all were closed in order"
