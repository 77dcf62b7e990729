"""One run per strategy: a server process, a client process, a trace, and the figures of both."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.demo.clients import Outcome
from analysis.demo.traffic import Traffic
from analysis.errors import AnalysisError

__all__ = ["Run", "run_strategy"]


@dataclass(frozen=True)
class Run:
    """What one strategy did under the traffic."""

    strategy: str
    trace: Path
    backend: str
    reason: str
    outcome: Outcome
    server: dict[str, Any]
    """CPU, resident set and pool statistics as the server's process reported them."""

    @property
    def throughput_msgs_per_s(self) -> float:
        """Messages echoed per second of the clients' time."""
        return self.outcome.messages / self.outcome.elapsed_s if self.outcome.elapsed_s else 0.0


class _ServerProcess:
    """The server's process; killed if the run ends badly."""

    def __init__(self, strategy: str, trace: Path, backend: str):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "analysis.demo.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.ready = self.ask({"strategy": strategy, "trace": str(trace), "backend": backend})

    def ask(self, what: dict[str, Any]) -> dict[str, Any]:
        """Send one line and read one."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise AnalysisError(f"the demo's server stopped: {self._last_words()}")
        result: dict[str, Any] = json.loads(answer)
        return result

    def _last_words(self) -> str:
        _, errors = self._process.communicate(timeout=30)
        lines = errors.strip().splitlines()
        return lines[-1] if lines else f"exit code {self._process.returncode}, no message"

    def close(self) -> None:
        """Wait for the end that follows the last answer, or bring it about."""
        try:
            self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def __enter__(self) -> _ServerProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._process.kill()
        self.close()


def _play(traffic: Traffic, connections: int, leak: bool, port: int) -> Outcome:
    """Play the traffic from a process of its own."""
    played = subprocess.run(  # noqa: S603  # our own module
        [
            sys.executable, "-m", "analysis.demo.clients", "127.0.0.1", str(port), str(traffic.seed),
            str(connections), str(traffic.duration_s), "leak" if leak else "-",
        ],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    if played.returncode:
        lines = played.stderr.strip().splitlines() or ["no message"]
        raise AnalysisError(f"the demo's clients stopped with exit code {played.returncode}: {lines[-1]}")
    return Outcome(**json.loads(played.stdout))


def run_strategy(
    strategy: str,
    traffic: Traffic,
    *,
    connections: int,
    leak: bool,
    trace: Path,
    backend: str,
    progress: Callable[[str], None] = lambda _text: None,
) -> Run:
    """Run the traffic once under one strategy and write its trace.

    Raises ``AnalysisError`` where server or clients stop early.
    """
    progress(f"{strategy}: {traffic.messages} messages over {len(traffic.connections)} connections")
    with _ServerProcess(strategy, trace, backend) as server:
        ready = server.ready
        outcome = _play(traffic, connections, leak, ready["port"])
        notes = {
            "seed": traffic.seed,
            "connections": outcome.connections,
            "messages": outcome.messages,
            "throughput_msgs_per_s": round(outcome.messages / outcome.elapsed_s, 1),
            "throughput_bytes_per_s": round(outcome.payload_bytes / outcome.elapsed_s),
            "latency_p50_us": round(outcome.latency_p50_us, 1),
            "latency_p99_us": round(outcome.latency_p99_us, 1),
            "failures": outcome.failures,
            "verified": str(outcome.verified).lower(),
        }
        report = server.ask(notes)
    return Run(strategy, trace, ready["backend"], ready["reason"], outcome, report)
