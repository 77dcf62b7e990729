"""The demo's traffic: what each connection will send and when, from a seed.

The plan is made before any strategy runs, so that every strategy gets the same bytes in the
same order on each connection, with the same pauses.
"""

from __future__ import annotations

import math
import random
from typing import NamedTuple

__all__ = ["LEAK", "RESIDENT", "VISITOR", "ConnectionPlan", "Traffic", "payload_source", "plan_traffic"]

VISITOR = b"V"
"""First byte of a connection that comes and goes."""
RESIDENT = b"R"
"""First byte of a connection that stays; the server keeps its last messages."""
LEAK = b"L"
"""First byte of the connection whose last block the server is told to lose."""

SMALLEST, LARGEST = 64, 100 * 1024
_PAYLOAD_BYTES = 1 << 20


class Message(NamedTuple):
    """One message: bytes [start, start + size) of the payload source, sent after a pause."""

    size: int
    start: int
    pause_s: float


class ConnectionPlan(NamedTuple):
    """What one connection does."""

    kind: bytes
    opens_at_s: float
    messages: tuple[Message, ...]


class Traffic(NamedTuple):
    """The whole plan."""

    seed: int
    duration_s: float
    connections: tuple[ConnectionPlan, ...]

    @property
    def messages(self) -> int:
        """Messages over all connections."""
        return sum(len(plan.messages) for plan in self.connections)

    @property
    def payload_bytes(self) -> int:
        """Bytes sent over all connections, in one direction."""
        return sum(message.size for plan in self.connections for message in plan.messages)


def payload_source(seed: int) -> bytes:
    """The bytes that messages are cut from; the first is replaced by the connection's kind."""
    return random.Random(seed).randbytes(_PAYLOAD_BYTES)  # noqa: S311  # traffic, not secrets


def _message_size(source: random.Random) -> int:
    """A realistic mix: mostly requests of about 1 KiB, one in twelve a document of up to 100 KiB.

    The body is lognormal (median 700 B), the tail Pareto with shape 1.1 from 8 KiB, as measured
    for web objects by Crovella and Bestavros (1997).
    """
    size = 8192 * source.paretovariate(1.1) if source.random() < 1 / 12 else math.exp(source.gauss(6.55, 1.0))
    return min(max(int(size), SMALLEST), LARGEST)


def _messages(source: random.Random, count: int, pause_s: float) -> tuple[Message, ...]:
    messages = []
    for _ in range(count):
        size = _message_size(source)
        messages.append(
            Message(size, source.randrange(_PAYLOAD_BYTES - size), source.expovariate(1 / pause_s))
        )
    return tuple(messages)


def plan_traffic(
    seed: int, *, connections: int, duration_s: float, leak: bool, residents: int = 8
) -> Traffic:
    """Plan ``connections`` connections over about ``duration_s`` seconds.

    ``residents`` of them stay for the whole run; with ``leak`` one more is the connection whose block is
    lost. Most visitors are short; their number and the messages of each follow from the seed alone.
    """
    source = random.Random(seed)  # noqa: S311  # traffic, not secrets
    residents = min(residents, max(connections - 1, 0))
    plans = [
        ConnectionPlan(RESIDENT, 0.0, _messages(source, max(4, int(duration_s * 30)), 1 / 32))
        for _ in range(residents)
    ]
    if leak:
        plans.append(ConnectionPlan(LEAK, duration_s * 0.3, _messages(source, 5, 0.01)))
    for _ in range(connections - residents):
        opens_at = source.uniform(0, duration_s * 0.85)
        life_s = min(source.expovariate(1 / (duration_s * 0.25)), duration_s - opens_at)
        count = max(2, int(life_s * 110))
        plans.append(ConnectionPlan(VISITOR, opens_at, _messages(source, count, life_s / count * 0.9)))
    return Traffic(seed, duration_s, tuple(plans))
