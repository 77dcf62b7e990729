"""Batches that threads have taken from one port, and what their rows refer to.

    thread A:  takes [data of 7] .......................... reads it: key, user and pool of 7?
    thread B:           takes [the end of 7]  reads it: 7 is no more

The core orders what it gives out, not when threads get round to reading it. What an end makes
superfluous (the key of an endpoint, what an operation holds) is therefore kept until every batch that
had been taken before has been read.

Which ones those are, their rows tell: a batch is taken under the port's lock, which whoever takes a later one
has held since, and the second word of its first row, the event, is zero until then. A thread that still
waits has nothing that came before, however long it waits.

The handler of a signal may raise between any two instructions of a thread that reads. So all that is done
here may be done again.
"""

from __future__ import annotations

import threading
from typing import Any

from iocp_adapter._native import CData, ffi
from pools import Lease

__all__ = ["Batch", "Batches"]


class _Superfluous:
    """An entry of a table that some batches may still refer to."""

    __slots__ = ("entry", "name", "readers", "table")

    def __init__(self, table: dict[int, Any], name: int, entry: object, readers: int):
        self.table = table
        self.name = name
        self.entry = entry
        self.readers = readers

    def drop(self) -> None:
        """Unless the name is another one's by now."""
        if self.table.get(self.name) is self.entry:
            self.table.pop(self.name, None)


class Batch:
    """The rows of one thread, from before it asks for them until it has read them."""

    __slots__ = ("completion", "keeps", "leases", "named", "pending", "rows")

    def __init__(self, limit: int):
        self.rows: CData = ffi.new("pp_completion[]", limit)
        self.keeps: list[_Superfluous] = []
        self.leases: list[Lease] = []
        """Of its blocks, in the order of their rows."""
        self.completion: Any = None
        """Of the row that was read last, and what that row refers to."""
        self.pending: Any = None
        self.named: Any = None


class Batches:
    """All batches of a port that are being asked for or read. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may dequeue, too
        self._open: set[Batch] = set()

    def begin(self, batch: Batch) -> None:
        """Its rows are about to be asked for."""
        with self._lock:
            self._open.add(batch)

    def forget(self, table: dict[int, Any], name: int, entry: object, reader: Batch) -> None:
        """Drop an entry whose last row ``reader`` has read, once no other batch can refer to it."""
        with self._lock:
            others = [batch for batch in self._open if batch is not reader and batch.rows[0].event]
            if not others:
                if table.get(name) is entry:
                    table.pop(name, None)
                return
            superfluous = _Superfluous(table, name, entry, len(others))
            for batch in others:
                batch.keeps.append(superfluous)

    def read(self, batch: Batch) -> None:
        """It has been read, and its rows are for the next one."""
        with self._lock:
            for entry in batch.keeps:
                entry.readers -= 1
                if entry.readers <= 0:
                    entry.drop()
            batch.keeps.clear()

    def end(self, batch: Batch) -> None:
        """It has been read, and was the last."""
        with self._lock:
            self._open.discard(batch)
            self.read(batch)
