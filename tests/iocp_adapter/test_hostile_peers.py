"""Peers that speak garbage at full speed, and vanish as they like: each costs its own connection alone.

Several threads of them at a time, with a seed each, while others talk with the same server in peace.
"""

from __future__ import annotations

import contextlib
import logging
import random
import socket
import threading

import pytest

from iocp_adapter import ECHO

from .conftest import receive, reset

GOOD, BAD, TALKS, ATTACKS = 4, 4, 60, 25
POLITE = 0x7F


def drown(client, noise):
    """As fast as the socket takes it, and reads nothing."""
    for _ in range(8):
        client.sendall(bytes([noise.randrange(POLITE)]) + noise.randbytes(40_000))


def dribble(client, noise):
    for _ in range(40):
        client.sendall(noise.randbytes(1))


def begin_well(client, noise):
    client.sendall(bytes([POLITE]) + noise.randbytes(noise.randrange(5_000)))
    client.sendall(noise.randbytes(noise.randrange(1, 50_000)))


def stop_speaking(client, noise):
    client.sendall(noise.randbytes(noise.randrange(1, 5_000)))
    client.shutdown(socket.SHUT_WR)


def say_nothing(client, noise):
    client.shutdown(noise.choice([socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR]))


ATTACK = [drown, dribble, begin_well, stop_speaking, say_nothing]
LEAVE = [reset, socket.socket.close]


def misbehave(address, seed, over):
    noise = random.Random(seed)
    attacks = 0
    while attacks < ATTACKS or not over.is_set():
        attacks += 1
        with contextlib.suppress(OSError):
            client = socket.create_connection(address, timeout=10)
            client.setblocking(True)
            client.settimeout(0.2)  # who is not read from any more gives up
            with contextlib.suppress(OSError):
                noise.choice(ATTACK)(client, noise)
            noise.choice(LEAVE)(client)


def talk(address, seed, answered):
    words = random.Random(seed)
    with socket.create_connection(address, timeout=30) as client:
        for _ in range(TALKS):
            message = bytes([POLITE]) * (1 + words.randrange(20_000))
            client.sendall(message)
            assert receive(client, len(message)) == message, f"seed {seed}"
            answered.append(len(message))


class Strict:
    """An echo for the polite; a byte of anything else raises."""

    def __init__(self):
        self.raised = 0
        self.reasons = {}

    def received(self, connection, lease, length):
        message = lease.view[:length]
        if bytes(message).strip(bytes([POLITE])):
            self.raised += 1
            raise ValueError("garbage")
        connection.send(lease, length)

    def disconnected(self, connection, reason):
        self.reasons[connection.peer] = reason


@pytest.fixture
def quiet():
    logger = logging.getLogger("iocp_adapter")
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize("native", [False, True], ids=["python", "native"])
def test_garbage_changes_nothing_but_its_own_connection(serve, dial, pool, quiet, native):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    handler = ECHO if native else Strict()
    server = serve(handler)
    patient = dial(server)
    patient.sendall(b"\x7fbefore" if native else bytes([POLITE]) * 7)
    before = receive(patient, 7)
    over, answered = threading.Event(), []
    bad = [threading.Thread(target=misbehave, args=(server.address, seed + i, over)) for i in range(BAD)]
    good = [threading.Thread(target=talk, args=(server.address, seed - 1 - i, answered)) for i in range(GOOD)]
    for thread in bad + good:
        thread.start()
    for thread in good:
        thread.join(100)
    over.set()
    for thread in bad:
        thread.join(100)
    assert len(answered) == GOOD * TALKS, "everybody who was polite got every answer"
    patient.sendall(before)
    assert receive(patient, 7) == before, "and who was there before still is"
    assert server.stats().accepted >= GOOD + BAD * ATTACKS / 2
    patient.close()
    report = server.close()
    assert report.complete
    stats = server.stats()
    assert stats.closed == stats.accepted
    assert stats.handler_errors == (0 if native else handler.raised), "garbage was read until the close"
    if not native:
        assert handler.raised > 0
    port = server.port_stats()
    assert port.submitted == port.completed
    assert (port.endpoints, port.queued_bytes, pool.stats().live_blocks) == (0, 0, 0)
