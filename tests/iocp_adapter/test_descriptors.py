"""What is refused before it becomes an endpoint: the descriptor, what is the matter with it, the remedy."""

from __future__ import annotations

import socket

import pytest

from iocp_adapter import CompletionPort, PortValueError

from .conftest import only_unix


def test_a_descriptor_that_is_not_open_is_no_endpoint(port):
    closed = socket.socket()
    number = closed.fileno()
    closed.close()
    for descriptor in (number, 1 << 40):
        with pytest.raises(PortValueError, match=f"associate descriptor {descriptor}: it is no open socket"):
            port.associate(descriptor)
    assert not port._keys
    assert port.stats().endpoints == 0


def test_a_descriptor_that_is_looked_at_stays_as_it_was(port, sockets):
    with socket.socket() as unbound:
        unbound.settimeout(3)
        port.associate(unbound.fileno(), 1)
        assert unbound.gettimeout() == 3
        unbound.bind(("127.0.0.1", 0))


def test_a_second_association_names_the_first(port, pair):
    here, _there = pair()
    port.associate(here, key=77)
    with pytest.raises(PortValueError, match=r"endpoint of this port already, with key 77: close\(\)"):
        port.associate(here.fileno(), key=78)
    assert port.stats().endpoints == 1


@only_unix
def test_a_number_that_the_system_gives_again_is_told_with_its_endpoint(port):
    first = socket.socket()
    number = first.fileno()
    endpoint = port.associate(first, key=1)
    first.close()
    with socket.socket(fileno=_socket_with(number)) as second:
        with pytest.raises(PortValueError, match="closing a socket does not end its endpoint"):
            port.associate(second, key=2)
        endpoint.close()
        assert port.dequeue(5).kind == "close"
        port.associate(second, key=2)


def _socket_with(number):
    """A new socket that has a given number, which is free."""
    opened = []
    while not opened or opened[-1] != number:
        opened.append(socket.socket().detach())
    for other in opened[:-1]:
        socket.close(other)
    return number


def test_the_simulated_kernel_has_sockets_of_its_own(pair):
    here, _there = pair()
    with CompletionPort("sim") as port, pytest.raises(PortValueError, match="SimulatedPeer"):
        port.associate(here)


def test_endpoints_and_operations_are_one_line_each(port, pair, pool):
    here, there = pair()
    endpoint = port.associate(here, key=9, provider=pool)
    assert repr(endpoint).startswith("<Endpoint 9 ")
    assert str(here.fileno()) in repr(endpoint)
    assert "recv_stream" in repr(endpoint.recv_stream())
    there.close()
    assert port.dequeue(5).kind == "recv"
    endpoint.close()
    assert port.dequeue(5).kind == "close"
    assert repr(endpoint) == "<Endpoint 9 ended>"
