"""What becomes of the leases that a server's handler gets, keeps and sends."""

from __future__ import annotations

import threading
import time

import pytest

from iocp_adapter import Connection
from iocp_adapter._native import OWN_LABELS
from pools import SlabPool

from .conftest import Recorder, echo, receive

# ---- leases ------------------------------------------------------------------------------------


def test_blocks_carry_their_connections_tag(serve, dial):
    tags = []

    def look(connection, lease, length):
        tags.append((lease.tag, connection.tag, connection.peer))
        connection.send(lease, length)

    client = dial(serve(look))
    client.sendall(b"x")
    assert client.recv(1) == b"x"
    host, port = client.getsockname()
    assert tags == [(f"conn-1 {host}:{port}", f"conn-1 {host}:{port}", f"{host}:{port}")]


def test_tags_do_not_grow_with_every_connection_for_ever(serve, dial, pool):
    recorder = Recorder()
    server = serve(recorder)
    server._serving.last_number = OWN_LABELS - 1  # so many were here before
    for _ in range(20):
        with dial(server) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
        assert recorder.ended.acquire(timeout=10)
    of_its_own, shared = sorted(pool._tags)
    assert of_its_own.startswith(f"conn-{OWN_LABELS} 127.0.0.1:")
    assert shared == f"conn-{OWN_LABELS + 1} to conn-{2 * OWN_LABELS}"


def test_the_tag_is_the_servers_to_choose(serve, dial):
    tags = []

    def look(connection, lease, length):
        tags.append(lease.tag)
        connection.send(lease, length)

    client = dial(serve(look, tag=lambda number, peer: f"route-{number}"))
    client.sendall(b"x")
    assert client.recv(1) == b"x"
    assert tags == ["route-1"]


def test_a_lease_that_is_neither_sent_nor_kept_is_released(serve, dial, pool):
    seen = threading.Semaphore(0)

    def discard(connection, lease, length):
        seen.release()

    client = dial(serve(discard))
    for _ in range(pool.stats().capacity_blocks * 2):
        client.sendall(b"x")
        assert seen.acquire(timeout=10)
    assert pool.stats().live_blocks <= 1


def test_an_empty_label_is_none(serve, dial):
    tags = []

    def look(connection, lease, length):
        tags.append((connection.tag, lease.tag, connection.data))
        connection.send(lease, length)

    client = dial(serve(look, tag=lambda number, peer: ""))
    client.sendall(b"x")
    assert receive(client, 1) == b"x"
    assert tags == [("", "", None)]


def test_a_connection_is_made_by_its_server_alone():
    with pytest.raises(TypeError, match="made by the server"):
        Connection()


def test_a_kept_lease_keeps_its_contents(serve, dial, pool):
    kept = []

    def keep(connection, lease, length):
        kept.append(lease)
        connection.send(b"ok")

    client = dial(serve(keep))
    for number in range(10):
        client.sendall(bytes([number]))
        assert receive(client, 2) == b"ok"
    assert [lease.view[0] for lease in kept] == list(range(10))
    assert pool.stats().live_blocks == 10
    for lease in kept:
        lease.release()


def test_a_view_that_outlives_its_lease_defers_the_release(serve, dial, pool):
    views = []

    def look(connection, lease, length):
        views.append(lease.view[:length])
        connection.send(b"ok")

    client = dial(serve(look))
    client.sendall(b"keep me")
    assert receive(client, 2) == b"ok"
    client.sendall(b"another")
    assert receive(client, 2) == b"ok"
    assert bytes(views[0]) == b"keep me"
    views.clear()


def test_a_starved_server_finishes_every_message(serve, dial):
    pool = SlabPool(4096, 2, name="tiny", thread_safe=True)
    server = serve(echo, provider=pool)
    clients = [dial(server) for _ in range(50)]
    for client in clients:
        client.sendall(b"hungry")
    for client in clients:
        assert receive(client, 6) == b"hungry"


def test_a_connection_waits_until_a_held_buffer_comes_back(serve, dial):
    pool = SlabPool(4096, 1, name="one", thread_safe=True)
    kept = []
    got = threading.Event()

    def keep_first(connection, lease, length):
        if not kept:
            kept.append(lease)
            got.set()
        else:
            connection.send(lease, length)

    server = serve(keep_first, provider=pool)
    client = dial(server)
    client.sendall(b"first")
    assert got.wait(10)
    other = dial(server)
    other.sendall(b"second")
    while server.stats().buffer_waits == 0:
        time.sleep(0)
    kept[0].release()
    assert receive(other, 6) == b"second"


# ---- sends from elsewhere -----------------------------------------------------------------------------


def test_another_thread_may_send_and_close(serve, dial):
    connections = []
    began = threading.Event()

    class Keep(Recorder):
        def connected(self, connection):
            connections.append(connection)
            began.set()

    handler = Keep()
    client = dial(serve(handler))
    assert began.wait(10)
    connections[0].send(b"from outside")
    assert receive(client, 12) == b"from outside"
    connections[0].close()
    assert client.recv(1) == b""
    assert handler.ended.acquire(timeout=10)
    connections[0].send(b"too late")  # dropped, as documented


def test_another_pools_lease_is_held_until_it_is_sent(serve, dial):
    other = SlabPool(64, 4, name="other", thread_safe=True, strict=True)

    def answer(connection, lease, length):
        mine = other.acquire()
        mine.view[:2] = b"ok"
        connection.send(mine, 2)

    client = dial(serve(answer))
    client.sendall(b"x")
    assert receive(client, 2) == b"ok"
    client.sendall(b"x")
    assert receive(client, 2) == b"ok"
    while other.stats().live_blocks:
        time.sleep(0)
    other.close()


def test_close_after_send_delivers_what_was_sent(serve, dial):
    def answer_and_close(connection, lease, length):
        connection.send(b"z" * 300_000)
        connection.close()

    client = dial(serve(answer_and_close))
    client.sendall(b"x")
    assert receive(client, 1 << 20) == b"z" * 300_000
