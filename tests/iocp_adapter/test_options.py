"""What makes no sense is refused before anything is opened: the value, the limit and the remedy are told."""

from __future__ import annotations

import os
import socket

import psutil
import pytest

from iocp_adapter import (
    CompletionPort,
    ListenError,
    NativeHandler,
    PortValueError,
    Server,
    ServerGroup,
    WorkerPool,
)
from iocp_adapter.errors import address_text
from pools import SlabPool

from .conftest import echo, only_unix


def descriptors() -> int:
    process = psutil.Process()
    return process.num_handles() if os.name == "nt" else process.num_fds()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"receive_size": -1}, r"receive_size=-1: give 0 \(4 KiB\) to 2\*\*32 - 1"),
        ({"receive_size": 1.5}, r"receive_size=1.5"),
        ({"receive_size": 1 << 32}, r"receive_size=4294967296"),
        ({"max_connections": -1}, r"max_connections=-1: give 0 \(no limit\) to 2\*\*31 - 1"),
        ({"backlog": -5}, r"backlog=-5: give 0 to 2\*\*31 - 1"),
        ({"batch_bytes": -1}, r"batch_bytes=-1"),
        ({"zero_copy_bytes": "1"}, r"zero_copy_bytes='1'"),
        ({"high_bytes": "x"}, r"high_bytes='x'"),
        ({"port_low_sends": -1}, r"port_low_sends=-1"),
        ({"idle_timeout": "1"}, r"idle_timeout='1'"),
        ({"write_timeout": float("nan")}, r"write_timeout=nan"),
        ({"tag": "conn"}, r"tag='conn': give a function"),
        ({"provider": None}, r"provider=None: give a pool"),
        ({"provider": object()}, r"give a pool, such as"),
    ],
)
def test_options_of_a_server_are_checked_before_anything_is_opened(backend, pool, options, told):
    before = descriptors()
    with pytest.raises(PortValueError, match=told):
        Server("127.0.0.1", 0, echo, **{"provider": pool, "backend": backend} | options)
    assert descriptors() == before


@pytest.mark.parametrize(
    ("host", "number", "told"),
    [
        ("127.0.0.1", 99999, r"port=99999: give 0 \(any free one\) to 65535"),
        ("127.0.0.1", "80", r"port='80'"),
        (None, 80, r"host=None"),
        (
            "unix:/tmp/there-is-none",
            77,
            r"port=77 of unix:/tmp/there-is-none: such an address has no port; give 0",
        ),
        ("unix:", 0, r"host='unix:': a Unix socket has a path; give unix:PATH"),
        ("127.0.0.1\0", 0, r"host='127.0.0.1\\x00': give a str"),
        ("a" * 64, 0, r"host='a{64}': give a str"),
    ],
)
def test_an_address_that_is_none_is_refused(pool, host, number, told):
    with pytest.raises(PortValueError, match=told):
        Server(host, number, echo, provider=pool)


def test_a_name_that_nobody_knows_is_told_with_the_remedy(pool):
    with pytest.raises(
        ListenError, match=r"cannot listen on '300.1.1.1': .*; give an address of this machine"
    ):
        Server("300.1.1.1", 0, echo, provider=pool)


@only_unix
@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/there/is/none", "folder that you may write"),
        ("/tmp/" + "x" * 200, "a path of 205 bytes is too long.*107"),
    ],
)
def test_a_path_that_the_system_refuses_is_told_with_the_remedy(pool, path, told):
    before = descriptors()
    with pytest.raises(ListenError, match=told):
        Server(f"unix:{path}", 0, echo, provider=pool)
    assert descriptors() == before


def test_an_address_of_ipv6_is_one_word():
    assert [address_text("::1", 80), address_text("127.0.0.1", 80), address_text("unix:/a:b", 0)] == [
        "[::1]:80",
        "127.0.0.1:80",
        "unix:/a:b",
    ]


@pytest.mark.parametrize("workers", ["2", 1.5, None, 0])
def test_a_number_of_workers_that_is_none_is_refused(workers):
    with pytest.raises(PortValueError, match=f"workers={workers!r}: give 1 to 1024"):
        ServerGroup("127.0.0.1", 0, echo, workers=workers, provider=lambda: SlabPool(4096, 4))


