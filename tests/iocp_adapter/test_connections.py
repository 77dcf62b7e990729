"""Accepting, connecting and disconnecting."""

from __future__ import annotations

import socket

import pytest

from iocp_adapter import (
    PortValueError,
    StaleEndpoint,
)

from .conftest import listening, only_unix

# ---- connections -----------------------------------------------------------------------------


def test_accept_stays_armed(port, sockets):
    listener = listening(sockets)
    port.associate(listener, 1).accept("user")
    for _ in range(3):
        sockets.append(socket.create_connection(listener.getsockname()))
        got = port.dequeue(5)
        assert (got.kind, got.more, got.user) == ("accept", True, "user")
        socket.close(got.result)


def test_connect_and_talk(port, pool, sockets):
    listener = listening(sockets)
    client = socket.socket()
    sockets.append(client)
    endpoint = port.associate(client, 1, pool)
    endpoint.connect(listener.getsockname(), "go")
    done = port.dequeue(5)
    assert (done.kind, done.error, done.user) == ("connect", None, "go")
    peer, _ = listener.accept()
    sockets.append(peer)
    endpoint.recv_stream()
    peer.sendall(b"welcome")
    got = port.dequeue(5)
    assert bytes(got.lease.view[: got.result]) == b"welcome"
    got.lease.release()


def test_a_refused_connect_is_an_error(port, sockets):
    listener = listening(sockets)
    address = listener.getsockname()
    listener.close()
    client = socket.socket()
    sockets.append(client)
    port.associate(client, 1).connect(address)
    assert isinstance(port.dequeue(5).error, ConnectionRefusedError)


@only_unix
def test_connect_over_a_unix_socket(port, sockets, tmp_path):
    path = str(tmp_path / "s")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    client = socket.socket(socket.AF_UNIX)
    sockets += [listener, client]
    port.associate(client, 1).connect(path)
    assert port.dequeue(5).error is None


def test_ipv6_on_both_ends(port, pool, sockets):
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    try:
        six = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6 loopback address")
    client6 = socket.socket(socket.AF_INET6)
    sockets += [six, client6]
    port.associate(six, 1).accept()
    client = port.associate(client6, 2, pool)
    client.connect(six.getsockname())
    done = {one.kind: one for one in (port.dequeue(5), port.dequeue(5))}
    assert (done["connect"].error, done["accept"].error) == (None, None)
    assert client6.getpeername() == six.getsockname(), "and not only the engine knows that it is connected"
    accepted = socket.socket(fileno=done["accept"].result)
    sockets.append(accepted)
    assert (accepted.family, accepted.getpeername()) == (socket.AF_INET6, client6.getsockname())
    assert accepted.getsockname() == six.getsockname()
    endpoint = port.associate(accepted, 3, pool)
    endpoint.recv_stream()
    client.send(b"over six")
    done = {one.kind: one for one in (port.dequeue(5), port.dequeue(5))}
    assert bytes(done["recv"].lease.view[:8]) == b"over six"
    done["recv"].lease.release()


# ---- disconnecting -----------------------------------------------------------------------------


def test_a_disconnect_is_told_before_the_close(port, pool, sockets):
    listener = listening(sockets)
    port.associate(listener, 1).accept()
    for number in range(5):
        peer = socket.create_connection(listener.getsockname(), timeout=10)
        endpoint = port.associate(port.dequeue(5).result, 10 + number, pool, own=True)
        endpoint.recv_stream()
        endpoint.send(b"the last")
        assert port.dequeue(5).kind == "send"
        peer.shutdown(socket.SHUT_WR)
        assert port.dequeue(5).result == 0
        endpoint.disconnect("over")
        with pytest.raises(StaleEndpoint):
            endpoint.disconnect()
        assert peer.recv(100) == b"the last"
        assert peer.recv(100) == b""
        peer.close()
        done = port.dequeue(5)
        assert (done.key, done.kind, done.user, done.error) == (10 + number, "disconnect", "over", None)
        assert port.dequeue(5).kind == "close"
    assert port.stats().disconnects == 5
    assert port.stats().reused_sockets <= 5


def test_only_a_socket_that_the_port_owns_can_be_disconnected(port, pair):
    ours, _theirs = pair()
    with pytest.raises(PortValueError):
        port.associate(ours, 1).disconnect()
