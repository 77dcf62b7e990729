"""Who lives how long: views that outlast completions, ports that are lost in the middle of everything."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import subprocess
import sys
import threading
import weakref

import pytest

from iocp_adapter import CompletionPort
from iocp_adapter.endpoint import Submission
from pools import SlabPool

from .conftest import listening, only_unix


def test_a_completion_that_another_thread_has_before_the_call_returns_is_whole(
    port, pool, pair, tmp_path, monkeypatch
):
    """Every call stops between the core, which has its operation, and its own end."""
    ours, theirs = pair()
    endpoint = port.associate(ours, 7, pool)
    file = port.open_file(tmp_path / "file", "w+", key=8)
    found, taken = [], threading.Semaphore(0)
    done = Submission.done

    def held_up(self, status, what, takes=""):
        assert taken.acquire(timeout=30), what
        return done(self, status, what, takes)

    def take():
        for _ in calls:
            found.append(port.dequeue(30))
            taken.release()

    calls = {
        "post": lambda: port.post(7, "post"),
        "timer": lambda: port.timer(0, 7, "timer"),
        "send": lambda: endpoint.send(b"to you", user="send"),
        "recv": lambda: endpoint.recv(room, user="recv"),
        "write_at": lambda: file.write_at(0, b"in a file", user="write_at"),
        "read_at": lambda: file.read_at(3, text, user="read_at"),
        "writable": lambda: port.wait_writable(theirs, 7, "writable"),
    }
    room, text = bytearray(6), bytearray(6)
    theirs.sendall(b"to me!")
    monkeypatch.setattr(Submission, "done", held_up)
    taker = threading.Thread(target=take)
    taker.start()
    operations = [call() for call in calls.values()]
    taker.join(30)
    assert [(one.kind, one.user, one.error) for one in found] == [(kind, kind, None) for kind in calls]
    assert [one.key for one in found] == [8 if kind in {"write_at", "read_at"} else 7 for kind in calls]
    assert (room, text) == (b"to me!", b"a file")
    assert not any(operation.cancel() for operation in operations if operation)
    assert not port._pending


def test_a_view_outlasts_its_completion_its_lease_and_its_port(backend, pool, pair):
    here, there = pair()
    with CompletionPort(backend) as port:
        endpoint = port.associate(here, 1, pool)
        endpoint.recv_stream()
        there.sendall(b"looked at")
        done = port.dequeue(5)
        view = done.lease.view[: done.result]
        done.lease.release()
        del done
        for number in range(200):  # more than the pool has blocks
            there.sendall(b"%3d" % number)
            with port.dequeue(5).lease as lease:
                assert bytes(lease.view[:3]) == b"%3d" % number
        assert view == b"looked at"
    assert view == b"looked at"
    assert pool.stats().live_blocks == 1
    del view
    assert pool.stats().live_blocks == 0


def test_a_buffer_stays_where_it_is_until_its_completion(port, pair):
    here, there = pair()
    memory = bytearray(8)
    port.associate(here, 1).recv(memory)
    with pytest.raises(BufferError):
        memory.extend(b"more")
    there.sendall(b"in place")
    assert port.dequeue(5).result == 8
    memory.extend(b", and more")
    assert memory == b"in place, and more"


def test_a_buffer_that_nobody_else_has_lives_until_its_completion(port, pair):
    here, there = pair()
    port.associate(here, 1).recv(bytearray(1 << 16))
    gc.collect()
    there.sendall(b"nobody will see it")
    assert port.dequeue(5).result == 18


# ---- finalisers ----------------------------------------------------------------------------------------


def busy_port(backend, pool, path, sockets):
    """Operations of all kinds in flight, each of which refers to the port by its endpoint: a cycle."""
    port = CompletionPort(backend)
    for _ in range(3):
        here, there = socket.socketpair()
        sockets.append(there)
        endpoint = port.associate(here.detach(), 1, pool, own=True)
        endpoint.send(bytes(4 << 20), user=endpoint)
        endpoint.recv_stream(endpoint)
    here, there = socket.socketpair()
    sockets.append(there)
    endpoint = port.associate(here.detach(), 2, pool, own=True)
    endpoint.recv(bytearray(1 << 16), user=endpoint)
    here, there = socket.socketpair()
    sockets.append(there)
    endpoint = port.associate(here.detach(), 3, pool, own=True)
    with pool.acquire() as lease:  # which gives it back, as far as that goes
        endpoint.recv(lease, user=endpoint)
    file = port.open_file(path, "w+")
    for number in range(8):
        file.write_at(number << 16, bytes(1 << 16), user=file)
        file.read_at(number << 16, bytearray(1 << 16), user=file)
    accepting = listening(sockets)
    port.associate(accepting, 4).accept(port)
    port.wait_readable(accepting, user=port)
    port.timer(3600, user=port)
    for there in sockets[:3]:
        there.send(b"which nobody will dequeue")
    return port


def of_another_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()


def lose(backend, pool, path, sockets):
    """A busy port that only the collector finds, in another thread."""
    gc.collect()
    gc.disable()
    try:
        port = busy_port(backend, pool, path, sockets)
        lost = weakref.ref(port)
        del port
        assert lost() is not None
        of_another_thread(gc.collect)
    finally:
        gc.enable()
    assert lost() is None
    for there in sockets[:5]:
        there.settimeout(10)
        with contextlib.suppress(ConnectionError):
            while there.recv(1 << 20):
                pass


def test_a_port_that_is_lost_is_finalised_by_another_thread(backend, pool, sockets, tmp_path):
    lose(backend, pool, tmp_path / "file", sockets)
    assert (pool.stats().pinned_blocks, pool.stats().live_blocks) == (0, 0)


def test_what_it_had_of_a_pool_of_one_thread_is_told_as_a_leak(backend, sockets, tmp_path):
    """Another thread cannot give such a block back, and must not: it stays what it was."""
    pool = SlabPool(16384, 64)
    lose(backend, pool, tmp_path / "file", sockets)
    pool.check()
    assert pool.stats().pinned_blocks == 1
    others = pool.acquire_many(63)
    assert len(others) == 63
    pool.release_many(others)
    assert len(pool.close()) == 1


def test_the_last_who_has_a_port_may_be_another_thread(backend, pool, sockets, tmp_path):
    ports = [CompletionPort(backend)]
    here, _there = socket.socketpair()
    sockets.append(_there)
    ports[0].associate(here.detach(), 1, pool, own=True).recv(bytearray(100))
    lost = weakref.ref(ports[0])
    of_another_thread(ports.clear)
    assert lost() is None
    _there.settimeout(10)
    with contextlib.suppress(ConnectionError):
        assert _there.recv(1) == b""


# ---- the end of the process --------------------------------------------------------------------------------

_BUSY = """
import os, socket, sys, threading, tempfile, warnings
from iocp_adapter import CompletionPort
from pools import SlabPool

