"""Who works for a ``WorkerPool`` now, and what those have done who have gone."""

from __future__ import annotations

from iocp_adapter.workers import ThreadStats, Worker, WorkerStats

__all__ = ["Roster"]


class Roster:
    """The workers of one pool. With the pool's lock.

    A scout is on it, so that it can be stopped, but is none of the workers that are counted.
    """

    def __init__(self, stall_seconds: float):
        self.workers: set[Worker] = set()
        self.shrunk = 0
        """Workers that ended because nobody needed them."""
        self._stall_seconds = stall_seconds
        self._peak = self._grown = 0
        self._handled_by_the_gone = self._errors_of_the_gone = 0

    def add(self, worker: Worker) -> None:
        """It is about to be started."""
        self.workers.add(worker)
        self._peak = max(self._peak, self.count())

    def promote(self, scout: Worker) -> None:
        """What it has found makes it a worker."""
        scout.scouts = False
        self._grown += 1
        self._peak = max(self._peak, self.count())

    def forget(self, worker: Worker) -> bool:
        """It goes; False: it had been forgotten."""
        if worker not in self.workers:
            return False
        self.workers.discard(worker)
        self._handled_by_the_gone += worker.handled
        self._errors_of_the_gone += worker.errors
        return True

    def count(self) -> int:
        """Workers, without a scout."""
        return sum(1 for worker in self.workers if not worker.scouts)

    def all_blocked(self) -> bool:
        """Whether each has been in its handler for too long."""
        return all(self._is_long(worker.busy_seconds) for worker in self.workers if not worker.scouts)

    def stats(self) -> WorkerStats:
        """Of all together."""
        busy = [worker.busy_seconds for worker in self.workers if not worker.scouts]
        return WorkerStats(
            threads=len(busy),
            busy=sum(1 for seconds in busy if seconds),
            blocked=sum(1 for seconds in busy if self._is_long(seconds)),
            peak=self._peak,
            grown=self._grown,
            shrunk=self.shrunk,
            handled=self._handled_by_the_gone + sum(worker.handled for worker in self.workers),
            errors=self._errors_of_the_gone + sum(worker.errors for worker in self.workers),
        )

    def each(self) -> tuple[ThreadStats, ...]:
        """Of each that there is now."""
        found = [
            (worker.thread.name, worker.handled, worker.errors, worker.busy_seconds)
            for worker in self.workers
            if not worker.scouts
        ]
        return tuple(ThreadStats(*one, blocked=self._is_long(one[-1])) for one in sorted(found))

    def _is_long(self, busy_seconds: float) -> bool:
        return busy_seconds >= self._stall_seconds
