"""Who serves a server, and with whose pool: what another thread, server or process may not do."""

from __future__ import annotations

import contextlib
import os
import threading

import pytest

from iocp_adapter import PortClosed, PortError, PortValueError, PortWrongThread, Server
from pools import SlabPool, WrongThread

from .conftest import Recorder, echo, only_unix, receive
from .fork_at_rest import come_to_rest


@pytest.fixture
def owned():
    with SlabPool(4096, 16, name="owned", strict=True) as pool:
        yield pool


def test_a_closed_server_says_that_it_is(backend, pool):
    server = Server("127.0.0.1", 0, echo, provider=pool, backend=backend)
    report = server.close()
    for attempt in (server.serve_forever, server.start, server.__enter__):
        with pytest.raises(PortError, match="the server is closed"):
            attempt()
    assert server.close() is report


def test_a_closed_pool_is_none_to_receive_with(backend, port, pair):
    closed = SlabPool(4096, 4)
    closed.close()
    with pytest.raises(PortValueError, match="the pool is closed"):
        Server("127.0.0.1", 0, echo, provider=closed, backend=backend)
    with pytest.raises(PortValueError, match="the pool is closed"):
        port.associate(pair()[0], provider=closed)


def test_a_pool_of_one_thread_serves_one_server_at_a_time(backend, owned, dial):
    first = Server("127.0.0.1", 0, echo, provider=owned, backend=backend)
    second = Server("127.0.0.1", 0, echo, provider=owned, backend=backend)
    with first, second:
        first.start()
        for attempt in (second.start, second.serve_forever):
            with pytest.raises(PortError, match="thread_safe=True"):
                attempt()
        client = dial(first)
        client.sendall(b"mine")
        assert receive(client, 4) == b"mine"
        client.close()
        first.close()
        second.start()
        client = dial(second)
        client.sendall(b"now mine")
        assert receive(client, 8) == b"now mine"
        client.close()


def test_closing_a_server_that_never_served_takes_nobodys_pool(backend, owned, dial):
    with Server("127.0.0.1", 0, echo, provider=owned, backend=backend).start() as server:
        Server("127.0.0.1", 0, echo, provider=owned, backend=backend).close()
        client = dial(server)
        client.sendall(b"still here")
        assert receive(client, 10) == b"still here"
        client.close()


def test_a_pool_that_a_thread_takes_away_is_told_once(backend, owned, dial, caplog):
    recorder = Recorder()
    with Server("127.0.0.1", 0, recorder, provider=owned, backend=backend).start() as server:
        for _ in range(2):
            client = dial(server)
            assert recorder.began.acquire(timeout=10)
            owned.adopt()
            client.sendall(b"x")
            with contextlib.suppress(ConnectionError):
                assert client.recv(1) == b""
            assert recorder.ended.acquire(timeout=10)
        assert server.stats().errors == 2
    told = [record for record in caplog.records if "thread_safe=True" in record.getMessage()]
    assert len(told) == 1


def test_a_lease_that_another_thread_sends_is_refused_with_the_remedy(backend, owned, dial):
    kept, refused = [], []
    at_hand, over = threading.Event(), threading.Event()

    def keep(connection, lease, length):
        kept.append((connection, lease))
        at_hand.set()
        over.wait(30)
        lease.release()
        kept.clear()

    with Server("127.0.0.1", 0, keep, provider=owned, backend=backend).start() as server:
        client = dial(server)
        client.sendall(b"x")
        assert at_hand.wait(30)
        connection, lease = kept[0]
        try:
            connection.send(lease, 1)
        except PortError as error:
            refused.append(error)
        connection.send(b"bytes")
        del lease
        over.set()
        assert receive(client, 5) == b"bytes"
        client.close()
    (error,) = refused
    assert isinstance(error, PortWrongThread)
    assert isinstance(error, WrongThread)
    assert "thread_safe=True, or give bytes" in str(error)


@only_unix
def test_a_server_is_its_process_and_no_childs(serve, dial):
    server = serve(echo)
    come_to_rest()
    child = os.fork()
    if child == 0:
        refused = 0
        for attempt in (server.close, server.serve_forever, server.start):
            try:
                attempt()
            except PortClosed as error:
                refused += "parent process" in str(error)
            except BaseException:
                os._exit(9)
        os._exit(refused)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    client = dial(server)
    client.sendall(b"x")
    assert receive(client, 1) == b"x"
