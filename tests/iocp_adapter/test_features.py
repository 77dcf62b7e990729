"""What a back end uses of its kernel can be turned off, one by one, and everything still works."""

from __future__ import annotations

import os
import socket

import pytest

from iocp_adapter import BackendUnavailable, CompletionPort, Server
from pools import SlabPool

from .conftest import echo

CONNECTIONS, ROUNDS, MESSAGE, RING = 40, 3, 30_000, 4
BACKEND = "iocp" if os.name == "nt" else "io_uring"  # epoll has nothing that a kernel may lack


WISHES = {
    "zero_copy_bytes": 4096,
    "ring_blocks": RING,
    "ring_bytes": 4096,
    "registered_files": True,
    "registered_buffers": True,
}


def features():
    with CompletionPort(BACKEND, **WISHES) as port:
        return port.features


def serving(pool):
    return Server("127.0.0.1", 0, echo, provider=pool, backend=BACKEND, **WISHES)


def read_whole(client, size):
    found = bytearray()
    while len(found) < size and (piece := client.recv(size - len(found))):
        found += piece
    return bytes(found)


def test_each_has_a_switch_of_its_own_and_says_why_it_is_on():
    found = features()
    assert found
    assert len({feature.switch for feature in found.values()}) == len(found)
    assert all(feature.why and feature.instead for feature in found.values())
    with serving(SlabPool(4096, 4, name="none")) as server:
        assert server.features == found


def test_without_each_in_turn_few_buffers_serve_many_connections(monkeypatch, sockets):
    for name, feature in features().items():
        monkeypatch.setenv(feature.switch, "1")
        pool = SlabPool(4096, 8, name="few", strict=True, thread_safe=True)
        if feature.instead == "another back end":
            with pytest.raises(BackendUnavailable, match=f"{name}.*{feature.switch}"):
                serving(pool)
        else:
            with serving(pool) as server:
                server.start()
                assert not server.features[name].on
                assert feature.switch in server.features[name].why
                all_are_echoed(server, sockets)
        monkeypatch.delenv(feature.switch)
        pool.close()


def all_are_echoed(server, sockets):
    clients = [socket.create_connection(server.address, 20) for _ in range(CONNECTIONS)]
    sockets += clients
    for turn in range(ROUNDS):
        for number, client in enumerate(clients):
            client.sendall(bytes([number + turn]) * MESSAGE)
        for number, client in enumerate(clients):
            assert read_whole(client, MESSAGE) == bytes([number + turn]) * MESSAGE
    assert server.stats().received_bytes == CONNECTIONS * ROUNDS * MESSAGE


def test_a_switch_at_nought_turns_nothing_off(monkeypatch):
    found = features()
    for feature in found.values():
        monkeypatch.setenv(feature.switch, "0")
    assert features() == found
