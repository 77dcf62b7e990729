"""Files that a port opens for reads and writes at an offset."""

from __future__ import annotations

import errno
import os
import stat

from iocp_adapter._native import lib
from iocp_adapter.errors import PortValueError, file_error

__all__ = ["open_descriptor", "refuse_directory"]

_MODES = {
    "r": lib.PP_FILE_READ,
    "r+": lib.PP_FILE_READ | lib.PP_FILE_WRITE,
    "w": lib.PP_FILE_WRITE | lib.PP_FILE_CREATE | lib.PP_FILE_TRUNCATE,
    "w+": lib.PP_FILE_READ | lib.PP_FILE_WRITE | lib.PP_FILE_CREATE | lib.PP_FILE_TRUNCATE,
    "x": lib.PP_FILE_WRITE | lib.PP_FILE_NEW,
    "x+": lib.PP_FILE_READ | lib.PP_FILE_WRITE | lib.PP_FILE_NEW,
}


def open_descriptor(path: str | os.PathLike[str], mode: str) -> int:
    """A file that every back end of this system takes, to be closed by ``pp_port_file_close``.

    Raises ``OSError``, ``PortValueError``.
    """
    if mode not in _MODES:
        raise PortValueError(f"mode {mode!r}: give one of {', '.join(_MODES)}")
    name_bytes = os.fsencode(path)
    if b"\0" in name_bytes:
        raise PortValueError(f"path {path!r}: a file's name has no zero bytes")
    descriptor = lib.pp_port_file_open(name_bytes, _MODES[mode])
    if descriptor < 0:
        raise file_error(-descriptor, os.fspath(path))
    try:
        refuse_directory(descriptor, os.fspath(path))
    except BaseException:
        lib.pp_port_file_close(descriptor)
        raise
    return descriptor


def refuse_directory(descriptor: int, path: str) -> None:
    """Raises ``IsADirectoryError`` for what has no bytes; Windows opens none in the first place."""
    if os.name != "nt" and stat.S_ISDIR(os.fstat(descriptor).st_mode):
        raise file_error(errno.EISDIR, path)
