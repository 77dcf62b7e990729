"""Completion-based sockets whose buffers come from a pool.

A server calls a handler with what arrives; the buffer is a lease, and sending it back
costs no copy::

    from iocp_adapter import Server
    from pools import SlabPool

    def echo(connection, lease, length):
        connection.send(lease, length)

    with Server("127.0.0.1", 0, echo, provider=SlabPool(16384, 1024)) as server:
        server.serve_forever()
"""

from iocp_adapter.completion import Completion
from iocp_adapter.completion_port import CompletionPort
from iocp_adapter.connection import Connection
from iocp_adapter.endpoint import Endpoint
from iocp_adapter.errors import (
    BackendUnavailable,
    ListenError,
    PortClosed,
    PortError,
    PortFull,
    PortValueError,
    PortWrongThread,
    StaleEndpoint,
)
from iocp_adapter.features import Feature, Region
from iocp_adapter.handler import Handler
from iocp_adapter.native_handler import DISCARD, ECHO, NativeHandler
from iocp_adapter.native_port import CloseReport
from iocp_adapter.operation import Operation
from iocp_adapter.server import Server
from iocp_adapter.server_group import ServerGroup
from iocp_adapter.simulation import SimulatedKernel, SimulatedPeer
from iocp_adapter.stats import (
    PORT_STATISTICS,
    EndpointInfo,
    Outstanding,
    PortStatistic,
    PortStats,
    ServerStats,
)
from iocp_adapter.worker_pool import WorkerPool
from iocp_adapter.workers import ThreadStats, WorkerStats
from pools import get_cmake_dir, get_include, get_library_dir, get_pkgconfig_dir

__all__ = [
    "DISCARD",
    "ECHO",
    "PORT_STATISTICS",
    "BackendUnavailable",
    "CloseReport",
    "Completion",
    "CompletionPort",
    "Connection",
    "Endpoint",
    "EndpointInfo",
    "Feature",
    "Handler",
    "ListenError",
    "NativeHandler",
    "Operation",
    "Outstanding",
    "PortClosed",
    "PortError",
    "PortFull",
    "PortStatistic",
    "PortStats",
    "PortValueError",
    "PortWrongThread",
    "Region",
    "Server",
    "ServerGroup",
    "ServerStats",
    "SimulatedKernel",
    "SimulatedPeer",
    "StaleEndpoint",
    "ThreadStats",
    "WorkerPool",
    "WorkerStats",
    "get_cmake_dir",
    "get_include",
    "get_library_dir",
    "get_pkgconfig_dir",
]
