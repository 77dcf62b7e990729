"""What a server does besides data: connections that come and go, sends of all kinds, errors.

The loop itself is ``Exchange``, in C (``bindings/serving``): one crossing into the engine per
batch takes in what the handlers want to send and brings rows out, of which each that
carries data becomes a lease and a call of the handler. All other rows come to the methods here.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

from iocp_adapter._native import Exchange, ffi, lib
from iocp_adapter.connection import Connection
from iocp_adapter.errors import PortValueError, completion_error, error_for
from iocp_adapter.handler import received_of
from iocp_adapter.holding import HoldWatch
from iocp_adapter.listening import close_descriptor
from iocp_adapter.native_port import NativePort, nanoseconds
from iocp_adapter.outgoing import Outgoing
from iocp_adapter.sent_files import OpenFile
from pools import Pool

__all__ = ["BATCH_ROWS", "Serving"]

_log = logging.getLogger("iocp_adapter")

BATCH_ROWS = 256
"""The most completions of one crossing."""
_ACCEPT = lib.PP_KIND_ACCEPT
_SENT = (lib.PP_KIND_SEND, lib.PP_KIND_SEND_FILE)
_POST = lib.PP_KIND_POST
_MORE = lib.PP_MORE
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
        tag: Callable[[int, str], str] | None,
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
        self.holds: HoldWatch | None = None
        """Tells what is held for too long."""
        self._placement: Placement | None = None
        self.refused = self.errors = self.handler_errors = 0
        self.dropped = 0
        """Of those refused, the ones that were to be served here."""
        self._disconnected: Callable[[Connection, BaseException | None], object] | None
        self._disconnected = getattr(handler, "disconnected", None)
        self._max_connections = max_connections
        self.gated = bool(max_connections)
        self._raised: dict[int, BaseException] = {}
        """What a connection was reset for here, until its end, which the engine knows no reason of."""
        self._told: set[int] = set()
        """Errors of the pool that were logged."""
        self.outgoing = Outgoing(port, provider)
        flags = lib.PP_OWN_DESCRIPTOR | lib.PP_SELF_CLOSING
        config = ffi.new(
            "pp_endpoint_config *", {"provider": port.provider(provider), "flags": flags, **limits}
        )
        connected = getattr(handler, "connected", None)
        about = int(ffi.cast("uintptr_t", config))
        self._admit_with(about, Connection, self._raised, tag, connected, self._disconnected)

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
        if event & _KIND == _TIMER:
            self._other(key, event, result, error, user)
        accepted = event & _KIND == _ACCEPT and event & _MORE and not error
        if accepted or (event & _KIND == _POST and user):
            close_descriptor(result, self.flags)
        if event & _KIND in _SENT:
            self.outgoing.let_go(user)

    # ---- everything that is not data --------------------------------------------------------

    def _other(self, key: int, event: int, result: int, error: int, user: int) -> None:
        kind = event & _KIND
        if kind == _ACCEPT:
            self._not_accepted(error, bool(event & _MORE))
        elif kind == _POST and user:  # from the loop that accepts; one without a number only wakes
            self._welcome(result, user)
        elif kind == _TIMER:
            if self.holds and not error:
                self.holds.look()
        elif kind in _SENT:
            self.outgoing.let_go(user)
            if error >= lib.PP_ERROR_STATUS and (connection := self.connections.get(key)):
                reason = completion_error(error)
                _log.error("a send on %r failed, it is closed: %s", connection, reason)
                if reason is not None:
                    self._raised.setdefault(key, reason)
                connection.abort()

    def _not_accepted(self, error: int, more: bool) -> None:
        if not error:
            return
        if more:
            self.refused += 1
            _log.warning("a connection was refused: %s; raise the limit", completion_error(error))
        elif not self.ending:
            why = completion_error(error)
            _log.error("the server accepts no more connections: %s; close it and create another one", why)

    def place_with(self, placement: Placement) -> None:
        """Ask it for every connection that is accepted; without one they are served here."""
        self._placement = placement
        self.gated = True

    def _accepted(self, descriptor: int) -> None:
        """A connection that is nobody's yet, where somebody may have it or nobody."""
        if self._max_connections:
            open_now = self._placement.open() if self._placement else len(self.connections)
            if open_now >= self._max_connections:
                self.refused += 1
                close_descriptor(descriptor, self.flags)
                return
        self.last_number += 1
        if not (self._placement and self._placement.give(descriptor, self.last_number)):
            self._welcome(descriptor, self.last_number)

    def _refuse_label(self, number: int, peer: str, label: object) -> NoReturn:
        raise PortValueError(
            f"tag({number}, {peer!r}) returned {label!r}: return a str, an empty one for none"
        )

    def _refuse_descriptor(self, descriptor: int, status: int) -> NoReturn:
        raise error_for(status, f"associate descriptor {descriptor}")

    def _not_welcome(
        self, descriptor: int, number: int, peer: str, error: BaseException, of_label: bool
    ) -> None:
        """The descriptor is the caller's still."""
        self._drop(descriptor)
        if not isinstance(error, self.caught):
            raise error
        self.handler_errors += of_label
        _log.error("connection %d from %s was closed at once", number, peer, exc_info=error)

    def _deaf(self, number: int, status: int) -> None:
        _log.error("receiving on connection %d: %s", number, error_for(status, "recv_stream"))

    def _drop(self, descriptor: int) -> None:
        self.dropped += 1
        self.refused += 1
        close_descriptor(descriptor, self.flags)

    def _listener_ended(self) -> None:
        self.listening = False

    def _departed(self, connection: Connection, error: int) -> None:
        """A connection has ended by an error, or somebody wants to know of it."""
        if error:
            self.errors += 1
            self._tell_once(connection, error)
        raised_here = self._raised.pop(connection.number, None)
        if self._disconnected is not None:
            try:
                self._disconnected(connection, raised_here or completion_error(error))
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
        self.flush()
        self.outgoing.send(connection.endpoint, data, length)

    def send_file(
        self,
        connection: Connection,
        file: str | os.PathLike[str] | OpenFile,
        offset: int,
        count: int | None,
    ) -> int:
        """A part of a file; it is held until it was sent, and closed where it was opened here."""
        self.flush()
        return self.outgoing.send_file(connection.endpoint, file, offset, count)

    def end(self, connection: Connection, how: int) -> None:
        """End a connection; ``disconnected`` follows when it has happened."""
        self.flush()
        lib.pp_port_end(self.port.c, connection.endpoint, how)
