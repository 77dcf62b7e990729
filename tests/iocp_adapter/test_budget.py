"""Peers that do not read are bounded together, and the others are served as if they were alone."""

from __future__ import annotations

import contextlib
import socket
import sys

import pytest

from iocp_adapter import CompletionPort, PortValueError, Server
from pools import SizeClassPool, SlabPool

from .conftest import echo, receive

SLOW = 8
MARK = 256 << 10


@pytest.fixture
def pool():
    with SizeClassPool(1 << 20) as made:
        yield made


def test_many_slow_peers_are_bounded_in_sum_and_a_quick_one_is_served(serve):
    server = serve(echo, high_bytes=0, port_high_bytes=MARK)
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(server.address, 20)) for _ in range(SLOW)]
        quick = stack.enter_context(socket.create_connection(server.address, 20))
        sent = [0] * SLOW
        for client in slow:
            client.setblocking(False)
        while server.port_stats().port_pauses < SLOW:
            for at, client in enumerate(slow):
                with contextlib.suppress(BlockingIOError):
                    sent[at] += client.send(bytes(1 << 16))
            quick.sendall(b"still here")
            assert receive(quick, 10) == b"still here"
        # the mark, and for each peer the batch that crossed it
        assert server.stats().queued_bytes <= MARK + SLOW * (256 << 10)
        for at, client in enumerate(slow):
            client.settimeout(20)
            assert len(receive(client, sent[at])) == sent[at]
        quick.sendall(b"and now")
        assert receive(quick, 7) == b"and now"


def test_a_mark_in_sends_holds_for_many_small_messages(serve):
    server = serve(echo, high_bytes=0, high_sends=16)
    with socket.create_connection(server.address, 20) as client:
        client.setblocking(False)
        sent = 0
        while server.stats().pauses == 0:
            with contextlib.suppress(BlockingIOError):
                sent += client.send(bytes(1 << 16))
        client.settimeout(20)
        assert len(receive(client, sent)) == sent
        assert server.port_stats().queued_sends == 0


def test_single_bytes_that_wait_do_not_take_the_pool(backend):
    with SlabPool(16384, 64, thread_safe=True) as pool, contextlib.ExitStack() as stack:
        server = stack.enter_context(Server("127.0.0.1", 0, echo, provider=pool, backend=backend)).start()
        dribbling = stack.enter_context(socket.socket())
        dribbling.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        dribbling.connect(server.address)
        dribbling.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        dribbling.setblocking(False)
        while server.stats().queued_bytes < 1 << 16:  # until there is no room on the way back
            with contextlib.suppress(BlockingIOError):
                dribbling.send(bytes(8192))
        while server.stats().pauses == 0:
            with contextlib.suppress(BlockingIOError):
                dribbling.send(b"x")
        quick = stack.enter_context(socket.create_connection(server.address, 20))
        quick.sendall(b"still here")
        assert receive(quick, 10) == b"still here"
        assert pool.stats().live_blocks <= 32 + 16  # half of the pool, and the batch that crossed the mark
        assert server.stats().buffer_waits == 0


def test_peers_that_do_not_read_stay_below_a_mark_far_below_the_pool(backend):
    with SlabPool(16384, 64, thread_safe=True) as pool, contextlib.ExitStack() as stack:
        options = {"provider": pool, "backend": backend, "high_bytes": 1 << 17, "port_high_bytes": 1 << 18}
        server = stack.enter_context(Server("127.0.0.1", 0, echo, **options)).start()
        hogs = [stack.enter_context(socket.create_connection(server.address, 20)) for _ in range(20)]
        for hog in hogs:
            hog.setblocking(False)
        while server.stats().pauses < len(hogs):  # by the port's mark or by their own
            for hog in hogs:
                with contextlib.suppress(BlockingIOError):
                    hog.send(bytes(65536))
        assert pool.stats().live_blocks <= 16 + len(hogs)  # the mark, and one each
        quick = stack.enter_context(socket.create_connection(server.address, 20))
        for _ in range(50):
            quick.sendall(b"a question")
            assert receive(quick, 10) == b"a question"


