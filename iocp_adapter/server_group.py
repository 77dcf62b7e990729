"""Several servers behind one address, each with a thread, a port and a pool of its own.

    clients --> [listener] server 0 --accept--> a socket --post--> server 1
                    |                              |------post---> server 2
                    +- serves its own share -------+

The first server accepts, and a socket goes to the server with the fewest connections, as a packet that
is posted to that server's port: a port is where a completion-based program waits anyway, so nobody is
woken who need not be. From then on only that server knows the connection: its receives, its sends and its
blocks never meet another thread. That is why a group scales where a handler in C leaves the
interpreter alone, and why handlers need no locks for what belongs to a connection.

A listener that each thread has for itself (SO_REUSEPORT) would save the post, but it exists on one of
our systems, spreads by a hash and not by load, and loses what waits in the queue of a thread that ends.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any

from iocp_adapter._native import lib
from iocp_adapter.addresses import pipe_name
from iocp_adapter.connection import Connection
from iocp_adapter.errors import PortValueError, address_text
from iocp_adapter.features import Feature, Region
from iocp_adapter.handler import Handler, Received
from iocp_adapter.native_handler import NativeHandler
from iocp_adapter.native_port import CloseReport
from iocp_adapter.options import whole
from iocp_adapter.server import Server
from iocp_adapter.stats import ServerStats
from pools import Pool

__all__ = ["ServerGroup"]

WORKERS_MAX = 1024


class _Follower(Server):
    """Serves what the first server of its group accepts."""

    def _listen(self, _backlog: int, /) -> None:
        self._serving.listening = False

    def take(self, descriptor: int, number: int) -> bool:
        """Have the socket served here; False: the port is closed. Any thread."""
        return not lib.pp_port_post(self._port.c, 0, descriptor, number)


class _FewestFirst:
    """Gives each new connection to the server that has the fewest."""

    def __init__(self, first: Server, followers: Sequence[_Follower]):
        self._servings = [first._serving, *(follower._serving for follower in followers)]
        self._followers = followers
        self._given = [0] * len(self._servings)

    def open(self) -> int:
        """Connections that were given to somebody and have not ended."""
        return sum(self._load())

    def _load(self) -> list[int]:
        return [
            given - serving.ended - serving.dropped
            for given, serving in zip(self._given, self._servings, strict=True)
        ]

    def give(self, descriptor: int, number: int) -> bool:
        """Post the socket to whose turn it is; False: it is the caller's."""
        load = self._load()
        at = load.index(min(load))
        if at and not self._followers[at - 1].take(descriptor, number):
            at = 0
        self._given[at] += 1
        return bool(at)


