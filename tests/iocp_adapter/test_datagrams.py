"""UDP through a port: bounds, addresses, leases, and what must not end a receive."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from iocp_adapter import CompletionPort, PortValueError, StaleEndpoint
from pools import CompactingPool, SlabPool

only_unix = pytest.mark.skipif(os.name == "nt", reason="Python has no Unix sockets there")


@pytest.fixture
def udp(sockets):
    def make(host="127.0.0.1", family=socket.AF_INET):
        made = socket.socket(family, socket.SOCK_DGRAM)
        made.bind((host, 0))
        made.settimeout(10)
        sockets.append(made)
        return made

    return make


def test_a_datagram_comes_in_a_lease_with_its_peer(port, pool, udp):
    ours, theirs = udp(), udp()
    endpoint = port.associate(ours, 3, pool, tag="dns")
    endpoint.recvfrom(user="u")
    assert port.dequeue(0) is None
    assert pool.stats().acquired == 0
    theirs.sendto(b"question", ours.getsockname())
    got = port.dequeue(5)
    assert (got.key, got.kind, got.more, got.result, got.user) == (3, "recvfrom", False, 8, "u")
    assert (got.peer, got.truncated, got.error) == (theirs.getsockname(), False, None)
    assert bytes(got.lease.view[:8]) == b"question"
    assert got.lease.tag == "dns"
    endpoint.sendto(got.lease, got.peer, got.result)
    sent = port.dequeue(5)
    assert (sent.kind, sent.result, sent.lease, sent.error) == ("sendto", 8, None, None)
    assert theirs.recvfrom(100) == (b"question", ours.getsockname())


def test_ipv6_addresses_are_those_of_python(port, pool, udp):
    ours, theirs = udp("::1", socket.AF_INET6), udp("::1", socket.AF_INET6)
    endpoint = port.associate(ours, 1, pool)
    theirs.sendto(b"six", ours.getsockname())
    endpoint.recvfrom(bytearray(10))
    got = port.dequeue(5)
    assert got.peer == theirs.getsockname()
    endpoint.sendto(b"back", got.peer)
    assert port.dequeue(5).error is None
    assert theirs.recvfrom(100) == (b"back", ours.getsockname())


def test_a_receive_of_streams_is_refused_where_it_would_cut_datagrams(port, pool, udp):
    ours, theirs = udp(), udp()
    for endpoint in (port.associate(ours, 3, pool), port.associate(theirs.fileno(), 4, pool)):
        for begin in (endpoint.recv_stream, lambda taking=endpoint: taking.recv(bytearray(64))):
            with pytest.raises(PortValueError, match=r"use recvfrom\(\)"):
                begin()
    endpoint.recvfrom(bytearray(64))
    ours.sendto(bytes(100), theirs.getsockname())
    got = port.dequeue(5)
    assert (got.result, got.truncated) == (64, True)


@only_unix
def test_unix_datagrams_have_paths_for_addresses(port, sockets, tmp_path):
    ours, theirs = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
    sockets += [ours, theirs]
    ours.bind(str(tmp_path / "ours"))
    theirs.bind(str(tmp_path / "theirs"))
    endpoint = port.associate(ours)
    endpoint.recvfrom(bytearray(10))
    theirs.sendto(b"hello", ours.getsockname())
    got = port.dequeue(5)
    assert got.peer == theirs.getsockname()
    endpoint.sendto(b"back", got.peer)
    assert port.dequeue(5).error is None
    assert theirs.recv(100) == b"back"


def test_the_own_lease_or_buffer_is_received_into(port, pool, udp):
    ours, theirs = udp(), udp()
    endpoint = port.associate(ours, 1, pool)
    buffer = bytearray(8)
    with pool.acquire() as lease:
        endpoint.recvfrom(lease)
        theirs.sendto(b"first", ours.getsockname())
        got = port.dequeue(5)
        assert got.lease is lease
        assert bytes(lease.view[:5]) == b"first"
    endpoint.recvfrom(memoryview(buffer)[2:])
    theirs.sendto(b"second", ours.getsockname())
    got = port.dequeue(5)
    assert (got.lease, bytes(buffer)) == (None, b"\0\0second")


def test_no_bytes_are_a_datagram_and_not_an_end(port, pool, udp):
    ours, theirs = udp(), udp()
    endpoint = port.associate(ours, 1, pool)
    theirs.sendto(b"", ours.getsockname())
    endpoint.recvfrom(bytearray(4))
    got = port.dequeue(5)
    assert (got.result, got.error, got.peer) == (0, None, theirs.getsockname())
    endpoint.recvfrom(bytearray(4))
    endpoint.sendto(b"", theirs.getsockname())
    assert port.dequeue(5).kind == "sendto"
    assert theirs.recv(10) == b""
    theirs.sendto(b"on", ours.getsockname())
    assert port.dequeue(5).result == 2


def test_what_did_not_fit_is_said_to_be_truncated(port, pool, udp):
    ours, theirs = udp(), udp()
    endpoint = port.associate(ours, 1, pool)
    for text in (b"much too long", b"fits"):
        theirs.sendto(text, ours.getsockname())
    buffer = bytearray(8)
    endpoint.recvfrom(buffer, 4)
    got = port.dequeue(5)
    assert (got.result, got.truncated, got.error) == (4, True, None)
    assert bytes(buffer) == b"much\0\0\0\0"
    endpoint.recvfrom(buffer)
    got = port.dequeue(5)
    assert (got.result, got.truncated) == (4, False)
    assert port.stats().truncated == 1


def test_a_size_beyond_the_buffer_is_refused(port, pool, udp):
    endpoint = port.associate(udp(), 1, pool)
    with pytest.raises(PortValueError, match="recvfrom of 9 bytes into 8"):
        endpoint.recvfrom(bytearray(8), 9)
    for size in (-1, 1 << 32):
        with pytest.raises(PortValueError):
            endpoint.recvfrom(size=size)
    with pytest.raises(PortValueError, match="stay within the data"):
        endpoint.sendto(b"data", ("127.0.0.1", 9), 5)
    with pytest.raises(PortValueError, match="stay within the data"):
        endpoint.sendto(b"data", ("127.0.0.1", 9), -1)
    assert port.outstanding() == ()


def test_nobody_at_the_other_end_stops_no_reading(port, udp):
    ours, theirs = udp(), udp()
    endpoint = port.associate(ours)
    nobody = udp()
    address = nobody.getsockname()
    nobody.close()
    endpoint.recvfrom(bytearray(10))
    endpoint.sendto(b"anybody?", address)
    assert port.dequeue(5).error is None
    assert port.dequeue(0) is None
    theirs.sendto(b"here", ours.getsockname())
    got = port.dequeue(5)
    assert (got.kind, got.error, got.result) == ("recvfrom", None, 4)


def test_a_connected_socket_needs_no_address(port, udp):
    ours, theirs = udp(), udp()
    ours.connect(theirs.getsockname())
    port.associate(ours).sendto(b"hello")
    assert port.dequeue(5).error is None
    assert theirs.recv(10) == b"hello"


def test_datagrams_keep_their_bounds_and_one_that_fails_fails_alone(port, pool, udp):
    ours, theirs = udp(), udp()
    endpoint = port.associate(ours, 1, pool)
    for number, text in enumerate((b"a", b"x" * 70000, b"bb", b"ccc")):
        endpoint.sendto(text, theirs.getsockname(), user=number)
    done = {one.user: one.error for one in (port.dequeue(5) for _ in range(4))}
    assert [number for number, error in done.items() if error] == [1]
    assert [theirs.recv(100) for _ in range(3)] == [b"a", b"bb", b"ccc"]


def test_a_datagram_waits_for_a_block(port, udp):
    ours, theirs = udp(), udp()
    with SlabPool(64, 1, strict=True) as small:
        endpoint = port.associate(ours, 1, small)
        held = small.acquire()
        endpoint.recvfrom()
        theirs.sendto(b"later", ours.getsockname())
        while not port.stats().buffer_waits:
            assert port.dequeue(0) is None
        held.release()
        got = port.dequeue(5)
        assert bytes(got.lease.view[: got.result]) == b"later"
        got.lease.release()
        port.close()


def test_a_compacting_pool_gives_blocks_too(port, udp):
    ours, theirs = udp(), udp()
    with CompactingPool(capacity=1 << 20, strict=True) as movable:
        port.associate(ours, 1, movable).recvfrom(size=100)
        theirs.sendto(b"moving", ours.getsockname())
        got = port.dequeue(5)
        assert got.lease.read(0, got.result) == b"moving"
        got.lease.release()
        port.close()


def test_a_receive_is_asked_back(port, pool, udp):
    endpoint = port.associate(udp(), 1, pool)
    with pool.acquire() as lease:
        operation = endpoint.recvfrom(lease)
        assert [one.kind for one in port.outstanding()] == ["recvfrom"]
        assert operation.cancel()
        got = port.dequeue(5)
        assert (got.kind, got.error.errno, got.peer) == ("recvfrom", errno.ECANCELED, None)
        assert not operation.cancel()


def test_closing_reports_the_receive_and_gives_the_lease_back(backend, pool, udp):
    port = CompletionPort(backend)
    endpoint = port.associate(udp(), 8, pool)
    lease = pool.acquire()
    endpoint.recvfrom(lease)
    lease.release()
    assert pool.stats().deferred_blocks == 1
    report = port.close()
    assert [(one.kind, one.key) for one in report.outstanding] == [("recvfrom", 8)]
    assert report.complete
    assert pool.stats().deferred_blocks == 0
    assert port.dequeue(0).error.errno == errno.ECANCELED


def test_an_endpoint_that_has_ended_takes_no_datagrams(port, udp):
    endpoint = port.associate(udp(), 1)
    endpoint.close()
    assert port.dequeue(5).kind == "close"
    with pytest.raises(StaleEndpoint):
        endpoint.recvfrom(bytearray(4))
    with pytest.raises(StaleEndpoint):
        endpoint.sendto(b"late", ("127.0.0.1", 9))
