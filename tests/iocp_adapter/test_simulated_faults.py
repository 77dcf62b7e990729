"""What a simulated kernel is asked to do: the mishaps that a real one does not have on request."""

from __future__ import annotations

import errno
import threading

import pytest

from iocp_adapter import BackendUnavailable, CompletionPort, PortValueError, SimulatedKernel, SimulatedPeer
from pools import SlabPool


@pytest.fixture(params=["readiness", "completion"])
def completing(request):
    return request.param == "completion"


@pytest.fixture
def sim_pool():
    with SlabPool(256, 8, strict=True, thread_safe=True) as pool:
        yield pool


@pytest.fixture
def port():
    with CompletionPort("sim", seed=1) as port:
        yield port


@pytest.fixture
def kernel(port, completing):
    kernel = SimulatedKernel(port)
    kernel.calm(completing=completing)
    yield kernel
    assert kernel.asked == 0


def connect(port, pool):
    peer = SimulatedPeer(port)
    return peer, port.associate(peer.descriptor, 7, pool, own=True)


def text(completion):
    with completion.lease as lease:
        return bytes(lease.view[: completion.result])


def turns(port):
    """Looks into the kernel until something comes of them, and that."""
    for turn in range(1, 1000):
        if done := port.dequeue(0):
            return turn, done
    raise AssertionError("nothing has come")


def test_a_receive_is_late_and_the_next_one_is_not(port, kernel, sim_pool):
    peer, endpoint = connect(port, sim_pool)
    endpoint.recv_stream()
    kernel.delay("recv", 20, peer)
    peer.send(b"late")
    turn, done = turns(port)
    assert turn >= 20
    assert text(done) == b"late"
    peer.send(b"soon")
    turn, done = turns(port)
    assert turn < 20
    assert text(done) == b"soon"


def test_partial_sends_keep_the_order(port, kernel, sim_pool):
    peer, endpoint = connect(port, sim_pool)
    for size in (1, 5, 2):
        kernel.shorten("send", size, peer)
    for number in range(4):
        endpoint.send(b"message %d " % number, user=number)
    assert [port.dequeue(5).user for _ in range(4)] == [0, 1, 2, 3]
    assert peer.recv(100) == b"message 0 message 1 message 2 message 3 "
    assert port.stats().partial_sends == 3


def test_the_third_receive_fails(port, kernel, sim_pool):
    peer, endpoint = connect(port, sim_pool)
    endpoint.recv_stream()
    kernel.fail("recv", errno.ECONNRESET, peer, after=2)
    for message in (b"one", b"two"):
        peer.send(message)
        assert text(port.dequeue(5)) == message
    peer.send(b"three")
    assert port.dequeue(5).error.errno == errno.ECONNRESET


def test_a_receive_that_finds_the_pool_dry_goes_on_when_it_is_not(port, kernel, sim_pool):
    peer, endpoint = connect(port, sim_pool)
    endpoint.recv_stream()
    kernel.run_dry(peer=peer)
    peer.send(b"thirsty")
    assert text(port.dequeue(5)) == b"thirsty"
    assert port.stats().buffer_waits == 1


@pytest.mark.parametrize(
    ("outcome", "late", "heard"), [("wins", 50, None), ("loses", 50, b"data"), ("misses", 5, b"data")]
)
def test_a_cancel_has_three_outcomes(port, sim_pool, outcome, late, heard):
    """Each gives one completion, and its lease back."""
    kernel = SimulatedKernel(port)
    kernel.calm(completing=True)
    peer, endpoint = connect(port, sim_pool)
    kernel.delay("send", late, peer)
    kernel.cancel("send", outcome, 20, peer)
    lease = sim_pool.acquire()
    lease.view[:4] = b"data"
    sending = endpoint.send(lease, 4)
    assert port.dequeue(0) is None
    assert sending.cancel()
    done = port.dequeue(5)
    assert done.kind == "send"
    assert (done.error is None) == (heard is not None)
    assert heard is not None or done.error.errno == errno.ECANCELED
    assert peer.recv(10) == heard
    assert not sending.cancel(), "it is no more"
    assert port.dequeue(0) is None
    assert sim_pool.stats().live_blocks == 0
    assert kernel.asked == 0


def test_a_completion_comes_before_its_call_has_returned(port, kernel, sim_pool):
    _, endpoint = connect(port, sim_pool)
    taken = []
    other = threading.Thread(target=lambda: taken.append(port.dequeue(20)))
    other.start()
    kernel.hold(20)
    sending = endpoint.send(b"quick", user="mine")
    assert port.stats().dequeued == 1
    assert not sending.cancel()
    other.join()
    assert (taken[0].user, taken[0].result, taken[0].error) == ("mine", 5, None)


def test_a_wake_up_that_is_refused_is_tried_again(port, kernel):
    taken = []
    other = threading.Thread(target=lambda: taken.append(port.dequeue(20)))
    waits = port.stats().waits
    other.start()
    while port.stats().waits == waits:
        pass
    kernel.lose_wakes(2)
    port.post(user="late")
    other.join()
    assert taken[0].user == "late"
    kernel.lose_wakes(0)


def test_what_makes_no_sense_is_refused(port, kernel, completing, sim_pool):
    peer, _ = connect(port, sim_pool)
    for ask in (
        lambda: kernel.delay("send", 0, peer),
        lambda: kernel.delay("post", 1, peer),
        lambda: kernel.delay("nothing", 1, peer),
        lambda: kernel.run_dry("send", peer),
        lambda: kernel.cancel("send", "draws", 1, peer),
        lambda: kernel.shorten("connect", 1, peer),
        lambda: kernel.calm(completing=completing),
    ):
        with pytest.raises(PortValueError):
            ask()
    if not completing:
        with pytest.raises(BackendUnavailable, match="in its hands"):
            kernel.cancel("connect", "loses", 1, peer)


def test_a_real_kernel_cannot_be_asked(backend):
    with CompletionPort(backend) as port, pytest.raises(BackendUnavailable, match='not "sim"'):
        SimulatedKernel(port).fail("send", 1)
