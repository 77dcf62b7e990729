"""Files that are sent: their descriptors, and how much of them."""

from __future__ import annotations

import os
import sys
from typing import Protocol

from iocp_adapter._native import lib
from iocp_adapter.errors import PortValueError, file_error
from iocp_adapter.files import open_descriptor, refuse_directory

__all__ = ["OpenFile", "PathFile", "file_descriptor", "part_of_file"]

_LAST_OFFSET = (1 << 63) - 1


class OpenFile(Protocol):
    """An open file of Python's."""

    def fileno(self) -> int: ...


class PathFile:
    """A file that was opened to be sent, and is closed when it was."""

    __slots__ = ("descriptor",)

    def __init__(self, path: str | os.PathLike[str]):
        self.descriptor = open_descriptor(path, "r")

    def close(self) -> None:
        lib.pp_port_file_close(self.descriptor)


def file_descriptor(file: OpenFile | int) -> int:
    """What the engine wants of an open file: its descriptor, on Windows its handle."""
    if isinstance(file, int):
        return file
    if sys.platform == "win32":
        import msvcrt  # noqa: PLC0415  # there is none elsewhere

        return msvcrt.get_osfhandle(file.fileno())
    return file.fileno()


def part_of_file(descriptor: int, offset: int, count: int | None) -> dict[str, int]:
    """The fields of ``pp_file_send`` that say which part; ``count`` None: to the end."""
    size = lib.pp_port_file_size(descriptor)
    if size < 0:
        raise file_error(-size, f"descriptor {descriptor}")
    refuse_directory(descriptor, f"descriptor {descriptor}")
    if not isinstance(offset, int) or not isinstance(count, int | None):
        raise PortValueError(f"count={count!r} from offset={offset!r} of a file: give whole numbers")
    wanted = max(size - offset, 0) if count is None else count
    if not 0 <= offset <= _LAST_OFFSET or not 0 <= wanted <= _LAST_OFFSET - offset:
        raise PortValueError(
            f"{wanted} bytes at offset {offset} of a file: give an offset from 0, all of them below 2**63"
        )
    return {"descriptor": descriptor, "offset": offset, "bytes": wanted}
