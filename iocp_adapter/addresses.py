"""Addresses as Python has them, and as the system does: a ``struct sockaddr``."""

from __future__ import annotations

import os
import socket
import struct
from typing import Any

from iocp_adapter._native import CData, ffi, lib
from iocp_adapter.errors import PortValueError, error_for

__all__ = ["native_address", "pipe_name", "read_address", "socket_address", "unix_path"]

_UNIX = getattr(socket, "AF_UNIX", None)
_FAMILY_BYTES = 2
_PIPES = "\\\\.\\pipe\\"


def unix_path(host: str) -> str | None:
    """The path in ``unix:PATH``, of which one that begins with ``@`` is abstract; None for other hosts."""
    path = host.removeprefix("unix:")
    if path == host:
        return None
    return "\0" + path[1:] if path.startswith("@") else path


def pipe_name(address: str) -> str | None:
    r"""The name in ``pipe:NAME`` or ``\\.\pipe\NAME``; None for other addresses.

    Raises ``BackendUnavailable`` where there are no named pipes.
    """
    name = address.removeprefix("pipe:").removeprefix(_PIPES)
    if name == address:
        return None
    if os.name != "nt":
        raise error_for(
            lib.PP_UNSUPPORTED,
            f"pipe:{name}",
            "named pipes are of Windows; here a Unix socket does the same, with the address unix:PATH",
        )
    return name


def socket_address(family: int, address: Any) -> bytes:
    """A ``struct sockaddr`` as the system has it. Raises ``PortValueError``."""
    if family == _UNIX:
        return _unix_address(family, address)
    if family not in {socket.AF_INET, socket.AF_INET6}:
        raise PortValueError(f"an address for a socket of family {family}: use AF_INET, AF_INET6 or AF_UNIX")
    try:
        head = struct.pack("=H", family) + struct.pack("!H", address[1])
        if family == socket.AF_INET:
            return head + socket.inet_pton(family, address[0]) + bytes(8)
        scope = address[3] if len(address) > 3 else 0
        return head + bytes(4) + socket.inet_pton(family, address[0]) + struct.pack("=I", scope)
    except (OSError, TypeError, ValueError, IndexError, struct.error):
        version, example = ("6", "::1") if family == socket.AF_INET6 else ("4", "127.0.0.1")
        raise PortValueError(
            f"address {address!r} for a socket of IPv{version}: give the host as a number, and the port, "
            f"as in ({example!r}, 80); socket.getaddrinfo() finds the number of a name"
        ) from None


def _unix_address(family: int, address: Any) -> bytes:
    try:
        path = os.fsencode(address)
    except TypeError:
        raise PortValueError(f"address {address!r} for a Unix socket: give its path") from None
    return struct.pack("=H", family) + (path if path.startswith(b"\0") else path + b"\0")


def native_address(family: int, address: Any) -> CData:
    """The same as a ``pp_address``."""
    data = socket_address(family, address)
    if len(data) > lib.PP_ADDRESS_BYTES:
        raise PortValueError(
            f"an address of {len(data)} bytes: the system has room for {lib.PP_ADDRESS_BYTES}"
        )
    return ffi.new("pp_address *", {"bytes": len(data), "data": data})


def read_address(native: CData) -> Any:
    """What ``socket.recvfrom`` would give for a ``pp_address``; None for a peer without one."""
    data = bytes(ffi.buffer(native.data, min(native.bytes, lib.PP_ADDRESS_BYTES)))
    if len(data) <= _FAMILY_BYTES:
        return None
    family, port = struct.unpack_from("=H", data)[0], struct.unpack_from("!H", data, 2)[0]
    if family == socket.AF_INET:
        return socket.inet_ntop(family, data[4:8]), port
    if family == socket.AF_INET6:
        flow, scope = struct.unpack_from("!I", data, 4)[0], struct.unpack_from("=I", data, 24)[0]
        return socket.inet_ntop(family, data[8:24]), port, flow, scope
    if family == _UNIX:
        path = data[_FAMILY_BYTES:]
        return path if path.startswith(b"\0") else os.fsdecode(path.split(b"\0")[0])
    return data
