from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time

import psutil
import pytest

from iocp_adapter import ListenError, PortError, PortValueError, Server
from pools import MallocPool, SlabPool


def echo(connection, lease, length):
    connection.send(lease, length)


class Recorder:
    """An echo that writes down what it was told."""

    def __init__(self):
        self.events = []
        self.ended = threading.Semaphore(0)
        self.began = threading.Semaphore(0)

    def connected(self, connection):
        self.events.append(("connected", connection.number))
        self.began.release()

    def received(self, connection, lease, length):
        self.events.append(("received", connection.number, bytes(lease.view[:length])))
        connection.send(lease, length)

    def disconnected(self, connection, reason):
        self.events.append(("disconnected", connection.number, reason))
        self.ended.release()


@pytest.fixture
def serve(backend, pool):
    """Starts servers and closes them; the pool must be empty afterwards."""
    with contextlib.ExitStack() as stack:

        def start(handler, **options):
            options.setdefault("provider", pool)
            return stack.enter_context(Server("127.0.0.1", 0, handler, backend=backend, **options)).start()

        yield start


@pytest.fixture
def dial(sockets):
    def connect(server):
        client = socket.create_connection(server.address, timeout=10)
        sockets.append(client)
        return client

    return connect


def receive(client, size):
    got = bytearray()
    while len(got) < size:
        part = client.recv(1 << 20)
        if not part:
            break
        got += part
    return bytes(got)


def reset(client):
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


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


# ---- leases ------------------------------------------------------------------------------------


def test_blocks_carry_their_connections_tag(serve, dial):
    tags = []

    def look(connection, lease, length):
        tags.append((lease.tag, connection.tag, connection.peer))
        connection.send(lease, length)

    client = dial(serve(look))
    client.sendall(b"x")
    assert client.recv(1) == b"x"
    host, port = client.getsockname()
    assert tags == [(f"conn-1 {host}:{port}", f"conn-1 {host}:{port}", f"{host}:{port}")]


def test_the_tag_is_the_servers_to_choose(serve, dial):
    tags = []

    def look(connection, lease, length):
        tags.append(lease.tag)
        connection.send(lease, length)

    client = dial(serve(look, tag=lambda number, peer: f"route-{number}"))
    client.sendall(b"x")
    assert client.recv(1) == b"x"
    assert tags == ["route-1"]


def test_a_lease_that_is_neither_sent_nor_kept_is_released(serve, dial, pool):
    seen = threading.Semaphore(0)

    def discard(connection, lease, length):
        seen.release()

    client = dial(serve(discard))
    for _ in range(pool.stats().capacity_blocks * 2):
        client.sendall(b"x")
        assert seen.acquire(timeout=10)
    assert pool.stats().live_blocks <= 1


def test_a_kept_lease_keeps_its_contents(serve, dial, pool):
    kept = []

    def keep(connection, lease, length):
        kept.append(lease)
        connection.send(b"ok")

    client = dial(serve(keep))
    for number in range(10):
        client.sendall(bytes([number]))
        assert receive(client, 2) == b"ok"
    assert [lease.view[0] for lease in kept] == list(range(10))
    assert pool.stats().live_blocks == 10
    for lease in kept:
        lease.release()


def test_a_view_that_outlives_its_lease_defers_the_release(serve, dial, pool):
    views = []

    def look(connection, lease, length):
        views.append(lease.view[:length])
        connection.send(b"ok")

    client = dial(serve(look))
    client.sendall(b"keep me")
    assert receive(client, 2) == b"ok"
    client.sendall(b"another")
    assert receive(client, 2) == b"ok"
    assert bytes(views[0]) == b"keep me"
    views.clear()


def test_a_starved_server_finishes_every_message(serve, dial):
    pool = SlabPool(4096, 2, name="tiny", thread_safe=True)
    server = serve(echo, provider=pool)
    clients = [dial(server) for _ in range(50)]
    for client in clients:
        client.sendall(b"hungry")
    for client in clients:
        assert receive(client, 6) == b"hungry"


def test_a_connection_waits_until_a_held_buffer_comes_back(serve, dial):
    pool = SlabPool(4096, 1, name="one", thread_safe=True)
    kept = []
    got = threading.Event()

    def keep_first(connection, lease, length):
        if not kept:
            kept.append(lease)
            got.set()
        else:
            connection.send(lease, length)

    server = serve(keep_first, provider=pool)
    client = dial(server)
    client.sendall(b"first")
    assert got.wait(10)
    other = dial(server)
    other.sendall(b"second")
    while server.stats().buffer_waits == 0:
        time.sleep(0)
    kept[0].release()
    assert receive(other, 6) == b"second"


# ---- peers that misbehave ---------------------------------------------------------------------------


def test_a_half_closed_peer_gets_its_answer(serve, dial):
    client = dial(serve(echo))
    client.sendall(b"last words")
    client.shutdown(socket.SHUT_WR)
    assert receive(client, 100) == b"last words"


def test_a_reset_is_told_with_its_error(serve, dial):
    recorder = Recorder()
    server = serve(recorder)
    client = dial(server)
    assert recorder.began.acquire(timeout=10)
    reset(client)
    assert recorder.ended.acquire(timeout=10)
    reason = recorder.events[-1][2]
    assert isinstance(reason, OSError)
    assert reason.errno == errno.ECONNRESET
    assert server.stats().errors == 1


