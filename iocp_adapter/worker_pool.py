"""Threads that take completions from a port: as many as it needs, between two bounds.

All workers wait in ``port.dequeue``, where the last to come is the first to be woken, so that the
threads in use stay few and their caches warm. A worker that a handler keeps for longer than
``stall_seconds`` counts as blocked. One thread watches over that, and nothing else: when every worker
is blocked, and there may be more, it starts a scout.

Whether work waits while all are blocked nobody can know without asking the kernel, so that is what the scout
does. Once it finds some it is a worker, the pool has grown; when a worker is free again before, it
ends. A worker that nobody needed for ``idle_seconds`` ends, down to ``minimum``.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType

from iocp_adapter.completion import Completion
from iocp_adapter.completion_port import CompletionPort
from iocp_adapter.errors import PortClosed, PortError, PortValueError
from iocp_adapter.handler import refuse_coroutine
from iocp_adapter.native_handler import NativeHandler
from iocp_adapter.options import seconds_or_none, whole
from iocp_adapter.own_thread import OwnThread
from iocp_adapter.roster import Roster
from iocp_adapter.workers import Crew, NativeCrew, PythonCrew, ThreadStats, Worker, WorkerStats

__all__ = ["WorkerPool"]

_log = logging.getLogger("iocp_adapter")

_MOST_THREADS = 1024
_LARGEST_BATCH = 4096
_SHORT_LIFE_SECONDS = 1.0
_FIRST_PAUSE_SECONDS = 0.01
_MOST_DOUBLINGS = 9


class WorkerPool:
    """Calls ``handler(completion)`` in ``minimum`` to ``maximum`` threads for all that a port completes.

    An exception in the handler, be it SystemExit, costs nothing but its completion: it is counted, logged,
    and given to ``on_error(completion, exception)`` where there is one. ``maximum`` defaults to ``minimum``.
    A ``NativeHandler`` with a ``work`` function is called in C by the same threads, without the GIL; the
    status that it refuses a completion with counts as an exception, whose completion has no lease that the
    handler was given: that is the handler's. Its ``rows`` have the keys of ``associate`` and ``post``.
    A worker takes up to ``batch`` completions at once, which nobody else can then take while its handler
    waits. With a port whose ``concurrency`` is limited, a handler that is about to wait says so with
    ``with workers.blocking():``, and another worker is let through meanwhile.

    The workers end when the port is closed, or by ``close()``. Raises ``PortValueError``.
    """

    def __init__(
        self,
        port: CompletionPort,
        handler: Callable[[Completion], object] | NativeHandler,
        *,
        minimum: int = 1,
        maximum: int | None = None,
        idle_seconds: float = 10.0,
        stall_seconds: float = 0.05,
        batch: int = 1,
        on_error: Callable[[Completion, BaseException], object] | None = None,
        name: str = "poolport-worker",
    ):
        _refuse(port, handler, on_error)
        whole("minimum", minimum, _MOST_THREADS, least=1)
        most = minimum if maximum is None else whole("maximum", maximum, _MOST_THREADS, least=1)
        if most < minimum:
            raise PortValueError(f"minimum={minimum} above maximum={most}: give the smaller one as minimum")
        whole("batch", batch, _LARGEST_BATCH, least=1)
        for what, seconds in (("idle_seconds", idle_seconds), ("stall_seconds", stall_seconds)):
            if not isinstance(seconds, int | float) or not 0 < seconds < threading.TIMEOUT_MAX:
                longest = f"{threading.TIMEOUT_MAX:.0f}"
                raise PortValueError(
                    f"{what}={seconds!r} of a worker pool: give more than 0, and below {longest}"
                )
        self._port = port
        self._crew: Crew = (
            NativeCrew(port, handler, batch, idle_seconds)
            if isinstance(handler, NativeHandler)
            else PythonCrew(port, handler, batch)
        )
        self._on_error = on_error
        self._minimum, self._maximum = minimum, most
        self._idle_seconds, self._stall_seconds = idle_seconds, stall_seconds
        self._name = name
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._roster = Roster(stall_seconds)
        self._started = 0
        self._short_lives = 0
        """Workers that ended by mishap soon after they were started, one after the other."""
        self._closing = False
        with self._lock:
            for _ in range(minimum):
                self._start()
        self._watcher: threading.Thread | None = None
        if most > minimum:
            self._watcher = OwnThread(self._watch, f"{name}-watcher")
            self._watcher.start()

    def stats(self) -> WorkerStats:
        """What the pool has done so far, and what it does now."""
        with self._lock:
            return self._roster.stats()

    def each(self) -> tuple[ThreadStats, ...]:
        """The same of each worker that there is now."""
        with self._lock:
            return self._roster.each()

    def close(self, timeout: float | None = None) -> bool:
        """End the workers once their handlers have returned; what has completed stays in the port.

        False: after ``timeout`` seconds some handler had not returned; its thread ends when it does.
        A handler must not call it.
        """
        timeout = seconds_or_none("timeout", timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._lock:
            if any(worker.thread is threading.current_thread() for worker in self._roster.workers):
                raise PortError("close() in a handler would wait for itself; call it from another thread")
            self._closing = True
            for worker in self._roster.workers:
                worker.stop()
            self._changed.notify_all()
        while True:
            with self._lock:
                if not self._roster.workers:
                    break
                waiting = sum(1 for worker in self._roster.workers if not worker.busy_seconds)
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            for _ in range(waiting):
                self._wake_one()
            with self._lock:
                if self._roster.workers:
                    self._changed.wait(
                        self._stall_seconds if left is None else min(left, self._stall_seconds)
                    )
        if self._watcher is not None:
            self._watcher.join()
        return True

    def blocking(self) -> _Blocking:
        """For a with-block in a handler: the calling worker does not count against the concurrency."""
        return _Blocking(self._port)

    def _wake_one(self) -> None:
        with contextlib.suppress(PortClosed):  # the workers see that by themselves
            self._crew.wake_one()

    # ---- threads -----------------------------------------------------------------------

    def _start(self, *, scouts: bool = False) -> None:
        """Start a worker; with the lock."""
        self._started += 1
        try:
            worker = self._crew.worker(self._failed)
            worker.began = time.monotonic()
            worker.scouts = scouts
            name = f"{self._name}-{self._started}"
            worker.thread = threading.Thread(target=self._run, args=(worker,), name=name, daemon=True)
            self._roster.add(worker)
            self._begin(worker)
        except (RuntimeError, PortError):  # the system has no thread or no memory left: the others go on
            _log.exception("a worker could not be started; %d remain", len(self._roster.workers))
            if not self._roster.workers:
                raise

    def _begin(self, worker: Worker) -> None:
        try:
            worker.thread.start()
        except RuntimeError:
            self._roster.workers.discard(worker)
            worker.end()
            raise

    def _run(self, worker: Worker) -> None:
        try:
            while not self._closing:
                seconds = self._stall_seconds if worker.scouts else self._idle_seconds
                found = worker.find(seconds)
                if found:
                    self._promote(worker)
                if not (found and worker.serve()) and self._may_go(worker):
                    return
        except PortClosed:
            pass
        except BaseException:
            _log.exception("a worker ended; another one takes its place")
            self._replace(worker)
        finally:
            worker.end()
            self._port.leave()
            with self._lock:
                self._forget(worker)

    def _promote(self, worker: Worker) -> None:
        """What a scout has found makes it a worker, unless that is the end of the pool."""
        if worker.scouts and not self._closing:
            with self._lock:
                self._roster.promote(worker)

    def _replace(self, worker: Worker) -> None:
        """At once where it had lived; what ends one as soon as it begins would end the next one, too."""
        with self._lock:
            lived = time.monotonic() - worker.began
            self._short_lives = self._short_lives + 1 if lived < _SHORT_LIFE_SECONDS else 0
            pause = _FIRST_PAUSE_SECONDS * 2 ** min(self._short_lives - 1, _MOST_DOUBLINGS)
            until = time.monotonic() + (pause if self._short_lives else 0.0)
            while not self._closing and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            self._forget(worker)
            if not self._closing and self._roster.count() < self._minimum:
                self._start()

    def _may_go(self, worker: Worker) -> bool:
        with self._lock:
            if worker.scouts:
                if self._roster.all_blocked():
                    return False
                self._forget(worker)
                return True
            if self._roster.count() <= self._minimum:
                return False
            self._roster.shrunk += 1
            self._forget(worker)
            return True

    def _forget(self, worker: Worker) -> None:
        """With the lock."""
        if self._roster.forget(worker):
            self._changed.notify_all()

    def _failed(self, completion: Completion, error: BaseException) -> None:
        _log.error("the handler of %s raised", completion, exc_info=error)
        if self._on_error is None:
            return
        try:
            self._on_error(completion, error)
        except BaseException:
            _log.exception("on_error raised for %s", completion)

    def _watch(self) -> None:
        """Send out a scout whenever all workers have been in their handlers for too long."""
        with self._lock:
            while not self._closing and self._roster.workers:
                scouted = any(worker.scouts for worker in self._roster.workers)
                if not scouted and self._roster.count() < self._maximum and self._roster.all_blocked():
                    self._start(scouts=True)
                self._changed.wait(self._stall_seconds)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        stats = self.stats()
        return f"<WorkerPool {stats.threads} threads ({self._minimum} to {self._maximum}), {stats.busy} busy>"


def _refuse(port: object, handler: object, on_error: object) -> None:
    """Raises ``PortValueError`` for what no worker could work with."""
    if not isinstance(port, CompletionPort):
        raise PortValueError(f"port={port!r} of a worker pool: give a CompletionPort")
    functions = {} if isinstance(handler, NativeHandler) else {"handler": handler}
    for what, function in (functions if on_error is None else functions | {"on_error": on_error}).items():
        if not callable(function):
            raise PortValueError(f"{what}={function!r} of a worker pool: give a function of a completion")
        refuse_coroutine(what, function)


class _Blocking:
    """The calling thread waits for something that is not the port."""

    __slots__ = ("_port",)

    def __init__(self, port: CompletionPort):
        self._port = port

    def __enter__(self) -> None:
        self._port.leave()

    def __exit__(self, *_: object) -> None:
        """Its next dequeue counts it again."""
