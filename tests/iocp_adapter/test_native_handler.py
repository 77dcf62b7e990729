"""Handlers in C: the data stays there, connections are as always."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading

import pytest

from iocp_adapter import DISCARD, ECHO, NativeHandler, PortValueError, Server


def exchange(address, data):
    """Send it while reading as much; gives what came back, and waits for the end."""
    with socket.create_connection(address, 20) as peer:
        sender = threading.Thread(target=lambda: (peer.sendall(data), peer.shutdown(socket.SHUT_WR)))
        sender.start()
        back = bytearray()
        while part := peer.recv(1 << 16):
            back += part
        sender.join()
    return bytes(back)


def test_echo_sends_back_every_byte_in_order(serve):
    server = serve(ECHO)
    for size in (1, 1000, 100_000, 3_000_000):
        data = os.urandom(size)
        assert exchange(server.address, data) == data
    stats = server.stats()
    assert stats.accepted == 4
    assert stats.messages >= 4
    assert stats.received_bytes == stats.sent_bytes == 3_101_001


def test_discard_sends_nothing_and_keeps_nothing(serve):
    server = serve(DISCARD)
    assert exchange(server.address, os.urandom(500_000)) == b""
    assert server.stats().received_bytes == 500_000
    assert server.stats().sent_bytes == 0


def test_many_connections_at_once(serve):
    server = serve(ECHO)
    payloads = [os.urandom(20_000 + number) for number in range(30)]
    backs = [b""] * len(payloads)

    def run(number):
        backs[number] = exchange(server.address, payloads[number])

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(payloads))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert backs == payloads


def test_the_count_of_messages_outlives_the_server(serve):
    server = serve(ECHO)
    assert exchange(server.address, b"once") == b"once"
    server.close()
    assert server.stats().messages == 1


def test_connections_are_pythons_as_always(serve, pool):
    server = serve(ECHO, max_connections=1, tag=lambda number, peer: f"native {number}")
    with socket.create_connection(server.address, 20) as first:
        first.sendall(b"a")
        assert first.recv(1) == b"a"
        assert [connection.number for connection in server.connections] == [1]
        with socket.create_connection(server.address, 20) as second:
            assert second.recv(1) == b""
    assert server.stats().refused == 1


def test_a_server_that_nobody_served_is_closed_in_order(pool, backend):
    with Server("127.0.0.1", 0, ECHO, provider=pool, backend=backend) as server:
        assert server.stats().messages == 0


def test_a_handler_without_an_address_is_refused(pool, backend):
    with pytest.raises(PortValueError, match="pp_received_fn"):
        Server("127.0.0.1", 0, NativeHandler("mine", 0), provider=pool, backend=backend)


@pytest.mark.skipif(os.name == "nt", reason="a process cannot send itself an interrupt there")
def test_an_interrupt_is_seen_while_data_streams_in(backend):
    code = f"""
import os, signal, socket, threading
from iocp_adapter import DISCARD, Server
from pools import SlabPool
server = Server("127.0.0.1", 0, DISCARD, provider=SlabPool(16384, 64), backend={backend!r})
def flood():
    with socket.create_connection(server.address) as peer:
        data = bytes(1 << 20)
        while server.port_stats().received_bytes == 0:
            peer.sendall(data)
        os.kill(os.getpid(), signal.SIGINT)
        try:
            while True:
                peer.sendall(data)
        except OSError:
            pass
thread = threading.Thread(target=flood)
thread.start()
try:
    server.serve_forever()
except KeyboardInterrupt:
    print("interrupted")
server.close()
thread.join()
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (run.returncode, run.stdout) == (0, "interrupted\n"), run.stderr
