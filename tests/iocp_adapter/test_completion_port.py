"""Choosing a back end, packets and waiting, the end of operations and of the port."""

from __future__ import annotations

import errno
import os
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

from .conftest import only_unix
from .fork_at_rest import come_to_rest

only_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="io_uring is of Linux")


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
    come_to_rest()
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
