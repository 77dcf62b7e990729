"""Every back end of the platform, a pool that must end empty, and sockets that are closed."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator

import pytest

from pools import SlabPool

BACKENDS = ["iocp"] if os.name == "nt" else ["io_uring", "epoll"]


@pytest.fixture
def backends() -> list[str]:
    return BACKENDS


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def pool() -> Iterator[SlabPool]:
    pool = SlabPool(16384, 64, name="recv", strict=True, thread_safe=True)
    yield pool
    pool.check()
    pool.close()


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    opened: list[socket.socket] = []
    yield opened
    for one in opened:
        one.close()


@pytest.fixture
def pair(sockets: list[socket.socket]) -> Callable[[], tuple[socket.socket, socket.socket]]:
    def make() -> tuple[socket.socket, socket.socket]:
        made = socket.socketpair()
        for one in made:
            one.settimeout(10)
        sockets.extend(made)
        return made

    return make