@pytest.mark.skipif(
    sys.platform == "win32",
    reason="Windows takes sends over, whether they wait or not, so each such peer may have a block",
)
def test_more_peers_that_do_not_read_than_blocks_leave_some_to_one_that_does(backend):
    with SlabPool(16384, 64, thread_safe=True) as pool, contextlib.ExitStack() as stack:
        server = stack.enter_context(Server("127.0.0.1", 0, echo, provider=pool, backend=backend)).start()
        hogs = [stack.enter_context(socket.socket()) for _ in range(200)]
        for hog in hogs:
            hog.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            hog.connect(server.address)
            hog.setblocking(False)
        quick = stack.enter_context(socket.create_connection(server.address, 20))
        stuck = 0
        while stuck < 3 * len(hogs):  # three rounds in which nobody could send
            quick.sendall(b"a question")
            assert receive(quick, 10) == b"a question"
            for hog in hogs:
                stuck += 1
                with contextlib.suppress(BlockingIOError):
                    hog.send(bytes(65536))
                    stuck = 0
        assert server.stats().queued_bytes > 0
        assert pool.stats().live_blocks < 64


def test_peers_that_do_not_read_are_reset_however_many_they_are(backend):
    with SlabPool(16384, 16, thread_safe=True) as pool, contextlib.ExitStack() as stack:
        options = {"provider": pool, "backend": backend, "write_timeout": 0.5}
        server = stack.enter_context(Server("127.0.0.1", 0, echo, **options)).start()
        hogs = [stack.enter_context(socket.socket()) for _ in range(40)]
        for hog in hogs:
            hog.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            hog.connect(server.address)
            hog.setblocking(False)
        while server.stats().closed < len(hogs):
            for hog in hogs:
                with contextlib.suppress(OSError):  # it would block, or is reset
                    hog.send(bytes(65536))
        assert server.stats().errors == len(hogs)


@pytest.mark.parametrize(
    ("marks", "told"),
    [
        ({"high_bytes": 10, "low_bytes": 11}, "low_bytes=11 above high_bytes=10"),
        ({"high_sends": 10, "low_sends": 11}, "low_sends=11 above high_sends=10"),
        ({"port_high_bytes": 10, "port_low_bytes": 11}, "port_low_bytes=11 above port_high_bytes=10"),
        ({"port_high_sends": -1}, "port_high_sends=-1"),
        ({"high_sends": 1 << 63}, "give 0"),
    ],
)
def test_marks_that_make_no_sense_are_refused(serve, marks, told):
    with pytest.raises(PortValueError, match=told):
        serve(echo, **marks)


def test_a_port_and_an_endpoint_take_the_same_marks(backend):
    with CompletionPort(backend, high_sends=2) as port, contextlib.ExitStack() as stack:
        with pytest.raises(PortValueError, match="low_bytes=2 above high_bytes=1"):
            CompletionPort(backend, high_bytes=1, low_bytes=2)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ours = stack.enter_context(socket.create_connection(listener.getsockname()))
            theirs = stack.enter_context(listener.accept()[0])
        with pytest.raises(PortValueError, match="low_sends=2 above high_sends=1"):
            port.associate(ours, high_sends=1, low_sends=2)
        endpoint = port.associate(ours, high_bytes=1 << 20)
        for _ in range(3):
            endpoint.send(bytes(8 << 20))
        (info,) = port.endpoints()
        assert (info.queued_sends, "pause" in info.doing) == (3, True)
        left = 24 << 20
        theirs.settimeout(0)
        while left:
            with contextlib.suppress(BlockingIOError):
                left -= len(theirs.recv(1 << 20))
            port.dequeue_many(timeout=0)
        (info,) = port.endpoints()
        assert (info.queued_sends, "pause" in info.doing) == (0, False)
