"""A thread that any number of threads may wait for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["OwnThread"]


class OwnThread(threading.Thread):
    """A daemon of the engine's, for which whoever closes waits.

    Of two threads that wait for one at once, CPython before 3.13 may raise AssertionError in the first, which
    finds a lock taken by the second (python/cpython issue 116372). So one waits, and then the next.
    """

    def __init__(self, target: Callable[[], object], name: str):
        super().__init__(target=target, name=name, daemon=True)
        self._turn = threading.RLock()  # a signal handler closes in the thread that is waiting

    def join(self, timeout: float | None = None) -> None:
        """Wait until the thread has ended, for ``timeout`` seconds at most."""
        deadline = None if timeout is None else time.monotonic() + timeout
        taken: list[bool] = []
        try:
            taken.extend(map(self._turn.acquire, (True,), (-1.0 if timeout is None else max(0.0, timeout),)))
            if taken[0]:
                super().join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        finally:
            if taken and taken[0]:
                self._turn.release()
