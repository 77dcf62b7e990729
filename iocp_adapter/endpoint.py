"""An associated socket, and the operations submitted on it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from iocp_adapter._native import CData, ffi, lib
from iocp_adapter.addresses import native_address, pipe_name, socket_address
from iocp_adapter.buffers import file_offset, message, room
from iocp_adapter.errors import PortValueError, error_for
from iocp_adapter.operation import Operation, Submission
from iocp_adapter.options import bytes_of, whole
from iocp_adapter.sent_files import OpenFile, file_descriptor, part_of_file
from pools import Lease, Pool

if TYPE_CHECKING:
    from iocp_adapter.completion_port import CompletionPort

__all__ = ["PIPE", "Endpoint"]


PIPE = -1
"""In place of a socket's family: a named pipe."""
_RECEIVES = "it takes a socket or pipe with no receive and no accept under way; wait, or cancel_all()"
_NEEDS_PROVIDER = "it takes an endpoint with a pool for the data: give associate() a provider"
_TAKES_MESSAGES = "the socket's datagrams would be cut, and an empty one would end it; use recvfrom()"
_TAKES_FILE = "it takes a file; see CompletionPort.open_file()"
_TAKES_STREAM = "it takes a socket or pipe; for a file there is write_at()"
_TAKES_DATAGRAM = "it takes a socket; for a pipe there is send(), and for a file write_at()"
_SENDS_FILE = "it takes a socket or pipe to send to, and a file that is open"