def test_what_makes_no_pools_is_refused():
    with pytest.raises(PortValueError, match="provider=None: give a function that makes a pool"):
        ServerGroup("127.0.0.1", 0, echo, workers=1, provider=None)


@pytest.mark.parametrize("seconds", ["1", None, 0, float("nan")])
def test_a_time_of_workers_that_is_none_is_refused(port, seconds):
    for name in ("idle_seconds", "stall_seconds"):
        with pytest.raises(PortValueError, match=f"{name}={seconds!r} of a worker pool: give more than 0"):
            WorkerPool(port, print, **{name: seconds})


def test_the_simulated_kernel_has_no_address_to_listen_at(pool):
    with pytest.raises(PortValueError, match="SimulatedPeer"):
        Server("127.0.0.1", 0, echo, provider=pool, backend="sim")


@pytest.mark.parametrize(
    "given",
    [{"address": -5}, {"address": "0x10"}, {"work": -1}, {"address": 1 << 64}, {"work": 4096, "context": -1}],
)
def test_what_is_no_address_of_a_function_is_refused(given):
    with pytest.raises(PortValueError, match=r"handler 'mine'=.*: give 0 \(none\)"):
        NativeHandler("mine", **given)


def test_a_native_handler_without_a_function_is_refused():
    with pytest.raises(PortValueError, match=r"pp_received_fn.*pp_work_fn"):
        NativeHandler("mine", context=4096)


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1"])
def test_a_time_that_is_none_is_refused(backend, pool, timeout):
    with CompletionPort(backend) as port:
        for call in (port.dequeue, port.close, lambda seconds: port.dequeue_many(1, seconds)):
            with pytest.raises(PortValueError, match=f"timeout={timeout!r}: give 0 seconds or more"):
                call(timeout)
        with WorkerPool(port, print) as workers, pytest.raises(PortValueError, match="timeout="):
            workers.close(timeout)
    server = Server("127.0.0.1", 0, echo, provider=pool, backend=backend)
    with pytest.raises(PortValueError, match="timeout="):
        server.close(timeout)
    server.close()


@pytest.mark.parametrize("timeout", [10**400, 1 << 64, 1e300, float("inf")])
def test_a_time_that_never_comes_is_a_time(port, timeout):
    port.post(user="here already")
    assert port.dequeue(timeout).user == "here already"
    assert port.close(timeout).complete


@pytest.mark.parametrize(
    "limits",
    [
        {"concurrency": -1},
        {"concurrency": 65537},
        {"max_operations": "x"},
        {"max_endpoints": 1 << 27},
        {"batch_bytes": -1},
        {"seed": 1 << 64},
    ],
)
def test_limits_of_a_port_are_told(backend, limits):
    ((name, value),) = limits.items()
    with pytest.raises(PortValueError, match=f"{name}={value!r}: give 0"):
        CompletionPort(backend, **limits)


def test_a_limit_that_no_port_has_is_named():
    with pytest.raises(TypeError, match="max_bytes"):
        CompletionPort(max_bytes=1)


def test_a_seed_of_64_bits_and_a_batch_of_many_gigabytes_are_possible(backend):
    CompletionPort("sim", seed=(1 << 64) - 1).close()
    CompletionPort(backend, batch_bytes=5 << 30).close()


def test_what_is_no_socket_or_pool_is_refused_and_nothing_is_kept(port, pair):
    here, _there = pair()
    closed = socket.socket()
    closed.close()
    for sock in ("x", closed, -1, None):
        with pytest.raises(PortValueError, match="give an open socket"):
            port.associate(sock)
    with pytest.raises(PortValueError, match="give a pool"):
        port.associate(here, provider=object())
    with pytest.raises(PortValueError, match="receive_size=-1"):
        port.associate(here, receive_size=-1)
    assert not port._keys


