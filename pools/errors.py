"""Every way in which a pool says no, and the one place where a status becomes an exception."""

from __future__ import annotations

import errno
import os

from pools._native import CData, ffi, lib
from pools.faults import Fault, last_fault
from pools.refusals import Refusal, interruption, last_refusal

__all__ = [
    "BlockCorrupted",
    "BlockPinned",
    "DoubleRelease",
    "ForeignBlock",
    "LeakError",
    "OutOfMemory",
    "PoolClosed",
    "PoolCorrupt",
    "PoolError",
    "PoolExhausted",
    "PoolTimeout",
    "PoolValueError",
    "QuotaExceeded",
    "StaleHandle",
    "Unsupported",
    "WrongThread",
    "error_for",
    "status_text",
    "trace_file_error",
]


_SHARING_VIOLATION = 32  # what Windows says of a file that another open handle may write


class PoolError(Exception):
    """Base of every exception that the pools raise; ``status`` is the core's name for it."""

    status: str = ""


class PoolExhausted(PoolError):
    """No block is left that fits. The text carries the levels and the tag that holds the most."""


class QuotaExceeded(PoolExhausted):
    """The quota of the pool or of a tag is used up; ``tag``, ``live``, ``limit`` and ``unit`` say which."""

    tag: str = ""
    """Whose quota; empty for the pool's."""
    live: int = 0
    limit: int = 0
    unit: str = "bytes"
    """``bytes`` or ``blocks``: of ``live`` and ``limit``."""


class PoolTimeout(PoolExhausted, TimeoutError):
    """No block came free within the pool's ``timeout``; ``waited`` seconds it were."""

    waited: float = 0.0


class PoolClosed(PoolError):
    """The pool was closed; it takes blocks back but gives none."""


class StaleHandle(PoolError):
    """The handle or lease is of an owner that the block no longer has: it was released, or handed over."""


class DoubleRelease(StaleHandle):
    """A second release: the block was already released with this handle, lease or batch."""


class ForeignBlock(PoolError):
    """The handle or lease belongs to another pool, or to none."""


class BlockPinned(PoolError):
    """The block is pinned and may not be moved now."""


class WrongThread(PoolError):
    """An owner-only pool was used by another thread."""


class Unsupported(PoolError):
    """The strategy has no such operation."""


class PoolCorrupt(PoolError):
    """``check()`` found an invariant that does not hold."""


class BlockCorrupted(PoolError):
    """A debug level found that a block was written to where, or when, its owner may not.

    ``fault`` has what was found, the block's history included, as values; the text has them readable.
    A release has done its work all the same. An acquire, a resize or a pin has done nothing, and may be
    repeated.
    """

    fault: Fault


class PoolValueError(PoolError, ValueError):
    """A size, count, alignment or name is outside its documented range."""


class OutOfMemory(PoolError, MemoryError):
    """The operating system refused to reserve or commit memory."""


class LeakError(PoolError):
    """A strict pool was closed with live blocks; the text is the leak report."""


_EXCEPTIONS: dict[str, type[PoolError]] = {
    "EXHAUSTED": PoolExhausted,
    "QUOTA": QuotaExceeded,
    "TIMEOUT": PoolTimeout,
    "DOUBLE_RELEASE": DoubleRelease,
    "STALE": StaleHandle,
    "FOREIGN": ForeignBlock,
    "CLOSED": PoolClosed,
    "INVALID": PoolValueError,
    "SIZE": PoolValueError,
    "ALIGNMENT": PoolValueError,
    "NO_MEMORY": OutOfMemory,
    "WRONG_THREAD": WrongThread,
    "PINNED": BlockPinned,
    "NOT_PINNED": PoolValueError,
    "UNSUPPORTED": Unsupported,
    "CORRUPT": PoolCorrupt,
    "CORRUPT_BLOCK": BlockCorrupted,
}

