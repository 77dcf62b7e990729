"""What a server does besides data: connections that come and go, sends of all kinds, errors.

The loop itself is ``Exchange``, in C (``bindings/serving``): one crossing into the engine per
batch takes in what the handlers want to send and brings rows out, of which each that
carries data becomes a lease and a call of the handler. All other rows come to the methods here.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable
from typing import Any, Protocol

from iocp_adapter._native import Exchange, ffi, lib
from iocp_adapter.connection import Connection
from iocp_adapter.errors import PortValueError, completion_error, error_for
from iocp_adapter.handler import received_of
from iocp_adapter.holding import HoldWatch
from iocp_adapter.listening import close_descriptor
from iocp_adapter.native_port import NativePort, nanoseconds
from iocp_adapter.options import bytes_of
from iocp_adapter.sent_files import OpenFile, PathFile, file_descriptor, part_of_file
from pools import Lease, Pool

__all__ = ["BATCH_ROWS", "Serving"]

_log = logging.getLogger("iocp_adapter")

BATCH_ROWS = 256
"""The most completions of one crossing."""
_PEER_BYTES = 64
_LISTENER_KEY = 0
_ACCEPT = lib.PP_KIND_ACCEPT
_CLOSE = lib.PP_KIND_CLOSE
_SENT = (lib.PP_KIND_SEND, lib.PP_KIND_SEND_FILE)
_POST = lib.PP_KIND_POST
_TIMER = lib.PP_KIND_TIMER
_KIND = lib.PP_KIND_MASK
_OF_CLOSED = lib.PP_ERROR_STATUS + lib.PP_CLOSED
_OF_THE_POOL = (_OF_CLOSED, lib.PP_ERROR_STATUS + lib.PP_WRONG_THREAD)


class Placement(Protocol):
    """Where the connections go that one loop accepts for several."""

    def open(self) -> int:
        """How many connections are open in all loops."""

    def give(self, descriptor: int, number: int) -> bool:
        """Hand a socket to another loop; False: it stays here."""


def _measure(data: Lease | bytes | bytearray | memoryview) -> tuple[Lease | bytes, int]:
    """What to hold until it is sent, and its size; what could change meanwhile is copied."""
    if isinstance(data, Lease):
        return data, data.size
    kept = bytes_of(data)
    return kept, len(kept)


def _forget_frames(error: BaseException) -> None:
    """Whoever keeps an exception would keep the frames of its traceback, and with a handler's its lease."""
    chain: list[BaseException | None] = [error]
    seen = set()
    while chain:
        one = chain.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.__traceback__ = None
        chain += [one.__cause__, one.__context__]
        chain += one.exceptions if isinstance(one, BaseExceptionGroup) else []