def test_a_peer_that_does_not_read_is_not_read_from(serve, dial, pool):
    server = serve(echo, high_bytes=64 << 10, low_bytes=16 << 10)
    client = dial(server)
    client.setblocking(False)
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while server.stats().pauses == 0 or sent < 1 << 20:
            sent += client.send(bytes(1 << 16))
    while server.stats().pauses == 0:
        with contextlib.suppress(BlockingIOError):
            sent += client.send(bytes(1 << 16))
    stats = server.stats()
    assert stats.queued_bytes <= (64 << 10) + (256 << 10)  # the mark, and the batch that crossed it
    other = dial(server)
    other.sendall(b"not my fault")
    assert receive(other, 12) == b"not my fault"
    client.settimeout(10)
    assert len(receive(client, sent)) == sent


def test_garbage_at_full_speed_changes_nothing_else(serve, dial):
    class Strict:
        def received(self, connection, lease, length):
            if lease.view[0] != 0x7F:
                raise ValueError("garbage")
            connection.send(lease, length)

    logging.getLogger("iocp_adapter").setLevel(logging.CRITICAL)
    try:
        server = serve(Strict())
        good = dial(server)
        noise = random.Random(7)
        for _ in range(30):
            bad = dial(server)
            with contextlib.suppress(OSError):
                bad.sendall(b"\x00" + noise.randbytes(50_000))
            good.sendall(b"\x7fgood")
            assert receive(good, 5) == b"\x7fgood"
    finally:
        logging.getLogger("iocp_adapter").setLevel(logging.NOTSET)


# ---- handlers that misbehave ---------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["connected", "received"])
def test_an_exception_costs_its_connection_and_nothing_else(serve, dial, caplog, where):
    class Bad(Recorder):
        def connected(self, connection):
            super().connected(connection)
            if where == "connected" and connection.number == 2:
                raise RuntimeError("no")

        def received(self, connection, lease, length):
            if where == "received" and connection.number == 2:
                raise RuntimeError("no")
            super().received(connection, lease, length)

    handler = Bad()
    server = serve(handler)
    good = dial(server)
    assert handler.began.acquire(timeout=10)
    with contextlib.suppress(OSError):
        dial(server).sendall(b"x")
    assert handler.ended.acquire(timeout=10)
    assert handler.events[-1][:2] == ("disconnected", 2)
    good.sendall(b"still here")
    assert receive(good, 10) == b"still here"
    assert server.stats().handler_errors == 1
    assert any("raised" in record.message for record in caplog.records)


def test_an_exception_in_disconnected_is_survived(serve, dial, caplog):
    ended = threading.Semaphore(0)

    class Bad:
        def received(self, connection, lease, length):
            connection.send(lease, length)

        def disconnected(self, connection, reason):
            ended.release()
            raise RuntimeError("no")

    server = serve(Bad())
    dial(server).close()
    assert ended.acquire(timeout=10)
    client = dial(server)
    client.sendall(b"x")
    assert client.recv(1) == b"x"


def test_a_length_beyond_the_lease_is_the_handlers_error(serve, dial, caplog):
    handler_ended = threading.Semaphore(0)

    class Bad:
        def received(self, connection, lease, length):
            connection.send(lease, lease.size + 1)

        def disconnected(self, connection, reason):
            handler_ended.release()

    client = dial(serve(Bad()))
    client.sendall(b"x")
    assert handler_ended.acquire(timeout=10)
    assert "stay within the lease" in caplog.text


def test_a_handler_without_received_is_refused(pool):
    with pytest.raises(PortValueError, match="received"):
        Server("127.0.0.1", 0, object(), provider=pool)


# ---- sends from elsewhere -----------------------------------------------------------------------------


def test_another_thread_may_send_and_close(serve, dial):
    connections = []
    began = threading.Event()

    class Keep(Recorder):
        def connected(self, connection):
            connections.append(connection)
            began.set()

    handler = Keep()
    client = dial(serve(handler))
    assert began.wait(10)
    connections[0].send(b"from outside")
    assert receive(client, 12) == b"from outside"
    connections[0].close()
    assert client.recv(1) == b""
    assert handler.ended.acquire(timeout=10)
    connections[0].send(b"too late")  # dropped, as documented


def test_another_pools_lease_is_held_until_it_is_sent(serve, dial):
    other = SlabPool(64, 4, name="other", thread_safe=True, strict=True)

    def answer(connection, lease, length):
        mine = other.acquire()
        mine.view[:2] = b"ok"
        connection.send(mine, 2)

    client = dial(serve(answer))
    client.sendall(b"x")
    assert receive(client, 2) == b"ok"
    client.sendall(b"x")
    assert receive(client, 2) == b"ok"
    while other.stats().live_blocks:
        time.sleep(0)
    other.close()


def test_close_after_send_delivers_what_was_sent(serve, dial):
    def answer_and_close(connection, lease, length):
        connection.send(b"z" * 300_000)
        connection.close()

    client = dial(serve(answer_and_close))
    client.sendall(b"x")
    assert receive(client, 1 << 20) == b"z" * 300_000


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


def test_close_is_bounded_and_names_what_was_left(backend, pool, dial):
    def flood(connection, lease, length):
        connection.send(bytes(32 << 20))

    server = Server("127.0.0.1", 0, flood, provider=pool, backend=backend)
    client = dial(server.start())
    client.sendall(b"x")
    assert client.recv(1)
    report = server.close(0.2)  # the client does not read the rest
    assert [one.kind for one in report.outstanding] == ["send"]
    assert report.outstanding[0].bytes > 0
    assert server.stats().open == 0


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
