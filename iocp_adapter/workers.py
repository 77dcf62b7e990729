"""One thread of a ``WorkerPool``: how it comes by completions, and who handles them.

A worker whose handler is Python's takes a batch and calls it for each completion. One whose handler is in C
(``poolport/worker.h``) does both there, without the interpreter's lock, and comes back for three
reasons: the handler has refused a completion, nothing came for a while, or there are operations whose
ends Python has to hear of, because it keeps what they need.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from iocp_adapter._native import ffi, lib
from iocp_adapter.batches import Batch
from iocp_adapter.completion import Completion
from iocp_adapter.completion_port import CompletionPort
from iocp_adapter.errors import PortValueError, error_for
from iocp_adapter.native_handler import NativeHandler
from iocp_adapter.native_port import nanoseconds
from iocp_adapter.rows import FIRST_TOKEN

__all__ = ["Crew", "NativeCrew", "PythonCrew", "ThreadStats", "Worker", "WorkerStats"]

_log = logging.getLogger("iocp_adapter")

Failed = Callable[[Completion, BaseException], None]
"""Told of a completion that the handler could not deal with; raises nothing."""


class WorkerStats(NamedTuple):
    """What a worker pool has done so far."""

    threads: int
    """Workers now."""
    busy: int
    """Of these, in a handler."""
    blocked: int
    """Of these, for longer than ``stall_seconds``."""
    peak: int
    """The most workers ever."""
    grown: int
    """Workers that came because work waited and all others were blocked."""
    shrunk: int
    """Workers that ended because nobody needed them."""
    handled: int
    """Completions given to the handler."""
    errors: int
    """Exceptions that the handler raised, or completions that it refused."""


class ThreadStats(NamedTuple):
    """What one worker has done so far."""

    name: str
    """Of its thread."""
    handled: int
    """Completions given to the handler."""
    errors: int
    """Of these, the ones that it raised for, or refused."""
    busy: float
    """Seconds that it has been in the handler with the present one; 0: it waits."""
    blocked: bool
    """That is ``stall_seconds`` or more."""


class Worker:
    """What all workers have in common."""

    thread: threading.Thread
    began: float
    """When it was started, of ``time.monotonic()``."""
    scouts: bool
    """It looks whether there is work, and is none of the pool's workers yet."""

    def find(self, seconds: float) -> bool:
        """Take a batch for ``serve``; False: none came. Raises ``PortClosed``."""
        raise NotImplementedError

    def serve(self) -> bool:
        """Handle that batch, perhaps others; False: none came any more. Raises ``PortClosed``."""
        raise NotImplementedError

    def stop(self) -> None:
        """Take no more batches. Any thread."""

    def end(self) -> None:
        """The thread is about to end."""

    @property
    def handled(self) -> int:
        """Completions given to the handler. Any thread."""
        raise NotImplementedError

    @property
    def errors(self) -> int:
        """Those that it could not deal with. Any thread."""
        raise NotImplementedError

    @property
    def busy_seconds(self) -> float:
        """How long it has been in the handler; 0: it waits. Any thread."""
        raise NotImplementedError


class Crew(Protocol):
    """Makes the workers of one pool."""

    def worker(self, failed: Failed) -> Worker:
        """One more, without a thread."""

    def wake_one(self) -> None:
        """End the wait of one of them. Raises ``PortClosed``, ``PortFull``."""


class _PythonWorker(Worker):
    def __init__(self, crew: PythonCrew, failed: Failed):
        self._crew = crew
        self._failed = failed
        self._found: list[Completion] = []
        self._since = 0.0
        self._handled = self._errors = 0

    handled = property(lambda self: self._handled)
    errors = property(lambda self: self._errors)

    @property
    def busy_seconds(self) -> float:
        since = self._since
        return max(time.monotonic() - since, 1e-9) if since else 0.0

    def find(self, seconds: float) -> bool:
        self._found = self._crew.port.dequeue_many(self._crew.batch, seconds)
        return bool(self._found)

    def serve(self) -> bool:
        found, self._found = self._found, []
        for completion in found:
            if completion.kind == "post" and completion.user is self._crew:
                continue  # it only wakes
            self._since = time.monotonic()
            self._handled += 1
            try:
                self._crew.handler(completion)
            except BaseException as error:  # SystemExit, too: nobody waits for this thread to end with it
                self._errors += 1
                self._failed(completion, error)
        self._since = 0.0
        return True


