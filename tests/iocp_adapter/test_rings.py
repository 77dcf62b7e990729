"""Rings of blocks that the kernel receives into: a choice that changes what it costs and nothing else."""

from __future__ import annotations

import socket

import pytest

from iocp_adapter import CompletionPort, PortValueError, Server
from pools import CompactingPool, SlabPool

from .conftest import echo

CONNECTIONS, RING = 50, 8


@pytest.fixture
def ringed(backend, pool):
    with CompletionPort(backend, ring_blocks=RING, ring_bytes=1024) as port:
        yield port


def received(port, count):
    """What comes until so many bytes have, by key."""
    found: dict[int, bytes] = {}
    while sum(map(len, found.values())) < count:
        done = port.dequeue(10)
        assert done.kind == "recv"
        assert done.error is None
        found[done.key] = found.get(done.key, b"") + bytes(done.lease.view[: done.result])
        done.lease.release()
    return found


def read_whole(client, size):
    found = bytearray()
    while len(found) < size and (piece := client.recv(size - len(found))):
        found += piece
    return bytes(found)


def test_idle_connections_share_the_blocks_of_one_ring(ringed, pool, sockets):
    for number in range(CONNECTIONS):
        here, there = socket.socketpair()
        sockets += [here, there]
        ringed.associate(here, key=number, provider=pool).recv_stream()
    assert ringed.dequeue(0) is None
    used = ringed.features.get("provided_buffers")
    assert pool.stats().live_blocks == (RING if used and used.on else 0)
    for number, there in enumerate(sockets[1::2]):
        there.sendall(b"%d!" % number)
    expected = {number: b"%d!" % number for number in range(CONNECTIONS)}
    assert received(ringed, sum(map(len, expected.values()))) == expected
    stats = ringed.stats()
    assert (stats.ring_receives > 0) == bool(used and used.on)
    assert stats.receives == CONNECTIONS
    assert stats.starved == 0


def test_a_pool_that_moves_its_blocks_can_be_behind_a_ring(backend):
    pool = CompactingPool(1 << 20, name="moves", strict=True)
    here, there = socket.socketpair()
    with here, there, CompletionPort(backend, ring_blocks=RING, ring_bytes=1024) as port:
        port.associate(here, key=1, provider=pool).recv_stream()
        for number in range(3 * RING):
            there.sendall(b"%03d" % number)
            done = port.dequeue(10)
            pool.compact()
            assert done.lease.read(0, done.result) == b"%03d" % number
            done.lease.release()
    pool.check()
    pool.close()


def test_a_server_gives_its_ring_back_when_it_closes(backend, pool):
    with Server("127.0.0.1", 0, echo, provider=pool, backend=backend, ring_blocks=RING) as server:
        server.start()
        for _ in range(3):
            with socket.create_connection(server.address, 10) as client:
                client.sendall(b"hello" * 1000)
                assert read_whole(client, 5000) == b"hello" * 1000
        assert server.port_stats().ring_blocks <= RING
    assert pool.stats().live_blocks == 0


def test_a_pool_that_its_ring_has_all_of_still_serves(backend, sockets):
    pool = SlabPool(1024, RING, name="all", strict=True, thread_safe=True)
    with Server("127.0.0.1", 0, echo, provider=pool, backend=backend, ring_blocks=2 * RING) as server:
        server.start()
        clients = [socket.create_connection(server.address, 10) for _ in range(CONNECTIONS)]
        sockets += clients
        for number, client in enumerate(clients):
            client.sendall(bytes([number]) * 5000)
        for number, client in enumerate(clients):
            assert read_whole(client, 5000) == bytes([number]) * 5000
    pool.close()


@pytest.mark.parametrize("limits", [{"ring_blocks": 32769}, {"ring_blocks": -1}, {"ring_bytes": 1 << 32}])
def test_a_ring_that_no_kernel_takes_is_refused(limits):
    ((name, value),) = limits.items()
    with pytest.raises(PortValueError, match=f"{name}={value}.*give 0"):
        CompletionPort(**limits)
