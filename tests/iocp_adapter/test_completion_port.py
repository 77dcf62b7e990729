from __future__ import annotations

import errno
import os
import socket
import sys
import threading
import time

import pytest

from iocp_adapter import (
    BackendUnavailable,
    CompletionPort,
    PortClosed,
    PortFull,
    PortValueError,
    StaleEndpoint,
)
from pools import SlabPool

only_unix = pytest.mark.skipif(os.name == "nt", reason="the platform has no such thing")
only_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="io_uring is of Linux")


@pytest.fixture
def port(backend):
    with CompletionPort(backend) as port:
        yield port


def listening(sockets):
    listener = socket.create_server(("127.0.0.1", 0))
    sockets.append(listener)
    return listener


# ---- choosing a back end ------------------------------------------------------------------


def test_the_port_says_which_back_end_it_has_and_why(port, backend):
    assert port.backend == backend
    assert port.reason == "asked for"


def test_auto_has_a_reason(backends):
    with CompletionPort() as port:
        assert port.backend in backends
        assert port.reason


@only_linux
def test_the_environment_forbids_io_uring_and_auto_says_so(monkeypatch):
    monkeypatch.setenv("POOLPORT_NO_IO_URING", "1")
    with CompletionPort() as port:
        assert port.backend == "epoll"
        assert "POOLPORT_NO_IO_URING" in port.reason


@only_linux
def test_asking_for_what_is_forbidden_is_an_error(monkeypatch):
    monkeypatch.setenv("POOLPORT_NO_IO_URING", "1")
    with pytest.raises(BackendUnavailable, match="POOLPORT_NO_IO_URING"):
        CompletionPort("io_uring")


def test_the_back_end_of_another_platform_is_refused_in_one_sentence(backends):
    elsewhere = "epoll" if os.name == "nt" else "iocp"
    with pytest.raises(BackendUnavailable, match="this platform has no such back end; it has ") as refused:
        CompletionPort(elsewhere)
    assert all(name in str(refused.value) for name in [*backends, repr(elsewhere)])


def test_an_unknown_back_end_names_the_known_ones():
    with pytest.raises(PortValueError, match="io_uring, epoll, iocp"):
        CompletionPort("kqueue")


def test_a_concurrency_out_of_range_is_refused():
    with pytest.raises(PortValueError):
        CompletionPort(concurrency=-1)
    with pytest.raises(PortValueError):
        CompletionPort(concurrency=1 << 20)


# ---- packets and waiting -------------------------------------------------------------------


def test_posted_objects_come_back(port):
    thing = object()
    port.post(3, thing)
    completion = port.dequeue(5)
    assert (completion.key, completion.kind, completion.user) == (3, "post", thing)
    assert port.dequeue(0) is None


