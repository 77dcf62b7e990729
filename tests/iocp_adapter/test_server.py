"""Servers that echo, their limits, their start and their end."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import random
import socket
import subprocess
import sys
import threading

import psutil
import pytest

from iocp_adapter import ListenError, PortError, Server
from pools import MallocPool, SlabPool

from .conftest import Recorder, echo, receive

# ---- echo ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 100, 4096, 4097, 16384, 100 << 10, 3 << 20])
def test_what_is_sent_comes_back(serve, dial, size):
    client = dial(serve(echo))
    message = random.Random(size).randbytes(size)
    sender = threading.Thread(target=client.sendall, args=(message,))
    sender.start()
    assert receive(client, size) == message
    sender.join()


def test_one_byte_at_a_time(serve, dial):
    client = dial(serve(echo))
    for byte in b"slowly but surely":
        client.sendall(bytes([byte]))
        assert client.recv(1) == bytes([byte])


def test_many_connections_at_once(serve, dial):
    server = serve(echo)
    clients = [dial(server) for _ in range(100)]
    for round_ in range(5):
        for number, client in enumerate(clients):
            client.sendall(f"{round_}.{number};".encode() * 20)
        for number, client in enumerate(clients):
            expected = f"{round_}.{number};".encode() * 20
            assert receive(client, len(expected)) == expected
    assert server.stats().accepted == 100


def test_malloc_serves_as_well(serve, dial):
    pool = MallocPool(thread_safe=True)
    client = dial(serve(echo, provider=pool))
    client.sendall(b"hello")
    assert client.recv(10) == b"hello"


def test_an_owner_only_pool_follows_the_serving_thread(backend, dial):
    pool = SlabPool(4096, 8, name="mine")
    with Server("127.0.0.1", 0, echo, provider=pool, backend=backend).start() as server:
        client = dial(server)
        client.sendall(b"hello")
        assert client.recv(10) == b"hello"
    assert not pool.close()  # this thread's again


def test_events_come_in_order(serve, dial):
    recorder = Recorder()
    server = serve(recorder)
    client = dial(server)
    client.sendall(b"x")
    assert client.recv(1) == b"x"
    client.close()
    assert recorder.ended.acquire(timeout=10)
    assert recorder.events == [("connected", 1), ("received", 1, b"x"), ("disconnected", 1, None)]


def test_a_burst_in_one_batch_stays_in_order(serve, dial):
    def thrice(connection, lease, length):
        connection.send(b"1:")
        connection.send(lease, length)
        connection.send(bytearray(b":3"))

    client = dial(serve(thrice))
    client.sendall(b"2")
    assert receive(client, 5) == b"1:2:3"


# ---- limits ------------------------------------------------------------------------------------------


def test_connections_beyond_the_limit_are_closed_at_once(serve, dial):
    recorder = Recorder()
    server = serve(recorder, max_connections=2)
    first, _second = dial(server), dial(server)
    for _ in range(2):
        assert recorder.began.acquire(timeout=10)
    assert dial(server).recv(1) == b""
    assert server.stats().refused == 1
    first.close()
    assert recorder.ended.acquire(timeout=10)
    third = dial(server)
    third.sendall(b"x")
    assert third.recv(1) == b"x"


def test_the_listener_survives_a_lack_of_descriptors(serve, dial, caplog):
    resource = pytest.importorskip("resource", reason="the system has no limit of descriptors to lower")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    clients = [socket.socket() for _ in range(2)]
    fillers = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 40, hard))
    try:
        server = serve(echo)
        with contextlib.suppress(OSError):
            while True:
                fillers.append(os.open(os.devnull, os.O_RDONLY))
        clients[0].settimeout(10)
        clients[0].connect(server.address)
        assert clients[0].recv(1) == b""
        for filler in fillers[-10:]:
            os.close(filler)
            fillers.remove(filler)
        assert server.port_stats().refused == 1
        clients[1].settimeout(10)
        clients[1].connect(server.address)
        clients[1].sendall(b"x")
        assert clients[1].recv(1) == b"x"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for filler in fillers:
            os.close(filler)
        for client in clients:
            client.close()


# ---- starting and closing -----------------------------------------------------------------------------


def test_an_occupied_port_is_one_sentence(serve, pool):
    server = serve(echo)
    with pytest.raises(ListenError, match="is in use by another program; choose another port") as refused:
        Server("127.0.0.1", server.address[1], echo, provider=pool)
    assert refused.value.errno == errno.EADDRINUSE


def test_a_privileged_port_is_one_sentence(tmp_path):
    program = (
        "import os; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "from iocp_adapter import Server, ListenError\n"
        "from pools import SlabPool\n"
        "try: Server('127.0.0.1', 81, print, provider=SlabPool(64, 1))\n"
        "except ListenError as error: print(error.errno, error)\n"
    )
    if os.name == "nt":
        pytest.skip("every port is for everybody there")
    if os.geteuid() != 0:
        program = program.split("\n", 1)[1]
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as limit:
        if int(limit.read()) <= 81:
            pytest.skip("this machine lets everybody listen on port 81")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd="/", check=False
    )
    if "ModuleNotFoundError" in done.stderr or "Permission denied" in done.stderr:
        pytest.skip("an unprivileged user cannot read this installation")
    assert done.stdout.startswith(str(errno.EACCES)), done.stderr
    assert "no permission" in done.stdout
    assert "from 1024" in done.stdout


def test_close_drains_and_reports(backend, pool, dial):
    server = Server("127.0.0.1", 0, echo, provider=pool, backend=backend).start()
    clients = [dial(server) for _ in range(5)]
    for client in clients:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
    report = server.close(5)
    assert report.complete
    assert report.outstanding == ()
    assert [client.recv(1) for client in clients] == [b""] * 5
    assert server.close() is report
    assert server.stats().open == 0


def flooding(backend: str, pool: SlabPool, dial) -> Server:
    """A server with a client that has begun to read more than it will."""

    def flood(connection, lease, length):
        connection.send(bytes(32 << 20))

    server = Server("127.0.0.1", 0, flood, provider=pool, backend=backend)
    client = dial(server.start())
    client.sendall(b"x")
    assert client.recv(1)
    return server


def test_close_is_bounded_and_names_what_was_left(backend, pool, dial):
    server = flooding(backend, pool, dial)
    report = server.close(0.2)  # the client does not read the rest
    assert [one.kind for one in report.outstanding] == ["send"]
    assert report.outstanding[0].bytes > 0
    assert server.stats().open == 0


@pytest.mark.parametrize("limit", [None, 600])
def test_an_abort_ends_a_close_that_drains(backend, pool, dial, limit):
    server = flooding(backend, pool, dial)
    reports = []
    closing = threading.Thread(target=lambda: reports.append(server.close(limit)))
    closing.start()
    while not server._serving.refuse or server.port_stats().accepting:  # it drains, and no longer listens
        closing.join(0.001)
    server.abort()
    closing.join(20)
    assert not closing.is_alive()
    assert reports[0].complete
    assert [one.kind for one in reports[0].outstanding] == ["send"]


def test_an_abort_before_the_close_leaves_it_nothing_to_wait_for(backend, pool, dial):
    server = flooding(backend, pool, dial)
    server.abort()
    assert server.close(None).complete


def test_a_handler_stops_the_server(backend, pool, dial):
    def stop(connection, lease, length):
        server.stop()

    with Server("127.0.0.1", 0, stop, provider=pool, backend=backend) as server:
        client = dial(server)
        client.sendall(b"x")
        server.serve_forever()


def test_close_within_a_handler_is_refused(backend, pool, dial, caplog):
    def close(connection, lease, length):
        try:
            server.close()
        finally:
            server.stop()

    with Server("127.0.0.1", 0, close, provider=pool, backend=backend) as server:
        dial(server).sendall(b"x")
        server.serve_forever()
        assert server.stats().handler_errors == 1
    assert "stop()" in caplog.text


def test_a_keyboard_interrupt_loses_no_block(backend, pool, dial):
    def interrupt(connection, lease, length):
        raise KeyboardInterrupt

    with Server("127.0.0.1", 0, interrupt, provider=pool, backend=backend) as server:
        for _ in range(5):
            dial(server).sendall(b"x")
        with pytest.raises(KeyboardInterrupt):
            server.serve_forever()


def test_starting_twice_is_refused(serve):
    with pytest.raises(PortError):
        serve(echo).start()


def test_a_server_that_never_served_closes(backend, pool):
    assert Server("127.0.0.1", 0, echo, provider=pool, backend=backend).close().complete


def test_the_interpreter_exits_with_a_server_running(backend):
    program = (
        "import socket\n"
        "from iocp_adapter import Server\n"
        "from pools import SlabPool\n"
        "pool = SlabPool(64, 8)\n"
        f"server = Server('127.0.0.1', 0, print, provider=pool, backend={backend!r}).start()\n"
        "client = socket.create_connection(server.address)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def descriptors() -> int:
    process = psutil.Process()
    return process.num_handles() if os.name == "nt" else process.num_fds()


def test_many_short_connections_lose_nothing(serve, dial, pool):
    recorder = Recorder()
    server = serve(recorder)
    gc.collect()  # what earlier tests have left is not counted
    before = descriptors()
    for _ in range(300):
        with socket.create_connection(server.address, timeout=10) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
        assert recorder.ended.acquire(timeout=10)
    assert descriptors() == before
    assert pool.stats().live_blocks == 0
    stats = server.port_stats()
    assert stats.endpoints == 1
    gc.collect()
