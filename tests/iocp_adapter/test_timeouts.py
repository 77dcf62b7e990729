"""Timers of a port, and connections that are silent for too long."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time

import pytest

from iocp_adapter import ECHO, PortError, PortValueError, Server


class Ends:
    """An echo that writes down how connections end."""

    def __init__(self, answer=True):
        self.reasons = []
        self.ended = threading.Semaphore(0)
        self.answer = answer

    def received(self, connection, lease, length):
        if self.answer:
            connection.send(lease, length)

    def disconnected(self, connection, reason):
        self.reasons.append(reason)
        self.ended.release()


def test_a_timer_comes_with_what_was_given_and_never_early(port):
    start = time.perf_counter()
    port.timer(0.03, key=4, user="tea")
    done = port.dequeue(20)
    assert time.perf_counter() - start >= 0.03
    assert (done.kind, done.key, done.user, done.error, done.more) == ("timer", 4, "tea", None, False)


def test_a_timer_can_be_taken_back_once(port):
    operation = port.timer(1e300, user="never")
    assert operation.cancel()
    done = port.dequeue(20)
    assert (done.kind, done.user, done.error.errno) == ("timer", "never", errno.ECANCELED)
    assert not operation.cancel()


def test_a_timer_of_no_time_is_at_once(port):
    port.timer(0, user=1)
    assert port.dequeue(20).user == 1


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf")])
def test_times_that_never_come_are_refused(port, delay):
    with pytest.raises(PortValueError, match=r"give 0 or more"):
        port.timer(delay)


def test_a_close_names_the_timers_that_were_left(port):
    port.timer(1000, key=8)
    report = port.close()
    assert [(one.kind, one.key) for one in report.outstanding] == [("timer", 8)]


def test_a_new_timer_ends_the_sleep_of_another_thread(port):
    found = []
    waiter = threading.Thread(target=lambda: found.append(port.dequeue(20)))
    waiter.start()
    port.timer(0.01, user="wake")
    waiter.join()
    assert [one.user for one in found] == ["wake"]


@pytest.mark.parametrize("native", [False, True], ids=["python", "native"])
def test_a_silent_connection_is_reset(serve, sockets, native):
    handler = ECHO if native else Ends()
    server = serve(handler, idle_timeout=0.05)
    client = socket.create_connection(server.address, 20)
    sockets.append(client)
    with contextlib.suppress(ConnectionError):  # a reset is told once, and not always to the reader
        client.sendall(b"once")
        assert client.recv(10) in {b"once", b""}  # who was held up before the send was silent for too long
        assert client.recv(1) == b""
    assert server.port_stats().timeouts == 1
    if not native:
        assert handler.ended.acquire(timeout=20)
        (reason,) = handler.reasons
        assert isinstance(reason, TimeoutError)
        assert reason.errno == errno.ETIMEDOUT


def test_a_peer_that_does_not_read_is_given_up(serve, sockets):
    handler = Ends()
    server = serve(handler, write_timeout=0.1, high_bytes=1 << 24)
    client = socket.create_connection(server.address, 20)
    sockets.append(client)
    client.setblocking(False)
    block = bytes(1 << 20)
    while not handler.ended.acquire(blocking=False):  # it sends for as long as it can, and reads nothing
        with contextlib.suppress(BlockingIOError, ConnectionError):
            client.send(block)
        time.sleep(0.001)
    assert isinstance(handler.reasons[0], TimeoutError)


def test_a_peer_that_sends_nothing_is_given_up(serve, sockets):
    handler = Ends(answer=False)
    server = serve(handler, read_timeout=0.05)
    sockets.append(socket.create_connection(server.address, 20))
    assert handler.ended.acquire(timeout=20)
    assert isinstance(handler.reasons[0], TimeoutError)


def test_who_keeps_talking_is_left_alone(serve, sockets):
    server = serve(Ends(), idle_timeout=30, read_timeout=30, write_timeout=30)
    client = socket.create_connection(server.address, 20)
    sockets.append(client)
    for _ in range(5):
        client.sendall(b"still here")
        assert client.recv(20)
    assert server.port_stats().timeouts == 0


@pytest.mark.parametrize("option", ["idle_timeout", "read_timeout", "write_timeout"])
@pytest.mark.parametrize("seconds", [0, -1.0, float("nan")])
def test_timeouts_out_of_range_are_refused(backend, pool, option, seconds):
    with pytest.raises(PortError, match=option):
        Server("127.0.0.1", 0, Ends(), provider=pool, backend=backend, **{option: seconds})
