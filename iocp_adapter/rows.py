"""The rows of a port. They refer to operations by a token, to endpoints by the address of their name in C.

Python's tokens have the uppermost bit, so that a handler in C, which submits on the same port, has all
numbers below for its own. An endpoint's name in C (``pp_named``) tells such a handler what Python knows
of it: the program's key, the engine's name, the table of its pool's functions.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import itertools
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

from iocp_adapter._native import CData, Submitter, ffi, lib
from iocp_adapter.addresses import read_address
from iocp_adapter.batches import Batch, Batches
from iocp_adapter.completion import Completion
from iocp_adapter.errors import completion_error, error_for
from iocp_adapter.native_port import nanoseconds
from iocp_adapter.stats import KINDS, EndpointInfo, Outstanding
from pools import Lease, Pool

__all__ = ["FIRST_TOKEN", "Named", "Pending", "Rows", "address_of", "pending"]

FIRST_TOKEN = 1 << 63
"""No ``user`` below it is an operation of Python's."""
_WORDS = 8
_NUMBER, _EVENT, _TOKEN = 0, 1, 7
_UNBOUND = (lib.PP_KIND_POST, lib.PP_KIND_TIMER, lib.PP_KIND_READABLE, lib.PP_KIND_WRITABLE)

_Told = TypeVar("_Told", EndpointInfo, Outstanding)


class Pending(NamedTuple):
    """What an operation keeps alive until its completion."""

    user: Any
    lease: Lease | None
    held: Any
    peer: CData = None


pending = functools.partial(tuple.__new__, Pending)
"""Makes one of its fields in a tuple, in half the time: one is made for each operation."""


class Named(NamedTuple):
    """What a port knows of an endpoint until its end was read."""

    key: int
    pool: Pool | None
    native: CData


def address_of(named: CData) -> int:
    """What the core has for an endpoint's key."""
    return int(ffi.cast("uintptr_t", named))


