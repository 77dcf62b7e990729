"""What a lease reads, writes and resizes: the bytes of its block, and no others."""

from __future__ import annotations

import pytest

from pools import CompactingPool, PoolError, PoolValueError, Unsupported


def test_write_takes_any_contiguous_bytes(pool):
    with pool.acquire(64) as lease:
        assert lease.write(b"abc") == 3
        assert lease.write(bytearray(b"def"), 3) == 3
        assert lease.write(memoryview(b"xghix")[1:4], 6) == 3
        assert lease.write(memoryview(bytes(range(8))).cast("I"), 9) == 8
        assert lease.write(memoryview(bytes(6)).cast("B", (2, 3)), 20) == 6
        assert lease.write(b"", 64) == 0
        assert lease.read(0, 17) == b"abcdefghi" + bytes(range(8))


@pytest.mark.parametrize("data", ["text", 5, None, [1, 2], memoryview(b"abcdef")[::2]])
def test_write_refuses_what_is_no_run_of_bytes(pool, data):
    with pool.acquire(64) as lease, pytest.raises(TypeError):
        lease.write(data)


@pytest.mark.parametrize(
    ("offset", "size"), [(-1, 1), (0, -1), (0, 2**40), (2**40, 1), (1, 2**64), (4090, 7)]
)
def test_a_read_stays_within_the_block(pool, offset, size):
    with pool.acquire(4096) as lease:
        with pytest.raises(PoolValueError, match="stay within"):
            lease.read(offset, size)
        if size > 0:
            with pytest.raises(PoolValueError):
                lease.write(bytes(min(size, 9000)), min(offset, 2**50) if offset else 4090)
        assert lease.read(lease.size) == b""


def test_resize_keeps_the_bytes_and_the_handle(pool):
    with pool.acquire(16) as lease:
        lease.write(b"0123456789abcdef")
        handle = lease.handle
        lease.resize(4000)
        assert lease.handle == handle
        assert lease.requested == 4000
        assert lease.size >= 4000
        assert lease.read(0, 16) == b"0123456789abcdef"
        lease.resize(3)
        assert lease.read(0, 3) == b"012"
        assert pool.stats().requested_bytes == 3


@pytest.mark.parametrize("offset", [-1, -(2**63), -(2**70), 4097, 2**63 - 1, 2**70])
def test_what_begins_outside_the_block_is_neither_read_nor_written(pool, offset):
    with pool.acquire(4096) as lease:
        lease.write(b"x" * 4096)
        for call in (lease.read, lambda at: lease.read(at, 2**63 - 1), lambda at: lease.write(b"y", at)):
            with pytest.raises(PoolValueError, match="stay within"):
                call(offset)
        assert lease.read() == b"x" * 4096


def test_a_block_that_grew_while_it_was_pinned_has_no_address_once_it_is_not():
    with CompactingPool(1 << 18) as pool:
        before = pool.acquire(4096)
        with pool.acquire(4096) as lease:
            lease.write(b"kept")
            with lease.pin() as view:
                lease.resize(40000)
                assert bytes(view[:4]) == b"kept"
            with pytest.raises(Unsupported):
                memoryview(lease)
            before.release()
            assert pool.compact().moved_blocks == 1
            with lease.pin() as view:
                assert (bytes(view[:4]), len(view)) == (b"kept", lease.size)
                view[:4] = b"mine"
            assert lease.read(0, 4) == b"mine"
        assert pool.stats().live_blocks == 0


@pytest.mark.parametrize("thread_safe", [False, True])
def test_what_is_told_of_a_move_cannot_work_on_the_pool_and_is_told_so(thread_safe):
    told = []
    with CompactingPool(1 << 18, thread_safe=thread_safe) as pool:
        gap, *moved = (pool.acquire(4096) for _ in range(3))
        gap.release()

        def on_move(*_):
            for call in (pool.trim, pool.compact, pool.forecast, pool.pins, pool.check, pool.close):
                with pytest.raises(
                    PoolError, match=r"'compacting'.*inside a callback.*has returned"
                ) as caught:
                    call()
                told.append(caught.value.status)
            raise KeyError("of the callback")

        pool.on_move(on_move)
        with pytest.raises(KeyError, match="of the callback"):
            pool.compact()
        assert told == ["BUSY"] * 12
        assert not pool.closed
        pool.on_move(None)
        for lease in (*moved, pool.acquire(4096)):
            lease.release()
        assert pool.trim() > 0


def test_what_is_told_of_a_move_is_refused_all_but_releases_and_told_when():
    told = []
    with CompactingPool(1 << 18) as pool:
        gap, moved, other = (pool.acquire(4096) for _ in range(3))
        gap.release()

        def on_move(*_):
            with pytest.raises(PoolError, match=r"inside a callback.*has returned") as caught:
                moved.read()
            told.append(caught.value.status)
            if len(told) == 1:
                other.release()

        pool.on_move(on_move)
        pool.compact()
        moved.release()
        assert set(told) == {"BUSY"}
