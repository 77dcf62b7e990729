"""What a port opens itself, because Windows wants it opened in a way of its own: files and named pipes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from iocp_adapter._native import lib
from iocp_adapter.addresses import pipe_name
from iocp_adapter.endpoint import Endpoint
from iocp_adapter.errors import PortValueError
from iocp_adapter.files import open_descriptor
from iocp_adapter.listening import listen_pipe
from iocp_adapter.options import pool_or_none
from pools import Pool

if TYPE_CHECKING:
    from iocp_adapter.completion_port import CompletionPort

__all__ = ["hold_pipe", "open_file", "open_pipe"]


def open_file(
    port: CompletionPort, path: str | os.PathLike[str], mode: str, key: int, provider: Pool | None
) -> Endpoint:
    """A file, as an endpoint that owns it."""
    descriptor = open_descriptor(path, mode)
    try:
        flags = lib.PP_OWN_DESCRIPTOR | lib.PP_FILE
        name = port._associate(key, pool_or_none(provider), descriptor=descriptor, flags=flags)
    except BaseException:
        lib.pp_port_file_close(descriptor)
        raise
    return Endpoint(port, name, key, provider, 0)


def hold_pipe(port: CompletionPort, address: str, key: int) -> Endpoint:
    """The name of a pipe, as an endpoint that accepts."""
    descriptor = listen_pipe(address)
    try:
        return port.associate(descriptor, key, pipe=True, own=True)
    except BaseException:
        lib.pp_port_file_close(descriptor)
        raise


def open_pipe(
    port: CompletionPort, address: str, key: int, provider: Pool | None, tag: str, user: Any
) -> Endpoint:
    """Somebody else's pipe, as an endpoint that connects."""
    if pipe_name(address) is None:
        raise PortValueError(f"address {address!r}: give pipe:NAME")
    endpoint = port.associate(0, key, provider, tag=tag, pipe=True, own=True)
    endpoint.connect(address, user)
    return endpoint