class Rows:
    """Everything that rows of one port may refer to. Any thread."""

    def __init__(self) -> None:
        self.batches = Batches()
        self.pending: dict[int, Pending] = {}
        """Operations, by token."""
        self.named: dict[int, Named] = {}
        """Endpoints, by what the core has for their keys."""
        self.tokens = itertools.count(FIRST_TOKEN)
        """Each is one operation's, or nobody's."""
        self._untold: collections.deque[Completion] = collections.deque()
        """Of calls that were interrupted."""

    def name(self, key: int, pool: Pool | None, provider: CData) -> tuple[CData, Submitter]:
        """For one endpoint, and what tells the core of it: another thread may be told of it first.

        Its address is what the core has for a key; its ``endpoint`` is still to be set.
        """
        native = ffi.new("pp_named *", {"key": key, "provider": provider})
        return native, Submitter(self.named, address_of(native), Named(key, pool, native))

    def key_of(self, number: int) -> int:
        """The program's key of an endpoint."""
        named = self.named.get(number)
        return number if named is None else named.key

    def with_keys(self, found: tuple[_Told, ...]) -> tuple[_Told, ...]:
        """What the core tells of endpoints and operations, with the program's keys in place of its own."""
        return tuple(one._replace(key=self.key_of(one.key)) for one in found)

    def dequeue(self, port: CData, limit: int, timeout: float | None) -> list[Completion]:
        """Up to ``limit`` completions; empty when ``timeout`` seconds have passed. Raises ``PortClosed``.

        What the handler of a signal raises meanwhile takes none along: they are the next call's.
        """
        if self._untold and (found := self._tell_kept(limit)):
            return found
        found = []
        batch = Batch(limit)
        try:
            self.batches.begin(batch)
            count = _fill(port, batch.rows, limit, timeout)
            self._read(batch, _each(batch.rows, count), found)
            self.batches.end(batch)
            return found
        except BaseException:
            self._keep(batch, found)
            self.batches.end(batch)
            raise

    def _tell_kept(self, limit: int) -> list[Completion]:
        found: list[Completion] = []
        with contextlib.suppress(IndexError):  # another thread may have them
            while len(found) < limit:
                found.append(self._untold.popleft())
        return found

    def _read(self, batch: Batch, rows: Iterable[tuple[int, ...]], found: list[Completion]) -> None:
        for row in rows:
            batch.completion = completion = self.read(batch, *row)
            if not completion.more:
                self._forget(batch, row)
            found.append(completion)

    def _keep(self, batch: Batch, found: list[Completion]) -> None:
        """What an interrupted call has taken, be it read or not, and be it the row that it was at."""
        rows = [row for row in _each(batch.rows, len(batch.rows)) if row[_EVENT]]
        if batch.completion is not None and not (found and found[-1] is batch.completion):
            if not batch.completion.more:
                self._forget(batch, rows[len(found)])
            found.append(batch.completion)
        self._read(batch, rows[len(found) :], found)
        self._untold.extend(found)

    def read(
        self,
        batch: Batch,
        number: int,
        event: int,
        result: int,
        error: int,
        block: int,
        address: int,
        size: int,
        token: int,
    ) -> Completion:
        """The completion of a row."""
        kind, more = event & lib.PP_KIND_MASK, bool(event & lib.PP_MORE)
        batch.named = named = None if kind in _UNBOUND else self.named.get(number)
        batch.pending = pending = self.pending.get(token)
        user, lease = (pending.user, pending.lease) if pending else (None, None)
        peer = None
        if kind == lib.PP_KIND_RECVFROM and not error:
            peer = read_address(pending.peer) if pending else None
        streamed = kind == lib.PP_KIND_RECV and more
        if block and lease is None and not error and (streamed or kind == lib.PP_KIND_RECVFROM):
            assert named is not None, "an endpoint is known until its last row was read"
            assert named.pool is not None, "and a block came from its pool"
            if not batch.leases or batch.leases[-1].handle != block:
                # All of it in C: there is no lease that is not in the list.
                batch.leases.extend(map(named.pool.lease, (block,), (address,), (size,)))
            lease = batch.leases[-1]
        key = named.key if named else number
        truncated = bool(event & lib.PP_TRUNCATED)
        return Completion(
            key, KINDS[kind], more, result, completion_error(error), lease, user, peer, truncated
        )

    def _forget(self, batch: Batch, row: tuple[int, ...]) -> None:
        """What a row that was just read, and is its operation's last, was the last to refer to."""
        if batch.pending:
            self.batches.forget(self.pending, row[_TOKEN], batch.pending, batch)
        if row[_EVENT] & lib.PP_KIND_MASK == lib.PP_KIND_CLOSE:
            self.batches.forget(self.named, row[_NUMBER], batch.named, batch)

    def describe(self, row: CData) -> Completion:
        """The completion of a row that a handler in C has had, and whose block is therefore not there."""
        kind, more = row.event & lib.PP_KIND_MASK, bool(row.event & lib.PP_MORE)
        key = row.key if kind in _UNBOUND else self.key_of(row.key)
        pending = self.pending.get(row.user)
        user, lease = (pending.user, pending.lease) if pending else (None, None)
        return Completion(key, KINDS[kind], more, row.result, completion_error(row.error), lease, user)

    def forget_ends(self, ends: CData, count: int, batch: Batch) -> None:
        """What the worker of ``batch`` (``pp_worker_ended``) has handled the last rows of."""
        for index in range(count):
            end = ends[index]
            table, name = (self.pending, end.user) if end.user else (self.named, end.key)
            self.batches.forget(table, name, table.get(name), batch)


def _each(rows: CData, count: int) -> Iterator[tuple[int, ...]]:
    words = memoryview(ffi.buffer(rows)).cast("B").cast("Q")[: count * _WORDS].tolist()
    it = iter(words)
    return zip(it, it, it, it, it, it, it, it, strict=True)


def _fill(port: CData, rows: CData, limit: int, timeout: float | None) -> int:
    why = ffi.new("pp_status *")
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        count = lib.pp_port_dequeue(port, rows, limit, nanoseconds(left), why)
        if count or why[0] == lib.PP_TIMEOUT:
            return count
        if why[0] == lib.PP_CLOSED:
            raise error_for(lib.PP_CLOSED, "dequeue")
