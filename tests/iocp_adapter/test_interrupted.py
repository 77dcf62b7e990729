"""What the handler of a signal raises while completions are taken: none is lost, and none comes twice.

The interpreter looks for signals where a function begins and where a call has returned. Here there is one at
each of these places in turn.
"""

from __future__ import annotations

import contextlib
import dis
import itertools
import socket
import sys

import pytest

from iocp_adapter import ECHO, PortClosed, Server, batches, native_handler, rows, shift


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
    sys.settrace(at_each)
    try:
        yield told
    except Interrupted:
        pass
    finally:
        sys.settrace(before)


def until_closed(port):
    with contextlib.suppress(PortClosed):
        while found := port.dequeue_many(64, 10):
            yield from found


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
