"""Descriptors and memory that the kernel knows: a choice that changes what it costs and nothing else."""

from __future__ import annotations

import socket

import pytest

from iocp_adapter import CompletionPort, PortValueError, Server
from pools import BuddyPool, CompactingPool, MallocPool, SizeClassPool, SlabPool

from .conftest import echo

MESSAGE = b"0123456789" * 1000


def pools():
    yield SlabPool(16384, 16, name="slab", strict=True)
    yield SizeClassPool(max_block=1 << 16, capacity=1 << 20, name="classes", strict=True)
    yield BuddyPool(1 << 20, name="buddy", strict=True)
    yield CompactingPool(1 << 20, name="compacting", strict=True)
    yield MallocPool(name="heap", strict=True)


@pytest.fixture(params=["slab", "classes", "buddy", "compacting", "heap"])
def any_pool(request):
    (pool,) = (pool for pool in pools() if pool.name == request.param)
    yield pool
    assert pool.stats().live_blocks == 0
    pool.close()


def uses(port, feature):
    found = port.features.get(feature)
    return bool(found and found.on)


def test_a_file_is_written_from_and_read_into_memory_of_any_pool(backend, any_pool, tmp_path):
    with CompletionPort(backend, registered_files=True, registered_buffers=True) as port:
        file = port.open_file(tmp_path / "data", "w+", provider=any_pool)
        lease = any_pool.acquire(len(MESSAGE))
        lease.write(MESSAGE, 0)
        file.write_at(0, lease, len(MESSAGE))
        assert port.dequeue(10).result == len(MESSAGE)
        into = any_pool.acquire(len(MESSAGE))
        file.read_at(0, into)
        done = port.dequeue(10)
        assert done.lease.read(0, done.result) == MESSAGE
        done.lease.release()
        known = uses(port, "registered_buffers") and any_pool.name != "heap"
        assert port.stats().registered_transfers == (2 if known else 0)
        for region in port.regions():
            assert region.pool == any_pool.name
            assert region.registered == known, region.why
            assert region.size == (any_pool.memory.registered_bytes if known else 0)
    if known:
        assert any_pool.memory.registered_bytes == 0


def test_memory_that_the_kernel_knows_does_not_go_back(backend):
    pool = SlabPool(16384, 16, name="kept", strict=True, thread_safe=True)
    wishes = {"zero_copy_bytes": 1, "registered_files": True, "registered_buffers": True}
    with Server("127.0.0.1", 0, echo, provider=pool, backend=backend, **wishes) as server:
        server.start()
        with socket.create_connection(server.address, 10) as client:
            client.sendall(MESSAGE)
            found = b""
            while len(found) < len(MESSAGE):
                found += client.recv(65536)
            assert found == MESSAGE
            if any(region.registered for region in server.regions()):
                assert pool.trim() == 0
                assert pool.memory.registered_bytes == server.regions()[0].size
    assert pool.memory.registered_bytes == 0
    assert pool.trim() > 0
    pool.close()


@pytest.mark.parametrize("wish", ["registered_files", "registered_buffers"])
def test_it_is_a_choice_between_yes_and_no(wish):
    with pytest.raises(PortValueError, match=f"{wish}=2: give 0"):
        CompletionPort(**{wish: 2})
