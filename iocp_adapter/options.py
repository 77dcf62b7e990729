"""What programs give in options and arguments, looked at before anything is opened or kept."""

from __future__ import annotations

import socket
from typing import Any

from iocp_adapter.errors import PortValueError
from pools import Pool, parameters

__all__ = [
    "LARGEST_64",
    "LARGEST_DESCRIPTOR",
    "bytes_of",
    "pool_or_none",
    "pool_to_receive",
    "seconds_or_none",
    "socket_descriptor",
    "tcp_port",
    "whole",
]

LARGEST_64 = (1 << 64) - 1
LARGEST_DESCRIPTOR = (1 << 63) - 1
_LAST_PORT = 65535
_LONGEST_SECONDS = 1e18
"""Longer than anybody waits, and of whole numbers the largest that is no trouble to reckon with."""


def whole(name: str, value: Any, most: int, *, least: int = 0, means: str = "") -> int:
    """A whole number from ``least`` to ``most``; ``means`` says what 0 does. Raises ``PortValueError``."""
    return parameters.whole(name, value, least, most, means=means, refusal=PortValueError)


def seconds_or_none(name: str, value: Any, *, none: str = "to wait for ever") -> float | None:
    """A time of 0 seconds or more, or None. Raises ``PortValueError``."""
    if value is None or (isinstance(value, int | float) and value >= 0):
        return value if value is None else float(min(value, _LONGEST_SECONDS))
    raise PortValueError(f"{name}={value!r}: give 0 seconds or more, or None {none}")


def socket_descriptor(sock: Any) -> int:
    """What the system calls a socket, or what it is called already. Raises ``PortValueError``."""
    descriptor = sock.fileno() if isinstance(sock, socket.socket) else sock
    if not isinstance(descriptor, int) or not 0 <= descriptor <= LARGEST_DESCRIPTOR:
        raise PortValueError(f"sock={sock!r}: give an open socket, or its descriptor")
    return descriptor


def bytes_of(data: Any) -> bytes:
    """What is to be sent, as it is now; bytes stay what they are. Raises ``PortValueError``."""
    if isinstance(data, bytes):
        return data
    try:
        return bytes(memoryview(data))
    except TypeError:
        kind = type(data).__name__
        raise PortValueError(
            f"send of {kind} {data!r:.50}: give bytes, another buffer or a lease; of a text its encode()"
        ) from None


def tcp_port(value: Any) -> int:
    """Where to listen. Raises ``PortValueError``."""
    return whole("port", value, _LAST_PORT, means="any free one")


def pool_to_receive(provider: Any) -> Pool:
    """The pool that buffers come from. Raises ``PortValueError``."""
    if isinstance(provider, Pool):
        if not provider.closed:
            return provider
        raise PortValueError(f"provider={provider!r}: the pool is closed; give an open one")
    raise PortValueError(f"provider={provider!r}: give a pool, such as pools.SlabPool(16384, 1024)")


def pool_or_none(provider: Any) -> Pool | None:
    """The same, where there need not be one."""
    return None if provider is None else pool_to_receive(provider)
