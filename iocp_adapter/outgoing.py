"""What a server sends besides the leases that its loop in C collects: bytes, files, other pools' leases.

And whatever comes from other threads. What is sent stays here, under a number that is the send's ``user``,
until the completion with that number lets it go. The numbers are Python's alone: a handler in C, which may
send on the same port, has those below for its own.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

from iocp_adapter._native import Submitter, ffi, lib
from iocp_adapter.errors import PortValueError, error_for
from iocp_adapter.native_port import NativePort
from iocp_adapter.options import bytes_of
from iocp_adapter.rows import FIRST_TOKEN
from iocp_adapter.sent_files import OpenFile, PathFile, file_descriptor, part_of_file
from pools import Lease, Pool

__all__ = ["Outgoing"]


def _measure(data: Lease | bytes | bytearray | memoryview) -> tuple[Lease | bytes, int]:
    """What to hold until it is sent, and its size; what could change meanwhile is copied."""
    if isinstance(data, Lease):
        return data, data.size
    kept = bytes_of(data)
    return kept, len(kept)


def _let_go(source: object) -> None:
    if isinstance(source, Lease):
        source.release()
    elif isinstance(source, PathFile):
        source.close()


class Outgoing:
    """Submits them, and holds them. Any thread."""

    def __init__(self, port: NativePort, provider: Pool):
        self._port = port
        self._provider = provider
        self.held: dict[int, object] = {}
        """What has not been sent, by number."""
        self._numbers = itertools.count(FIRST_TOKEN)
        self._process = os.getpid()

    def send(self, endpoint: int, data: Any, length: int | None) -> None:
        """The first ``length`` bytes, or all; dropped where the connection has ended."""
        source, size = _measure(data)
        if length is None:
            length = size
        elif not isinstance(length, int) or not 0 <= length <= size:
            what = f"a lease of {size}: stay within the lease" if isinstance(source, Lease) else f"{size}"
            raise PortValueError(f"send of {length} bytes from {what}")
        native = ffi.new("pp_send *", {"endpoint": endpoint, "bytes": length})
        if isinstance(source, Lease) and source.pool is self._provider:
            native.block = source.handle
            native.flags = lib.PP_SEND_TAKE | lib.PP_SEND_QUIET
            if not self._submit(native, Submitter({}, 0, None, source)):  # it is quiet: nothing refers to it
                source.release()
            return
        view = source.view if isinstance(source, Lease) else source
        native.address = int(ffi.cast("uintptr_t", ffi.from_buffer(view)))
        self._submit(native, self._hold(source))

    def send_file(
        self, endpoint: int, file: str | os.PathLike[str] | OpenFile, offset: int, count: int | None
    ) -> int:
        """A part of a file, which is closed at the end where it was opened here; how many bytes."""
        source: PathFile | OpenFile = PathFile(file) if isinstance(file, str | os.PathLike) else file
        try:
            descriptor = source.descriptor if isinstance(source, PathFile) else file_descriptor(source)
            part = part_of_file(descriptor, offset, count)
        except BaseException:
            if isinstance(source, PathFile):
                source.close()
            raise
        native = ffi.new("pp_file_send *", {"endpoint": endpoint, **part})
        self._submit(native, self._hold(source), lib.pp_port_send_file)
        return part["bytes"]

    def let_go(self, number: int) -> None:
        """It was sent, or will not be."""
        _let_go(self.held.pop(number, None))

    def _hold(self, source: object) -> Submitter:
        return Submitter(self.held, next(self._numbers), source)

    def _submit(self, native: Any, entry: Submitter, call: Callable[..., int] = lib.pp_port_send) -> bool:
        """False: the connection has ended, the message is dropped."""
        native.user = entry.token
        source = self.held.get(entry.token)
        status = entry.submit(call, self._port.c, native, ffi.NULL)
        if not status:
            return True
        _let_go(source)
        if status == lib.PP_STALE or (status == lib.PP_CLOSED and os.getpid() == self._process):
            return False  # with the port every connection has ended; in a child of the process it has not
        raise error_for(status, f"send of {native.bytes} bytes")