def test_a_batch_is_bounded_by_its_limit(port):
    for number in range(10):
        port.post(number)
    assert [one.key for one in port.dequeue_many(4, 5)] == [0, 1, 2, 3]
    assert [one.key for one in port.dequeue_many(100, 5)] == [4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("timeout", [0.0, 1e-9, 0.0005, 0.0123])
def test_a_timeout_is_never_cut_short(port, timeout):
    begin = time.monotonic()
    assert port.dequeue(timeout) is None
    assert time.monotonic() - begin >= timeout


def test_a_dequeue_of_none_or_too_many_is_refused(port):
    for limit in (0, -1, 1 << 20):
        with pytest.raises(PortValueError):
            port.dequeue_many(limit)


def test_full_slots_refuse_until_something_is_dequeued(backend):
    with CompletionPort(backend, max_operations=2) as port:
        port.post()
        port.post()
        with pytest.raises(PortFull):
            port.post()
        port.dequeue(5)
        port.post()


def test_a_post_wakes_the_thread_that_waits(port):
    got = []
    thread = threading.Thread(target=lambda: got.append(port.dequeue(30)))
    thread.start()
    port.post(1, "wake up")
    thread.join(10)
    assert got[0].user == "wake up"


def test_closing_wakes_every_waiting_thread(backend):
    port = CompletionPort(backend)
    outcomes = []

    def wait():
        try:
            port.dequeue()
        except PortClosed as closed:
            outcomes.append(closed)

    threads = [threading.Thread(target=wait) for _ in range(4)]
    for thread in threads:
        thread.start()
    port.close()
    for thread in threads:
        thread.join(10)
    assert len(outcomes) == 4


@only_unix
def test_a_signal_does_not_shorten_a_wait(port):
    import signal

    heard = []
    old = signal.signal(signal.SIGALRM, lambda *_: heard.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        begin = time.monotonic()
        assert port.dequeue(0.1) is None
        assert time.monotonic() - begin >= 0.1
        assert heard
    finally:
        signal.signal(signal.SIGALRM, old)


# ---- transfers ------------------------------------------------------------------------------


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


# ---- connections -----------------------------------------------------------------------------


def test_accept_stays_armed(port, sockets):
    listener = listening(sockets)
    port.associate(listener, 1).accept("user")
    for _ in range(3):
        sockets.append(socket.create_connection(listener.getsockname()))
        got = port.dequeue(5)
        assert (got.kind, got.more, got.user) == ("accept", True, "user")
        socket.close(got.result)


def test_connect_and_talk(port, pool, sockets):
    listener = listening(sockets)
    client = socket.socket()
    sockets.append(client)
    endpoint = port.associate(client, 1, pool)
    endpoint.connect(listener.getsockname(), "go")
    done = port.dequeue(5)
    assert (done.kind, done.error, done.user) == ("connect", None, "go")
    peer, _ = listener.accept()
    sockets.append(peer)
    endpoint.recv_stream()
    peer.sendall(b"welcome")
    got = port.dequeue(5)
    assert bytes(got.lease.view[: got.result]) == b"welcome"
    got.lease.release()


def test_a_refused_connect_is_an_error(port, sockets):
    listener = listening(sockets)
    address = listener.getsockname()
    listener.close()
    client = socket.socket()
    sockets.append(client)
    port.associate(client, 1).connect(address)
    assert isinstance(port.dequeue(5).error, ConnectionRefusedError)


@only_unix
def test_connect_over_a_unix_socket(port, sockets, tmp_path):
    path = str(tmp_path / "s")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    client = socket.socket(socket.AF_UNIX)
    sockets += [listener, client]
    port.associate(client, 1).connect(path)
    assert port.dequeue(5).error is None


def test_connect_over_ipv6(port, sockets):
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    try:
        six = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6 loopback address")
    client6 = socket.socket(socket.AF_INET6)
    sockets += [six, client6]
    port.associate(client6, 2).connect(six.getsockname())
    assert port.dequeue(5).error is None


# ---- cancelling and closing --------------------------------------------------------------------


def test_a_cancel_has_three_outcomes(port, pool, pair):
    ours, theirs = pair()
    endpoint = port.associate(ours, 1, pool)
    first = endpoint.recv_stream()
    assert first.cancel()
    assert port.dequeue(5).error.errno == errno.ECANCELED
    assert not first.cancel()  # not found
    lease = pool.acquire()
    second = endpoint.recv(lease)
    theirs.sendall(b"x")
    got = port.dequeue(5)
    assert not second.cancel()  # completed all the same: its data was delivered
    assert got.result == 1
    lease.release()


def test_cancel_all_counts_what_it_ended(port, pool, pair):
    ours, _theirs = pair()
    endpoint = port.associate(ours, 1, pool)
    endpoint.send(bytes(16 << 20))
    endpoint.recv_stream()
    assert endpoint.cancel_all() == 2
    assert {port.dequeue(5).kind, port.dequeue(5).kind} == {"send", "recv"}


def test_an_ended_endpoint_is_stale_and_its_close_comes_last(port, pool, pair):
    ours, _theirs = pair()
    endpoint = port.associate(ours, 77, pool)
    endpoint.recv_stream()
    endpoint.close()
    assert [one.kind for one in port.dequeue_many(10, 5)] == ["recv", "close"]
    for call in (endpoint.recv_stream, endpoint.close, lambda: endpoint.send(b"x")):
        with pytest.raises(StaleEndpoint):
            call()


def test_closing_names_what_is_outstanding(backend, pool, pair):
    ours, _theirs = pair()
    port = CompletionPort(backend)
    port.associate(ours, 1234, pool).recv_stream()
    assert [(one.kind, one.key) for one in port.outstanding()] == [("recv", 1234)]
    report = port.close(5)
    assert report.complete
    assert [(one.kind, one.key) for one in report.outstanding] == [("recv", 1234)]
    assert report.outstanding[0].age_seconds >= 0
    assert "recv of endpoint 1234" in str(report)
    with pytest.raises(PortClosed):
        port.post()


def test_submitted_is_completed_plus_outstanding(port, pool, pair):
    ours, theirs = pair()
    endpoint = port.associate(ours, 1, pool)
    endpoint.recv_stream()
    for number in range(20):
        endpoint.send(b"x" * number)
    theirs.sendall(b"y")
    while port.stats().completed < 20 or port.stats().receives < 1:
        for one in port.dequeue_many(100, 5):
            if one.lease is not None:
                one.lease.release()
    stats = port.stats()
    assert stats.submitted == stats.completed + stats.outstanding
    assert stats.outstanding == 1
    assert stats.queued_bytes == 0


@only_unix
def test_a_forked_child_is_refused_and_the_parent_goes_on(port):
    child = os.fork()
    if child == 0:
        try:
            port.post()
        except PortClosed:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    port.post(5)
    assert port.dequeue(5).key == 5


# ---- disconnecting -----------------------------------------------------------------------------


def test_a_disconnect_is_told_before_the_close(port, pool, sockets):
    listener = listening(sockets)
    port.associate(listener, 1).accept()
    for number in range(5):
        peer = socket.create_connection(listener.getsockname(), timeout=10)
        endpoint = port.associate(port.dequeue(5).result, 10 + number, pool, own=True)
        endpoint.recv_stream()
        endpoint.send(b"the last")
        assert port.dequeue(5).kind == "send"
        peer.shutdown(socket.SHUT_WR)
        assert port.dequeue(5).result == 0
        endpoint.disconnect("over")
        with pytest.raises(StaleEndpoint):
            endpoint.disconnect()
        assert peer.recv(100) == b"the last"
        assert peer.recv(100) == b""
        peer.close()
        done = port.dequeue(5)
        assert (done.key, done.kind, done.user, done.error) == (10 + number, "disconnect", "over", None)
        assert port.dequeue(5).kind == "close"
    assert port.stats().disconnects == 5
    assert port.stats().reused_sockets <= 5


def test_only_a_socket_that_the_port_owns_can_be_disconnected(port, pair):
    ours, _theirs = pair()
    with pytest.raises(PortValueError):
        port.associate(ours, 1).disconnect()
