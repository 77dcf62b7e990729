"""Receiving and sending over streams, and who holds the blocks meanwhile."""

from __future__ import annotations

import errno

import pytest

from iocp_adapter import (
    PortValueError,
)
from pools import SlabPool


def test_a_stream_arrives_in_leases_that_carry_the_tag(port, pool, pair):
    ours, theirs = pair()
    port.associate(ours, 9, pool, tag="conn-9").recv_stream("u")
    theirs.sendall(b"hello")
    got = port.dequeue(5)
    assert (got.key, got.kind, got.more, got.result, got.user) == (9, "recv", True, 5, "u")
    assert bytes(got.lease.view[:5]) == b"hello"
    assert got.lease.tag == "conn-9"
    got.lease.release()
    theirs.close()
    end = port.dequeue(5)
    assert (end.kind, end.more, end.result, end.error, end.lease) == ("recv", False, 0, None, None)


def test_idle_endpoints_hold_no_block(port, pool, pair):
    for _ in range(50):
        ours, _theirs = pair()
        port.associate(ours, 1, pool).recv_stream()
    assert port.dequeue(0.01) is None
    assert pool.stats().acquired == 0


def test_a_receive_into_a_lease_keeps_the_lease(port, pool, pair):
    ours, theirs = pair()
    with pool.acquire() as lease:
        port.associate(ours, 1, pool).recv(lease, "mine")
        theirs.sendall(b"direct")
        got = port.dequeue(5)
        assert got.lease is lease
        assert got.user == "mine"
        assert bytes(lease.view[: got.result]) == b"direct"


def test_a_release_in_flight_is_deferred_to_the_completion(port, pool, pair):
    ours, _theirs = pair()
    lease = pool.acquire()
    operation = port.associate(ours, 1, pool).recv(lease)
    assert pool.stats().pinned_blocks == 1
    lease.release()
    assert pool.stats().deferred_blocks == 1
    assert operation.cancel()
    assert port.dequeue(5).error.errno == errno.ECANCELED
    assert pool.stats().deferred_blocks == 0


def test_a_receive_into_plain_memory(port, pair):
    ours, theirs = pair()
    memory = bytearray(10)
    port.associate(ours, 1).recv(memory)
    theirs.sendall(b"abc")
    assert port.dequeue(5).result == 3
    assert memory == b"abc" + bytes(7)


def test_a_send_takes_a_lease_over(port, pool, pair):
    ours, theirs = pair()
    lease = pool.acquire()
    lease.view[:3] = b"abc"
    port.associate(ours, 1, pool).send(lease, 3, "sent")
    assert lease.released
    done = port.dequeue(5)
    assert (done.kind, done.result, done.user, done.lease) == ("send", 3, "sent", None)
    assert theirs.recv(10) == b"abc"
    assert pool.stats().live_blocks == 0


def test_a_send_can_leave_the_lease_to_the_program(port, pool, pair):
    ours, theirs = pair()
    with pool.acquire() as lease:
        lease.view[:3] = b"abc"
        port.associate(ours, 1, pool).send(lease, 3, take=False)
        assert port.dequeue(5).lease is lease
        assert theirs.recv(10) == b"abc"


def test_a_mutable_buffer_is_sent_as_it_was(port, pair):
    ours, theirs = pair()
    endpoint = port.associate(ours, 1)
    filler = bytes(4 << 20)
    endpoint.send(filler)
    data = bytearray(b"before")
    endpoint.send(data)
    data[:] = b"after!"
    got = bytearray()
    while len(got) < len(filler) + 6:
        got += theirs.recv(1 << 20)
        port.dequeue_many(10, 0)
    assert got[-6:] == b"before"


def test_a_strided_view_is_sent_in_its_logical_order(port, pair):
    ours, theirs = pair()
    port.associate(ours, 1).send(memoryview(b"a1b2c3")[::2])
    assert theirs.recv(10) == b"abc"


def test_a_length_beyond_the_data_is_refused(port, pool, pair):
    ours, _theirs = pair()
    endpoint = port.associate(ours, 1, pool)
    with pytest.raises(PortValueError):
        endpoint.send(b"abc", 4)
    with pool.acquire() as lease, pytest.raises(PortValueError):
        endpoint.send(lease, lease.size + 1)


def test_a_lease_of_another_pool_is_refused(port, pool, pair):
    ours, _theirs = pair()
    endpoint = port.associate(ours, 1, pool)
    other = SlabPool(64, 1, name="other")
    with other.acquire() as lease, pytest.raises(PortValueError, match="'other'"):
        endpoint.send(lease)


def test_three_sends_of_4_mib_stay_in_order(port, pair):
    ours, theirs = pair()
    endpoint = port.associate(ours, 1)
    messages = [bytes([number]) * (4 << 20) for number in range(3)]
    for number, message in enumerate(messages):
        endpoint.send(message, user=number)
    got, order = bytearray(), []
    while len(got) < 12 << 20 or len(order) < 3:
        if len(got) < 12 << 20:
            got += theirs.recv(1 << 20)
        order += [one.user for one in port.dequeue_many(10, 0)]
    assert got == b"".join(messages)
    assert order == [0, 1, 2]


def test_an_endpoint_without_provider_cannot_receive_streams(port, pair):
    ours, _theirs = pair()
    with pytest.raises(PortValueError):
        port.associate(ours, 1).recv_stream()
