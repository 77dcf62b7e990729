"""The far end of a connection that only a simulated kernel knows.

A port with ``backend="sim"`` is a fake kernel with a seed: it delays, reorders, shortens, fails
and lets cancels lose, and the same calls with the same seed give the same completions::

    port = CompletionPort("sim", seed=17)
    peer = SimulatedPeer(port)
    endpoint = port.associate(peer.descriptor, provider=pool, own=True)
    endpoint.recv_stream()
    peer.send(b"hello")
    port.dequeue(5)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from iocp_adapter._native import ffi, lib
from iocp_adapter.errors import PortClosed, error_for

if TYPE_CHECKING:
    from iocp_adapter.completion_port import CompletionPort

__all__ = ["SimulatedPeer"]


class SimulatedPeer:
    """Two connected sockets: ``descriptor`` is for ``associate``, the other one is this object.

    Nothing here waits. Raises ``BackendUnavailable`` on a port whose back end is not ``sim``.
    """

    def __init__(self, port: CompletionPort):
        ends = ffi.new("int64_t[2]")
        status = lib.pp_sim_pair(port._native.c, ends)
        if status:
            raise error_for(status, "a simulated connection", 'the port\'s back end is not "sim"')
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
