"""Worker pools whose handler is in C: the same threads, metrics and mishaps, without the GIL."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from iocp_adapter import DISCARD, ECHO, CompletionPort, NativeHandler, PortError, PortValueError, WorkerPool
from iocp_adapter._native import ffi, lib

ROOT = Path(__file__).parents[2]
Handler = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


def until(condition):
    """Wait for what other threads bring about; the test's own timeout bounds it."""
    while not condition():
        time.sleep(0.001)


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """``work_handlers.c``, compiled."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if os.name == "nt" or compiler is None:
        pytest.skip("there is no compiler; handlers that Python makes are tried below")
    target = tmp_path_factory.mktemp("handlers") / "work_handlers.so"
    headers = [f"-I{ROOT / package / 'core' / 'include'}" for package in ("pools", "iocp_adapter")]
    strict = ["-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror", "-std=gnu11"]
    source = Path(__file__).with_name("work_handlers.c")
    command = [compiler, "-O2", "-shared", "-fPIC", "-pthread", *strict, *headers, "-o", target, source]
    subprocess.run(command, check=True, timeout=100)
    loaded = ctypes.CDLL(str(target))
    loaded.the_gate.restype = ctypes.c_void_p
    loaded.await_entered.restype = loaded.sum_of_keys.restype = ctypes.c_uint64
    loaded.await_entered.argtypes = [ctypes.c_void_p, ctypes.c_uint64]
    loaded.open_gate.argtypes = loaded.sum_of_keys.argtypes = [ctypes.c_void_p]
    return loaded


class Gate:
    """Where the handlers of the library wait, and a ``NativeHandler`` that leads there."""

    def __init__(self, library, function, *, is_open):
        self.library = library
        self.address = library.the_gate(is_open)
        work = ctypes.cast(getattr(library, function), ctypes.c_void_p).value
        self.handler = NativeHandler(function, context=self.address, keep=library, work=work)

    def open(self):
        self.library.open_gate(self.address)

    def await_entered(self, count):
        return self.library.await_entered(self.address, count)

    @property
    def keys(self):
        return self.library.sum_of_keys(self.address)


def handler_of(function):
    """A handler in Python, called as one in C is: ``function(work)`` returns a status."""

    def call(_, address):
        return function(ffi.cast("pp_work *", address))

    made = Handler(call)
    return NativeHandler("made", keep=made, work=ctypes.cast(made, ctypes.c_void_p).value)


def test_every_completion_is_handled_once(port, library):
    gate = Gate(library, "pass_gate", is_open=True)
    with WorkerPool(port, gate.handler, minimum=3, batch=4) as workers:
        for number in range(3000):
            port.post(key=number)
        assert gate.await_entered(3000) == 3000
        until(lambda: workers.stats().handled == 3000 and not workers.stats().busy)
        assert gate.keys == sum(range(3000))
        each = workers.each()
        assert [one.name for one in each] == [f"poolport-worker-{number}" for number in (1, 2, 3)]
        assert sum(one.handled for one in each) == 3000
        assert not any(one.errors or one.blocked for one in each)
    assert workers.stats().threads == 0
    assert workers.stats().handled == 3000
    assert not workers.each()
    assert not port._pending


def test_it_grows_while_all_workers_are_blocked_and_shrinks_when_nobody_needs_them(port, library):
    gate = Gate(library, "pass_gate", is_open=False)
    bounds = {"minimum": 1, "maximum": 4, "stall_seconds": 0.01, "idle_seconds": 0.05}
    with WorkerPool(port, gate.handler, **bounds) as workers:
        for number in range(1, 5):
            port.post()
            gate.await_entered(number)
        until(lambda: workers.stats().blocked == 4)
        assert workers.stats().threads == workers.stats().peak == 4
        assert workers.stats().grown == 3
        assert all(one.blocked and one.busy >= 0.01 for one in workers.each())
        gate.open()
        until(lambda: workers.stats().threads == 1)
        assert workers.stats().shrunk == 3
        assert workers.stats().handled == 4
        port.post()
        gate.await_entered(5)


def test_it_does_not_grow_where_nothing_waits(port, library):
    gate = Gate(library, "pass_gate", is_open=False)
    with WorkerPool(port, gate.handler, minimum=1, maximum=8, stall_seconds=0.005) as workers:
        port.post()
        gate.await_entered(1)
        until(lambda: any(worker.scouts for worker in list(workers._roster.workers)))
        asked = port.stats().waits
        until(lambda: port.stats().waits > asked + 3)  # the scout has asked again and again
        assert workers.stats().threads == workers.stats().peak == 1
        assert workers.stats().grown == 0
        gate.open()


def test_a_refused_completion_costs_itself_and_nothing_else(port, library, caplog):
    gate = Gate(library, "refuse_odd_keys", is_open=True)
    told = []

    def on_error(completion, error):
        told.append((completion.kind, completion.key, completion.user, type(error), error.status))
        raise SystemExit("of on_error")

    with WorkerPool(port, gate.handler, minimum=2, batch=8, on_error=on_error) as workers:
        for number in range(40):
            port.post(key=number, user=f"packet {number}")
        gate.await_entered(40)
        until(lambda: workers.stats().handled == 40 and not workers.stats().busy)
        assert workers.stats().errors == 20
        assert sum(one.errors for one in workers.each()) == 20
        assert workers.stats().threads == 2
    odd = range(1, 40, 2)
    assert sorted(told) == sorted(
        ("post", number, f"packet {number}", PortValueError, "INVALID") for number in odd
    )
    assert workers.stats().errors == 20
    assert "refuse_odd_keys" in caplog.text
    assert "of on_error" in caplog.text
    assert not port._pending


def test_a_close_that_cannot_wait_says_so(port, library):
    gate = Gate(library, "pass_gate", is_open=False)
    workers = WorkerPool(port, gate.handler)
    port.post()
    gate.await_entered(1)
    assert not workers.close(0.01)
    gate.open()
    assert workers.close()


def test_the_workers_end_with_the_port(backend, library):
    gate = Gate(library, "pass_gate", is_open=True)
    port = CompletionPort(backend)
    workers = WorkerPool(port, gate.handler, minimum=4, maximum=6)
    port.close()
    until(lambda: workers.stats().threads == 0)
    assert workers.close()


def test_what_is_not_handled_yet_stays_in_the_port(port, library):
    gate = Gate(library, "pass_gate", is_open=False)
    with WorkerPool(port, gate.handler) as workers:
        port.post(user="first")
        gate.await_entered(1)
        port.post(user="second")
        assert not workers.close(0.001)
        gate.open()
    assert port.dequeue(20).user == "second"


def test_it_is_told_the_programs_key_and_who_the_endpoint_is(port, pool, pair):
    ours, theirs = pair()
    told = []

    def note(work):
        told.append((work.row.key, work.row.event & 255, work.endpoint, int(work.row.result)))
        if work.row.block:
            work.provider.release(work.provider.context, work.row.block)
        return 0

    with WorkerPool(port, handler_of(note), minimum=2):
        endpoint = port.associate(ours, 1 << 40, pool)
        endpoint.recv_stream()
        theirs.sendall(b"three")
        until(lambda: len(told) == 1)  # `handled` counts it before it is handed over
        port.post(key=7)
        until(lambda: len(told) == 2)
        endpoint.close(drain=False)
        until(lambda: len(told) == 4)
        until(lambda: not port._keys and not port._pending)  # what ended is let go while workers wait on
    assert told[0] == (1 << 40, lib.PP_KIND_RECV, endpoint._name, 5)
    assert told[1] == (7, lib.PP_KIND_POST, 0, 0)
    assert sorted(told[2:]) == sorted(
        [(1 << 40, lib.PP_KIND_RECV, endpoint._name, 0), (1 << 40, lib.PP_KIND_CLOSE, 0, 0)]
    )


def test_echo_and_discard_ship(port, pool, pair):
    for handler, answer in ((ECHO, b"and back"), (DISCARD, b"")):
        ours, theirs = pair()
        with WorkerPool(port, handler, minimum=2) as workers:
            port.associate(ours, 1, pool).recv_stream()
            theirs.sendall(b"and back")
            heard = b""
            while len(heard) < len(answer):
                heard += theirs.recv(100)
            assert heard == answer
            until(lambda: workers.stats().handled)
            assert workers.stats().errors == 0
    port.close()


def test_a_handler_may_submit_beside_python(port, pool, pair, library):
    """What C gives for a user is C's; what Python's operations hold is let go when they have ended."""
    ours, theirs = pair()
    gate = Gate(library, "answer", is_open=True)
    with WorkerPool(port, gate.handler) as workers:
        endpoint = port.associate(ours, 3, pool)
        endpoint.recv_stream()
        endpoint.send(b"from Python ")
        theirs.sendall(b"from C")
        heard = b""
        while len(heard) < 18:
            heard += theirs.recv(100)
        gate.await_entered(1)
        until(lambda: workers.stats().handled == 3)
        assert workers.stats().errors == 0
        until(lambda: len(port._pending) == 1)  # the receive that is under way
    assert heard == b"from Python from C"
    assert gate.keys == 3
    port.close()


def test_a_batch_is_handled_to_its_end_whatever_is_refused(port):
    entered, gate = threading.Event(), threading.Event()
    handled = []

    def handle(work):
        if not handled:
            entered.set()
            gate.wait(60)
        handled.append(work.row.key)
        return lib.PP_CLOSED

    for number in range(8):
        port.post(key=number)
    workers = WorkerPool(port, handler_of(handle), batch=8)
    assert entered.wait(60)
    assert not workers.close(0.001)
    gate.set()
    assert workers.close()
    assert handled == list(range(8))
    assert workers.stats().errors == 8


def test_a_handler_without_a_function_for_completions_is_refused(port):
    with pytest.raises(PortValueError, match="pp_work_fn"):
        WorkerPool(port, NativeHandler("mine", 4096))


def test_it_must_not_be_closed_by_what_its_own_worker_calls(port):
    found = []

    def on_error(completion, error):
        try:
            workers.close()
        except PortError as refusal:
            found.append(refusal)

    with WorkerPool(port, handler_of(lambda work: lib.PP_INVALID), on_error=on_error) as workers:
        port.post()
        until(lambda: found)


def test_a_program_may_end_while_its_workers_wait(backend):
    code = f"""
from iocp_adapter import DISCARD, CompletionPort, WorkerPool
port = CompletionPort({backend!r})
workers = WorkerPool(port, DISCARD, minimum=3, maximum=5)
for number in range(100):
    port.post(key=number)
while workers.stats().handled < 100:
    pass
print("ends")
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (run.returncode, run.stdout) == (0, "ends\n"), run.stderr
