"""The trace writer; ``analysis`` reads what it writes."""

from __future__ import annotations

import os
import threading
import weakref
from types import TracebackType
from typing import ClassVar

from pools._native import CData, ffi, lib
from pools.errors import PoolClosed, error_for, trace_file_error

__all__ = ["Trace"]

_LIMIT_BYTES = 16 << 30


class Trace:
    """A file of allocation events, written by the pools that are attached to it.

    The file is readable at any time, also after the process was killed.
    ``path`` must not exist unless ``replace``, and no other open trace, of whatever process, may write it.
    ``limit_bytes`` bounds the file, later records are dropped and counted in ``dropped``.

    Raises ``FileExistsError`` or another ``OSError``, or ``ValueError`` for a path with a zero byte;
    nothing is then left behind.
    Close it after every pool that writes to it is detached, closed or gone: attaching
    keeps the trace alive, so that its memory never goes away under a pool.

    Any thread may call anything, but for ``close()``, which comes when no other thread is in a call of
    the trace's own; pools may be attached meanwhile.
    """

    _turning: ClassVar[threading.RLock] = threading.RLock()
    """Held while a pool turns to another trace, and while a trace makes sure that none writes to it. One for
    all of them: a turn is about two traces and a pool."""

    def __init__(
        self, path: str | os.PathLike[str], *, replace: bool = False, limit_bytes: int = _LIMIT_BYTES
    ):
        if not isinstance(path, str | bytes | os.PathLike):
            raise TypeError(f"path={path!r} of a trace: give the path of a file that does not exist")
        self.path = os.fspath(path)
        out = ffi.new("pp_trace **")
        os_error = ffi.new("int *")
        encoded = self.path.encode("utf-8") if os.name == "nt" else os.fsencode(self.path)
        if 0 in encoded:
            raise ValueError(f"the path {self.path!r} of a trace holds a zero byte; choose another name")
        status = lib.pp_trace_open(encoded, int(replace), limit_bytes, out, os_error)
        if os_error[0] or status == lib.PP_EXISTS:
            raise trace_file_error(status, self.path, os_error[0])
        if status != lib.PP_OK:
            raise error_for(status, f"cannot create the trace {self.path!r}")
        self._c: CData | None = out[0]
        self._writers: weakref.WeakSet[CData] = weakref.WeakSet()
        """C pools, for a view keeps one, and its release is an event, when the ``Pool`` has gone."""

    @property
    def native(self) -> CData:
        """The C trace; raises ``PoolClosed`` after ``close()``."""
        if self._c is None:
            raise PoolClosed(f"the trace {self.path!r} is closed; open another one")
        return self._c

    def note(self, key: str, value: object) -> None:
        """Write ``key=value`` about the run as a whole."""
        text = f"{key}={value}".encode()
        lib.pp_trace_text(self.native, lib.PP_TEXT_NOTE, 0, text, len(text))

    def mark(self, text: str) -> None:
        """Label this instant."""
        data = text.encode()
        record = ffi.new("pp_trace_record *")
        record.tag = lib.pp_trace_text(self.native, lib.PP_TEXT_TAG, 0, data, len(data))
        record.op = lib.PP_OP_MARK
        lib.pp_trace_write(self.native, record)

    def process(self) -> None:
        """Record the resident set and the CPU time of this process."""
        lib.pp_trace_process(self.native)

    def set_time(self, time_ns: int) -> None:
        """Let the trace's clock stand at ``time_ns`` until the next call.

        From then on nothing in the file tells of the machine or the moment: the same events make the same
        bytes everywhere (docs/trace-format.md says what is left out). Call it first right after
        the trace was created; only one thread may write to it, and times may not fall.
        """
        lib.pp_trace_set_time(self.native, time_ns)

    @property
    def now_ns(self) -> int:
        """Nanoseconds since the trace was opened."""
        return lib.pp_trace_now_ns(self.native)

    @property
    def dropped(self) -> int:
        """Records lost because the file was at its limit or the disk full."""
        return lib.pp_trace_dropped(self.native)

    @property
    def inherited(self) -> bool:
        """Whether this is the child of a fork: the file is the parent's, and nothing goes to it."""
        return bool(lib.pp_trace_inherited(self.native))

    @property
    def size_bytes(self) -> int:
        """Bytes of the file that are in use."""
        return lib.pp_trace_bytes(self.native)

    def close(self) -> None:
        """Seal the file and cut it to what was used.

        Raises ``RuntimeError`` while a pool is attached.
        """
        with self._turning:
            if self._c is None:
                return
            if self._writers:
                raise RuntimeError(
                    f"{len(self._writers)} pool(s) still write to {self.path!r}; close them, drop what still "
                    "looks at their blocks, or attach(None) first"
                )
            native, self._c = self._c, None
        status = lib.pp_trace_close(native)
        if status != lib.PP_OK:
            raise error_for(status, f"cannot cut the trace {self.path!r} to its length")

    def __enter__(self) -> Trace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if kind is not None and self._writers:
            return  # what went wrong matters more; the file is readable as it is
        self.close()

    def __repr__(self) -> str:
        return f"<Trace {self.path!r} {'closed' if self._c is None else 'open'}>"


def _forked() -> None:
    """In a child: the thread that perhaps held it is the parent's."""
    Trace._turning = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