_REMEDIES: dict[str, str] = {
    "DOUBLE_RELEASE": "release each lease once, or use it as a context manager",
    "STALE": "drop every reference to a lease when it is released",
    "FOREIGN": "use each lease and handle with the pool that it came from",
    "CLOSED": "acquire before close(), or create another pool",
    "NO_MEMORY": "ask for fewer or smaller blocks or less capacity, or raise the limits of memory and "
    "address space of the process",
    "WRONG_THREAD": "create the pool with thread_safe=True, or call adopt() in the thread that takes it over",
    "PINNED": "leave the pin's with-block first",
    "BUSY": "do that when the call that called back has returned; releases are taken meanwhile",
    "QUOTA": "release blocks that count against it sooner, or raise it with set_quota()",
    "TIMEOUT": "release blocks sooner, give more timeout, or create the pool larger",
}

_WHATEVER_IS_ASKED = {"BUSY", "CLOSED", "NO_MEMORY", "WRONG_THREAD"}
"""Of these a call that knows only its arguments has no remedy: other arguments would end alike."""

_ORPHANED = (
    "this process was forked while another thread owned the pool, or was inside it, and is not here: "
    "close() is all that is left, so create another pool in the child"
)


def status_text(status: int) -> str:
    """The core's own sentence for a status."""
    return str(ffi.string(lib.pp_status_text(status)), "ascii")


def _values_of(name: str, refusal: Refusal) -> str:
    waited = f"waited {refusal.waited_seconds:.3f} s" if name == "TIMEOUT" else ""
    if not refusal.of_quota:
        return f" ({waited})"
    whose = f"tag {refusal.tag!r}: " if refusal.tag else "quota of the pool: " if waited else ""
    return f" ({waited}{'; ' * bool(waited)}{whose}{refusal.live} of {refusal.limit} {refusal.unit} live)"


def error_for(
    status: int, what: str, remedy: str = "", pool: CData | None = None, why: str = ""
) -> PoolError:
    """The exception for a status other than OK; raises what a callback raised, if that ended the call.

    ``what`` names the call and its values; ``remedy`` is about them, and overrides the usual one, which of an
    orphaned ``pool`` is another; ``why`` overrides the core's sentence where more is known.
    """
    name = str(ffi.string(lib.pp_status_name(status)), "ascii")
    if name in _WHATEVER_IS_ASKED and not why:
        remedy = ""
    if name in {"WRONG_THREAD", "CLOSED"} and pool is not None and lib.pp_pool_orphaned(pool):
        remedy = _ORPHANED
    remedy = remedy or _REMEDIES.get(name, "")
    if name == "STOPPED" and (raised := interruption()) is not None:
        raise raised
    refusal = last_refusal() if name in {"QUOTA", "TIMEOUT"} else None
    if refusal is not None:
        what += _values_of(name, refusal)
    error = _EXCEPTIONS.get(name, PoolError)(
        f"{what}: {why or status_text(status)}" + (f"; {remedy}" if remedy else "")
    )
    error.status = name
    if refusal is not None and isinstance(error, QuotaExceeded):
        error.tag, error.live, error.limit, error.unit = refusal[:4]
    if refusal is not None and isinstance(error, PoolTimeout):
        error.waited = refusal.waited_seconds
    if isinstance(error, BlockCorrupted) and (fault := last_fault()) is not None:
        error.fault = fault
        error.args = (f"{error}\n{fault}",)
    return error


def trace_file_error(status: int, path: str, os_error: int) -> OSError:
    """The exception for a trace file that could not be created."""
    if os.path.isdir(path):
        return IsADirectoryError(
            errno.EISDIR, "this is a directory, which no trace can replace; give the path of a file", path
        )
    if status == lib.PP_EXISTS:
        return FileExistsError(
            errno.EEXIST,
            "the trace exists already; remove it, choose another name, or pass replace=True",
            path,
        )
    if os_error == (_SHARING_VIOLATION if os.name == "nt" else errno.EBUSY):
        return OSError(
            errno.EBUSY,
            "the trace is being written, here or by another process; close that one, or choose another name",
            path,
        )
    if os.name == "nt":
        return OSError(0, f"cannot create the trace, Windows error {os_error}", path, os_error)
    return OSError(os_error or errno.EIO, f"cannot create the trace: {os.strerror(os_error)}", path)
