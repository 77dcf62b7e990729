"""What the handler of a signal raises while something is submitted or taken: nothing is lost, or comes twice.

The interpreter looks for signals where a function begins and where a call has returned. Here there is one at
each of these places in turn.
"""

from __future__ import annotations

import contextlib
import dis
import gc
import itertools
import socket
import sys
import threading

import pytest

from iocp_adapter import (
    ECHO,
    PortClosed,
    Server,
    StaleEndpoint,
    batches,
    buffers,
    completion_port,
    endpoint,
    foreign,
    native_handler,
    native_port,
    operation,
    outgoing,
    rows,
    serving,
    shift,
)


class Interrupted(BaseException):
    pass


@contextlib.contextmanager
def interrupted_at(number, *modules):
    """Raises at the place of that number in some modules; tells whether there was one."""
    files = {module.__file__ for module in modules}
    left, told, last = itertools.count(number, -1), [], {}

    def at_each(frame, event, _argument):
        if frame.f_code.co_filename not in files:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            before, last[frame] = last.get(frame, "CALL"), dis.opname[frame.f_code.co_code[frame.f_lasti]]
            if before.startswith("CALL") and next(left) == 0:
                told.append(True)
                raise Interrupted
        return at_each

    before = sys.gettrace()
    gc.disable()  # or it is a finalizer of something else that is interrupted
    sys.settrace(at_each)
    try:
        yield told
    except Interrupted:
        pass
    finally:
        sys.settrace(before)
        gc.enable()
        last.clear()  # its frames have what was made in them


def until_closed(port):
    with contextlib.suppress(PortClosed):
        while found := port.dequeue_many(64, 10):
            yield from found


SUBMITTING = completion_port, endpoint, operation, rows, foreign, buffers, native_port


def until_quiet(port):
    """All that completes, until nothing is under way."""
    while port.outstanding():
        yield from port.dequeue_many(64, 10)
    while found := port.dequeue_many(64, 0):
        yield from found


def bound(sockets):
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sockets.append(made)
    made.bind(("127.0.0.1", 0))
    return made


@pytest.mark.parametrize(
    ("kind", "submit"),
    [
        ("post", lambda port, _stream, _datagrams: port.post(0, "mine")),
        ("timer", lambda port, _stream, _datagrams: port.timer(0, 0, "mine")),
        ("readable", lambda port, _stream, datagrams: port.wait_readable(datagrams[1], 0, "mine")),
        ("recv", lambda _port, stream, _datagrams: stream.recv(bytearray(10), "mine")),
        ("recv", lambda _port, stream, _datagrams: stream.recv_stream("mine")),
        ("send", lambda _port, stream, _datagrams: stream.send(b"data", user="mine")),
        ("disconnect", lambda _port, stream, _datagrams: stream.disconnect("mine")),
        ("recvfrom", lambda _port, _stream, datagrams: datagrams[0].recvfrom(user="mine")),
        (
            "sendto",
            lambda _port, _stream, datagrams: datagrams[0].sendto(
                b"data", datagrams[1].getsockname(), user="mine"
            ),
        ),
    ],
)
def test_an_interrupted_submission_is_made_or_leaves_nothing(port, pool, pair, sockets, kind, submit):
    other = bound(sockets)
    bound(sockets).sendto(b"there to be waited for", other.getsockname())
    for number in itertools.count():
        here, _there = pair()
        stream = port.associate(here.detach(), 1, pool, own=True)
        datagrams = port.associate(bound(sockets).detach(), 2, pool, own=True)
        with interrupted_at(number, *SUBMITTING) as told:
            submit(port, stream, (datagrams, other))
        for one in (stream, datagrams):
            with contextlib.suppress(StaleEndpoint):
                one.close(drain=False)
        mine = [one for one in until_quiet(port) if one.user == "mine"]
        assert not port._pending, f"place {number}"
        assert [one.kind for one in mine] in ([], [kind]), f"place {number}"
        if not told:
            break
    assert mine
    assert number > 3


def test_an_interrupted_send_takes_the_lease_or_leaves_it(port, pool, pair):
    here, there = pair()
    stream = port.associate(here, 1, pool)
    for number in itertools.count():
        lease = pool.acquire()
        with interrupted_at(number, *SUBMITTING) as told:
            stream.send(lease, 4)
        sent = [one.kind for one in until_quiet(port)]
        assert sent == ([] if lease.handle else ["send"]), f"place {number}"
        if sent:
            assert len(there.recv(10)) == 4
        else:
            lease.release()
        if not told:
            break
    assert sent
    assert number > 3


