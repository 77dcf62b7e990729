"""Several threads that take completions from one port."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading

import pytest

from iocp_adapter import CompletionPort, PortClosed, PortError
from iocp_adapter.batches import Batch, Batches
from pools import SlabPool

CONNECTIONS = 600
READERS = 6


@pytest.fixture
def quick_switches():
    """Threads that lose the interpreter at every opportunity, as they do now and then by themselves."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_data_finds_its_pool_and_its_key_when_another_thread_reads_the_end_first(backend, quick_switches):
    pool = SlabPool(4096, 2048, strict=True, thread_safe=True)
    wrong, closed = [], threading.Semaphore(0)

    def read(port):
        while True:
            try:
                for done in port.dequeue_many(8, 20):
                    look(done)
            except PortClosed:
                return
            except Exception as error:
                wrong.append(error)

    def look(done):
        if done.lease is not None:
            done.lease.release()
        if done.key != 7 or (done.kind == "recv" and done.user is None):
            wrong.append(done)
        if done.kind == "recv" and done.result == 0 and done.error is None:
            close(done.user[0])
        if done.kind == "close":
            closed.release()

    def close(endpoint):
        with contextlib.suppress(PortError):  # it has ended meanwhile
            endpoint.close()

    with CompletionPort(backend) as port:
        readers = [threading.Thread(target=read, args=(port,)) for _ in range(READERS)]
        for one in readers:
            one.start()
        for number in range(CONNECTIONS):
            far, near = socket.socketpair()
            user = []
            user.append(port.associate(near.detach(), 7, pool, own=True))
            user[0].recv_stream(user)
            far.send(b"x")
            if number % 2:
                user[0].close(drain=False)
            far.close()
        for _ in range(CONNECTIONS):
            assert closed.acquire(timeout=30)
    for one in readers:
        one.join(30)
    assert not wrong, (len(wrong), wrong[:3])
    pool.close()
    assert not port._keys, "an endpoint that has ended is forgotten"
    assert not port._pending, "and so is what its operations held"


def test_an_earlier_batch_keeps_what_a_later_one_ends(backend, pool, pair):
    """The race itself, in the order that is rare: the end is read while the data is not yet."""
    here, there = pair()
    with CompletionPort(backend) as port:
        endpoint = port.associate(here, 7, pool)
        endpoint.recv_stream(user="mine")
        there.send(b"data")
        read, taken, go_on = port._rows.read, threading.Event(), threading.Event()

        def held_up(batch, *row):
            if threading.current_thread() is not threading.main_thread():
                taken.set()
                assert go_on.wait(30)
            return read(batch, *row)

        port._rows.read = held_up
        early = []
        reader = threading.Thread(target=lambda: early.append(port.dequeue(20)))
        reader.start()
        assert taken.wait(30)
        endpoint.close(drain=False)
        late = [port.dequeue(20), port.dequeue(20)]
        assert [one.kind for one in late] == ["recv", "close"]
        go_on.set()
        reader.join(30)
        assert (early[0].key, early[0].kind, early[0].user) == (7, "recv", "mine")
        assert bytes(early[0].lease.view[:4]) == b"data"
        early[0].lease.release()
        assert not port._keys
        assert not port._pending


def test_a_batch_keeps_what_it_may_refer_to_and_a_thread_that_waits_keeps_nothing():
    batches, table = Batches(), {1: "of the first", 2: "of the second"}
    waiting, early, late = Batch(4), Batch(4), Batch(4)
    for batch in (waiting, early, late):
        batches.begin(batch)
    early.rows[0].event = late.rows[0].event = 1  # taken, which the core does under the port's lock
    batches.forget(table, 1, table[1], late)
    batches.forget(table, 2, table[2], late)
    batches.end(late)
    assert table == {1: "of the first", 2: "of the second"}
    batches.end(early)
    assert not table
    batches.end(waiting)


def test_a_name_that_is_given_again_is_not_forgotten_with_its_predecessor():
    batches, table, first = Batches(), {1: "the first"}, Batch(4)
    batches.begin(first)
    first.rows[0].event = 1
    batches.forget(table, 1, "the first", Batch(4))
    table[1] = "the second"
    batches.end(first)
    assert table == {1: "the second"}
