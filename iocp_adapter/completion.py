"""What a port tells of an operation."""

from __future__ import annotations

from typing import Any, NamedTuple

from pools import Lease

__all__ = ["Completion"]


class Completion(NamedTuple):
    """One outcome of one operation."""

    key: int
    """Of the endpoint, or as posted."""
    kind: str
    """``recv``, ``send``, ``recvfrom``, ``sendto``, ``accept``, ``connect``, ``disconnect``, ``read_at``,
    ``write_at``, ``send_file``, ``readable``, ``writable``, ``post``, ``timer`` or ``close``."""
    more: bool
    """The operation stays armed: other completions of it follow."""
    result: int
    """Bytes moved; accept: the new descriptor, which is the program's to close."""
    error: Exception | None
    lease: Lease | None
    """Received into; the program's to release, unless it was the program's before."""
    user: Any
    """What was given with the operation, or posted."""
    peer: Any = None
    """Of a datagram: the address it came from, as ``socket.recvfrom`` gives it."""
    truncated: bool = False
    """The datagram was longer than its buffer: ``result`` bytes of it are there, the rest is lost."""
