"""Blocks that are held for too long are told while the server serves."""

from __future__ import annotations

import logging
import re
import socket
import threading

import pytest

from iocp_adapter import ECHO, PortValueError, Server, ServerGroup
from pools import MallocPool, SlabPool, Unsupported, WrongThread


class Records(logging.Handler):
    """What the engine logs, as text, and a signal for each."""

    def __init__(self):
        super().__init__()
        self.texts = []
        self.came = threading.Semaphore(0)

    def emit(self, record):
        self.texts.append(record.getMessage())
        self.came.release()


@pytest.fixture
def records():
    handler = Records()
    log = logging.getLogger("iocp_adapter")
    log.addHandler(handler)
    yield handler
    log.removeHandler(handler)


class Keeper:
    """Keeps every lease that it is given, and one that it acquires itself."""

    def __init__(self, pool):
        self.pool = pool
        self.kept = []

    def received(self, connection, lease, length):
        self.kept += [lease, self.pool.acquire(64, tag="of the handler")]

    def let_go(self):
        for lease in self.kept:
            lease.release()


def test_a_forgotten_lease_is_told_with_its_tag_and_site(backend, records):
    with SlabPool(4096, 32) as pool:
        keeper = Keeper(pool)
        server = Server("127.0.0.1", 0, keeper, provider=pool, backend=backend, hold_limit=0.05)
        with server.start(), socket.create_connection(server.address, 20) as peer:
            peer.sendall(b"remember me")
            for _ in range(2):
                assert records.came.acquire(timeout=60)
            assert server.stats().long_holds == 2
        texts = sorted(records.texts, key=lambda text: "of the handler" in text)
        assert re.fullmatch(
            r"1 block, 4096 bytes, held for \d+\.\d+ s and longer than hold_limit allows: "
            r"tag 'conn-1 127\.0\.0\.1:\d+', received by the engine, owned",
            texts[0],
        )
        assert "tag 'of the handler', acquired in Keeper.received" in texts[1]
        assert "test_holding.py:" in texts[1]
        pool.adopt()
        keeper.let_go()


def test_what_is_given_back_in_time_is_not_told(backend, records):
    with SlabPool(4096, 32) as pool:
        server = Server("127.0.0.1", 0, ECHO, provider=pool, backend=backend, hold_limit=30)
        with server.start(), socket.create_connection(server.address, 20) as peer:
            for _ in range(20):
                peer.sendall(b"hello")
                assert peer.recv(100) == b"hello"
            assert server.stats().long_holds == 0
        assert records.texts == []


def test_a_close_leaves_no_timer_outstanding(backend):
    with SlabPool(4096, 32) as pool:
        server = Server("127.0.0.1", 0, ECHO, provider=pool, backend=backend, hold_limit=1000)
        server.start()
        assert server.close().outstanding == ()


def test_a_group_with_one_pool_tells_each_block_once(backend, records):
    with SlabPool(4096, 64, thread_safe=True) as pool:
        keeper = Keeper(pool)
        group = ServerGroup(
            "127.0.0.1", 0, keeper, workers=2, provider=pool, backend=backend, hold_limit=0.05
        )
        with group.start(), socket.create_connection(group.address, 20) as peer:
            peer.sendall(b"remember me")
            for _ in range(2):
                assert records.came.acquire(timeout=60)
            assert group.stats().long_holds == 2
        keeper.let_go()


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("inf")])
def test_a_limit_that_is_no_time_is_refused(backend, limit):
    with SlabPool(4096, 4) as pool, pytest.raises(PortValueError, match="hold_limit"):
        Server("127.0.0.1", 0, ECHO, provider=pool, backend=backend, hold_limit=limit)


def test_a_pool_without_ages_is_refused_before_anything_is_opened(backend):
    with SlabPool(4096, 4, ages=False) as pool, pytest.raises(Unsupported, match="ages=True"):
        Server("127.0.0.1", 0, ECHO, provider=pool, backend=backend, hold_limit=1)


def test_a_pool_that_cannot_be_looked_at_does_not_stop_the_server(backend, records):
    with SlabPool(4096, 32) as pool:
        server = Server("127.0.0.1", 0, ECHO, provider=pool, backend=backend, hold_limit=0.05)

        def refuse(longer_than):
            raise WrongThread("walk")

        pool.held = refuse
        with server.start(), socket.create_connection(server.address, 20) as peer:
            assert records.came.acquire(timeout=60)
            peer.sendall(b"hello")
            assert peer.recv(100) == b"hello"
        assert "cannot be looked at" in records.texts[0]


def test_a_pool_says_what_is_held_the_oldest_first():
    for pool in (SlabPool(4096, 8), MallocPool()):
        with pool:
            pool.record_sites()
            first, second = pool.acquire(64, tag="first"), pool.acquire(64, tag="second")
            held = pool.held(0)
            assert [block.tag for block in held] == ["first", "second"]
            assert held[0].age_seconds >= held[1].age_seconds
            assert "test_a_pool_says_what_is_held_the_oldest_first" in held[0].site
            assert pool.held(3600) == []
            first.release()
            assert [block.tag for block in pool.held(0)] == ["second"]
            second.release()


def test_a_pool_without_ages_says_that_it_knows_none():
    with SlabPool(64, 4, ages=False) as pool, pytest.raises(Unsupported, match="ages=True"):
        pool.held(0)
