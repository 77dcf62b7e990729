"""Handlers in C: the data stays there, connections are as always."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
import threading

import pytest

from iocp_adapter import DISCARD, ECHO, NativeHandler, PortValueError, Server
from iocp_adapter._native import ffi, lib

from .conftest import receive

Received = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint64))


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


def test_a_function_of_ctypes_is_a_handler_and_a_pointer_its_context(serve):
    count = ctypes.c_uint64()

    def call(context, received, length):
        ctypes.cast(context, ctypes.POINTER(ctypes.c_uint64))[0] += length[0]
        length[0] = 2
        return lib.PP_ANSWER_SEND

    server = serve(NativeHandler("made", Received(call), context=ctypes.pointer(count)))
    assert exchange(server.address, b"hello") == b"he"
    assert count.value == 5


def test_a_function_of_cffi_is_a_handler(serve):
    for function in (lib.pp_serve_echo, ffi.addressof(lib, "pp_serve_echo")):
        handler = NativeHandler("theirs", function, context=ffi.cast("void *", 4096))
        assert (handler.address, handler.context) == (ECHO.address, 4096)
    assert exchange(serve(handler).address, b"hello") == b"hello"


@pytest.mark.parametrize("wrong", ["pp_serve_echo", -1, 1 << 80, print])
def test_what_is_no_function_in_c_is_refused_with_what_it_is(wrong):
    with pytest.raises(PortValueError, match="address of handler 'mine'"):
        NativeHandler("mine", wrong)


def test_what_a_handler_keeps_it_sends_by_the_calls_that_came_with_it(serve, dial):
    """What the first peer says is kept, and is what the second one hears."""
    kept = []

    def call(_, address, length):
        received = ffi.cast("pp_received *", address)
        if not kept:
            kept.append((received.block, received.bytes))
            return lib.PP_ANSWER_KEEP
        block, size = kept.pop()
        send = {"endpoint": received.endpoint, "block": block, "bytes": size}
        send["flags"] = lib.PP_SEND_TAKE | lib.PP_SEND_QUIET
        assert received.calls.send(received.port, ffi.new("pp_send *", send), ffi.NULL) == lib.PP_OK
        return lib.PP_ANSWER_RELEASE

    server = serve(NativeHandler("made", Received(call)))
    first, second = dial(server), dial(server)
    first.sendall(b"from the first")
    while server.stats().messages == 0:
        pass
    second.sendall(b"?")
    assert receive(second, 14) == b"from the first"


def test_what_a_handler_sends_and_what_the_server_holds_are_not_mixed_up(serve, dial):
    """A send of Python's is held until it has left, by a number that no handler has for a ``user``."""
    held = bytes(8 << 20)  # more than the socket takes before somebody reads
    own = b"own"
    address_of_own = int(ffi.cast("uintptr_t", ffi.from_buffer(own)))

    def call(_, address, length):
        received = ffi.cast("pp_received *", address)
        send = {"endpoint": received.endpoint, "address": address_of_own, "bytes": len(own), "user": 1}
        assert received.calls.send(received.port, ffi.new("pp_send *", send), ffi.NULL) == lib.PP_OK
        return lib.PP_ANSWER_RELEASE

    server = serve(NativeHandler("made", Received(call)), high_bytes=0)
    slow, quick = dial(server), dial(server)
    while len(server.connections) < 2:
        pass
    server.connections[0].send(held)
    quick.sendall(b"?")
    assert receive(quick, len(own)) == own
    assert len(server._serving.outgoing.held) == 1
    assert receive(slow, len(held)) == held


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
