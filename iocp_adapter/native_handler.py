"""Handlers in C: data and completions are served without a crossing into Python for each batch."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections import deque
from collections.abc import Callable
from types import BuiltinFunctionType
from typing import Any, NamedTuple

from iocp_adapter._native import CData, ffi, lib
from iocp_adapter.errors import PortValueError, error_for
from iocp_adapter.native_port import NativePort, nanoseconds
from iocp_adapter.options import whole
from iocp_adapter.serving import BATCH_ROWS, Serving
from pools import Pool

__all__ = ["DISCARD", "ECHO", "NativeHandler", "NativeServing"]

_POINTERS: tuple[Any, ...] = (ctypes.CFUNCTYPE(None).__mro__[1], ctypes._Pointer, ctypes.c_void_p)
_COUNT = "rows"
_LAST_ADDRESS = (1 << (8 * ffi.sizeof("void *"))) - 1


class _Functions(NamedTuple):
    """What a ``NativeHandler`` is made of."""

    name: str
    address: int = 0
    """Of a ``pp_received_fn`` of ``poolport/serve.h``, for a ``Server``."""
    context: int = 0
    """The first argument of both, as an address."""
    keep: Any = None
    """What must live as long as the server or the pool: what the others were made of, and what was given."""
    work: int = 0
    """The address of a ``pp_work_fn`` of ``poolport/worker.h``, for a ``WorkerPool``."""


class NativeHandler(_Functions):
    """Functions in C: what a ``Server`` or a ``WorkerPool`` takes for its handler.

    ``address`` is a ``pp_received_fn``, for a server, ``work`` a ``pp_work_fn``, for a worker pool, and
    ``context`` the first argument of both: functions and pointers of ctypes or cffi, or plain addresses.
    They are kept, and a function of ctypes keeps its library; ``keep`` is whatever else must live as long
    as the server or the pool. They are called without the GIL by the serving thread, or by all workers;
    ``ECHO`` and ``DISCARD`` are two that ship. Raises ``PortValueError`` for what is no address.
    """

    __slots__ = ()

    def __new__(
        cls, name: str, address: Any = 0, context: Any = 0, keep: Any = None, work: Any = 0
    ) -> NativeHandler:
        given = (address, context, keep, work)
        address, context, work = (
            whole(f"{what} of handler {name!r}", _number_of(value), _LAST_ADDRESS, means="none")
            for what, value in (("address", address), ("context", context), ("work", work))
        )
        if not address and not work:
            raise PortValueError(
                f"handler {name!r} has no function: give the address of a pp_received_fn for a server, "
                "or as work= that of a pp_work_fn for a worker pool"
            )
        return super().__new__(cls, name, address, context, given, work)


def _number_of(value: Any) -> Any:
    """The address that a function or pointer of ctypes or cffi is; anything else as it came."""
    if isinstance(value, _POINTERS):
        return ctypes.cast(value, ctypes.c_void_p).value or 0
    if isinstance(value, ffi.CData | BuiltinFunctionType):  # the latter: of a module that cffi has made
        with contextlib.suppress(TypeError):
            return int(ffi.cast("uintptr_t", value))
    return value


ECHO = NativeHandler("echo", lib.pp_serve_echo, work=lib.pp_work_echo)
"""Sends back what comes."""
DISCARD = NativeHandler("discard", lib.pp_serve_discard, work=lib.pp_work_discard)
"""Gives every block back at once."""


class _Destroyer:
    """Keeps the port until the loop, which may still have answers to submit, is freed."""

    __slots__ = ("_port",)

    def __init__(self, port: NativePort):
        self._port = port

    def __call__(self, loop: CData) -> None:
        lib.pp_serve_destroy(loop)


class NativeServing(Serving):
    """The loop of a server whose data never comes to Python; connections do."""

    def __init__(
        self,
        port: NativePort,
        handler: NativeHandler,
        provider: Pool,
        tag: Callable[[int, str], str] | None,
        max_connections: int,
        limits: dict[str, Any],
    ):
        super().__init__(port, _never_called, provider, tag, max_connections, limits)
        if not handler.address:
            raise PortValueError(f"handler {handler.name!r} has no address; give that of a pp_received_fn")
        self._handler = handler
        out = ffi.new("pp_serve **")
        function = ffi.cast("pp_received_fn", handler.address)
        context = ffi.cast("void *", handler.context)
        status = lib.pp_serve_create(port.c, port.provider(provider), function, context, out)
        if status:
            raise error_for(status, f"a loop for the handler {handler.name!r}")
        self._loop = ffi.gc(out[0], _Destroyer(port))
        self._reading = threading.RLock()
        """Held while the loop's counters are read, which any thread does, and while it is freed."""
        self._counted = 0
        """Messages that a loop has counted which is freed."""
        self._rows = ffi.cast("pp_completion *", self.rows_address)
        self._why = ffi.new("pp_status *")
        self._taken: dict[str, int] = {}
        """How many rows wait to be served."""

    @property
    def message_count(self) -> int:
        """Receives that were given to the handler."""
        counted = ffi.new("pp_serve_stats *")
        with self._reading:
            loop = self._loop
            if loop is None:
                return self._counted
            lib.pp_serve_read_stats(loop, counted)
        return int(counted.messages)

    def turn(self, timeout: float | None) -> bool:
        """Serve data in C until something else has happened, and attend to that.

        The handler of a signal may raise between any two instructions. What was taken is the next turn's
        then: it gets into ``_taken``, and from there into the hands of ``serve_rows()``, without one between.
        """
        taken = self._taken
        if not taken:
            self.flush()
            wait_ns = -1 if timeout is None else nanoseconds(timeout)
            given = (self._loop,), (self._rows,), (BATCH_ROWS,), (wait_ns,), (self._why,)
            taken.update(zip((_COUNT,), map(lib.pp_serve_turn, *given), strict=True))
        count = taken.get(_COUNT, 0)
        deque(map(self.serve_rows, map(taken.pop, (_COUNT,), (0,))), 0)
        return bool(count) or self._why[0] != lib.PP_CLOSED

    def run_down(self) -> None:
        """After the port is closed: serve what had completed before; the loop is then freed."""
        super().run_down()
        with self._reading:
            self._counted = self.message_count
            loop, self._loop = self._loop, None
            ffi.release(loop)


def _never_called(*_arguments: object) -> None:
    raise AssertionError("data of a native handler came to Python")
