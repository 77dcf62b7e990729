"""The simulated kernel from Python: what a seed does, it does again."""

from __future__ import annotations

import hashlib

import pytest

from iocp_adapter import BackendUnavailable, CompletionPort, PortClosed, SimulatedPeer
from pools import SlabPool


def story(seed):
    """What one seed makes of three messages that are echoed in pieces."""
    events = []
    with SlabPool(256, 8, strict=True) as pool, CompletionPort("sim", seed=seed) as port:
        peer = SimulatedPeer(port)
        endpoint = port.associate(peer.descriptor, 7, pool, own=True)
        endpoint.recv_stream()
        sent, back, turns, short = b"".join(bytes([65 + number]) * 300 for number in range(3)), b"", 0, False
        written = peer.send(sent)
        while len(back) < written and turns < 2000 and not short:
            turns += 1
            for done in port.dequeue_many(4, 0):
                events.append((done.kind, done.more, done.result, type(done.error).__name__))
                short = short or bool(done.error)  # of memory, as some seeds are
                if done.kind == "recv" and done.more and not short:
                    endpoint.send(done.lease, done.result)
                elif done.kind == "recv" and done.lease:
                    done.lease.release()
            back += peer.recv(4096) or b""
        assert short or back == sent[:written]
        peer.close()
        port.close()
        for done in port.dequeue_many(64, 0):
            events.append((done.kind, done.more))
            if done.lease and not done.lease.released:
                done.lease.release()
    return events


@pytest.mark.parametrize("seed", range(20))
def test_a_seed_tells_the_same_story_again(seed):
    assert story(seed) == story(seed)


def test_seeds_differ():
    assert len({str(story(seed)) for seed in range(20)}) > 10


def test_seeds_tell_the_same_stories_on_every_system(record_property):
    stories = [story(seed) for seed in range(300)]
    record_property("same on every system", hashlib.sha256(repr(stories).encode()).hexdigest())


def test_a_reset_reaches_the_port():
    with SlabPool(256, 8) as pool, CompletionPort("sim", seed=3) as port:
        peer = SimulatedPeer(port)
        port.associate(peer.descriptor, 1, pool, own=True).recv_stream()
        peer.close(reset=True)
        peer.close()
        assert isinstance(port.dequeue(20).error, ConnectionResetError)
        with pytest.raises(PortClosed):
            peer.send(b"late")


def test_real_ports_have_no_simulated_connections(backend):
    with CompletionPort(backend) as port, pytest.raises(BackendUnavailable, match='not "sim"'):
        SimulatedPeer(port)
