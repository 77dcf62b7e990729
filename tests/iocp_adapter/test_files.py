"""Files through a port: offsets, leases, ends and modes."""

from __future__ import annotations

import errno

import pytest

from iocp_adapter import CompletionPort, PortValueError, StaleEndpoint


@pytest.fixture
def path(tmp_path):
    return tmp_path / "täglich.dat"


def test_a_file_is_read_where_it_was_written(port, path):
    file = port.open_file(path, "w+", key=4)
    file.write_at(3, b"written", user="w")
    done = port.dequeue(5)
    assert (done.key, done.kind, done.result, done.error, done.user) == (4, "write_at", 7, None, "w")
    buffer = bytearray(10)
    file.read_at(5, buffer, user="r")
    done = port.dequeue(5)
    assert (done.key, done.kind, done.result, done.error, done.user) == (4, "read_at", 5, None, "r")
    assert buffer == b"itten\0\0\0\0\0"
    assert path.read_bytes() == b"\0\0\0written"


def test_behind_the_end_there_are_no_bytes(port, path):
    path.write_bytes(b"short")
    file = port.open_file(path)
    for offset in (5, 1 << 40):
        file.read_at(offset, bytearray(4))
        done = port.dequeue(5)
        assert (done.result, done.error) == (0, None)


def test_leases_are_written_and_read(port, path, pool):
    file = port.open_file(path, "w+", provider=pool)
    lease = pool.acquire()
    lease.view[:5] = b"lease"
    file.write_at(0, lease, 5)
    assert port.dequeue(5).lease is None
    with pool.acquire() as into:
        file.read_at(0, into)
        done = port.dequeue(5)
        assert done.lease is into
        assert bytes(into.view[: done.result]) == b"lease"
        file.write_at(5, into, 5, take=False)
        assert port.dequeue(5).lease is into
    assert path.read_bytes() == b"leaselease"


def test_many_complete_in_any_order(port, path):
    file = port.open_file(path, "w+")
    for number in range(100):
        file.write_at(number * 10, bytes([number]) * 10, user=number)
    assert sorted(port.dequeue(5).user for _ in range(100)) == list(range(100))
    assert path.read_bytes() == b"".join(bytes([number]) * 10 for number in range(100))
    assert port.stats().file_writes == 100
    (info,) = port.endpoints()
    assert (info.sent_bytes, info.doing) == (1000, ())


def test_a_lease_that_is_released_meanwhile_waits_for_the_disk(port, path, pool):
    path.write_bytes(b"x" * 100)
    file = port.open_file(path, provider=pool)
    lease = pool.acquire()
    file.read_at(0, lease)
    lease.release()
    assert port.dequeue(5).result == 100
    assert pool.stats().deferred_blocks == 0
    assert pool.stats().live_blocks == 0


def test_closing_reports_what_was_under_way_and_loses_nothing(backend, path, pool):
    port = CompletionPort(backend)
    file = port.open_file(path, "w", key=9, provider=pool)
    leases = pool.acquire_many(32)
    for number, lease in enumerate(leases):
        file.write_at(number * lease.size, lease)
    report = port.close()
    assert report.complete
    assert {(one.kind, one.key) for one in report.outstanding} <= {("write_at", 9)}
    outcomes = [one for one in port.dequeue_many(256, 0) if one.kind == "write_at"]
    assert len(outcomes) == 32
    for one in outcomes:
        assert one.result == 16384 or one.error.errno == errno.ECANCELED


def test_a_cancel_tells_with_the_completion(port, path):
    file = port.open_file(path, "w")
    operation = file.write_at(0, bytes(1 << 20))
    operation.cancel()
    done = port.dequeue(5)
    assert done.result == 1 << 20 or done.error.errno == errno.ECANCELED
    assert not operation.cancel()


def test_modes_are_those_of_open(port, path):
    with pytest.raises(FileNotFoundError) as missing:
        port.open_file(path)
    assert missing.value.filename == str(path)
    with pytest.raises(PortValueError, match="mode 'rb'"):
        port.open_file(path, "rb")
    with pytest.raises(PortValueError, match="zero bytes"):
        port.open_file(f"{path}\0more")
    port.open_file(path, "x").close()
    with pytest.raises(FileExistsError):
        port.open_file(path, "x+")
    path.write_bytes(b"kept")
    port.open_file(path, "r+").write_at(0, b"K")
    assert [port.dequeue(5).kind for _ in range(2)] == ["close", "write_at"]
    assert path.read_bytes() == b"Kept"
    port.open_file(path, "w")
    assert path.read_bytes() == b""


def test_reading_what_is_only_written_is_an_error_of_the_operation(port, path):
    file = port.open_file(path, "w")
    file.read_at(0, bytearray(4))
    error = port.dequeue(5).error
    assert isinstance(error, OSError)
    assert error.strerror


def test_a_directory_is_no_file(port, tmp_path):
    with pytest.raises((IsADirectoryError, PermissionError)) as refused:  # Windows says the latter
        port.open_file(tmp_path)
    assert refused.value.filename == str(tmp_path)
    assert port.stats().endpoints == 0


@pytest.mark.parametrize("offset", [-1, "0", 1.5, None, (1 << 63) - 1])
def test_an_offset_that_is_none_is_told(port, path, offset):
    file = port.open_file(path, "w+", 1)
    for call in (lambda: file.write_at(offset, b"x"), lambda: file.read_at(offset, bytearray(1))):
        with pytest.raises(
            PortValueError, match=f"1 bytes at offset {offset!r} of a file: give an offset from 0"
        ):
            call()


def test_a_file_says_what_it_is_not_for(port, path):
    file = port.open_file(path, "w+", 1)
    with pytest.raises(PortValueError, match=r"it takes a socket; .* for a file write_at"):
        file.sendto(b"x")
    with pytest.raises(PortValueError, match="a socket or pipe to send to, and a file that is open"):
        file.send_file(file)


def test_what_no_file_has_is_refused(port, path, pair):
    file = port.open_file(path, "w+")
    for offset in (-1, (1 << 63) - 1, 1 << 64):
        with pytest.raises(PortValueError):
            file.read_at(offset, bytearray(4))
        with pytest.raises(PortValueError):
            file.write_at(offset, b"data")
    with pytest.raises(PortValueError):
        file.write_at(0, b"")
    with pytest.raises(PortValueError):
        file.recv(bytearray(4))
    with pytest.raises(PortValueError):
        port.associate(pair()[0]).read_at(0, bytearray(4))
    assert port.outstanding() == ()
    file.close()
    assert port.dequeue(5).kind == "close"
    with pytest.raises(StaleEndpoint):
        file.read_at(0, bytearray(4))
