"""A worker's process, as its parent sees it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from analysis.benchmarks import ROOM_FOR_JEMALLOC
from analysis.errors import AnalysisError
from analysis.replaying.worker import Order

__all__ = ["WorkerProcess"]


class WorkerProcess:
    """Answers one request at a time; `first` is what it said to its order."""

    def __init__(self, order: Order):
        """Start it and give it its order. Raises `AnalysisError` where it fails or dies."""
        self.strategy = order.strategy
        environment = {key: value for key, value in os.environ.items() if key != "POOLPORT_DEBUG"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "analysis.replaying"],
            env=environment | ROOM_FOR_JEMALLOC,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        try:
            self.first = self.ask(json.dumps(order._asdict()))
        except BaseException:
            self.close()
            raise

    def ask(self, line: str) -> dict[str, Any]:
        """Send a line and read one."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except OSError:  # it is gone: a broken pipe, or an invalid argument on Windows
            answer = ""
        if not answer:
            raise AnalysisError(
                f"the replay under {self.strategy} died with exit code {self._process.wait()}; with less "
                "--limit it needs less memory"
            )
        data: dict[str, Any] = json.loads(answer)
        if "error" in data:
            raise AnalysisError(f"{self.strategy}: {data['error']}")
        return data

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
        except OSError:
            self._process.kill()  # it died before it read all
        self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> WorkerProcess:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()
