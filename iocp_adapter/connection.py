"""One accepted connection, as a handler sees it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from iocp_adapter._native import Sender, lib

if TYPE_CHECKING:
    from iocp_adapter.sent_files import OpenFile
    from iocp_adapter.serving import Serving
    from iocp_adapter.stats import EndpointInfo

__all__ = ["Connection"]


class Connection(Sender):
    """A peer. ``send`` and ``close`` never block; any thread may call them.

    ``data`` is the handler's own; the engine does not touch it.
    """

    __slots__ = ()

    _serving: Serving

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
