"""The demo's clients: one process that plays a traffic plan against a server and checks every byte.

``python -m analysis.demo.clients HOST PORT SEED CONNECTIONS DURATION LEAK`` prints one JSON object.
"""

from __future__ import annotations

import heapq
import json
import selectors
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from analysis.demo.traffic import ConnectionPlan, Traffic, payload_source, plan_traffic

__all__ = ["Outcome", "main", "play"]

_RECEIVE_BYTES = 256 * 1024
_SILENCE_S = 20.0
"""A server that says nothing for this long is given up."""


class Outcome(NamedTuple):
    """What the clients saw."""

    connections: int
    messages: int
    """Echoed in full and compared byte by byte."""
    payload_bytes: int
    failures: int
    """Messages that came back wrong, or not at all."""
    elapsed_s: float
    latency_p50_us: float
    latency_p99_us: float
    first_failure: str

    @property
    def verified(self) -> bool:
        """Whether every message came back as it was sent."""
        return self.failures == 0


class _Client:
    """One connection: sends a message, compares the echo as it comes, pauses, and so on."""

    __slots__ = ("_at", "_echoed", "_message", "_out", "_plan", "_started", "socket")

    def __init__(self, plan: ConnectionPlan, address: tuple[str, int]):
        self._plan = plan
        self._at = 0
        self._message = b""
        self._out = memoryview(b"")
        self._echoed = 0
        self._started = 0.0
        self.socket = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.socket.connect_ex(address)

    @property
    def left(self) -> int:
        """Messages not echoed yet."""
        return len(self._plan.messages) - self._at

    @property
    def sending(self) -> bool:
        """Whether bytes of the current message wait to be sent."""
        return bool(self._out)

    @property
    def pause_s(self) -> float:
        """The pause before the next message."""
        return self._plan.messages[self._at].pause_s

    def begin(self, source: bytes, now: float) -> None:
        """Take up the next message."""
        message = self._plan.messages[self._at]
        data = source[message.start : message.start + message.size]
        self._message = self._plan.kind + data[1:] if self._at == 0 else data
        self._out = memoryview(self._message)
        self._echoed = 0
        self._started = now

    def send(self) -> None:
        """Send what the socket takes."""
        with suppress(BlockingIOError):
            self._out = self._out[self.socket.send(self._out) :]

    def receive(self, data: memoryview, now: float) -> float | None:
        """Compare a piece of the echo; the latency in seconds once the message is whole.

        Raises ``ValueError`` for a wrong byte or more bytes than were sent.
        """
        end = self._echoed + len(data)
        if self._message[self._echoed : end] != data:
            raise ValueError(
                f"message {self._at} came back wrong between bytes {self._echoed} and {end} of "
                f"{len(self._message)}"
            )
        self._echoed = end
        if end < len(self._message):
            return None
        self._at += 1
        return now - self._started


class _Player:
    """Plays all connections of a plan in one thread."""

    def __init__(self, traffic: Traffic, address: tuple[str, int]):
        self._address = address
        self._source = payload_source(traffic.seed)
        self._selector = selectors.DefaultSelector()
        self._buffer = memoryview(bytearray(_RECEIVE_BYTES))
        self._order = iter(range(1 << 62))
        self._due: list[tuple[float, int, ConnectionPlan | _Client]] = [
            (plan.opens_at_s, next(self._order), plan) for plan in traffic.connections
        ]
        heapq.heapify(self._due)
        self._open: set[_Client] = set()
        self.latencies: list[float] = []
        self.payload_bytes = 0
        self.failures = 0
        self.first_failure = ""

    def play(self) -> float:
        """Run until every connection is done; the seconds it took."""
        started = last_event = time.perf_counter()
        while self._due or self._open:
            now = time.perf_counter()
            self._start_due(started, now)
            wait = 0.5 if not self._due else max(0.0, started + self._due[0][0] - now)
            for client, mask in self._events(min(wait, 0.5)):
                last_event = time.perf_counter()
                self._serve(client, mask, started, last_event)
            waiting = any(client.left and client.sending for client in self._open) or not self._due
            if self._open and waiting and time.perf_counter() - last_event > _SILENCE_S:
                for client in list(self._open):
                    self._fail(client, f"the server said nothing for {_SILENCE_S:.0f} s")
        return time.perf_counter() - started

    def _start_due(self, started: float, now: float) -> None:
        while self._due and started + self._due[0][0] <= now:
            _, _, what = heapq.heappop(self._due)
            if isinstance(what, _Client):
                client = what
            else:
                client = _Client(what, self._address)
                self._open.add(client)
                self._selector.register(client.socket, selectors.EVENT_WRITE, client)
            if client in self._open:
                client.begin(self._source, now)
                self._selector.modify(client.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, client)

    def _events(self, wait: float) -> Iterator[tuple[_Client, int]]:
        if not self._open:  # Windows refuses to wait for no socket at all
            time.sleep(wait)
            return
        for key, mask in self._selector.select(wait):
            yield key.data, mask

    def _serve(self, client: _Client, mask: int, started: float, now: float) -> None:
        try:
            if mask & selectors.EVENT_WRITE:
                client.send()
                if not client.sending:
                    self._selector.modify(client.socket, selectors.EVENT_READ, client)
            if mask & selectors.EVENT_READ:
                self._receive(client, started, now)
        except (OSError, ValueError) as error:
            self._fail(client, str(error))

    def _receive(self, client: _Client, started: float, now: float) -> None:
        try:
            size = client.socket.recv_into(self._buffer)
        except BlockingIOError:
            return
        if size == 0:
            raise ConnectionError("the server closed the connection before the last echo")
        latency = client.receive(self._buffer[:size], now)
        self.payload_bytes += size
        if latency is None:
            return
        self.latencies.append(latency)
        if client.left:
            heapq.heappush(self._due, (now - started + client.pause_s, next(self._order), client))
        else:
            self._drop(client)

    def _fail(self, client: _Client, why: str) -> None:
        self.failures += client.left
        self.first_failure = self.first_failure or why
        self._drop(client)

    def _drop(self, client: _Client) -> None:
        self._open.discard(client)
        self._selector.unregister(client.socket)
        client.socket.close()


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


def play(traffic: Traffic, address: tuple[str, int]) -> Outcome:
    """Play a plan against a server at (host, port)."""
    player = _Player(traffic, address)
    elapsed = player.play()
    ordered = sorted(player.latencies)
    return Outcome(
        len(traffic.connections),
        len(ordered),
        player.payload_bytes,
        player.failures,
        elapsed,
        _percentile(ordered, 0.50) * 1e6,
        _percentile(ordered, 0.99) * 1e6,
        player.first_failure,
    )


def main(arguments: list[str]) -> int:
    """Play the plan that the arguments name and print the outcome."""
    host, port, seed, connections, duration, leak = arguments
    traffic = plan_traffic(
        int(seed), connections=int(connections), duration_s=float(duration), leak=leak == "leak"
    )
    print(json.dumps(play(traffic, (host, int(port)))._asdict()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
