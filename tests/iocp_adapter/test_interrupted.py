"""What the handler of a signal raises while completions are taken: none is lost, and none comes twice.

Such an exception comes between two instructions of the interpreter. Here it comes before each of them in
turn, but for those that return, before which no interpreter looks for signals.
"""

from __future__ import annotations

import contextlib
import dis
import itertools
import sys

import pytest

from iocp_adapter import PortClosed, batches, rows


class Interrupted(BaseException):
    pass


def returns(frame):
    return dis.opname[frame.f_code.co_code[frame.f_lasti]].startswith("RETURN")


@contextlib.contextmanager
def interrupted_at(number):
    """Raises at the instruction of that number in what reads rows; tells whether there was one."""
    left, told = itertools.count(number, -1), []

    def at_each(frame, event, _argument):
        if frame.f_code.co_filename not in {rows.__file__, batches.__file__}:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and not returns(frame) and next(left) == 0:
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
        with interrupted_at(number) as told:
            found.extend(port.dequeue_many(limit, 10))
        while len(found) < 3:
            found.extend(port.dequeue_many(limit, 10))
        assert sorted((one.kind, one.user) for one in found) == [
            ("post", number),
            ("recv", "stream"),
            ("timer", number),
        ], f"instruction {number}"
        (data,) = (one for one in found if one.lease)
        assert bytes(data.lease.view[: data.result]) == b"data", f"instruction {number}"
        data.lease.release()
        assert len(port._pending) == 1, f"instruction {number}"
        if not told:
            break
    assert number > 100
    assert pool.lost_leases == 0


def test_an_interrupted_end_is_told_and_its_endpoint_forgotten(port, pool, pair):
    for number in itertools.count():
        here, _there = pair()
        port.associate(here.detach(), 7, pool, own=True).close()
        found = []
        with interrupted_at(number) as told:
            found.extend(port.dequeue_many(64, 10))
        while not found:
            found.extend(port.dequeue_many(64, 10))
        assert [(one.key, one.kind) for one in found] == [(7, "close")], f"instruction {number}"
        assert not port._keys, f"instruction {number}"
        if not told:
            break


def test_what_an_interrupted_dequeue_has_taken_is_there_when_the_port_is_closed(port, pool, pair):
    here, there = pair()
    port.associate(here, 7, pool).recv_stream()
    for number in itertools.count():
        there.sendall(b"data")
        found = []
        with interrupted_at(number) as told:
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
