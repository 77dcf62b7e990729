"""Peers and handlers that do what they should not."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import random
import socket
import threading
import time

import pytest

from iocp_adapter import PortError, PortValueError, Server
from pools import Debug, SlabPool

from .conftest import Recorder, echo, only_unix, receive, reset

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
    assert isinstance(handler.events[-1][2], RuntimeError)
    good.sendall(b"still here")
    assert receive(good, 10) == b"still here"
    assert server.stats().handler_errors == 1
    assert any("raised" in record.message for record in caplog.records)


def test_who_keeps_the_reason_of_an_end_keeps_no_block(serve, dial, pool, caplog):
    caplog.set_level(logging.CRITICAL, logger="iocp_adapter")  # or the test itself keeps what is logged
    reasons, ended = [], threading.Event()

    class Bad:
        def received(self, connection, lease, length):
            _seen = lease.view[:length]
            try:
                raise KeyError("first")
            except KeyError:
                raise ValueError("then") from None

        def disconnected(self, connection, reason):
            reasons.append(reason)
            ended.set()

    server = serve(Bad())
    dial(server).sendall(b"x")
    assert ended.wait(10)
    server.close()
    assert isinstance(reasons[0], ValueError)
    assert isinstance(reasons[0].__context__, KeyError)
    assert pool.stats().live_blocks == 0


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


async def later(*_):
    pass


@pytest.mark.parametrize("where", ["received", "connected", "disconnected"])
def test_a_handler_that_nobody_would_await_is_refused(pool, where):
    class Late(Recorder):
        pass

    setattr(Late, where, later)
    with pytest.raises(PortValueError, match="async function"):
        Server("127.0.0.1", 0, Late(), provider=pool)
    with pytest.raises(PortValueError, match="async function"):
        Server("127.0.0.1", 0, later, provider=pool)


def exits(*_):
    raise SystemExit(3)


@pytest.mark.parametrize("where", ["received", "connected", "disconnected", "tag"])
def test_not_even_a_system_exit_ends_a_server_that_has_its_own_thread(serve, dial, caplog, where):
    class Bad(Recorder):
        def __getattribute__(self, name):
            return exits if name == where else super().__getattribute__(name)

    server = serve(Bad(), tag=exits if where == "tag" else None)
    for _ in range(3):
        with contextlib.suppress(OSError), dial(server) as client:
            client.sendall(b"x")
            client.recv(1)
    while server.stats().handler_errors < 3:
        assert server._shift.worker.is_alive()
    while server.stats().open:
        assert server._shift.worker.is_alive()
    assert "SystemExit" in caplog.text


@pytest.mark.parametrize("tag", [lambda number, peer: 1 // 0, lambda number, peer: 5, lambda number: ""])
def test_a_tag_function_that_fails_costs_its_connection_and_nothing_else(serve, dial, caplog, tag):
    def sometimes(number, peer):
        return tag(number, peer) if number % 2 else "good"

    server = serve(echo, tag=sometimes)
    with contextlib.suppress(ConnectionError), dial(server) as bad:
        assert bad.recv(1) == b""
    good = dial(server)
    good.sendall(b"still here")
    assert receive(good, 10) == b"still here"
    assert server.stats().handler_errors == server.stats().refused == 1
    assert "was closed at once" in caplog.text


def test_a_block_that_is_found_overrun_costs_its_connection_and_nothing_else(backend, dial, caplog):
    """With debug levels it is the release after the handler that raises."""

    def overrun(connection, lease, length):
        if lease.view[0] == 1:
            ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(lease.view)) + lease.size, 7, 1)
        else:
            connection.send(lease, length)

    with (
        SlabPool(4096, 16, thread_safe=True, debug=Debug(canaries=True)) as pool,
        Server("127.0.0.1", 0, overrun, provider=pool, backend=backend).start() as server,
    ):
        bad = dial(server)
        bad.sendall(b"\1")
        with contextlib.suppress(ConnectionError):
            assert bad.recv(1) == b""
        good = dial(server)
        good.sendall(b"still here")
        assert receive(good, 10) == b"still here"
        assert server.stats().handler_errors == 1


def test_a_handler_cannot_serve_the_server_that_serves_it(serve, dial):
    refusals = []

    def handle(connection, lease, length):
        for attempt in (server.serve_forever, lambda: connection._serving.turn(0.0)):
            try:
                attempt()
            except (PortError, ValueError) as error:
                refusals.append(error)
        connection.send(lease, length)

    server = serve(handle)
    clients = [dial(server) for _ in range(5)]
    for client in clients:
        client.sendall(b"x")
    for client in clients:
        assert receive(client, 1) == b"x"
    assert len(refusals) == 10


def test_a_second_thread_cannot_serve_and_closing_waits_for_the_first(backend, pool, dial):
    at_work, gate = threading.Event(), threading.Event()

    def slow(connection, lease, length):
        at_work.set()
        gate.wait(30)
        connection.send(lease, length)

    server = Server("127.0.0.1", 0, slow, provider=pool, backend=backend)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    client = dial(server)
    client.sendall(b"x")
    assert at_work.wait(30)
    with pytest.raises(PortError, match="being served already"):
        server.serve_forever()
    with pytest.raises(PortError, match="has not returned"):
        server.close(0.01)
    gate.set()
    assert server.close().complete
    serving.join(30)
    assert receive(client, 1) == b"x"


def test_what_ended_in_an_interrupted_batch_has_ended(backend, pool, dial):
    """Its row came behind that of the handler that was interrupted; nothing waits for it afterwards."""
    ended = []

    class Interrupted:
        def received(self, connection, lease, length):
            if lease.view[:length] == b"!":
                raise KeyboardInterrupt

        def disconnected(self, connection, reason):
            ended.append(connection.number)

    with Server("127.0.0.1", 0, Interrupted(), provider=pool, backend=backend) as server:
        first, second = dial(server), dial(server)
        server._shift.own()
        while server.stats().accepted < 2:
            server._serving.turn(10)
        first.sendall(b"!")
        reset(second)
        with pytest.raises(KeyboardInterrupt):
            server.serve_forever()
        while server.stats().open == 2:
            server._serving.turn(10)
        first.close()
        begun = time.monotonic()
        server.close(30)
        assert time.monotonic() - begun < 15
    assert sorted(ended) == [1, 2]


@only_unix
def test_a_listener_that_ends_says_so(serve, caplog):
    server = serve(echo)
    server._listening.socket.shutdown(socket.SHUT_RDWR)
    while "accepts no more connections" not in caplog.text:
        assert server._shift.worker.is_alive()
    server.close()
    assert caplog.text.count("accepts no more") == 1


def test_an_orderly_end_of_the_listener_is_not_told(backend, pool, caplog):
    Server("127.0.0.1", 0, echo, provider=pool, backend=backend).start().close()
    assert "accepts no more" not in caplog.text
