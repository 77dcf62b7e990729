"""Who serves: one thread at a time, and at last whoever closes.

serve_forever()   the calling thread, until stop()
start()           a thread of the server's own, until stop()
close()           the calling thread, once nobody else does, so that what is queued can leave; a signal
                  handler in the serving thread closes between two batches

The handler of a signal may also raise, between any two instructions. So whether the lock was taken is
written down by the call that takes it, all of which is in C.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator

from iocp_adapter._native import lib
from iocp_adapter.errors import PortClosed, PortError
from iocp_adapter.own_thread import OwnThread
from iocp_adapter.serving import Serving
from pools import Pool

__all__ = ["Shift"]

_GRACE_SECONDS = 2.0
"""For a loop to end whose handler has returned."""

_served: dict[tuple[int, Pool], Shift] = {}
"""By process and pool of one thread: who serves with it."""


class Shift:
    """One server's: which thread has it, and how it passes."""

    def __init__(self, serving: Serving, pool: Pool):
        self._serving = serving
        self._pool = pool
        self._held = threading.Lock()
        """By the thread that serves."""
        self._starting = threading.Lock()
        self._stopping = False
        self._process = os.getpid()
        self.closed = False
        """The server is."""
        self.hurried = False
        """A close is to drain no longer."""
        self.worker: threading.Thread | None = None
        """The server's own thread, once it was started."""

    def serve(self) -> None:
        """Serve in the calling thread until ``stop()``."""
        self.refuse_ended()
        taken: list[bool] = []
        try:
            taken.extend(map(self._held.acquire, (False,)))
            if not taken[0]:
                raise PortError("the server is being served already; one thread serves it, until stop()")
            self._claim()
            self.own()
            self._serving.run(lambda: not self._stopping)
        finally:
            if taken and taken[0]:
                try:  # again: or Ctrl-C would be the last that the server hears
                    self._resign()
                finally:
                    self._held.release()

    def start(self, serve: Callable[[], None]) -> None:
        """Have a thread of the server's own call ``serve``."""
        self.refuse_ended()
        with self._starting:
            if self.worker is not None:
                raise PortError("the server has been started already; create another one")
            self._claim()
            self._serving.caught = BaseException
            worker = OwnThread(serve, "poolport-server")
            try:
                worker.start()
            except RuntimeError:  # the system has no thread left
                self._give_up()
                raise
            self.worker = worker

    def stop(self) -> None:
        """Make ``serve()`` return soon. Any thread, a handler and a signal handler."""
        self._stopping = True
        self._wake()

    def abort(self) -> None:
        """Make a close give up on what has not left by now. Any thread, a handler and a signal handler."""
        self.hurried = True
        self._wake()

    def _wake(self) -> None:
        lib.pp_port_post(self._serving.port.c, 0, 0, 0)

    def own(self) -> None:
        """The calling thread serves from now on, with the pool unless another server's thread has it."""
        self._serving.thread = threading.get_ident()
        if not self._pool.thread_safe and self._is_first():
            self._pool.adopt()

    def _resign(self) -> None:
        """Nobody serves.

        The number of a thread that has ended may be given to another one, which would then be taken for the
        one that may collect sends.
        """
        self._serving.thread = 0
        self._give_up()

    def pass_pool(self) -> None:
        """After the close: the pool is the calling thread's, unless another server has it."""
        self.own()
        self._resign()

    def _is_first(self) -> bool:
        """Take the pool before any other server does; False: one has it."""
        return _served.setdefault((os.getpid(), self._pool), self) is self

    def _claim(self) -> None:
        """Keep other servers from taking the pool of one thread away. Raises ``PortError``.

        Who comes too late has not adopted the pool: the other one may be serving with it already.
        """
        if self._pool.thread_safe:
            return
        if not self._is_first():
            raise PortError(
                f"pool {self._pool.name!r} belongs to one thread, which is that of another server: "
                "create it with thread_safe=True, or give each server a pool of its own"
            )
        self._pool.adopt()

    def _give_up(self) -> None:
        mine = os.getpid(), self._pool
        if _served.get(mine) is self:
            _served.pop(mine, None)

    @property
    def is_mine(self) -> bool:
        """Whether it is the calling thread that serves."""
        return self._serving.thread == threading.get_ident() and self._held.locked()

    def refuse_child(self) -> None:
        """Raises ``PortClosed`` in a process that was forked from the server's."""
        if self._process != os.getpid():
            raise PortClosed(f"the server belongs to the parent process {self._process}; create another one")

    def refuse_ended(self) -> None:
        """Raises ``PortError`` where nothing can be served any more."""
        self.refuse_child()
        if self.closed:
            raise PortError("the server is closed; create another one")

    def refuse_in_handler(self) -> None:
        """Raises ``PortError`` for who would wait for itself."""
        if self.is_mine and self._serving.busy:
            raise PortError("close() in a handler would wait for itself; call stop() there")

    @contextlib.contextmanager
    def of_closing(self, deadline: float, timeout: float | None) -> Iterator[None]:
        """Once nobody else serves. Raises ``PortError`` where that is not so by ``deadline``."""
        own = self.is_mine

        def left() -> float:
            # The loop, or who closes in another thread, needs a moment even where nothing is waited for.
            return min(max(0.0, deadline + _GRACE_SECONDS - time.monotonic()), threading.TIMEOUT_MAX)

        if self.worker is not None:
            self.worker.join(left())  # it may not have begun to serve
        taken: list[bool] = []
        try:
            if not own:
                taken.extend(map(self._held.acquire, (True,), (left(),)))
                if not taken[0]:
                    raise PortError(f"a handler has not returned for {timeout} s; make it return, then close")
            if not self.closed:  # else by another thread, whose the pool is by now
                self.own()
            yield
        finally:
            if taken and taken[0]:
                try:  # again: or Ctrl-C would be the last that the server hears
                    self._resign()
                finally:
                    self._held.release()