class ServerGroup:
    """Listens on ``host:port`` and serves in ``workers`` threads, each with a completion port of its own.

    ``provider`` makes the pool of a thread and is called once for each; or it is one thread-safe pool
    for all of them. ``server.provider`` of each of ``servers`` is the pool, and closing it is the
    caller's. A connection is served by one thread from its beginning to its end; the handler's functions
    are called from all of them. ``max_connections`` counts in all threads together; the other options are
    those of ``Server`` and hold for each of the servers.

    Handlers in Python share the interpreter's lock, so that more than one worker pays with a
    ``NativeHandler``, or where handlers let go of the lock.

    Raises ``ListenError``, ``BackendUnavailable`` or ``PortValueError``.
    """

    def __init__(
        self,
        host: str,
        port: int,
        handler: Handler | Received | NativeHandler,
        *,
        workers: int,
        provider: Pool | Callable[[], Pool],
        **options: Any,
    ):
        whole("workers", workers, WORKERS_MAX, least=1)
        if not isinstance(provider, Pool) and not callable(provider):
            raise PortValueError(
                f"provider={provider!r}: give a function that makes a pool for each worker, or a pool"
            )
        if isinstance(provider, Pool) and workers > 1:
            _refuse_owned(provider, workers)
        if workers > 1 and pipe_name(host) is not None:
            raise PortValueError(
                f"workers={workers} on {host}: a pipe is served by the port that accepted it; give 1 worker"
            )
        make: Callable[[], Pool] = partial(_same, provider) if isinstance(provider, Pool) else provider
        first = Server(host, port, handler, provider=make(), **options)
        if isinstance(provider, Pool):
            options.pop("hold_limit", None)  # one look at the pool is enough
        self.servers: tuple[Server, ...] = (first,)
        """The first one accepts."""
        try:
            followers = []
            for _ in range(1, workers):
                followers.append(_Follower(*first.address, handler, provider=make(), **options))
                self.servers = (first, *followers)
        except BaseException:
            self.close(0.0)
            raise
        if followers:
            first._serving.place_with(_FewestFirst(first, followers))

    # ---- what one sees -----------------------------------------------------------------

    @property
    def address(self) -> tuple[str, int]:
        """Where the group listens."""
        return self.servers[0].address

    @property
    def backend(self) -> str:
        """``io_uring``, ``epoll`` or ``iocp``."""
        return self.servers[0].backend

    @property
    def reason(self) -> str:
        """Why this back end was chosen."""
        return self.servers[0].reason

    @property
    def features(self) -> dict[str, Feature]:
        """What the back end uses of the kernel, or does without, by name."""
        return self.servers[0].features

    def regions(self) -> tuple[Region, ...]:
        """What ``CompletionPort.regions()`` tells, of all servers."""
        return tuple(region for server in self.servers for region in server.regions())

    @property
    def connections(self) -> list[Connection]:
        """The open connections of all servers."""
        return [connection for server in self.servers for connection in server.connections]

    def stats(self) -> ServerStats:
        """What all servers together have done so far."""
        each = [dataclasses.astuple(server.stats()) for server in self.servers]
        return ServerStats(*map(sum, zip(*each, strict=True)))

    # ---- serving -------------------------------------------------------------------------

    def serve_forever(self) -> None:
        """Serve until ``stop()``: the first server in the calling thread, the others in theirs."""
        for server in self.servers[1:]:
            server.start()
        self.servers[0].serve_forever()

    def start(self) -> ServerGroup:
        """Serve in threads of the group's own; returns the group."""
        for server in reversed(self.servers):  # who accepts comes last
            server.start()
        return self

    def stop(self) -> None:
        """Make ``serve_forever()`` return soon; any thread, a handler or a signal handler may call it."""
        for server in self.servers:
            server.stop()

    def abort(self) -> None:
        """Make a ``close()`` that is under way, or the next one, wait for no peer, as ``Server.abort``."""
        for server in self.servers:
            server.abort()

    def close(self, timeout: float | None = 5.0) -> CloseReport:
        """Close all servers at once, as ``Server.close`` does; their pools are the calling thread's then."""
        for server in self.servers:
            server._shift.refuse_in_handler()
        first, *others = self.servers
        with ThreadPoolExecutor(len(self.servers)) as closers:  # all drain in the same time
            rest = closers.map(lambda server: server.close(timeout), others)
            reports = [first.close(timeout), *rest]  # which the calling thread may be serving
        for server in self.servers:
            server._shift.pass_pool()
        return CloseReport(
            outstanding=tuple(one for report in reports for one in report.outstanding),
            complete=all(report.complete for report in reports),
            endpoints=tuple(one for report in reports for one in report.endpoints),
            unnamed=sum(report.unnamed for report in reports),
        )

    def __enter__(self) -> ServerGroup:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = f"{len(self.servers)} workers {len(self.connections)} connections"
        return f"<ServerGroup {address_text(*self.address)} {self.backend} {state}>"


def _same(pool: Pool) -> Pool:
    return pool


def _refuse_owned(pool: Pool, workers: int) -> None:
    if not pool.thread_safe:
        raise PortValueError(
            f"workers={workers} with pool {pool.name!r}, which one thread owns: give a function that makes "
            "a pool for each worker, or a pool with thread_safe=True"
        )
