"""Peers and handlers that do what they should not."""

from __future__ import annotations

import contextlib
import errno
import logging
import random
import socket
import threading

import pytest

from iocp_adapter import PortValueError, Server

from .conftest import Recorder, echo, receive, reset

# ---- peers that misbehave ---------------------------------------------------------------------------


def test_a_half_closed_peer_gets_its_answer(serve, dial):
    client = dial(serve(echo))
    client.sendall(b"last words")
    client.shutdown(socket.SHUT_WR)
    assert receive(client, 100) == b"last words"


def test_a_reset_is_told_with_its_error(serve, dial):
    recorder = Recorder()
    server = serve(recorder)
    client = dial(server)
    assert recorder.began.acquire(timeout=10)
    reset(client)
    assert recorder.ended.acquire(timeout=10)
    reason = recorder.events[-1][2]
    assert isinstance(reason, OSError)
    assert reason.errno == errno.ECONNRESET
    assert server.stats().errors == 1


def test_a_peer_that_does_not_read_is_not_read_from(serve, dial, pool):
    server = serve(echo, high_bytes=64 << 10, low_bytes=16 << 10)
    client = dial(server)
    client.setblocking(False)
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while server.stats().pauses == 0 or sent < 1 << 20:
            sent += client.send(bytes(1 << 16))
    while server.stats().pauses == 0:
        with contextlib.suppress(BlockingIOError):
            sent += client.send(bytes(1 << 16))
    stats = server.stats()
    assert stats.queued_bytes <= (64 << 10) + (256 << 10)  # the mark, and the batch that crossed it
    other = dial(server)
    other.sendall(b"not my fault")
    assert receive(other, 12) == b"not my fault"
    client.settimeout(10)
    assert len(receive(client, sent)) == sent


def test_garbage_at_full_speed_changes_nothing_else(serve, dial):
    class Strict:
        def received(self, connection, lease, length):
            if lease.view[0] != 0x7F:
                raise ValueError("garbage")
            connection.send(lease, length)

    logging.getLogger("iocp_adapter").setLevel(logging.CRITICAL)
    try:
        server = serve(Strict())
        good = dial(server)
        noise = random.Random(7)
        for _ in range(30):
            bad = dial(server)
            with contextlib.suppress(OSError):
                bad.sendall(b"\x00" + noise.randbytes(50_000))
            good.sendall(b"\x7fgood")
            assert receive(good, 5) == b"\x7fgood"
    finally:
        logging.getLogger("iocp_adapter").setLevel(logging.NOTSET)


# ---- handlers that misbehave ---------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["connected", "received"])
def test_an_exception_costs_its_connection_and_nothing_else(serve, dial, caplog, where):
    class Bad(Recorder):
        def connected(self, connection):
            super().connected(connection)
            if where == "connected" and connection.number == 2:
                raise RuntimeError("no")

        def received(self, connection, lease, length):
            if where == "received" and connection.number == 2:
                raise RuntimeError("no")
            super().received(connection, lease, length)

    handler = Bad()
    server = serve(handler)
    good = dial(server)
    assert handler.began.acquire(timeout=10)
    with contextlib.suppress(OSError):
        dial(server).sendall(b"x")
    assert handler.ended.acquire(timeout=10)
    assert handler.events[-1][:2] == ("disconnected", 2)
    good.sendall(b"still here")
    assert receive(good, 10) == b"still here"
    assert server.stats().handler_errors == 1
    assert any("raised" in record.message for record in caplog.records)


def test_an_exception_in_disconnected_is_survived(serve, dial, caplog):
    ended = threading.Semaphore(0)

    class Bad:
        def received(self, connection, lease, length):
            connection.send(lease, length)

        def disconnected(self, connection, reason):
            ended.release()
            raise RuntimeError("no")

    server = serve(Bad())
    dial(server).close()
    assert ended.acquire(timeout=10)
    client = dial(server)
    client.sendall(b"x")
    assert client.recv(1) == b"x"


def test_a_length_beyond_the_lease_is_the_handlers_error(serve, dial, caplog):
    handler_ended = threading.Semaphore(0)

    class Bad:
        def received(self, connection, lease, length):
            connection.send(lease, lease.size + 1)

        def disconnected(self, connection, reason):
            handler_ended.release()

    client = dial(serve(Bad()))
    client.sendall(b"x")
    assert handler_ended.acquire(timeout=10)
    assert "stay within the lease" in caplog.text


def test_a_handler_without_received_is_refused(pool):
    with pytest.raises(PortValueError, match="received"):
        Server("127.0.0.1", 0, object(), provider=pool)
