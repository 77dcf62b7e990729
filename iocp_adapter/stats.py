"""What ports and servers count; a port's list is ``PP_PORT_STATS_LIST`` of ``poolport/port_stats.h``."""

from __future__ import annotations

from dataclasses import dataclass, field, make_dataclass
from typing import Any, NamedTuple

from iocp_adapter._native import CData, ffi, lib

__all__ = [
    "PORT_STATISTICS",
    "EndpointInfo",
    "Outstanding",
    "PortStatistic",
    "PortStats",
    "ServerStats",
    "read_endpoint",
    "read_outstanding",
    "read_stats",
]


class PortStatistic(NamedTuple):
    """One line of the list."""

    name: str
    kind: str
    """``counter`` (only rises) or ``gauge``."""
    unit: str
    meaning: str


def _entries() -> tuple[PortStatistic, ...]:
    found: list[PortStatistic] = []
    while (entry := lib.pp_port_stats_describe(len(found))) != ffi.NULL:
        texts = (entry.name, entry.kind, entry.unit, entry.meaning)
        found.append(PortStatistic(*(str(ffi.string(text), "utf-8") for text in texts)))
    return tuple(found)


PORT_STATISTICS: tuple[PortStatistic, ...] = _entries()

PortStats: Any = make_dataclass(
    "PortStats",
    [(entry.name, int, field(metadata=entry._asdict())) for entry in PORT_STATISTICS],
    frozen=True,
    namespace={"__doc__": "Counters and gauges of a port; each field's metadata has unit and meaning."},
)
PortStats.__module__ = __name__


@dataclass(frozen=True)
class ServerStats:
    """What a server has done so far. The port's own counters are in ``server.port_stats()``."""

    messages: int
    """Receives that were given to the handler."""
    received_bytes: int
    sent_bytes: int
    accepted: int
    refused: int
    """Closed at once: the limit was reached, or no descriptor was left."""
    closed: int
    open: int
    errors: int
    """Connections that ended with an error."""
    handler_errors: int
    """Exceptions in handlers."""
    buffer_waits: int
    """Times a connection waited because the pool had no block."""
    pauses: int
    """Times a connection whose peer did not read was no longer read from."""
    batches: int
    queued_bytes: int
    long_holds: int
    """Blocks that were owned for longer than ``hold_limit``."""


KINDS: dict[int, str] = {
    lib.PP_KIND_RECV: "recv",
    lib.PP_KIND_SEND: "send",
    lib.PP_KIND_ACCEPT: "accept",
    lib.PP_KIND_CONNECT: "connect",
    lib.PP_KIND_POST: "post",
    lib.PP_KIND_CLOSE: "close",
    lib.PP_KIND_TIMER: "timer",
    lib.PP_KIND_RECVFROM: "recvfrom",
    lib.PP_KIND_SENDTO: "sendto",
    lib.PP_KIND_READ: "read_at",
    lib.PP_KIND_WRITE: "write_at",
    lib.PP_KIND_SEND_FILE: "send_file",
    lib.PP_KIND_READABLE: "readable",
    lib.PP_KIND_WRITABLE: "writable",
    lib.PP_KIND_DISCONNECT: "disconnect",
}


class Outstanding(NamedTuple):
    """An operation that has not completed."""

    kind: str
    """``recv``, ``send``, ``accept``, ``connect``, ``disconnect``, ``recvfrom``, ``sendto``, ``read_at``,
    ``write_at``, ``send_file``, ``readable``, ``writable`` or ``timer``."""
    key: int
    age_seconds: float
    bytes: int
    """Of a send: still to go."""
    cancelled: bool
    """A cancel was asked for."""
    peer: str
    """Of its connection; empty where there is none."""

    def __str__(self) -> str:
        size = f", {self.bytes} bytes to go" if self.bytes else ""
        peer = f" ({self.peer})" if self.peer else ""
        return f"{self.kind} of endpoint {self.key}{peer}, {self.age_seconds:.3f} s old{size}"


class EndpointInfo(NamedTuple):
    """A handle in a port's table."""

    key: int
    descriptor: int
    age_seconds: float
    idle_seconds: float
    """Since bytes came or went."""
    received_bytes: int
    receives: int
    """The pieces that they came in."""
    sent_bytes: int
    queued_bytes: int
    """Not sent yet."""
    queued_sends: int
    doing: tuple[str, ...]
    """Any of ``recv``, ``send``, ``accept``, ``connect``, ``starve`` (it waits for a block), ``pause`` (it
    is not received from while its peer does not read), ``file`` (it is read from or written to) and
    ``end``."""
    kind: str
    """``tcp``, ``udp``, ``unix``, ``listener`` (once it accepts), ``pipe``, ``file`` or ``other``."""
    waits: int
    """Times it waited for a block of its pool."""
    pauses: int
    """Times it was not received from because its peer did not read."""
    cancels: int
    """Operations of it that were asked back."""

    def __str__(self) -> str:
        doing = " and ".join(self.doing) or "nothing"
        return (
            f"{self.kind} endpoint {self.key}, descriptor {self.descriptor}, {self.age_seconds:.3f} s old, "
            f"idle for {self.idle_seconds:.3f} s, doing {doing}"
        )


_DOING = {
    lib.PP_DOING_RECV: "recv",
    lib.PP_DOING_SEND: "send",
    lib.PP_DOING_ACCEPT: "accept",
    lib.PP_DOING_CONNECT: "connect",
    lib.PP_DOING_STARVE: "starve",
    lib.PP_DOING_PAUSE: "pause",
    lib.PP_DOING_END: "end",
    lib.PP_DOING_FILE: "file",
}


_ENDPOINT_KINDS = {
    lib.PP_ENDPOINT_OTHER: "other",
    lib.PP_ENDPOINT_TCP: "tcp",
    lib.PP_ENDPOINT_UDP: "udp",
    lib.PP_ENDPOINT_UNIX: "unix",
    lib.PP_ENDPOINT_LISTENER: "listener",
    lib.PP_ENDPOINT_PIPE: "pipe",
    lib.PP_ENDPOINT_FILE: "file",
}


def read_endpoint(row: CData) -> EndpointInfo:
    """A ``pp_endpoint_info`` that the core has filled in."""
    return EndpointInfo(
        row.key,
        row.descriptor,
        row.age_ns / 1e9,
        row.idle_ns / 1e9,
        row.received_bytes,
        row.receives,
        row.sent_bytes,
        row.queued_bytes,
        row.queued_sends,
        tuple(text for bit, text in _DOING.items() if row.doing & bit),
        _ENDPOINT_KINDS[row.kind],
        row.waits,
        row.pauses,
        row.cancels,
    )


def read_stats(port: CData) -> Any:
    """The counters of a native port as ``PortStats``."""
    native = ffi.new("pp_port_stats *")
    lib.pp_port_read_stats(port, native)
    return PortStats(*(getattr(native, entry.name) for entry in PORT_STATISTICS))


def read_outstanding(rows: CData, count: int) -> tuple[Outstanding, ...]:
    """``count`` rows that the core has filled in."""
    return tuple(
        Outstanding(
            KINDS[row.kind],
            row.key,
            row.age_ns / 1e9,
            row.bytes,
            bool(row.cancelled),
            str(ffi.string(row.peer), "utf-8", "replace"),
        )
        for row in (rows[index] for index in range(count))
    )