class Serving(Exchange):
    """Connections, the rows that come for them, and the sends that go out."""

    connections: dict[int, Connection]

    def __init__(
        self,
        port: NativePort,
        handler: object,
        provider: Pool,
        tag: Callable[[int, str], str],
        max_connections: int,
        limits: dict[str, Any],
    ):
        address = int(ffi.cast("uintptr_t", port.c))
        table = int(ffi.cast("uintptr_t", port.provider(provider)))
        super().__init__(address, table, port, provider, received_of(handler))
        self.port = port
        self.provider = provider
        self.listening = True
        """Until the listener's end has been told."""
        self.ending = False
        """The listener was told to end."""
        self.refuse = False
        """Close every new connection at once."""
        self.flags = 0
        """Of the endpoints, besides those that every connection has: ``PP_PIPE`` or 0."""
        self.holds: HoldWatch | None = None
        """Tells what is held for too long."""
        self.placement: Placement | None = None
        """Asked for every connection that is accepted; without one they are served here."""
        self.accepted = self.refused = self.ended = self.errors = self.handler_errors = 0
        self.dropped = 0
        """Of those refused, the ones that were to be served here."""
        self._last_number = 0
        self._connected: Callable[[Connection], object] | None = getattr(handler, "connected", None)
        self._disconnected: Callable[[Connection, BaseException | None], object] | None
        self._disconnected = getattr(handler, "disconnected", None)
        self._tag = tag
        self._max_connections = max_connections
        self._limits = limits
        self._raised: dict[int, BaseException] = {}
        """What a connection was reset for here, until its end, which the engine knows no reason of."""
        self._told: set[int] = set()
        """Errors of the pool that were logged."""
        self._held: dict[int, object] = {}
        self._holds = itertools.count(1)
        self._peer = ffi.new("char[]", _PEER_BYTES)

    # ---- the loop ------------------------------------------------------------------------

    def run(self, running: Callable[[], bool]) -> None:
        """Serve while ``running()``, which is asked between batches."""
        while running():
            self.turn(None)

    def turn(self, timeout: float | None) -> bool:
        """Submit what was collected, wait for a batch, serve it. False: the port is closed and empty."""
        return self.turn_ns(-1 if timeout is None else nanoseconds(timeout))

    @property
    def message_count(self) -> int:
        """Receives that were given to the handler."""
        return self.messages

    def run_down(self) -> None:
        """After the port is closed: serve what had completed before."""
        while self.turn(0.0):
            pass

    def _abandon_row(self, key: int, event: int, result: int, error: int, user: int) -> None:
        """Give back what a row carries that an interrupted loop has not reached; what has ended, has."""
        if event & _KIND in {_CLOSE, _TIMER}:
            self._other(key, event, result, error, user)
        accepted = event & _KIND == _ACCEPT and event & lib.PP_MORE and not error
        if accepted or (event & _KIND == _POST and user):
            close_descriptor(result, self.flags)
        if event & _KIND in _SENT:
            self._let_go(user)

    # ---- everything that is not data --------------------------------------------------------

    def _other(self, key: int, event: int, result: int, error: int, user: int) -> None:
        kind = event & _KIND
        if kind == _ACCEPT:
            self._accept(result, error, bool(event & lib.PP_MORE))
        elif kind == _CLOSE:
            self._close(key, error)
        elif kind == _POST and user:  # from the loop that accepts; one without a number only wakes
            self._welcome(result, user)
        elif kind == _TIMER:
            if self.holds and not error:
                self.holds.look()
        elif kind in _SENT:
            self._let_go(user)
            if error >= lib.PP_ERROR_STATUS and (connection := self.connections.get(key)):
                reason = completion_error(error)
                _log.error("a send on %r failed, it is closed: %s", connection, reason)
                if reason is not None:
                    self._raised.setdefault(key, reason)
                connection.abort()

    def _accept(self, descriptor: int, error: int, more: bool) -> None:
        if error:
            if more:
                self.refused += 1
                _log.warning("a connection was refused: %s; raise the limit", completion_error(error))
            elif not self.ending:
                why = completion_error(error)
                _log.error("the server accepts no more connections: %s; close it and create another one", why)
            return
        open_now = self.placement.open() if self.placement else len(self.connections)
        if self._max_connections and open_now >= self._max_connections:
            self.refused += 1
            close_descriptor(descriptor, self.flags)
            return
        self._last_number += 1
        if not (self.placement and self.placement.give(descriptor, self._last_number)):
            self._welcome(descriptor, self._last_number)

    def _welcome(self, descriptor: int, number: int) -> None:
        """Serve a connection from now on."""
        if self.refuse:
            self._drop(descriptor)
            return
        self.accepted += 1
        size = lib.pp_socket_peer(descriptor, self._peer, _PEER_BYTES)
        peer = str(ffi.buffer(self._peer, size)[:], "ascii") if size else ""
        text = None
        try:
            text = self._label(number, peer)
            endpoint = self._associate(descriptor, number, text)
        except BaseException as error:
            self._drop(descriptor)
            if not isinstance(error, self.caught):
                raise
            self.handler_errors += text is None
            _log.exception("connection %d from %s was closed at once", number, peer)
            return
        connection = self.connections[number] = Connection(self, number, endpoint, peer, text)
        if self._connected is not None:
            try:
                self._connected(connection)
            except self.caught as error:
                self._failed(connection, "connected", error)

    def _label(self, number: int, peer: str) -> str:
        text = self._tag(number, peer)
        if isinstance(text, str):
            return text
        raise PortValueError(
            f"tag({number}, {peer!r}) returned {text!r}: return a str, an empty one for none"
        )

    def _drop(self, descriptor: int) -> None:
        self.dropped += 1
        self.refused += 1
        close_descriptor(descriptor, self.flags)

    def _associate(self, descriptor: int, number: int, tag: str) -> int:
        endpoint = self.port.associate(
            descriptor=descriptor,
            key=number,
            provider=self.port.provider(self.provider),
            tag=self.provider.tag(tag) if tag else 0,
            flags=lib.PP_OWN_DESCRIPTOR | lib.PP_SELF_CLOSING | self.flags,
            **self._limits,
        )
        status = lib.pp_port_recv_stream(self.port.c, endpoint, endpoint, ffi.NULL)
        if status:
            # The descriptor is the engine's now: ending the endpoint closes it.
            lib.pp_port_end(self.port.c, endpoint, lib.PP_CLOSE_RESET)
            _log.error("receiving on connection %d: %s", number, error_for(status, "recv_stream"))
        return endpoint

    def _close(self, key: int, error: int) -> None:
        if key == _LISTENER_KEY:
            self.listening = False
            return
        connection = self.connections.pop(key)
        connection.closed = True
        self.ended += 1
        self.errors += bool(error)
        reason = self._raised.pop(key, None) or completion_error(error)
        self._tell_once(connection, error)
        if self._disconnected is not None:
            try:
                self._disconnected(connection, reason)
            except self.caught as raised:
                self._failed(connection, "disconnected", raised)

    def _tell_once(self, connection: Connection, error: int) -> None:
        """Of what is the matter with the pool, and so with every connection: all would be reset unheard."""
        if error in _OF_THE_POOL and error not in self._told:
            self._told.add(error)
            remedy = (
                "the pool is closed; close it after the server"
                if error == _OF_CLOSED
                else "another thread has taken the pool; create it with thread_safe=True"
            )
            _log.error(
                "%r was reset, and others will be: %s: %s", connection, completion_error(error), remedy
            )

    def _failed(self, connection: Connection, what: str, error: BaseException) -> None:
        self.handler_errors += 1
        _log.error("the handler's %s raised; %r is closed", what, connection, exc_info=error)
        if not connection.closed:
            _forget_frames(error)
            self._raised.setdefault(connection.number, error)
            connection.abort()

    # ---- what connections ask for --------------------------------------------------------------

    def send_slowly(self, connection: Connection, data: Any, length: int | None) -> None:
        """A send that is not collected: of bytes, of another pool's lease, from another thread."""
        source, size = _measure(data)
        if length is None:
            length = size
        elif not isinstance(length, int) or not 0 <= length <= size:
            what = f"a lease of {size}: stay within the lease" if isinstance(source, Lease) else f"{size}"
            raise PortValueError(f"send of {length} bytes from {what}")
        self.flush()
        native = ffi.new("pp_send *", {"endpoint": connection.endpoint, "bytes": length})
        if isinstance(source, Lease) and source.pool is self.provider:
            native.block = source.handle
            native.flags = lib.PP_SEND_TAKE | lib.PP_SEND_QUIET
            if self._submit(native):
                source.detach()
            else:
                source.release()
            return
        view = source.view if isinstance(source, Lease) else source
        native.address = int(ffi.cast("uintptr_t", ffi.from_buffer(view)))
        native.user = self._hold(source)
        self._submit(native)

    def send_file(
        self,
        connection: Connection,
        file: str | os.PathLike[str] | OpenFile,
        offset: int,
        count: int | None,
    ) -> int:
        """A part of a file; it is held until it was sent, and closed where it was opened here."""
        source: PathFile | OpenFile = PathFile(file) if isinstance(file, str | os.PathLike) else file
        try:
            descriptor = source.descriptor if isinstance(source, PathFile) else file_descriptor(source)
            part = part_of_file(descriptor, offset, count)
        except BaseException:
            if isinstance(source, PathFile):
                source.close()
            raise
        self.flush()
        about = {"endpoint": connection.endpoint, "user": self._hold(source), **part}
        native = ffi.new("pp_file_send *", about)
        self._submit(native, lib.pp_port_send_file)
        return part["bytes"]

    def _submit(self, native: Any, call: Callable[..., int] = lib.pp_port_send) -> bool:
        """False: the connection has ended, the message is dropped."""
        status = call(self.port.c, native, ffi.NULL)
        if not status:
            return True
        self._let_go(native.user)
        if status == lib.PP_STALE:
            return False
        raise error_for(status, f"send of {native.bytes} bytes")

    def _hold(self, source: object) -> int:
        """A number by which ``_let_go`` finds it. Any thread."""
        number = next(self._holds)
        self._held[number] = source
        return number

    def _let_go(self, hold: int) -> None:
        held = self._held.pop(hold, None)
        if isinstance(held, Lease):
            held.release()
        elif isinstance(held, PathFile):
            held.close()

    def end(self, connection: Connection, how: int) -> None:
        """End a connection; ``disconnected`` follows when it has happened."""
        self.flush()
        lib.pp_port_end(self.port.c, connection.endpoint, how)
