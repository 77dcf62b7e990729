"""Waiting for sockets that are somebody else's."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest

from iocp_adapter import BackendUnavailable, CompletionPort, PortFull, PortValueError


def test_data_makes_readable_once_and_stays_there(port, pair):
    here, there = pair()
    port.wait_readable(here, key=3, user="mine")
    assert port.dequeue(0) is None
    there.send(b"abc")
    done = port.dequeue(10)
    assert (done.kind, done.key, done.user, done.error) == ("readable", 3, "mine", None)
    assert (done.more, done.result, done.lease) == (False, 0, None)
    assert port.dequeue(0) is None
    assert here.recv(10) == b"abc"
    assert port.stats().foreign_ready == 1


def test_an_idle_socket_is_writable_by_number_too(port, pair):
    here, _ = pair()
    port.wait_writable(here.fileno(), user=1)
    assert port.dequeue(10).kind == "writable"


def test_a_peer_that_hangs_up_is_ready(port, pair):
    here, there = pair()
    port.wait_readable(here)
    there.close()
    assert port.dequeue(10).error is None
    assert here.recv(1) == b""


def test_a_wait_can_be_taken_back_once(port, pair):
    here, _ = pair()
    operation = port.wait_readable(here, user="mine")
    assert operation.cancel()
    done = port.dequeue(10)
    assert (done.kind, done.user, done.error.errno) == ("readable", "mine", errno.ECANCELED)
    assert not operation.cancel()


def test_each_wait_for_one_socket_has_its_completion(port, pair):
    here, there = pair()
    for number in range(3):
        port.wait_readable(here, user=number)
    there.send(b"!")
    assert {port.dequeue(10).user for _ in range(3)} == {0, 1, 2}


def test_a_close_names_the_waits_that_were_left(port, pair):
    here, _ = pair()
    port.wait_readable(here, key=8)
    report = port.close()
    assert [(one.kind, one.key) for one in report.outstanding] == [("readable", 8)]
    assert port.dequeue().error.errno == errno.ECANCELED


def test_a_file_is_refused_and_says_why(port, tmp_path):
    with (tmp_path / "file").open("wb") as file, pytest.raises(BackendUnavailable, match="always ready"):
        port.wait_readable(file)
    assert port.stats().outstanding == 0


@pytest.mark.skipif(sys.platform != "win32", reason="a process has no handle elsewhere")
def test_a_process_that_has_ended_is_readable(port):
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        port.wait_readable(int(vars(process)["_handle"]), user="ended")
        assert port.dequeue(0) is None
        process.communicate(b"\n")
        done = port.dequeue(30)
        assert (done.kind, done.user, done.error) == ("readable", "ended", None)
        assert process.poll() == 0


@pytest.mark.skipif(sys.platform != "win32", reason="a process has no handle elsewhere")
def test_a_process_is_not_waited_for_to_be_written(port):
    with (
        subprocess.Popen([sys.executable, "-c", ""]) as process,
        pytest.raises(BackendUnavailable, match="only sockets"),
    ):
        port.wait_writable(int(vars(process)["_handle"]))


@pytest.mark.parametrize("descriptor", [-1, 1 << 30])
def test_what_is_not_open_is_refused(port, descriptor):
    with pytest.raises(PortValueError, match="is not open"):
        port.wait_writable(descriptor)


@pytest.mark.parametrize("handle", [None, "x", 1.5, 1 << 63, -(1 << 70)])
def test_what_is_no_handle_is_refused_and_nothing_is_kept(port, handle):
    for wait in (port.wait_readable, port.wait_writable):
        with pytest.raises(PortValueError, match=f"able of {handle!r}: give a socket"):
            wait(handle)
    assert not port._pending


def test_without_a_slot_a_wait_is_refused(backend, pair):
    here, _ = pair()
    with CompletionPort(backend, max_operations=1) as port:
        port.wait_readable(here)
        with pytest.raises(PortFull, match="slot"):
            port.wait_readable(here)
