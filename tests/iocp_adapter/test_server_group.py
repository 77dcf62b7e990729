"""Several servers behind one address: who serves whom, limits, and the end of all of them."""

from __future__ import annotations

import contextlib
import os
import socket
import threading

import pytest

from iocp_adapter import ECHO, ListenError, PortError, PortValueError, ServerGroup
from pools import SlabPool


class Pools:
    """Makes a pool for each worker; all of them must be empty at the end."""

    def __init__(self):
        self.made = []

    def __call__(self):
        self.made.append(SlabPool(16384, 64, name=f"worker-{len(self.made)}", strict=True))
        return self.made[-1]


@pytest.fixture
def pools():
    pools = Pools()
    yield pools
    for pool in pools.made:
        pool.adopt()
        pool.check()
        pool.close()


@pytest.fixture
def group(backend, pools):
    with contextlib.ExitStack() as stack:

        def start(handler=ECHO, workers=3, **options):
            options.setdefault("provider", pools)
            made = ServerGroup("127.0.0.1", 0, handler, workers=workers, backend=backend, **options)
            return stack.enter_context(made).start()

        yield start


def echoed(peer, data):
    """Send it all, and read as much."""
    sender = threading.Thread(target=peer.sendall, args=(data,))
    sender.start()
    back = bytearray()
    while len(back) < len(data):
        back += peer.recv(1 << 16)
    sender.join()
    return bytes(back) == data


