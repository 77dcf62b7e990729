"""A TCP server whose buffers come from a pool."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from iocp_adapter._native import ffi, lib
from iocp_adapter.connection import Connection
from iocp_adapter.errors import PortValueError, address_text, error_for
from iocp_adapter.features import Feature, Region
from iocp_adapter.handler import Handler, Received, received_of
from iocp_adapter.holding import HoldWatch
from iocp_adapter.listening import Listening, listen, refuse_address
from iocp_adapter.native_handler import NativeHandler, NativeServing
from iocp_adapter.native_port import CloseReport, NativePort, budget, limit_ns
from iocp_adapter.options import pool_to_receive, seconds_or_none, whole
from iocp_adapter.serving import Serving
from iocp_adapter.shift import Shift
from iocp_adapter.stats import ServerStats
from pools import Pool

__all__ = ["Server"]

_LOOK_SECONDS = 0.1
"""Of a close, between two looks: on Windows the handler of a signal gets its turn only then."""
_LARGEST_COUNT = (1 << 31) - 1
_LARGEST_RECEIVE = (1 << 32) - 1


class Server:
    """Listens on ``host:port`` and gives what arrives to ``handler``.

    ``host`` may be ``unix:PATH``, a Unix socket (``unix:@NAME``: an abstract one, of Linux), or on Windows
    ``pipe:NAME``, a named pipe for the programs of this machine; ``port`` is 0 then.

    ``handler`` is a ``Handler`` or a plain function, which is then used as ``received``; or a
    ``NativeHandler``, a function in C whose data never comes to Python (``ECHO``, ``DISCARD``).
    ``provider`` is the pool of all receive buffers; an owner-only pool belongs to the serving
    thread while that runs. ``port=0`` takes any free port; see ``address``.
    ``tag(number, peer)`` gives the label of a connection's blocks; an empty one means none. The pool keeps
    each different label for as long as it lives, some 260 bytes, and at most 16.7 million. By default the
    first 65,536 connections have one of their own, ``conn-17 127.0.0.1:45678``, which is 17 MB, and each
    65,536 later ones share one, ``conn-65537 to conn-131072``. A connection whose label fails is closed at
    once. ``max_connections`` closes further ones at once (0: no limit).
    A peer with more than ``high_bytes`` or ``high_sends`` queued to it is not read from, but
    for what the batch that crossed the mark carried, until at most ``low_bytes`` or ``low_sends`` are left
    (0: no mark; None: a quarter of the high one). What has to wait counts as its whole block, be it one
    byte. With ``port_high_bytes`` (None: half of ``provider.limit_bytes``) or ``port_high_sends`` the same
    holds for all peers together: above it, whoever has a send that waits, or whose socket is about full, is
    not read from; one whose socket has room for less than an answer may have a block besides.
    ``receive_size`` is the size of a connection's first receive (0: 4 KiB); later ones follow
    the traffic. ``batch_bytes`` is the payload that ends a batch (0: 256 KiB, 64 KiB with a
    ``NativeHandler``). A peer that is to be
    sent at least ``zero_copy_bytes`` at once is sent them without a copy where the back end can; their
    blocks stay pinned until it has acknowledged them (0: never). ``ring_blocks`` of the pool, of
    ``ring_bytes`` (0: 16 KiB) each and without a connection's label, are the kernel's before there is data,
    where the back end can, and all connections share them (0: a block is acquired when data is there).
    ``registered_files`` and ``registered_buffers`` are those of ``CompletionPort``.

    A connection is reset, and ``disconnected`` told a ``TimeoutError``, when nothing came or went for
    ``idle_timeout`` seconds, when nothing came for ``read_timeout`` although the server would
    have read it, or when the peer took nothing of what is queued to it for ``write_timeout``.

    A block of the pool that somebody owns for ``hold_limit`` seconds or longer, be it a handler or a peer
    that does not read, is told once as a warning of the logger ``iocp_adapter``, with its tag and the line
    of Python that acquired it; ``stats().long_holds`` counts them. The serving thread walks the pool for
    that, twice in the time. ``provider.held(seconds)`` gives the blocks at any moment.

    The server listens from its creation; ``start()`` or ``serve_forever()`` makes it serve. An exception in a
    handler costs its connection; one that is no ``Exception`` (KeyboardInterrupt, SystemExit) ends
    ``serve_forever()``, but not a server that ``start()`` has given a thread of its own.

    Raises ``ListenError``, ``BackendUnavailable`` (also for a pipe outside Windows), ``PortValueError``, or
    ``Unsupported`` for a ``hold_limit`` where the pool keeps no ages.
    """

    def __init__(
        self,
        host: str,
        port: int,
        handler: Handler | Received | NativeHandler,
        *,
        provider: Pool,
        backend: str = "auto",
        tag: Callable[[int, str], str] | None = None,
        max_connections: int = 0,
        backlog: int = 1024,
        high_bytes: int = 1 << 20,
        low_bytes: int | None = None,
        high_sends: int = 0,
        low_sends: int | None = None,
        port_high_bytes: int | None = None,
        port_low_bytes: int | None = None,
        port_high_sends: int = 0,
        port_low_sends: int | None = None,
        receive_size: int = 0,
        batch_bytes: int = 0,
        zero_copy_bytes: int = 0,
        ring_blocks: int = 0,
        ring_bytes: int = 0,
        registered_files: bool = False,
        registered_buffers: bool = False,
        idle_timeout: float | None = None,
        read_timeout: float | None = None,
        write_timeout: float | None = None,
        hold_limit: float | None = None,
    ):
        pool_to_receive(provider)
        hold_ns = limit_ns("hold_limit", hold_limit)
        if hold_ns:
            HoldWatch.refuse(provider)
        if tag is not None and not callable(tag):
            raise PortValueError(f"tag={tag!r}: give a function of a connection's number and its peer")
        native = isinstance(handler, NativeHandler)
        if not native:
            received_of(handler)
        whole("max_connections", max_connections, _LARGEST_COUNT, means="no limit")
        whole("backlog", backlog, _LARGEST_COUNT)
        if port_high_bytes is None:  # the other half is for those who read
            port_high_bytes = (provider.limit_bytes or 0) // 2
        marks = budget(port_high_bytes, port_low_bytes, port_high_sends, port_low_sends, "port_")
        limits: dict[str, Any] = {
            "budget": budget(high_bytes, low_bytes, high_sends, low_sends),
            "receive_bytes": whole("receive_size", receive_size, _LARGEST_RECEIVE, means="4 KiB"),
            "idle_ns": limit_ns("idle_timeout", idle_timeout),
            "receive_ns": limit_ns("read_timeout", read_timeout),
            "send_ns": limit_ns("write_timeout", write_timeout),
        }
        refuse_address(host, port)
        if backend == "sim":
            raise PortValueError(
                "backend='sim' of a server: the simulated kernel has no addresses to listen at; "
                "give a CompletionPort a SimulatedPeer, or take another back end"
            )
        self._port = NativePort(
            backend,
            0,
            0,
            {
                "batch_bytes": batch_bytes or (lib.PP_SERVE_BATCH_BYTES if native else 0),
                "zero_copy_bytes": zero_copy_bytes,
                "ring_blocks": ring_blocks,
                "ring_bytes": ring_bytes,
                "registered_files": registered_files,
                "registered_buffers": registered_buffers,
            },
            marks,
        )
        shared = (provider, tag, max_connections, limits)
        self._serving: Serving
        if isinstance(handler, NativeHandler):
            self._serving = NativeServing(self._port, handler, *shared)
        else:
            self._serving = Serving(self._port, handler, *shared)
        self.provider = provider
        self.address: tuple[str, int] = (host, port)
        """Where the server listens."""
        self._shift = Shift(self._serving, provider)
        self._report: CloseReport | None = None
        self._listening: Listening | None = None
        self._listener = 0
        self._listen(backlog)
        if hold_ns:
            self._serving.holds = HoldWatch(self._port, provider, hold_ns)

    def _listen(self, backlog: int, /) -> None:
        """Accept what comes to the address; it becomes the one that was got."""
        host, port = self.address
        self._listening = listen(host, port, backlog)
        self.address = self._listening.address
        flags = self._serving.flags = self._listening.flags
        own = lib.PP_OWN_DESCRIPTOR if flags else 0
        self._listener = self._port.associate(descriptor=self._listening.descriptor, flags=flags | own)
        status = lib.pp_port_accept(self._port.c, self._listener, 0, ffi.NULL)
        if status:
            raise error_for(status, f"accept on {address_text(host, port)}")

    # ---- what one sees -----------------------------------------------------------------

    @property
    def backend(self) -> str:
        """``io_uring``, ``epoll`` or ``iocp``."""
        return self._port.backend

    @property
    def reason(self) -> str:
        """Why this back end was chosen."""
        return self._port.reason

    @property
    def features(self) -> dict[str, Feature]:
        """What the back end uses of the kernel, or does without, by name."""
        return self._port.features

    def regions(self) -> tuple[Region, ...]:
        """What ``CompletionPort.regions()`` tells."""
        return self._port.regions()

    @property
    def connections(self) -> list[Connection]:
        """The open connections."""
        return list(self._serving.connections.values())

    def port_stats(self) -> Any:
        """The counters of the port, as ``PortStats``."""
        return self._port.stats()

    def stats(self) -> ServerStats:
        """What the server has done so far."""
        port, serving = self._port.stats(), self._serving
        return ServerStats(
            messages=serving.message_count,
            received_bytes=port.received_bytes,
            sent_bytes=port.sent_bytes,
            accepted=serving.accepted,
            refused=serving.refused,
            closed=serving.ended,
            open=len(serving.connections),
            errors=serving.errors,
            handler_errors=serving.handler_errors,
            buffer_waits=port.buffer_waits,
            pauses=port.pauses,
            batches=port.batches,
            queued_bytes=port.queued_bytes,
            long_holds=serving.holds.told if serving.holds else 0,
        )

    # ---- serving -------------------------------------------------------------------------

    def serve_forever(self) -> None:
        """Serve in the calling thread until ``stop()``.

        What a handler raises that is no ``Exception``, such as KeyboardInterrupt or SystemExit, ends this
        call with it. Raises ``PortError`` where the server is being served already or closed, or its pool of
        one thread is another server's, and ``PortClosed`` in a child of the server's process.
        """
        self._shift.serve()

    def start(self) -> Server:
        """Serve in a thread of the server's own; returns the server.

        There even a SystemExit in a handler costs its connection alone, for nobody waits for the thread.
        Raises what ``serve_forever()`` does.
        """
        self._shift.start(self.serve_forever)
        return self

    def stop(self) -> None:
        """Make ``serve_forever()`` return soon; any thread, a handler or a signal handler may call it."""
        self._shift.stop()

    def abort(self) -> None:
        """Make a ``close()`` that is under way, or the next one, wait for no peer: what is left is reset.

        Any thread, a handler or a signal handler may call it.
        """
        self._shift.abort()

    def close(self, timeout: float | None = 5.0) -> CloseReport:
        """Stop accepting, send what is queued, close every connection; then close the port.

        After ``timeout`` seconds, or ``abort()``, the connections that are left are reset. Returns what was
        outstanding at that moment. A handler calls ``stop()`` instead. Calling it again returns
        the same report.
        """
        if self._report is not None and (self._shift.closed or self._shift.is_mine):
            return self._report
        self._shift.refuse_child()
        self._shift.refuse_in_handler()
        bounded = seconds_or_none("timeout", timeout, none="for no limit")
        deadline = time.monotonic() + (threading.TIMEOUT_MAX if bounded is None else bounded)
        self.stop()
        with self._shift.of_closing(deadline, timeout):
            # Another thread may have closed it while this one waited for its turn.
            return self._report if self._report is not None else self._close(deadline)

    def _close(self, deadline: float) -> CloseReport:
        self._drain(deadline)
        if self._serving.holds:
            self._serving.holds.end()
        self._report = self._port.close(max(0.0, deadline - time.monotonic()) + 1.0)
        self._serving.run_down()
        if self._listening is not None:
            self._listening.close()
        self._shift.closed = True
        return self._report

    def _drain(self, deadline: float) -> None:
        self._serving.ending = True
        if self._listening is not None:
            lib.pp_port_end(self._port.c, self._listener, lib.PP_CLOSE_DRAIN)
        serving = self._serving
        serving.refuse = True
        for connection in list(serving.connections.values()):
            connection.close()
        while (serving.connections or serving.listening) and not self._shift.hurried:
            if (left := deadline - time.monotonic()) <= 0:
                return
            serving.turn(min(left, _LOOK_SECONDS))

    def __enter__(self) -> Server:
        self._shift.refuse_ended()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._report is not None else f"{len(self._serving.connections)} connections"
        return f"<Server {address_text(*self.address)} {self.backend} {state}>"
