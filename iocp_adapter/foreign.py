"""Descriptors that are somebody else's: waiting until they are ready, without associating them."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any

from iocp_adapter._native import lib
from iocp_adapter.errors import PortValueError, error_for
from iocp_adapter.operation import Operation
from iocp_adapter.options import LARGEST_64, LARGEST_DESCRIPTOR, whole
from iocp_adapter.sent_files import OpenFile, file_descriptor

if TYPE_CHECKING:
    from iocp_adapter.completion_port import CompletionPort

__all__ = ["wait_for"]


def _refusal(status: int, descriptor: int) -> str:
    if status == lib.PP_UNSUPPORTED:
        return (
            f"descriptor {descriptor} is never waited for: files and directories are always ready, "
            "and on Windows only sockets and, for wait_readable, events, processes, threads, semaphores "
            "and timers can tell"
        )
    if status == lib.PP_INVALID:
        return f"descriptor {descriptor} is not open; give an open one"
    if status == lib.PP_EXHAUSTED:
        return "no operation slot, or no descriptor for a duplicate, is left; wait for completions"
    return ""


def _descriptor_of(what: str, handle: Any) -> int:
    descriptor = handle
    with contextlib.suppress(AttributeError, TypeError):
        descriptor = handle.fileno() if isinstance(handle, socket.socket) else file_descriptor(handle)
    if isinstance(descriptor, int) and abs(descriptor) <= LARGEST_DESCRIPTOR:
        return descriptor
    raise PortValueError(f"{what} of {handle!r}: give a socket, an object with fileno(), or a descriptor")


def wait_for(
    port: CompletionPort, kind: int, handle: socket.socket | OpenFile | int, key: int, user: Any
) -> Operation:
    """Begin a wait of ``PP_KIND_READABLE`` or ``PP_KIND_WRITABLE``."""
    whole("key", key, LARGEST_64)
    readable = kind == lib.PP_KIND_READABLE
    name = "wait_readable" if readable else "wait_writable"
    descriptor = _descriptor_of(name, handle)
    what = f"{name} of {descriptor}"
    call = port._begin(user, None, handle)
    wait = lib.pp_port_wait_readable if readable else lib.pp_port_wait_writable
    status = call.submit(wait, call.c, descriptor, key, call.token, call.out)
    if status and (why := _refusal(status, descriptor)):
        raise error_for(status, what, why)
    return call.done(status, what)
