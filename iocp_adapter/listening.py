"""Where a server listens: TCP, a Unix socket, or a named pipe of Windows.

A host that begins with ``unix:`` or ``pipe:`` names a socket in the file system or a pipe, and there
is no port then.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from typing import NamedTuple

from iocp_adapter._native import lib
from iocp_adapter.addresses import pipe_name, unix_path
from iocp_adapter.errors import ListenError, PortValueError, listen_error, system_text
from iocp_adapter.options import tcp_port

__all__ = ["Listening", "close_descriptor", "listen", "listen_pipe", "refuse_address"]


class Listening(NamedTuple):
    """What a server accepts on."""

    descriptor: int
    address: tuple[str, int]
    """As it can be given again; of TCP with the port that was got."""
    flags: int
    """Of the endpoint, and of those that it accepts: ``PP_PIPE`` or 0."""
    socket: socket.socket | None

    def close(self) -> None:
        """After the endpoint has ended, and with it a pipe. A Unix socket's file goes now."""
        if self.socket is None:
            return
        self.socket.close()
        if (path := unix_path(self.address[0])) is not None and not path.startswith("\0"):
            with contextlib.suppress(OSError):
                os.unlink(path)


def refuse_address(host: str, port: int) -> None:
    """Raises ``PortValueError`` for what is no address before anything is opened for it."""
    if not isinstance(host, str) or not _is_name(host):
        raise PortValueError(f"host={host!r}: give a str such as '127.0.0.1'")
    tcp_port(port)
    if unix_path(host) == "":
        raise PortValueError(f"host={host!r}: a Unix socket has a path; give unix:PATH, or unix:@NAME")
    if port and (pipe_name(host) is not None or unix_path(host) is not None):
        raise PortValueError(f"port={port} of {host}: such an address has no port; give 0")


def _is_name(host: str) -> bool:
    """Whether the system can be asked for it."""
    try:
        _ = os.fsencode(host) if host.startswith(("unix:", "pipe:")) else host.encode("idna")
    except UnicodeError:
        return False
    return "\0" not in host


def listen(host: str, port: int, backlog: int) -> Listening:
    """Begin to listen. Raises ``ListenError``, or ``BackendUnavailable`` for a pipe outside Windows."""
    if pipe_name(host) is not None:
        return Listening(listen_pipe(host), (host, 0), lib.PP_PIPE, None)
    if (path := unix_path(host)) is not None:
        listener = _unix_listener(path, backlog)
        return Listening(listener.fileno(), (host, 0), 0, listener)
    listener = _tcp_listener(host, port, backlog)
    return Listening(listener.fileno(), listener.getsockname()[:2], 0, listener)


def listen_pipe(address: str) -> int:
    """The descriptor that holds the name of a pipe."""
    name = pipe_name(address)
    if name is None:
        raise PortValueError(f"address {address!r}: give pipe:NAME")
    descriptor = int(lib.pp_port_pipe_listen(os.fsencode(name)))
    if descriptor >= 0:
        return descriptor
    number = -descriptor
    refused = OSError(0, "", None, number)
    if refused.errno == errno.EACCES:
        text = f"pipe:{name} is in use by another program; choose another name"
    else:
        why = system_text(number)
        text = f"cannot listen on pipe:{name}: {why}; give a name of 1 to 246 characters without a backslash"
    raise ListenError(refused.errno or number, text)


def close_descriptor(descriptor: int, flags: int) -> None:
    """Close what an accept on such a listener has yielded."""
    if flags & lib.PP_PIPE:
        lib.pp_port_file_close(descriptor)
    else:
        socket.close(descriptor)


# On Windows SO_REUSEADDR would let two servers share a port, and its opposite needs no time to expire.
_ADDRESS_OPTION: int = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)


def _tcp_listener(host: str, port: int, backlog: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, _ADDRESS_OPTION, 1)
        # Accepted sockets inherit it: an answer must not wait for the acknowledgement of the last one.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((host, port))
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        raise listen_error(error, host, port) from error
    return listener


def _unix_listener(path: str, backlog: int) -> socket.socket:
    family = getattr(socket, "AF_UNIX", None)
    if family is None:
        raise ListenError(
            errno.EAFNOSUPPORT, f"unix:{path}: Python has no Unix sockets here; use pipe:NAME, a named pipe"
        )
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        _remove_left_over(path)
        listener.bind(path)
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        raise ListenError(error.errno or errno.EIO, _unix_refusal(path, error)) from error
    return listener


def _remove_left_over(path: str) -> None:
    """A socket's file stays when its server was killed: it is one where nobody answers."""
    if path.startswith("\0") or not os.path.exists(path) or not stat.S_ISSOCK(os.stat(path).st_mode):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        if caller.connect_ex(path) == errno.ECONNREFUSED:
            os.unlink(path)


def _unix_refusal(path: str, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"unix:{path} is in use, or there is another file; choose another path, or remove it"
    if error.errno is None:  # Python's own, which knows no number
        size = len(os.fsencode(path))
        return f"cannot listen on unix:{path}: a path of {size} bytes is too long; Linux takes 107 at most"
    return (
        f"cannot listen on unix:{path}: {error.strerror or error}; give a path in a folder that you may write"
    )
