"""One accepted connection, as a handler sees it."""

from __future__ import annotations

import os
from threading import get_ident
from typing import TYPE_CHECKING, Any

from iocp_adapter._native import lib
from iocp_adapter.errors import PortValueError
from pools import Lease

if TYPE_CHECKING:
    from iocp_adapter.sent_files import OpenFile
    from iocp_adapter.serving import Serving
    from iocp_adapter.stats import EndpointInfo

__all__ = ["Connection"]


class Connection:
    """A peer. ``send`` and ``close`` never block; any thread may call them.

    ``data`` is the handler's own; the engine does not touch it.
    """

    __slots__ = (
        "_pool", "_push", "_serving", "_thread",
        "closed", "data", "endpoint", "number", "peer", "tag",
    )  # fmt: skip

    def __init__(self, serving: Serving, number: int, endpoint: int, peer: str, tag: str):
        self._serving = serving
        self.number = number
        """1 for the first connection of the server, and so on."""
        self.endpoint = endpoint
        """The port's name for it."""
        self.peer = peer
        """``127.0.0.1:45678``; empty where the system knows none."""
        self.tag = tag
        """The label of every block that was acquired for this connection."""
        self.closed = False
        self.data: Any = None
        self._pool = serving.provider
        self._push = serving.sends.extend
        self._thread = serving.thread

    def send(self, data: Lease | bytes | bytearray | memoryview, length: int | None = None) -> None:
        """Queue a message: ``length`` bytes from the beginning, or all of them.

        A lease is taken over without a copy: it is the engine's from now on and goes back to its
        pool when the bytes are sent. ``bytes`` are held until then, other buffers are copied now.
        Messages leave in the order of the calls, each whole. On a connection that has ended the
        message is dropped, and a lease goes back to its pool at once.

        Raises ``PortValueError`` for a length beyond the data.
        """
        if type(data) is not Lease or data.pool is not self._pool or get_ident() != self._thread:
            self._serving.send_slowly(self, data, length)
            return
        if length is None:
            length = data.size
        elif not 0 <= length <= data.size:
            raise PortValueError(f"send of {length} bytes from a lease of {data.size}: stay within the lease")
        self._push((self.endpoint, data.detach(), length))

    def send_file(
        self, file: str | os.PathLike[str] | OpenFile, offset: int = 0, count: int | None = None
    ) -> int:
        """Queue ``count`` bytes of a file from ``offset``, or all from there; returns how many.

        ``file`` is a path, opened now and closed when it was sent, or an open file, which stays open until
        then. The bytes never come to the program. They leave in order with messages, each whole; a file
        that has become shorter by then resets the connection (``disconnected`` gets a
        ``ConnectionAbortedError``), for what follows would be taken for the rest.

        Raises ``OSError`` for a file that cannot be opened, ``PortValueError``.
        """
        return self._serving.send_file(self, file, offset, count)

    def close(self) -> None:
        """Receive no more, send what is queued, then close."""
        self._serving.end(self, lib.PP_CLOSE_DRAIN)

    def abort(self) -> None:
        """Drop what is queued and reset the connection."""
        self._serving.end(self, lib.PP_CLOSE_RESET)

    @property
    def queued_bytes(self) -> int:
        """Bytes that the peer has not taken yet."""
        return lib.pp_port_queued(self._serving.port.c, self.endpoint)

    @property
    def info(self) -> EndpointInfo | None:
        """What has moved on this connection, since when, and what it is doing; None when it has ended."""
        return self._serving.port.endpoint(self.endpoint)

    def __repr__(self) -> str:
        return f"<Connection {self.number} {self.peer}{' closed' if self.closed else ''}>"
