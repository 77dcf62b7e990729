"""What a descriptor is before it becomes an endpoint: open, a stream or datagrams, nobody's yet."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable

from iocp_adapter._native import lib
from iocp_adapter.errors import PortError, error_for
from iocp_adapter.stats import EndpointInfo

__all__ = ["carries_datagrams", "refusal"]


def _type_of(descriptor: int) -> int | None:
    """The type of a socket; None for what is open and none, which only Unix has. Raises ``OSError``."""
    try:
        # The family is not asked for: a socket of Windows that is not bound does not know its own.
        probe = socket.socket(socket.AF_INET, -1, 0, fileno=descriptor)
    except OSError:
        if os.name == "nt":
            raise
        os.fstat(descriptor)
        return None
    try:
        return probe.type
    finally:
        probe.detach()  # it stays the program's


def carries_datagrams(descriptor: int) -> bool:
    """Whether it is a socket that keeps messages apart. Raises ``PortValueError`` for what is not open."""
    try:
        return _type_of(descriptor) == socket.SOCK_DGRAM
    except (OSError, OverflowError):
        why = "it is no open socket; give an open one, or its descriptor"
        raise error_for(lib.PP_INVALID, f"associate descriptor {descriptor}", why) from None


def refusal(descriptor: int, endpoints: Iterable[EndpointInfo], *, simulated: bool) -> PortError:
    """Why the core has refused to associate a descriptor that is open."""
    what = f"associate descriptor {descriptor}"
    for one in endpoints:
        if one.descriptor == descriptor and one.kind != "pipe":
            why = (
                f"it is an endpoint of this port already, with key {one.key}: close() that endpoint first, "
                "and dequeue its close; closing a socket does not end its endpoint"
            )
            return error_for(lib.PP_INVALID, what, why)
    why = "the simulated kernel has sockets of its own; give the descriptor of a SimulatedPeer" * simulated
    return error_for(lib.PP_INVALID, what, why)
