"""What a receive costs by where its buffer begins.

Processors that copy short ranges fast by one instruction (``rep movsb``) may do so only for some pairs of
addresses: an AMD Zen 3 copies six times more slowly to what begins 1 to 31 bytes behind the page offset of
the source. The kernel keeps what has arrived from the beginnings of pages, and malloc's large blocks begin
16 bytes behind that of a page, so this is where buffers from malloc mostly lie.
"""

from __future__ import annotations

import contextlib
import mmap
import socket
import statistics
import time
from typing import NamedTuple

MALLOC_OFFSET = 16
_MESSAGE_BYTES = 100 << 10
_ROUNDS = 150


class ReceiveCost(NamedTuple):
    """Median nanoseconds of a receive of 100 KiB to a page's beginning, and to 16 bytes behind it."""

    at_page_ns: float
    behind_page_ns: float

    @property
    def ratio(self) -> float:
        """How many times as much the second one costs."""
        return self.behind_page_ns / self.at_page_ns


def _connected() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sender = socket.create_connection(listener.getsockname())
        receiver, _ = listener.accept()
    sender.setblocking(False)  # what the socket has no room for is sent when some of it is received
    return sender, receiver


def _receive_ns(sender: socket.socket, receiver: socket.socket, source: memoryview, into: memoryview) -> int:
    """Nanoseconds inside the calls that receive one message."""
    sent = got = spent_ns = 0
    while got < _MESSAGE_BYTES:
        if sent < _MESSAGE_BYTES:
            with contextlib.suppress(BlockingIOError):
                sent += sender.send(source[sent:])
        begun_ns = time.perf_counter_ns()
        got += receiver.recv_into(into[got:])
        spent_ns += time.perf_counter_ns() - begun_ns
    return spent_ns


def receive_cost(rounds: int = _ROUNDS) -> ReceiveCost:
    """Measure over loopback, both in turn; takes a twentieth of a second. OSError without loopback."""
    sender, receiver = _connected()
    with sender, receiver, mmap.mmap(-1, 3 * _MESSAGE_BYTES) as memory, memoryview(memory) as view:
        source = view[2 * _MESSAGE_BYTES :]  # page-aligned, as `view` is
        figures: dict[int, list[int]] = {0: [], MALLOC_OFFSET: []}
        for _ in range(rounds):
            for offset, spent in figures.items():
                into = view[offset : offset + _MESSAGE_BYTES]
                spent.append(_receive_ns(sender, receiver, source, into))
                into.release()
        source.release()
    return ReceiveCost(statistics.median(figures[0]), statistics.median(figures[MALLOC_OFFSET]))
