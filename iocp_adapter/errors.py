"""Every way in which the engine says no, and the one place where a number becomes an exception."""

from __future__ import annotations

import errno
import os
import socket

from iocp_adapter._native import ffi, lib
from pools import WrongThread

__all__ = [
    "BackendUnavailable",
    "ListenError",
    "PortClosed",
    "PortError",
    "PortFull",
    "PortValueError",
    "PortWrongThread",
    "StaleEndpoint",
    "address_text",
    "completion_error",
    "error_for",
    "file_error",
    "is_local",
    "listen_error",
    "system_text",
]

_FIRST_FREE_PORT = 1024
_WINSOCK_TEXTS: dict[int, str] = getattr(socket, "errorTab", {})


class PortError(Exception):
    """Base of every exception of the engine; ``status`` is the core's name for it."""

    status: str = ""


class BackendUnavailable(PortError):
    """Platform, kernel or policy have no such back end; the text says why."""


class PortClosed(PortError):
    """The port is closed, or belongs to the process that this one was forked from."""


class PortFull(PortError):
    """No slot is left for another operation or endpoint."""


class PortValueError(PortError, ValueError):
    """An argument is out of range, or an endpoint cannot do this: the text says which, and what it takes."""


class PortWrongThread(PortError, WrongThread):
    """The endpoint's pool belongs to one thread, and this is another one."""


class StaleEndpoint(PortError):
    """The endpoint or operation has ended."""


class ListenError(PortError, OSError):
    """The server cannot listen where it was told to."""


_EXCEPTIONS: dict[str, type[PortError]] = {
    "UNSUPPORTED": BackendUnavailable,
    "CLOSED": PortClosed,
    "EXHAUSTED": PortFull,
    "INVALID": PortValueError,
    "SIZE": PortValueError,
    "STALE": StaleEndpoint,
    "WRONG_THREAD": PortWrongThread,
}

_SENTENCES: dict[str, str] = {
    "CLOSED": "the port is closed or belongs to the parent process; create another one",
    "EXHAUSTED": "no slot is left; wait for completions, or create the port with larger limits",
    "INVALID": "an argument is out of range, or this endpoint cannot do it now",
    "STALE": "the endpoint has ended",
    "SIZE": "the size is zero or too large; give 1 byte or more, and less than 2**63",
    "WRONG_THREAD": "the pool belongs to another thread; create it with thread_safe=True, or give bytes",
}


def status_name(status: int) -> str:
    """The core's own name for a status."""
    return str(ffi.string(lib.pp_status_name(status)), "ascii")


def error_for(status: int, what: str, why: str = "", *, invalid: str = "") -> PortError:
    """The exception for a status other than OK; ``what`` names the call and its values.

    ``why`` replaces the usual text, ``invalid`` that of INVALID: what the call takes.
    """
    name = status_name(status)
    text = (
        why
        or (invalid if name == "INVALID" else "")
        or _SENTENCES.get(name)
        or str(ffi.string(lib.pp_status_text(status)), "ascii")
    )
    error = _EXCEPTIONS.get(name, PortError)(f"{what}: {text}")
    error.status = name
    return error


def completion_error(number: int) -> Exception | None:
    """What went wrong with a completed operation: None, an ``OSError`` or a ``PortError``."""
    if number == 0:
        return None
    if number >= lib.PP_ERROR_STATUS:
        status = number - lib.PP_ERROR_STATUS
        if status == lib.PP_TIMEOUT:
            return TimeoutError(errno.ETIMEDOUT, "the peer was silent for longer than a timeout allows")
        text = str(ffi.string(lib.pp_status_text(status)), "ascii")
        error = PortError(f"the engine or the provider of its buffers could not go on: {text}")
        error.status = status_name(status)
        return error
    if number == lib.pp_port_cancelled_error():
        return OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
    return OSError(number, system_text(number), None, number)  # on Windows the last one decides the class


def system_text(number: int) -> str:
    """What a number of the system means; on Windows it is not an errno, but has one that belongs to it."""
    return _WINSOCK_TEXTS.get(number) or os.strerror(OSError(0, "", None, number).errno or number)


def file_error(number: int, path: str) -> OSError:
    """Why a file could not be opened, as ``open`` would say it."""
    return OSError(number, system_text(number), path, number)


def is_local(host: str) -> bool:
    """Whether the address is of this machine alone, and so has no port."""
    return host.startswith(("unix:", "pipe:", "\\\\.\\pipe\\"))


def address_text(host: str, port: int) -> str:
    """As one word: the colons of IPv6 are in brackets, and what is of this machine alone has no port."""
    if is_local(host):
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def listen_error(error: OSError, host: str, port: int) -> ListenError:
    """One sentence, with the remedy, for a refused bind or listen."""
    where = address_text(host, port)
    if error.errno == errno.EADDRINUSE:
        text = f"{where} is in use by another program; choose another port, or 0 for any free one"
    elif error.errno == errno.EACCES and port < _FIRST_FREE_PORT:
        text = (
            f"no permission to listen on {where}: ports below {_FIRST_FREE_PORT} need a privilege; "
            f"choose one from {_FIRST_FREE_PORT}"
        )
    elif error.errno == errno.EADDRNOTAVAIL:
        text = f"{host} is no address of this machine; use 127.0.0.1, or 0.0.0.0 for every interface"
    elif isinstance(error, socket.gaierror):
        text = (
            f"cannot listen on {host!r}: {error.strerror or error}; give an address of this machine as a "
            "number (127.0.0.1, or ::1 without brackets), or a name that it resolves"
        )
    else:
        text = f"cannot listen on {where}: {error.strerror or error}; give an address of this machine"
    refused = ListenError(error.errno or errno.EIO, text)
    refused.status = "IO"
    return refused
