"""A simulated kernel: the far end of a connection that only it knows, and what it is asked to do.

A port with ``backend="sim"`` is a fake kernel with a seed: it delays, reorders, shortens, fails
and lets cancels lose, and the same calls with the same seed give the same completions::

    port = CompletionPort("sim", seed=17)
    peer = SimulatedPeer(port)
    endpoint = port.associate(peer.descriptor, provider=pool, own=True)
    endpoint.recv_stream()
    peer.send(b"hello")
    port.dequeue(5)

What is to happen can be asked for as well, of a kernel that otherwise does nothing of the kind::

    kernel = SimulatedKernel(port)
    kernel.calm(completing=True)
    kernel.shorten("send", 10, peer)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from iocp_adapter._native import ffi, lib
from iocp_adapter.errors import PortClosed, PortValueError, error_for
from iocp_adapter.native_port import nanoseconds
from iocp_adapter.options import LARGEST_64, whole
from iocp_adapter.stats import KINDS

if TYPE_CHECKING:
    from iocp_adapter.completion_port import CompletionPort

__all__ = ["SimulatedKernel", "SimulatedPeer"]

_NOT_SIMULATED = 'the port\'s back end is not "sim"'
_KIND_OF = {name: kind for kind, name in KINDS.items()}
_OUTCOMES = {
    "wins": lib.PP_SIM_CANCEL_WINS,
    "loses": lib.PP_SIM_CANCEL_LOSES,
    "misses": lib.PP_SIM_CANCEL_MISSES,
}


class SimulatedPeer:
    """Two connected sockets: ``descriptor`` is for ``associate``, the other one is this object.

    Nothing here waits. Raises ``BackendUnavailable`` on a port whose back end is not ``sim``.
    """

    def __init__(self, port: CompletionPort):
        ends = ffi.new("int64_t[2]")
        status = lib.pp_sim_pair(port._native.c, ends)
        if status:
            raise error_for(status, "a simulated connection", _NOT_SIMULATED)
        self._port = port
        self._socket: int | None = ends[1]
        self.descriptor = int(ends[0])
        """To be associated with ``own=True``, once."""

    def send(self, data: bytes) -> int:
        """How many bytes fitted; raises ``ConnectionResetError`` when the connection is no more."""
        sent = lib.pp_sim_write(self._port._native.c, self._open(), data, len(data))
        if sent < 0:
            raise ConnectionResetError("the other end has closed the simulated connection")
        return sent

    def recv(self, size: int) -> bytes | None:
        """Up to ``size`` bytes; empty at the end of the stream; None when there is nothing now.

        Raises ``ConnectionResetError``.
        """
        data = ffi.new("char[]", size)
        got = lib.pp_sim_read(self._port._native.c, self._open(), data, size)
        if got == lib.PP_SIM_RESET:
            raise ConnectionResetError("the other end has reset the simulated connection")
        if got == lib.PP_SIM_ENDED:
            return b""
        return bytes(ffi.buffer(data, got)) if got else None

    def close(self, *, reset: bool = False) -> None:
        """End the connection from this side. A second close does nothing."""
        if self._socket is not None:
            lib.pp_sim_close(self._port._native.c, self._socket, reset)
            self._socket = None

    def _open(self) -> int:
        if self._socket is None:
            raise PortClosed("this end of the simulated connection was closed; make another one")
        return self._socket


class SimulatedKernel:
    """What the kernel of a port with ``backend="sim"`` is to do, and when.

    Each request is met once: by the next operation of that kind (``recv``, ``send``, ``accept`` and so on)
    on the endpoint of ``peer`` (None: on any), or by one after as many as ``after`` were spared. Every
    method raises ``BackendUnavailable`` where the kernel never does such a thing, ``PortValueError`` where
    it makes no sense.
    """

    def __init__(self, port: CompletionPort):
        self._port = port

    def calm(self, *, completing: bool) -> None:
        """From now on nothing happens that was not asked for. Before anything is associated.

        ``completing``: operations are taken over, as by IOCP; else readiness is told, as by epoll.
        """
        kind = lib.PP_SIM_COMPLETING if completing else lib.PP_SIM_READINESS
        status = lib.pp_sim_calm(self._port._native.c, kind)
        takes = "it takes a port that nothing is associated with"
        self._judge(status, "calm a simulated kernel", takes)

    def delay(self, kind: str, turns: int, peer: SimulatedPeer | None = None, *, after: int = 0) -> None:
        """The kernel does nothing about it for so many turns: looks of a dequeue into the kernel."""
        self._ask(kind, lib.PP_SIM_DELAY, turns, peer, after)

    def shorten(self, kind: str, size: int, peer: SimulatedPeer | None = None, *, after: int = 0) -> None:
        """At most ``size`` bytes move this time."""
        self._ask(kind, lib.PP_SIM_SHORTEN, size, peer, after)

    def fail(self, kind: str, error: int, peer: SimulatedPeer | None = None, *, after: int = 0) -> None:
        """It fails with this number of the system, such as ``errno.ECONNRESET``."""
        self._ask(kind, lib.PP_SIM_FAIL, error, peer, after)

    def cancel(
        self,
        kind: str,
        outcome: str,
        turns: int = 1,
        peer: SimulatedPeer | None = None,
        *,
        after: int = 0,
    ) -> None:
        """What becomes of one that is asked back while the kernel has it.

        ``wins``: it is cancelled; ``loses``: it completes all the same; ``misses``: the kernel does not find
        it, and is asked again after so many turns.
        """
        if outcome not in _OUTCOMES:
            raise PortValueError(f"outcome {outcome!r} of a cancel: give one of {', '.join(_OUTCOMES)}")
        self._ask(kind, _OUTCOMES[outcome], turns, peer, after)

    def run_dry(self, kind: str = "recv", peer: SimulatedPeer | None = None, *, after: int = 0) -> None:
        """A receive that needs a block finds the pool dry, whatever it has."""
        self._ask(kind, lib.PP_SIM_DRY, 0, peer, after)

    def hold(self, seconds: float) -> None:
        """The next call of this thread returns when another one has dequeued something, or in ``seconds``."""
        self._judge(lib.pp_sim_hold(self._port._native.c, nanoseconds(seconds)), "hold a call")

    def lose_wakes(self, count: int) -> None:
        """So many times it refuses to wake the thread that waits in it."""
        whole("count", count, (1 << 32) - 1)
        self._judge(lib.pp_sim_lose_wakes(self._port._native.c, count), "lose wake-ups")

    @property
    def asked(self) -> int:
        """Requests that have not been met."""
        return int(lib.pp_sim_asked(self._port._native.c))

    def _ask(self, kind: str, effect: int, amount: int, peer: SimulatedPeer | None, after: int) -> None:
        if kind not in _KIND_OF:
            raise PortValueError(f"kind {kind!r} of an operation: give one of {', '.join(_KIND_OF)}")
        about = {
            "socket": peer.descriptor if peer is not None else 0,
            "kind": _KIND_OF[kind],
            "effect": effect,
            "amount": whole("amount", amount, LARGEST_64),
            "after": whole("after", after, (1 << 32) - 1),
        }
        status = lib.pp_sim_ask(self._port._native.c, ffi.new("pp_sim_request *", about))
        takes = "it has no such effect, or the amount is 0 or too large, or its socket is closed"
        self._judge(status, f"a request for {kind}", takes)

    def _judge(self, status: int, what: str, takes: str = "") -> None:
        if status == lib.PP_UNSUPPORTED and self._port.backend == "sim":
            raise error_for(status, what, "this kind of kernel has no such operation in its hands")
        if status:
            raise error_for(
                status, what, _NOT_SIMULATED if status == lib.PP_UNSUPPORTED else "", invalid=takes
            )
