"""A completion port: operations go in, completions come out in batches."""

from __future__ import annotations

import os
import socket
from types import TracebackType
from typing import Any

from iocp_adapter._native import CData, ffi, lib
from iocp_adapter.completion import Completion
from iocp_adapter.descriptors import carries_datagrams, refusal
from iocp_adapter.endpoint import PIPE, Endpoint
from iocp_adapter.errors import PortValueError
from iocp_adapter.features import Region
from iocp_adapter.foreign import wait_for
from iocp_adapter.native_port import CloseReport, NativePort, budget, delay_ns, limit_ns
from iocp_adapter.opening import hold_pipe, open_file, open_pipe
from iocp_adapter.operation import Operation, Submission
from iocp_adapter.options import LARGEST_64, pool_or_none, seconds_or_none, socket_descriptor, whole
from iocp_adapter.rows import Rows, address_of, pending
from iocp_adapter.sent_files import OpenFile
from iocp_adapter.stats import EndpointInfo, Outstanding
from pools import Lease, Pool

__all__ = ["CompletionPort"]

_MOST_ROWS = 4096
_NAME = ffi.typeof("pp_operation *")


class CompletionPort:
    """Completion-based sockets over io_uring or epoll on Linux, and IOCP on Windows.

    ``backend`` is ``auto``, ``io_uring``, ``epoll``, ``iocp`` or ``sim`` (see ``SimulatedPeer``, and
    give a ``seed``); ``port.backend`` says which one it became and ``port.reason`` why, and
    ``port.features`` what of that kernel is used, by name.
    ``concurrency`` limits the threads that are between two dequeues at a
    time (0: no limit). ``entries`` is the size of the kernel's queues (0: 1024).
    At most ``max_operations`` are outstanding at a time, of which each endpoint takes one for its end (0:
    262144), and at most ``max_endpoints`` associated (0: what the limit of descriptors
    leaves, at most 65536); one more is a ``PortFull``.
    ``batch_bytes`` of payload end a batch (0: 256 KiB).
    With ``zero_copy_bytes``, what is to be sent to a peer at once and is at least as long goes without
    a copy, where the back end can: its blocks stay pinned until the peer has acknowledged it.
    With ``ring_blocks``, so many blocks of each pool that streams receive with, the first four, of
    ``ring_bytes`` (0: 16 KiB) each, are the kernel's before there is data, where the back end can: its
    endpoints share them, and they come back when the port is closed.
    With ``registered_files`` the kernel has a table of the endpoints' descriptors, and with
    ``registered_buffers`` it knows the memory of each pool, the first sixteen whose blocks are read into,
    written or sent without a copy, as a whole; where the back end can. All of such a pool is then in
    physical memory until the port is closed; ``regions()`` says of which pools that holds.

    With ``high_bytes`` or ``high_sends``, endpoints that have a send that waits, or whose socket is about
    full, are not received from while more is queued in all, until that has gone, or at most ``low_bytes`` or
    ``low_sends`` (None: a quarter) are queued. Bytes are all those of a block that has to wait.
    ``associate`` takes the same for one endpoint.

    Any thread may call anything. Raises ``BackendUnavailable`` or ``PortValueError``.
    """

    def __init__(
        self,
        backend: str = "auto",
        concurrency: int = 0,
        entries: int = 0,
        *,
        high_bytes: int = 0,
        low_bytes: int | None = None,
        high_sends: int = 0,
        low_sends: int | None = None,
        max_operations: int = 0,
        max_endpoints: int = 0,
        batch_bytes: int = 0,
        zero_copy_bytes: int = 0,
        ring_blocks: int = 0,
        ring_bytes: int = 0,
        registered_files: bool = False,
        registered_buffers: bool = False,
        seed: int = 0,
    ):
        limits = {
            "max_operations": max_operations,
            "max_endpoints": max_endpoints,
            "batch_bytes": batch_bytes,
            "zero_copy_bytes": zero_copy_bytes,
            "ring_blocks": ring_blocks,
            "ring_bytes": ring_bytes,
            "registered_files": registered_files,
            "registered_buffers": registered_buffers,
            "seed": seed,
        }
        marks = budget(high_bytes, low_bytes, high_sends, low_sends)
        self._native = NativePort(backend, concurrency, entries, limits, marks)
        self.backend = self._native.backend
        self.reason = self._native.reason
        self.features = self._native.features
        self._rows = Rows()
        self._pending, self._keys = self._rows.pending, self._rows.named
        self._tokens = self._rows.tokens

    def associate(
        self,
        sock: socket.socket | int,
        key: int = 0,
        provider: Pool | None = None,
        *,
        tag: str = "",
        own: bool = False,
        high_bytes: int = 0,
        low_bytes: int | None = None,
        high_sends: int = 0,
        low_sends: int | None = None,
        receive_size: int = 0,
        idle_timeout: float | None = None,
        receive_timeout: float | None = None,
        send_timeout: float | None = None,
        pipe: bool = False,
    ) -> Endpoint:
        """Make a socket, or its descriptor, an endpoint whose completions carry ``key``.

        ``provider`` gives the blocks for ``recv_stream``, labelled ``tag``. The socket stays the
        program's unless ``own``. With ``high_bytes`` or ``high_sends``, receiving pauses while more
        bytes or sends than that are queued, until at most ``low_bytes`` or ``low_sends`` (None: a quarter)
        are. ``receive_size`` is the first receive's.

        An endpoint is reset, and its ``close`` carries a ``TimeoutError``, when nothing was received
        or sent for ``idle_timeout`` seconds, when a receive has waited for ``receive_timeout``, or when
        the peer took nothing of what is queued for ``send_timeout``; None: never.

        ``pipe``: the descriptor is a named pipe's, which only Windows has; see ``listen_pipe``.
        """
        family = sock.family if isinstance(sock, socket.socket) else socket.AF_INET
        descriptor = socket_descriptor(sock)
        datagrams = not pipe and self.backend != "sim" and carries_datagrams(descriptor)
        name = self._associate(
            key,
            pool_or_none(provider),
            descriptor=descriptor,
            tag=provider.tag(tag) if provider is not None and tag else 0,
            flags=(lib.PP_OWN_DESCRIPTOR if own else 0) | (lib.PP_PIPE if pipe else 0),
            budget=budget(high_bytes, low_bytes, high_sends, low_sends),
            receive_bytes=whole("receive_size", receive_size, LARGEST_64, means="the default"),
            idle_ns=limit_ns("idle_timeout", idle_timeout),
            receive_ns=limit_ns("receive_timeout", receive_timeout),
            send_ns=limit_ns("send_timeout", send_timeout),
        )
        return Endpoint(self, name, key, provider, PIPE if pipe else family, datagrams=datagrams)

    def _associate(self, key: int, provider: Pool | None, **config: Any) -> int:
        """The core's name of an endpoint, whose rows carry what stands for it in ``self._rows``."""
        whole("key", key, LARGEST_64)
        table = self._native.provider(provider)
        named, entry = self._rows.name(key, provider, table)
        try:
            named.endpoint = self._native.associate(entry, key=address_of(named), provider=table, **config)
        except PortValueError:
            simulated = self.backend == "sim"
            raise refusal(config["descriptor"], self.endpoints(), simulated=simulated) from None
        return int(named.endpoint)

    def listen_pipe(self, address: str, key: int = 0) -> Endpoint:
        """Hold the name of a pipe, ``pipe:NAME``, on Windows, as an endpoint whose ``accept`` takes clients.

        The ``result`` of a completion is a descriptor for ``associate(result, pipe=True, own=True)`` on
        this port. Clients are programs of this machine. Raises ``ListenError``, ``BackendUnavailable``
        (on other systems, where a Unix socket does the same) or ``PortValueError``.
        """
        return hold_pipe(self, address, key)

    def connect_pipe(
        self,
        address: str,
        key: int = 0,
        provider: Pool | None = None,
        *,
        tag: str = "",
        user: Any = None,
    ) -> Endpoint:
        """Open a pipe, ``pipe:NAME``, on Windows: an endpoint whose ``connect`` completion comes first.

        A pipe that is busy is waited for until ``cancel_all``; one that nobody listens on gives a
        ``FileNotFoundError``. Raises ``BackendUnavailable`` on other systems, or ``PortValueError``.
        """
        return open_pipe(self, address, key, provider, tag, user)

    def open_file(
        self, path: str | os.PathLike[str], mode: str = "r", key: int = 0, provider: Pool | None = None
    ) -> Endpoint:
        """Open a file for ``read_at`` and ``write_at``, as an endpoint that owns it.

        ``mode`` is ``r`` (read), ``r+`` (and write), ``w`` (write, from no bytes), ``w+`` (and read), ``x``
        or ``x+`` (the same, where there is no such file). Bytes are what they are on every system.
        Raises ``OSError``, ``PortValueError``.
        """
        return open_file(self, path, mode, key, provider)

    def post(self, key: int = 0, user: Any = None) -> None:
        """Queue a packet of the program's own: a completion of kind ``post``."""
        whole("key", key, LARGEST_64)
        call = self._begin(user)
        call.done(call.submit(lib.pp_port_post, call.c, key, 0, call.token), "post")

    def timer(self, delay: float, key: int = 0, user: Any = None) -> Operation:
        """A completion of kind ``timer`` when ``delay`` seconds have passed, never before."""
        whole("key", key, LARGEST_64)
        wait_ns = delay_ns(delay)
        call = self._begin(user)
        status = call.submit(lib.pp_port_timer, call.c, key, wait_ns, call.token, call.out)
        return call.done(status, "timer")

    def wait_readable(
        self, handle: socket.socket | OpenFile | int, key: int = 0, user: Any = None
    ) -> Operation:
        """A completion of kind ``readable`` once something that is not associated can be read from.

        ``handle`` is a socket, an object with ``fileno()`` or a descriptor: of a pipe or an eventfd, too, on
        Unix; on Windows the handle of an event, a process, a thread, a semaphore or a timer, which is
        readable when it is signalled. Its end, a hang-up and an error are ready as well. Nothing about it
        is changed; it may be waited for any number of times. Cancel before closing it.
        Raises ``BackendUnavailable`` for what cannot be waited for, ``PortValueError``, ``PortFull``.
        """
        return wait_for(self, lib.PP_KIND_READABLE, handle, key, user)

    def wait_writable(
        self, handle: socket.socket | OpenFile | int, key: int = 0, user: Any = None
    ) -> Operation:
        """The same, of kind ``writable``, once there is room to write, or a write would fail.

        On Windows of sockets alone.
        """
        return wait_for(self, lib.PP_KIND_WRITABLE, handle, key, user)

    def dequeue(self, timeout: float | None = None) -> Completion | None:
        """The next completion; None when ``timeout`` seconds have passed. Raises ``PortClosed``."""
        found = self.dequeue_many(1, timeout)
        return found[0] if found else None

    def dequeue_many(self, limit: int = 256, timeout: float | None = None) -> list[Completion]:
        """Up to ``limit`` completions; empty when ``timeout`` seconds have passed.

        A batch ends early at ``batch_bytes`` of payload. Raises ``PortClosed`` when the port is closed and
        everything was dequeued.
        """
        whole("limit", limit, _MOST_ROWS, least=1)
        timeout = seconds_or_none("timeout", timeout)
        return self._rows.dequeue(self._native.c, limit, timeout)

    def outstanding(self) -> tuple[Outstanding, ...]:
        """Operations that have not completed."""
        return self._rows.with_keys(self._native.outstanding())

    def regions(self) -> tuple[Region, ...]:
        """The pools that ``registered_buffers`` was about so far, and why each is registered or is not."""
        return self._native.regions()

    def stats(self) -> Any:
        """The counters, as ``PortStats``."""
        return self._native.stats()

    def leave(self) -> None:
        """The calling thread stops serving: it no longer counts against the concurrency value."""
        lib.pp_port_leave(self._native.c)

    def refill(self) -> None:
        """Blocks went back to a pool from another thread: endpoints that wait for one try again."""
        lib.pp_port_refill(self._native.c)

    def close(self, timeout: float | None = 5.0) -> CloseReport:
        """Cancel everything and wake every waiting thread, within ``timeout`` seconds.

        Names what was outstanding. What has completed can still be dequeued.
        """
        report = self._native.close(seconds_or_none("timeout", timeout))
        return report._replace(
            outstanding=self._rows.with_keys(report.outstanding),
            endpoints=self._rows.with_keys(report.endpoints),
        )

    def endpoints(self) -> tuple[EndpointInfo, ...]:
        """The table of handles: what each endpoint has moved, since when, and what it is doing."""
        return self._rows.with_keys(self._native.endpoints())

    def _begin(
        self,
        user: Any,
        lease: Lease | None = None,
        held: Any = None,
        peer: CData = None,
        taken: Lease | None = None,
    ) -> Submission:
        """What an operation keeps alive, and the lease that is the engine's once it has it."""
        call = Submission(self._pending, next(self._tokens), pending((user, lease, held, peer)), taken)
        call.port, call.c, call.out = self, self._native.c, ffi.new(_NAME)
        return call

    def __enter__(self) -> CompletionPort:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<CompletionPort {self.backend}: {self.reason}>"
