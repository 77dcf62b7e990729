"""Servers and ports that several threads use at once: start, sends, looks, the end.

What must hold is the same with the interpreter's lock and, on a free-threaded interpreter, without.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import threading

import pytest

from iocp_adapter import (
    ECHO,
    CompletionPort,
    PortClosed,
    PortError,
    Server,
    ServerGroup,
    WorkerPool,
)
from pools import SlabPool

from .conftest import Recorder, echo, receive

ROUNDS = 40


@contextlib.contextmanager
def traffic(address, count=2):
    """Peers that send and read back until the end of the with-block, or of the server."""
    done = threading.Event()

    def talk():
        with contextlib.suppress(OSError), socket.create_connection(address, 10) as peer:
            while not done.is_set():
                peer.sendall(b"x" * 1000)
                if len(receive(peer, 1000)) < 1000:
                    return

    peers = [threading.Thread(target=talk) for _ in range(count)]
    for peer in peers:
        peer.start()
    yield
    done.set()
    for peer in peers:
        peer.join(30)
        assert not peer.is_alive()


@pytest.mark.parametrize("handler", [ECHO, echo])
def test_who_closes_a_server_at_the_same_time_gets_the_same_report(backend, pool, at_once, handler):
    for _ in range(ROUNDS // 4):
        server = Server("127.0.0.1", 0, handler, provider=pool, backend=backend).start()
        with socket.create_connection(server.address, 10):
            reports = at_once(lambda _, server=server: server.close(0.0))
        assert all(report is reports[0] for report in reports)
        assert pool.stats().live_blocks == 0, "whoever has the report may close the pool"


@pytest.mark.parametrize("handler", [ECHO, echo])
def test_a_server_is_looked_at_until_after_its_end(backend, pool, at_once, handler):
    for _ in range(ROUNDS // 4):
        server = Server("127.0.0.1", 0, handler, provider=pool, backend=backend).start()
        counted = threading.Event()

        def work(number, server=server, counted=counted):
            before = 0
            if number == 0:
                assert counted.wait(30)
                server.close(0.0)
            while number and not (server._shift.closed and before):
                messages = server.stats().messages
                assert messages >= before
                before = messages
                if messages:
                    counted.set()
                server.port_stats()
                for connection in server.connections:
                    repr(connection)
                    repr(connection.info)
                repr(server)
                pool.stats()

        with traffic(server.address):
            at_once(work)
        assert server.stats().open == 0


def test_of_servers_that_begin_at_once_with_a_pool_of_one_thread_one_serves(backend, at_once):
    with SlabPool(4096, 16, strict=True) as owned:
        for _ in range(ROUNDS // 4):
            servers = [Server("127.0.0.1", 0, echo, provider=owned, backend=backend) for _ in range(4)]

            def begin(number, servers=servers):
                try:
                    return servers[number].start()
                except PortError as error:
                    if "belongs to one thread" not in str(error):
                        raise
                    servers[number].close()  # and a close takes nobody's pool either
                    return None

            (serving,) = [server for server in at_once(begin) if server is not None]
            with socket.create_connection(serving.address, 10) as client:
                client.sendall(b"mine")
                assert receive(client, 4) == b"mine"
            serving.close()
            owned.check()  # which is this thread's now


def test_a_server_is_started_by_one_of_several_threads(backend, pool, at_once):
    for _ in range(ROUNDS // 4):
        with Server("127.0.0.1", 0, echo, provider=pool, backend=backend) as server:

            def begin(_, server=server):
                try:
                    return server.start()
                except PortError as error:
                    if "started already" not in str(error):
                        raise
                    return None

            assert at_once(begin).count(server) == 1


def test_a_lease_that_is_sent_after_the_close_goes_back_at_once(backend, pool, dial):
    recorder, met = Recorder(), []
    recorder.connected = met.append
    server = Server("127.0.0.1", 0, recorder, provider=pool, backend=backend).start()
    client = dial(server)
    client.sendall(b"x")
    assert receive(client, 1) == b"x"
    server.close(0.0)
    lease = pool.acquire()
    met[0].send(lease)
    assert lease.released
    assert pool.stats().live_blocks == 0


def test_what_many_threads_send_on_one_connection_leaves_whole(serve, pool, dial, at_once):
    met, size = queue.Queue(), 100

    class Greeter:
        def connected(self, connection):
            met.put(connection)

        def received(self, connection, lease, length):
            connection.send(lease, length)

    client = dial(serve(Greeter()))
    connection = met.get(timeout=10)

    def send(number):
        for step in range(ROUNDS):
            if step % 2:
                connection.send(bytes([number]) * size)
            else:
                lease = pool.acquire()
                lease.write(bytes([number]) * size)
                connection.send(lease, size)
            assert connection.queued_bytes >= 0

    reading = []
    reader = threading.Thread(target=lambda: reading.append(receive(client, 4 * ROUNDS * size)))
    reader.start()
    at_once(send)
    reader.join(30)
    messages = [reading[0][at : at + size] for at in range(0, len(reading[0]), size)]
    assert sorted(messages) == sorted(bytes([number]) * size for number in range(4) for _ in range(ROUNDS))


def test_leases_that_a_handler_hands_to_other_threads_end_there(serve, dial, at_once):
    kept = queue.Queue()
    clients = [dial(serve(lambda _connection, lease, length: kept.put((lease, length)))) for _ in range(4)]
    sent = [b"%d." % step for step in range(ROUNDS)]
    whole, seen = len(clients) * sum(map(len, sent)), [0] * 4

    def work(number):
        if number == 0:
            for message in sent:
                for client in clients:
                    client.sendall(message)
            return
        while sum(seen) < whole:
            with contextlib.suppress(queue.Empty):
                lease, length = kept.get(timeout=0.1)
                assert lease.read(0, length).replace(b".", b"").isdigit()
                lease.release()
                seen[number] += length

    at_once(work)
    assert sum(seen) == whole
    assert kept.empty()


@pytest.mark.parametrize("timeout", [0.0, 5.0])
def test_a_close_while_handlers_run_and_others_send_ends_all(backend, pool, at_once, timeout):
    for _ in range(ROUNDS // 8):
        met = queue.Queue()

        class Greeter:
            def connected(self, connection, met=met):
                met.put(connection)

            def received(self, connection, lease, length):
                connection.send(bytes(lease.view[:length]))

        server = Server("127.0.0.1", 0, Greeter(), provider=pool, backend=backend).start()
        with traffic(server.address):
            connections = [met.get(timeout=10) for _ in range(2)]

            def work(number, server=server, connections=connections):
                if number == 0:
                    server.close(timeout)
                    return
                with contextlib.suppress(PortClosed):
                    while not server._shift.closed:
                        connections[number % 2].send(b"")
                        if number == 3:
                            connections[0].close()

            at_once(work)
        assert not server.connections
        assert pool.stats().live_blocks == 0


def test_a_group_whose_handlers_are_in_python_is_closed_by_whoever_comes(backend, at_once):
    made = []

    def make():
        made.append(SlabPool(16384, 64, name=f"worker-{len(made)}", strict=True))
        return made[-1]

    for _ in range(ROUNDS // 8):
        group = ServerGroup("127.0.0.1", 0, echo, workers=3, provider=make, backend=backend).start()
        with traffic(group.address, 6):

            def work(number, group=group):
                for _ in range(20):
                    group.stats()
                    assert len(group.connections) <= 6
                if number < 2:
                    group.close(0.0)

            at_once(work)
        assert group.stats().open == 0
    for pool in made:
        pool.adopt()
        pool.check()
        pool.close()


def test_workers_come_and_go_while_they_are_counted(backend, at_once):
    blocked = threading.Semaphore(0)
    with CompletionPort(backend) as port:

        def handle(completion):
            if completion.user == "block":
                blocked.acquire(timeout=0.02)

        pool = WorkerPool(port, handle, minimum=1, maximum=6, idle_seconds=0.01, stall_seconds=0.002)

        def work(number):
            for step in range(ROUNDS):
                port.post(user="block" if step % 4 == number else "pass")
                stats = pool.stats()
                assert 0 <= stats.busy <= stats.threads <= 6
                assert len(pool.each()) <= 6
                with pool.blocking():
                    pass
                repr(pool)

        at_once(work)
        while pool.stats().handled < 4 * ROUNDS:
            port.outstanding()
        assert all(at_once(lambda _: pool.close(20)))
        stats = pool.stats()
        assert stats.threads == 0
        assert (stats.handled, stats.errors) == (4 * ROUNDS, 0)


def test_operations_of_all_threads_complete_with_what_they_hold(backend, at_once, pool):
    with CompletionPort(backend) as port:

        def work(number):
            found = []
            for step in range(ROUNDS):
                far, near = socket.socketpair()
                with far, near:
                    port.timer(0.0, number, ("timer", number, step))
                    port.post(number, ("post", number, step))
                    waits = port.wait_readable(near, number, ("readable", number, step))
                    far.send(b"x")
                    waits.cancel()
                    found += port.dequeue_many(16, 0.0)
                port.stats()
                port.outstanding()
                port.endpoints()
            return found

        found = [one for each in at_once(work) for one in each]
        while len(found) < 3 * 4 * ROUNDS:
            found += port.dequeue_many(64, 10)
        assert sorted(one.user for one in found) == sorted(
            (kind, number, step)
            for kind in ("timer", "post", "readable")
            for number in range(4)
            for step in range(ROUNDS)
        )
        assert all(one.user[:2] == (one.kind, one.key) for one in found)
        assert not port._pending