@pytest.mark.parametrize("key", [-1, 1 << 64, "k", 1.0])
def test_a_key_that_does_not_fit_is_refused_and_nothing_is_kept(port, pair, key):
    here, _there = pair()
    for call in (
        lambda: port.post(key, "kept"),
        lambda: port.timer(1, key, "kept"),
        lambda: port.wait_readable(here, key, "kept"),
        lambda: port.wait_writable(here, key, "kept"),
    ):
        with pytest.raises(PortValueError, match=r"key=.*2\*\*64 - 1"):
            call()
    assert not port._pending


def test_a_number_is_not_sent_as_that_many_zeros(port, pair, serve, dial):
    here, there = pair()
    endpoint = port.associate(here)
    for data in (5, "text", None):
        with pytest.raises(PortValueError, match="give bytes, another buffer or a lease"):
            endpoint.send(data)
    refused = []

    def answer(connection, lease, length):
        try:
            connection.send(5)
        except PortValueError as error:
            refused.append(str(error))
        connection.send(b"ok")

    client = dial(serve(answer))
    client.sendall(b"x")
    assert client.recv(10) == b"ok"
    assert len(refused) == 1
    endpoint.send(bytearray(b"a buffer"))
    assert there.recv(10) == b"a buffer"
    assert not [one for one in port._pending.values() if one.user is not None]


def test_lengths_and_places_that_are_no_numbers_are_refused_and_nothing_is_kept(port, pair, tmp_path):
    here, _there = pair()
    (tmp_path / "file").write_bytes(b"abc")
    endpoint, file = port.associate(here), port.open_file(tmp_path / "file", "r+")
    for call in (
        lambda: endpoint.send(b"abc", 1.5),
        lambda: endpoint.recv("text"),
        lambda: endpoint.recv(b"not writable"),
        lambda: endpoint.recvfrom(size=-1),
        lambda: endpoint.send_file(file, 0.5),
        lambda: endpoint.send_file(file, 0, 1.5),
        lambda: file.read_at(1.5, bytearray(3)),
        lambda: file.write_at(1.5, b"abc"),
    ):
        with pytest.raises(PortValueError):
            call()
    assert not port._pending


@pytest.mark.parametrize("address", [("localhost", 80), ("127.0.0.1",), "x", ("127.0.0.1", 1 << 16), None, 5])
def test_an_address_to_connect_to_is_a_number_and_a_port(port, address):
    endpoint = port.associate(socket.socket().detach(), own=True)
    with pytest.raises(PortValueError, match=r"IPv4: give the host as a number, and the port, as in"):
        endpoint.connect(address)
    assert not port._pending


@only_unix
def test_an_address_of_a_unix_socket_is_a_path(port, sockets):
    endpoint = port.associate(sock := socket.socket(socket.AF_UNIX))
    sockets.append(sock)
    with pytest.raises(PortValueError, match="give its path"):
        endpoint.connect(("127.0.0.1", 80))


def test_a_report_names_all_that_there_is(backend):
    with CompletionPort(backend) as port:
        for _ in range(10_000):
            port.timer(1000)
        assert len(port.outstanding()) == 10_000
        report = port.close(5)
    assert len(report.outstanding) == 10_000
    assert "10000 outstanding" in str(report).splitlines()[0]


def test_what_an_endpoint_cannot_do_is_told_with_what_it_takes(port, pool, pair, tmp_path):
    here, _there = pair()
    endpoint, bare = port.associate(here, provider=pool), port.associate(_there)
    file = port.open_file(tmp_path / "file", "x+")
    endpoint.recv_stream()
    for call, told in (
        (endpoint.recv_stream, "no receive and no accept under way"),
        (lambda: endpoint.recv(bytearray(3)), "no receive and no accept under way"),
        (endpoint.accept, "a listening socket"),
        (endpoint.disconnect, "own=True"),
        (bare.recv_stream, "give associate"),
        (bare.recvfrom, "give associate"),
        (lambda: endpoint.read_at(0, bytearray(3)), "open_file"),
        (lambda: endpoint.write_at(0, b"abc"), "open_file"),
        (lambda: file.send(b"abc"), "write_at"),
    ):
        with pytest.raises(PortValueError, match=told):
            call()
    assert len(port._pending) == 1, "the receive that is under way"