pool = SlabPool(4096, 16, thread_safe=True)
port = CompletionPort({backend!r})
pairs = [socket.socketpair() for _ in range(4)]
ends = [port.associate(here, 1, pool) for here, _ in pairs]
ends[0].recv(bytearray(1 << 16), user=ends)
ends[1].recv_stream(ends)
ends[2].send(bytes(8 << 20), user=port)
ends[3].recv(pool.acquire())
file = port.open_file(os.path.join({folder!r}, "file"), "w+")
for number in range(20):
    file.write_at(number << 16, bytes(1 << 16))
    file.read_at(number << 16, bytearray(1 << 16))
port.timer(3600)
pairs[1][1].send(b"news")
"""


def outcome(program, backend, folder):
    run = subprocess.run(
        [sys.executable, "-c", _BUSY.format(backend=backend, folder=str(folder)) + program],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return run.returncode, run.stderr, run.stdout


@pytest.mark.parametrize(
    "end",
    [
        "",
        "sys.exit()",
        "del port",
        "ends.clear(); del port, file",
        "got = port.dequeue(5)",
        "threading.Thread(target=port.dequeue_many, args=(1, 3600), daemon=True).start()",
        "port.own = port; pool.port = port",
    ],
)
def test_the_interpreter_exits_with_operations_in_flight(backend, tmp_path, end):
    assert outcome(end, backend, tmp_path) == (0, "", "")


_FORK = """
sys.path.append({tests!r})
from fork_at_rest import come_to_rest
warnings.filterwarnings("ignore", "This process", DeprecationWarning)  # 3.12: of a fork beside threads
come_to_rest()
child = os.fork()
if child == 0:
    {end}
else:
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    pairs[0][1].sendall(b"still there")
    found = []
    while len(found) < 42:
        found += [(one.kind, one.result, one.error) for one in port.dequeue_many(10, 10)]
    print(code, ("recv", 11, None) in found, {{error for _, _, error in found}})
    print(port.close().complete)
"""


@only_unix
@pytest.mark.parametrize("end", ["pass", "del port, ends, file", "port.close()", "os._exit(0)"])
def test_a_child_of_fork_takes_nothing_of_the_port_along(backend, tmp_path, end):
    """However it ends, with operations of its parent's in flight; all of them complete there."""
    program = _FORK.format(end=end, tests=os.path.dirname(__file__))
    code, errors, printed = outcome(program, backend, tmp_path)
    assert (code, errors) == (0, "")
    assert printed == "0 True {None}\nTrue\n"