class PythonCrew:
    """Workers that call ``handler(completion)``."""

    def __init__(self, port: CompletionPort, handler: Callable[[Completion], object], batch: int):
        self.port = port
        self.handler = handler
        self.batch = batch

    def worker(self, failed: Failed) -> Worker:
        return _PythonWorker(self, failed)

    def wake_one(self) -> None:
        self.port.post(user=self)


class _NativeWorker(Worker):
    def __init__(self, crew: NativeCrew, failed: Failed):
        self._port = crew.port
        self._failed = failed
        self._handler = crew.handler
        self._idle_seconds = crew.idle_seconds
        self._batch = Batch(crew.batch)
        crew.port._rows.batches.begin(self._batch)
        out = ffi.new("pp_worker **")
        config = {
            "port": crew.port._native.c,
            "handler": ffi.cast("pp_work_fn", crew.handler.work),
            "context": ffi.cast("void *", crew.handler.context),
            "rows": self._batch.rows,
            "capacity": crew.batch,
            "wake": crew.wake,
            "told_from": FIRST_TOKEN,
            "named": 1,
        }
        status = lib.pp_worker_create(ffi.new("pp_worker_config *", config), out)
        if status:
            crew.port._rows.batches.end(self._batch)
            raise error_for(status, f"a worker for the handler {crew.handler.name!r}")
        self._c = ffi.gc(out[0], lib.pp_worker_destroy)
        self._failure = ffi.new("pp_worker_failure *")

    def _stats(self) -> Any:
        stats = ffi.new("pp_worker_stats *")
        lib.pp_worker_read_stats(self._c, stats)
        return stats

    handled = property(lambda self: int(self._stats().handled))
    errors = property(lambda self: int(self._stats().errors))
    busy_seconds = property(lambda self: self._stats().busy_ns / 1e9)

    def find(self, seconds: float) -> bool:
        return self._until(lib.pp_worker_look, seconds) != lib.PP_WORKER_IDLE

    def serve(self) -> bool:
        return self._until(lib.pp_worker_run, self._idle_seconds) != lib.PP_WORKER_IDLE

    def _until(self, run: Callable[..., int], seconds: float) -> int:
        """Why it came back, other than for what is attended to here."""
        while True:
            reason = run(self._c, nanoseconds(seconds), self._failure)
            if reason == lib.PP_WORKER_FAILED:
                self._tell()
                continue
            self._forget_ends()
            if reason == lib.PP_WORKER_CLOSED:
                raise error_for(lib.PP_CLOSED, "dequeue")
            if reason != lib.PP_WORKER_TOLD:
                return reason

    def _tell(self) -> None:
        try:
            completion = self._port._rows.describe(self._failure.row)
            error = error_for(self._failure.status, f"the handler {self._handler.name!r}")
            self._failed(completion, error)
        except BaseException:  # whatever it is, the rest of the batch is still to be handled
            _log.exception("a completion that the handler %r refused", self._handler.name)

    def _forget_ends(self) -> None:
        count = ffi.new("size_t *")
        ends = lib.pp_worker_ended(self._c, count)
        self._port._rows.forget_ends(ends, count[0], self._batch)
        self._port._rows.batches.read(self._batch)

    def stop(self) -> None:
        lib.pp_worker_stop(self._c)

    def end(self) -> None:
        self._port._rows.batches.end(self._batch)


class NativeCrew:
    """Workers that call a ``pp_work_fn``, and come back when none of its work came for ``idle_seconds``."""

    def __init__(self, port: CompletionPort, handler: NativeHandler, batch: int, idle_seconds: float):
        if not handler.work:
            raise PortValueError(
                f"handler {handler.name!r} of a worker pool has no function for completions; "
                "give NativeHandler(name, work=...) the address of a pp_work_fn"
            )
        self.port = port
        self.handler = handler
        self.batch = batch
        self.idle_seconds = idle_seconds
        self.wake: int = next(port._rows.tokens)

    def worker(self, failed: Failed) -> Worker:
        return _NativeWorker(self, failed)

    def wake_one(self) -> None:
        status = lib.pp_port_post(self.port._native.c, 0, 0, self.wake)
        if status:
            raise error_for(status, "post")