class Endpoint:
    """A socket that is associated with a port.

    At most one receive, accept or connect at a time; sends queue up and leave in order.
    Every method raises ``StaleEndpoint`` when the endpoint has ended, ``PortClosed``, ``PortFull``
    or ``PortValueError``.
    """

    __slots__ = ("_datagrams", "_family", "_name", "_pool", "_port", "key")

    def __init__(
        self,
        port: CompletionPort,
        name: int,
        key: int,
        pool: Pool | None,
        family: int,
        *,
        datagrams: bool = False,
    ):
        self._port = port
        self._name = name
        self._pool = pool
        self._family = family
        self._datagrams = datagrams
        self.key = key

    def accept(self, user: Any = None) -> Operation:
        """Accept connections until cancelled: one completion each, ``result`` is the descriptor."""
        call = self._port._begin(user)
        status = call.submit(lib.pp_port_accept, call.c, self._name, call.token, call.out)
        return call.done(status, "accept", "it takes a listening socket with no accept under way")

    def connect(self, address: Any, user: Any = None) -> Operation:
        """Connect to ``address``, given as for ``socket.connect``, its host as a number."""
        if self._family == PIPE:
            data = os.fsencode(pipe_name(address) or "")
        else:
            data = socket_address(self._family, address)
        call = self._port._begin(user)
        status = call.submit(lib.pp_port_connect, call.c, self._name, data, len(data), call.token, call.out)
        takes = "it takes a socket with no operation under way; wait for the completions, or cancel_all()"
        return call.done(status, f"connect to {address}", takes)

    def disconnect(self, user: Any = None) -> Operation:
        """End the connection of a socket that the port owns, after what is queued is sent.

        The completion says what came of it, and ``close`` comes next. Where the end of the stream was
        received, Windows may give the socket to one of the next accepts (``port.features``,
        ``socket_reuse``); it is then of no use to another port. Elsewhere it is closed.
        """
        call = self._port._begin(user)
        takes = (
            "it takes a connection whose socket the port owns (own=True), and that is connected; else close()"
        )
        status = call.submit(lib.pp_port_disconnect, call.c, self._name, call.token, call.out)
        return call.done(status, "disconnect", takes)

    def recv(self, into: Lease | bytearray | memoryview, user: Any = None) -> Operation:
        """Receive once, into a lease of the endpoint's pool or into any writable buffer.

        The completion carries the lease. The lease stays the program's; releasing it meanwhile
        is deferred by its pool until the operation has ended.
        """
        self._refuse_datagrams("recv")
        block, lease, held = room(into, self._pool)
        call = self._port._begin(user, lease, held)
        status = call.submit(lib.pp_port_recv, call.c, self._name, block, call.token, call.out)
        return call.done(status, "recv", _RECEIVES)

    def recv_stream(self, user: Any = None) -> Operation:
        """Receive until the end of the stream (``result`` 0), an error or a cancel.

        Each completion carries a lease of the endpoint's pool, acquired when the data was there.
        """
        self._refuse_datagrams("recv_stream")
        call = self._port._begin(user)
        status = call.submit(lib.pp_port_recv_stream, call.c, self._name, call.token, call.out)
        return call.done(status, "recv_stream", _NEEDS_PROVIDER if self._pool is None else _RECEIVES)

    def send(
        self,
        data: Lease | bytes | bytearray | memoryview,
        length: int | None = None,
        user: Any = None,
        *,
        take: bool = True,
    ) -> Operation:
        """Send ``length`` bytes from the beginning, or all; one completion when the last is gone.

        A lease is taken over and released by the engine unless ``take=False``; then the completion
        carries it. ``bytes`` are held until the completion, other buffers are copied now.
        """
        native, call = self._message(data, length, user, take)
        status = call.submit(lib.pp_port_send, call.c, native, call.out)
        return call.done(status, "send", _TAKES_STREAM)

    def recvfrom(
        self, into: Lease | bytearray | memoryview | None = None, size: int = 0, user: Any = None
    ) -> Operation:
        """Receive one datagram, into a lease of the endpoint's pool or a writable buffer.

        With None it comes in a lease that is acquired when the datagram is there. ``size`` is the most
        to receive (0: all of ``into``; of a new lease 65536 bytes, or the most that the pool gives).
        The completion has ``peer`` and ``truncated``; a ``result`` of 0 is a datagram without bytes.
        That nobody was where an earlier datagram went ends no receive.
        """
        whole("size", size, (1 << 32) - 1, means="all of it")
        if into is None:
            block, lease, held = ffi.new("pp_block *", {"size": size}) if size else ffi.NULL, None, None
        else:
            block, lease, held = room(into, self._pool)
            if size > block.size:
                raise PortValueError(f"recvfrom of {size} bytes into {block.size}: stay within the buffer")
            block.size = size or block.size
        peer = ffi.new("pp_address *")
        call = self._port._begin(user, lease, held, peer)
        status = call.submit(lib.pp_port_recvfrom, call.c, self._name, block, peer, call.token, call.out)
        unprovided = into is None and self._pool is None
        return call.done(status, "recvfrom", _NEEDS_PROVIDER if unprovided else _RECEIVES)

    def sendto(
        self,
        data: Lease | bytes | bytearray | memoryview,
        address: Any = None,
        length: int | None = None,
        user: Any = None,
        *,
        take: bool = True,
    ) -> Operation:
        """Send one datagram to ``address`` (its host as a number), or to where the socket is connected.

        ``data``, ``length`` and ``take`` are those of ``send``; 0 bytes are a datagram too. One that
        fails leaves those behind it alone.
        """
        native_to = ffi.NULL if address is None else native_address(self._family, address)
        native, call = self._message(data, length, user, take)
        status = call.submit(lib.pp_port_sendto, call.c, native, native_to, call.out)
        return call.done(status, f"sendto {address}", _TAKES_DATAGRAM)

    def read_at(self, offset: int, into: Lease | bytearray | memoryview, user: Any = None) -> Operation:
        """Read the file from ``offset`` into a lease of the endpoint's pool or any writable buffer.

        ``result`` is short where the file ends, and 0 behind its end. Any number of reads and writes may
        be under way at a time; they complete in any order.
        """
        block, lease, held = room(into, self._pool)
        offset = file_offset(offset, block.size)
        call = self._port._begin(user, lease, held)
        status = call.submit(lib.pp_port_read_at, call.c, self._name, offset, block, call.token, call.out)
        return call.done(status, f"read_at {offset}", _TAKES_FILE)

    def write_at(
        self,
        offset: int,
        data: Lease | bytes | bytearray | memoryview,
        length: int | None = None,
        user: Any = None,
        *,
        take: bool = True,
    ) -> Operation:
        """Write to the file from ``offset``; ``data``, ``length`` and ``take`` are those of ``send``.

        ``result`` is short where the disk is full.
        """
        data = data if isinstance(data, Lease) else bytes_of(data)
        size = data.size if isinstance(data, Lease) else len(data)
        offset = file_offset(offset, size if length is None else length)
        native, call = self._message(data, length, user, take)
        status = call.submit(lib.pp_port_write_at, call.c, native, offset, call.out)
        return call.done(status, f"write_at {offset}", _TAKES_FILE)

    def send_file(
        self,
        file: Endpoint | OpenFile | int,
        offset: int = 0,
        count: int | None = None,
        user: Any = None,
    ) -> Operation:
        """Send ``count`` bytes of a file from ``offset``, or all from there, in order with other sends.

        ``file`` is what ``open_file`` gave, an open file of Python's, or its descriptor (on Windows a
        handle), which stays open until the completion. The bytes never come to the program. ``result`` is
        short where the file has become shorter; what is queued goes on. On Unix the socket becomes
        non-blocking.
        """
        named = file._name if isinstance(file, Endpoint) else 0
        descriptor = self._descriptor_of(file) if isinstance(file, Endpoint) else file_descriptor(file)
        part = part_of_file(descriptor, offset, count)
        call = self._port._begin(user, None, file)
        native = ffi.new(
            "pp_file_send *", {"endpoint": self._name, "file": named, "user": call.token, **part}
        )
        status = call.submit(lib.pp_port_send_file, call.c, native, call.out)
        return call.done(status, f"send_file from {offset}", _SENDS_FILE)

    def cancel_all(self) -> int:
        """Cancel everything that is outstanding here; how many that were."""
        count = ffi.new("size_t *")
        status = lib.pp_port_cancel_all(self._port._native.c, self._name, count)
        if status:
            raise error_for(status, f"cancel_all on endpoint {self.key}")
        return int(count[0])

    def close(self, *, drain: bool = True) -> None:
        """End the endpoint, after what is queued is sent or without sending it.

        A ``close`` completion comes last. The socket is closed only if the port owns it.
        """
        how = lib.PP_CLOSE_DRAIN if drain else lib.PP_CLOSE_RESET
        status = lib.pp_port_end(self._port._native.c, self._name, how)
        if status:
            raise error_for(status, f"close of endpoint {self.key}")

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait to be sent."""
        return lib.pp_port_queued(self._port._native.c, self._name)

    def __repr__(self) -> str:
        info = self._port._native.endpoint(self._name)
        state = "ended" if info is None else f"{info.kind}, descriptor {info.descriptor}"
        return f"<Endpoint {self.key} {state}>"

    def _refuse_datagrams(self, what: str) -> None:
        if self._datagrams:
            raise error_for(lib.PP_INVALID, f"{what} on endpoint {self.key}", _TAKES_MESSAGES)

    @staticmethod
    def _descriptor_of(file: Endpoint) -> int:
        info = file._port._native.endpoint(file._name)
        if info is None:
            raise error_for(lib.PP_STALE, f"send_file of endpoint {file.key}")
        return info.descriptor

    def _message(
        self, data: Lease | bytes | bytearray | memoryview, length: int | None, user: Any, take: bool
    ) -> tuple[CData, Submission]:
        """What to send: the native message, and the submission that keeps it alive."""
        native, held = message(data, length, self._pool, take=take)
        lease = data if isinstance(data, Lease) else None
        call = self._port._begin(user, None if take else lease, held, taken=lease if take else None)
        native.endpoint, native.user = self._name, call.token
        return native, call
