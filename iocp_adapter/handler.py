"""What a server calls: functions of the program."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Protocol

from iocp_adapter.connection import Connection
from iocp_adapter.errors import PortValueError
from pools import Lease

__all__ = ["Handler", "Received", "received_of", "refuse_coroutine"]

Received = Callable[[Connection, Lease, int], object]


class Handler(Protocol):
    """What a server calls. Besides ``received`` it may have either or both of

    ``connected(connection)``, which comes first, and
    ``disconnected(connection, reason)``, which comes last; the reason is None for an orderly end,
    otherwise the exception that ended the connection, be it a handler's: without its traceback, which is
    in the log, for that would keep the lease.

    All calls come from the serving thread. An exception costs the connection it was raised for
    and nothing else, and is logged.
    """

    def received(self, connection: Connection, lease: Lease, length: int, /) -> object:
        """``length`` bytes have arrived, in ``lease.view[:length]``.

        The lease is the handler's: it may send it, keep it and release it later, or release it
        now. One that is neither sent nor kept when the call returns is released by the server.
        """


def received_of(handler: object) -> Any:
    """The function of a handler that is called with data. Raises ``PortValueError``."""
    received = getattr(handler, "received", handler)
    if not callable(received):
        raise PortValueError(f"handler {handler!r}: give a function, or an object with a method received")
    refuse_coroutine("handler", received)
    for name in ("connected", "disconnected"):
        refuse_coroutine("handler", getattr(handler, name, None))
    return received


def refuse_coroutine(what: str, function: object) -> None:
    """Raises ``PortValueError`` for what would only be begun when it is called."""
    for called in (function, getattr(function, "__call__", None)):  # noqa: B004  # of objects that are called
        if inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called):
            raise PortValueError(
                f"{what} {function!r} is an async function, which nobody would await: "
                "give a plain one, which the serving thread calls and which returns soon"
            )
