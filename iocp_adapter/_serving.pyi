# The types in iocp_adapter/bindings/serving; their docstrings are there. Loaded by iocp_adapter/_native.py.
from collections.abc import Callable
from typing import Any, Self

from pools import Lease, Pool

OWN_LABELS: int
"""So many connections have a label each; later ones share one with their neighbours, as many at a time."""

class Exchange:
    thread: int
    flags: int
    gated: bool
    refuse: bool
    last_number: int
    caught: type[BaseException]
    @property
    def connections(self) -> dict[int, Any]: ...
    @property
    def busy(self) -> bool: ...
    @property
    def messages(self) -> int: ...
    @property
    def accepted(self) -> int: ...
    @property
    def ended(self) -> int: ...
    @property
    def rows_address(self) -> int: ...
    def __init__(
        self,
        port: int,
        provider: int,
        keep: object,
        pool: Pool,
        received: Callable[[Any, Lease, int], object],
        /,
    ) -> None: ...
    def turn_ns(self, wait_ns: int, /) -> bool: ...
    def serve_rows(self, count: int, /) -> None: ...
    def flush(self) -> None: ...
    def _admit_with(
        self,
        config: int,
        connection: type[Sender],
        raised: dict[int, BaseException],
        label: Callable[[int, str], str] | None,
        connected: Callable[[Any], object] | None,
        disconnected: Callable[[Any, BaseException | None], object] | None,
        /,
    ) -> None: ...
    def _welcome(self, descriptor: int, number: int, /) -> None: ...

class Submitter:
    @property
    def token(self) -> int: ...
    def __new__(
        cls, table: dict[int, Any], token: int, entry: object, taken: Lease | None = None, /
    ) -> Self: ...
    def submit(self, call: Callable[..., int], /, *arguments: Any) -> int: ...

class Sender:
    closed: bool
    data: Any
    @property
    def number(self) -> int: ...
    @property
    def peer(self) -> str: ...
    @property
    def tag(self) -> str: ...
    @property
    def endpoint(self) -> int: ...
    @property
    def _serving(self) -> Any: ...
    def send(self, data: Lease | bytes | bytearray | memoryview, length: int | None = None) -> None: ...