@contextlib.contextmanager
def peers(address, count):
    """So many connections."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection(address, 20)) for _ in range(count)]


@pytest.mark.parametrize("native", [True, False])
def test_connections_are_spread_and_each_is_served(group, native):
    served = []

    def echo(connection, lease, length):
        served.append((threading.get_ident(), connection.number))
        connection.send(lease, length)

    servers = group(ECHO if native else echo)
    with peers(servers.address, 12) as clients:
        assert all(echoed(client, os.urandom(50_000)) for client in clients)
        assert [len(server.connections) for server in servers.servers] == [4, 4, 4]
        assert sorted(connection.number for connection in servers.connections) == list(range(1, 13))
    if not native:
        assert len({thread for thread, _ in served}) == 3
        assert len(set(served)) == 12  # one thread for each connection, from its beginning to its end


def test_who_has_the_fewest_gets_the_next(group):
    ended = threading.Semaphore(0)

    class Echo:
        def received(self, connection, lease, length):
            connection.send(lease, length)

        def disconnected(self, _connection, _reason):
            ended.release()

    servers = group(Echo(), workers=2)
    with peers(servers.address, 6) as clients:
        assert all(echoed(client, b"hello") for client in clients)
        for connection in servers.servers[1].connections:
            connection.abort()
        for _ in range(3):
            assert ended.acquire(timeout=20)
        with peers(servers.address, 3) as later:
            assert all(echoed(client, b"again") for client in later)
            assert [len(server.connections) for server in servers.servers] == [3, 3]


def test_the_limit_holds_for_all_together(group):
    servers = group(max_connections=5)
    with peers(servers.address, 5) as clients:
        assert all(echoed(client, b"in") for client in clients)
        with socket.create_connection(servers.address, 20) as sixth, contextlib.suppress(ConnectionError):
            assert sixth.recv(10) == b""
    stats = servers.stats()
    assert (stats.accepted, stats.refused) == (5, 1)


def test_statistics_are_those_of_all(group, pools):
    servers = group()
    with peers(servers.address, 6) as clients:
        assert all(echoed(client, bytes(1000)) for client in clients)
    servers.close()
    stats = servers.stats()
    assert (stats.accepted, stats.closed, stats.open) == (6, 6, 0)
    assert stats.received_bytes == stats.sent_bytes == 6000
    assert all(pool.stats().acquired > 0 for pool in pools.made)


def test_closing_sends_what_is_queued_in_every_server(group):
    payload = os.urandom(300_000)

    def answer(connection, lease, _length):
        lease.release()
        connection.send(payload)

    servers = group(answer)
    with peers(servers.address, 6) as clients:
        for client in clients:
            client.sendall(b"?")
        heads = [client.recv(1) for client in clients]  # by then the whole answer is queued
        closer = threading.Thread(target=servers.close, args=(30.0,))
        closer.start()
        for head, client in zip(heads, clients, strict=True):
            back = bytearray(head)
            while part := client.recv(1 << 16):
                back += part
            assert back == payload
        closer.join()
    assert servers.stats().open == 0


def test_an_abort_ends_the_close_of_every_server(group):
    def flood(connection, lease, _length):
        lease.release()
        connection.send(bytes(32 << 20))

    servers = group(flood)
    with peers(servers.address, 6) as clients:
        for client in clients:
            client.sendall(b"?")
            assert client.recv(1)
        closer = threading.Thread(target=servers.close, args=(None,))
        closer.start()
        while not all(server._serving.refuse for server in servers.servers):  # all drain
            closer.join(0.001)
        servers.abort()
        closer.join(20)
        assert not closer.is_alive()
    assert servers.stats().open == 0


def test_one_thread_safe_pool_may_serve_all(group, pool):
    servers = group(provider=pool)
    with peers(servers.address, 6) as clients:
        assert all(echoed(client, os.urandom(100_000)) for client in clients)
    servers.close()
    assert all(server.provider is pool for server in servers.servers)


def test_a_pool_of_one_thread_is_refused(backend):
    with SlabPool(4096, 8) as pool, pytest.raises(PortValueError, match="which one thread owns"):
        ServerGroup("127.0.0.1", 0, ECHO, workers=2, provider=pool, backend=backend)


@pytest.mark.parametrize("workers", [0, -1, 5000])
def test_a_wrong_number_of_workers_is_refused(workers, pools):
    with pytest.raises(PortValueError, match=f"workers={workers}"):
        ServerGroup("127.0.0.1", 0, ECHO, workers=workers, provider=pools)


def test_a_pool_that_cannot_be_made_leaves_nothing_behind(backend, pools):
    def make():
        if len(pools.made) == 2:
            raise MemoryError
        return pools()

    with pytest.raises(MemoryError):
        ServerGroup("127.0.0.1", 0, ECHO, workers=3, provider=make, backend=backend)


def test_an_occupied_address_is_told(group, pools):
    servers = group()
    with pytest.raises(ListenError):
        ServerGroup(*servers.address, ECHO, workers=2, provider=pools)


def test_a_handler_stops_the_group_but_does_not_close_it(group, pools, backend):
    refused = []

    def handler(connection, lease, length):
        try:
            servers.close()
        except PortError as error:
            refused.append(str(error))
        servers.stop()
        connection.send(lease, length)

    servers = ServerGroup("127.0.0.1", 0, handler, workers=2, provider=pools, backend=backend)
    forever = threading.Thread(target=servers.serve_forever)
    forever.start()
    with servers, peers(servers.address, 1) as (client,):
        client.sendall(b"stop")
        forever.join(20)
        assert not forever.is_alive()
        servers.close()
        assert client.recv(10) == b"stop"
    assert len(refused) == 1


def test_connections_that_come_while_it_closes_are_closed_or_served(group):
    """Nothing is left open whatever the moment."""
    servers = group(workers=2)
    stop = threading.Event()
    outcomes: list[str] = []

    def knock():
        while not stop.is_set():
            try:
                with socket.create_connection(servers.address, 20) as client:
                    client.sendall(b"knock")
                    outcomes.append("served" if client.recv(10) else "closed")
            except ConnectionError:
                outcomes.append("refused")
                if outcomes.count("refused") > 3:
                    return

    knockers = [threading.Thread(target=knock) for _ in range(4)]
    for knocker in knockers:
        knocker.start()
    while outcomes.count("served") < 50:
        stop.wait(0.001)
    servers.close(30.0)
    stop.set()
    for knocker in knockers:
        knocker.join()
    assert servers.stats().open == 0