@pytest.mark.parametrize("from_pool", [False, True])
def test_an_interrupted_send_of_a_server_is_made_or_leaves_nothing(serve, pool, dial, from_pool):
    began = threading.Semaphore(0)
    received = bytearray()

    class Silent:
        connected = staticmethod(lambda _connection: began.release())
        received = staticmethod(lambda _connection, _lease, _length: None)

    server = serve(Silent())
    peer = dial(server)
    assert began.acquire(timeout=10)
    (connection,) = server.connections
    owned = 0
    for number in itertools.count():
        data = pool.acquire() if from_pool else b"data"
        with interrupted_at(number, outgoing, serving) as told:
            connection.send(data, 4)
        if from_pool and data.handle:
            data.release()
            owned += 1
        if not told:
            break
    assert server.close(10).complete
    while part := peer.recv(1 << 16):
        received += part
    assert not server._serving.outgoing.held
    assert number > 3
    if from_pool:
        assert len(received) == 4 * (number + 1 - owned)


def test_an_interrupted_association_is_made_or_leaves_nothing(port, pool, pair):
    for number in itertools.count():
        here, _there = pair()
        with interrupted_at(number, *SUBMITTING) as told:
            port.associate(here, 1, pool)
        assert len(port._keys) == len(port.endpoints()), f"place {number}"
        if not told:
            break
    assert number > 3


@pytest.mark.parametrize("limit", [1, 64])
def test_an_interrupted_dequeue_leaves_all_to_the_next(port, pool, pair, limit):
    here, there = pair()
    port.associate(here, 7, pool, tag="mine").recv_stream("stream")
    for number in itertools.count():
        there.sendall(b"data")
        port.post(1, number)
        port.timer(0, 2, number)
        found = []
        with interrupted_at(number, rows, batches) as told:
            found.extend(port.dequeue_many(limit, 10))
        while len(found) < 3:
            found.extend(port.dequeue_many(limit, 10))
        assert sorted((one.kind, one.user) for one in found) == [
            ("post", number),
            ("recv", "stream"),
            ("timer", number),
        ], f"place {number}"
        (data,) = (one for one in found if one.lease)
        assert bytes(data.lease.view[: data.result]) == b"data", f"place {number}"
        data.lease.release()
        assert len(port._pending) == 1, f"place {number}"
        if not told:
            break
    assert number > 30
    assert pool.lost_leases == 0


def test_an_interrupted_end_is_told_and_its_endpoint_forgotten(port, pool, pair):
    for number in itertools.count():
        here, _there = pair()
        port.associate(here.detach(), 7, pool, own=True).close()
        found = []
        with interrupted_at(number, rows, batches) as told:
            found.extend(port.dequeue_many(64, 10))
        while not found:
            found.extend(port.dequeue_many(64, 10))
        assert [(one.key, one.kind) for one in found] == [(7, "close")], f"place {number}"
        assert not port._keys, f"place {number}"
        if not told:
            break


def test_what_an_interrupted_dequeue_has_taken_is_there_when_the_port_is_closed(port, pool, pair):
    here, there = pair()
    port.associate(here, 7, pool).recv_stream()
    for number in itertools.count():
        there.sendall(b"data")
        found = []
        with interrupted_at(number, rows, batches) as told:
            found.extend(port.dequeue_many(64, 10))
        if port._rows._untold:
            break
        assert told
        for one in found or port.dequeue_many(64, 10):
            one.lease.release()
    port.close()
    first, *_ = until_closed(port)
    assert bytes(first.lease.view[: first.result]) == b"data"
    first.lease.release()


def turn_until(server, number):
    """Connections come and go, of which the interpreter is told."""
    while server.stats().accepted <= number or server.stats().closed <= number:
        server._serving.turn(10)


def test_an_interrupted_turn_of_a_native_server_loses_no_connection(backend, pool):
    with Server("127.0.0.1", 0, ECHO, provider=pool, backend=backend) as server:
        server._shift.own()
        for number in itertools.count():
            with socket.create_connection(server.address, timeout=10):
                pass
            with interrupted_at(number, native_handler) as told:
                server._serving.turn(10)
            turn_until(server, number)
            assert not server.connections, f"place {number}"
            if not told:
                break
        assert number > 5


def test_an_interrupted_server_serves_and_is_closed(backend, pool):
    server = Server("127.0.0.1", 0, ECHO, provider=pool, backend=backend)
    for number in itertools.count():
        server.stop()
        with interrupted_at(number, shift) as told:
            server.serve_forever()
        if not told:
            break
    assert number > 5
    assert server.close(10).complete
