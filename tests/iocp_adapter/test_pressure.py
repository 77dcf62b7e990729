"""More connections than buffers: all wait their turn, and idle ones hold nothing."""

from __future__ import annotations

import selectors
import socket

import pytest

from iocp_adapter import ECHO, Server
from pools import SlabPool

from .conftest import echo

CONNECTIONS = 1000
IDLE = 10_000
OTHERS = 200  # descriptors
MESSAGE = 20_000


@pytest.fixture
def room():
    """Raises the limit of descriptors so that both ends of so many connections fit, or as many as may be."""
    resource = pytest.importorskip("resource", reason="the system has no limit of descriptors to raise")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = hard in (-1, resource.RLIM_INFINITY)

    def raised(connections):
        wanted = 2 * connections + OTHERS if unlimited else min(hard, 2 * connections + OTHERS)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
        most = (wanted - OTHERS) // 2
        if most < min(connections, CONNECTIONS):
            pytest.skip(f"the hard limit of descriptors is {hard}, which is {most} connections")
        return most

    yield raised
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def opened(address, count=CONNECTIONS):
    found = []
    for number in range(count):
        # From several addresses, so that no range of ports is used up.
        source = (f"127.0.0.{2 + number % 7}", 0)
        found.append(socket.create_connection(address, 60, source_address=source))
    return found


def all_echo(clients):
    """Each client sends its message and reads it back; gives the numbers of those that did not."""
    selector = selectors.DefaultSelector()
    wanted = {}
    to_send, back = {}, {}
    for number, client in enumerate(clients):
        client.setblocking(False)
        wanted[number] = bytes([number % 251]) * MESSAGE
        to_send[number], back[number] = memoryview(wanted[number]), bytearray()
        selector.register(client, selectors.EVENT_READ | selectors.EVENT_WRITE, number)
    left = set(wanted)
    while left:
        for key, events in selector.select(60) or pytest.fail(f"{len(left)} messages never came back"):
            number, client = key.data, key.fileobj
            if events & selectors.EVENT_WRITE:
                to_send[number] = to_send[number][client.send(to_send[number]) :]
                if not to_send[number]:
                    selector.modify(client, selectors.EVENT_READ, number)
            if events & selectors.EVENT_READ:
                back[number] += client.recv(1 << 16)
                if len(back[number]) >= MESSAGE:
                    selector.unregister(client)
                    left.discard(number)
    selector.close()
    return [number for number in wanted if back[number] != wanted[number]]


@pytest.mark.parametrize("handler", [echo, ECHO], ids=["python", "native"])
def test_sixty_four_buffers_serve_a_thousand_hungry_connections(backend, sockets, handler, room):
    room(CONNECTIONS)
    with SlabPool(4096, 64, name="few", strict=True) as pool:
        with Server("127.0.0.1", 0, handler, provider=pool, backend=backend, backlog=2000) as server:
            server.start()
            sockets += opened(server.address)
            assert all_echo(sockets) == []
            stats = server.stats()
            assert stats.received_bytes == stats.sent_bytes == CONNECTIONS * MESSAGE
            assert pool.stats().peak_live_blocks <= 64
        pool.adopt()
        pool.check()
        assert pool.stats().live_blocks == 0


def test_ten_thousand_idle_connections_pin_nothing(backend, sockets, room):
    """Or as many as the system lets a process have; both ends are this one's."""
    count = room(IDLE)
    with SlabPool(4096, 64, name="idle", strict=True) as pool:
        server = Server("127.0.0.1", 0, echo, provider=pool, backend=backend, backlog=2000)
        with server:
            server.start()
            sockets += opened(server.address, count)
            sockets[-1].sendall(b"the last one")  # once it is answered, all before it are accepted
            assert sockets[-1].recv(100) == b"the last one"
            assert len(server.connections) == count
            while (stats := pool.stats()).live_blocks:  # the answer is there before its block is back
                pass
            assert (stats.live_blocks, stats.pinned_blocks, stats.peak_live_blocks) == (0, 0, 1)
            assert server.port_stats().endpoints == count + 1
        pool.adopt()
