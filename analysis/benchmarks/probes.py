"""Questions about speed that no workload asks: one thing timed against another, in one process.

Run as ``python -m analysis.benchmarks.probes NAME REPS SEED``; prints one line of JSON.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import pools
from analysis.benchmarks._native import ffi, lib
from analysis.errors import AnalysisError

__all__ = ["PROBES", "Probe", "Times", "run_probe"]

_BLOCK = 4096
_MANY = 64
_ROUNDS = 20_000


class Times(NamedTuple):
    """What was timed: ns for each repetition, in turn; or the plain numbers that the probe names."""

    ours: list[float]
    theirs: list[float]


class Probe(NamedTuple):
    """One comparison."""

    name: str
    ours: str
    theirs: str
    run: Callable[[int, int], Times]
    """Takes the repetitions and the seed."""


def _in_the_core(kind: int) -> Callable[[int, int], Times]:
    def run(reps: int, seed: int) -> Times:
        ours, theirs = ffi.new("double[]", reps), ffi.new("double[]", reps)
        status = lib.pp_probe_run(kind, reps, seed, ours, theirs)
        if status:
            raise AnalysisError(f"a probe's pool answered with status {status}; is there too little memory?")
        return Times(ffi.unpack(ours, reps), ffi.unpack(theirs, reps))

    return run


def _text(text: object) -> str:
    return str(ffi.string(text), "ascii")


def _probes_of_the_core() -> list[Probe]:
    found: list[Probe] = []
    while (name := lib.pp_probe_name(len(found))) != ffi.NULL:
        kind = len(found)
        found.append(
            Probe(
                _text(name).replace("_", "-"),
                _text(lib.pp_probe_ours(kind)),
                _text(lib.pp_probe_theirs(kind)),
                _in_the_core(kind),
            )
        )
    return found


# ---- what Python pays ---------------------------------------------------------------------------


def _time_bytearrays(rounds: int) -> float:
    make, size = bytearray, _BLOCK
    start = time.perf_counter_ns()
    for _ in range(rounds):
        make(size)
    return (time.perf_counter_ns() - start) / rounds


def _python_single(reps: int, seed: int) -> Times:  # noqa: ARG001  # nothing is random here
    times = Times([], [])
    with pools.SlabPool(_BLOCK, 64) as pool:
        acquire = pool.acquire
        for _ in range(reps):
            times.theirs.append(_time_bytearrays(_ROUNDS))
            start = time.perf_counter_ns()
            for _ in range(_ROUNDS):
                with acquire():
                    pass
            times.ours.append((time.perf_counter_ns() - start) / _ROUNDS)
    return times


def _python_many(reps: int, seed: int) -> Times:  # noqa: ARG001  # nothing is random here
    times = Times([], [])
    batches = _ROUNDS // 8
    with pools.SlabPool(_BLOCK, 4 * _MANY) as pool:
        acquire_many, release_many = pool.acquire_many, pool.release_many
        for _ in range(reps):
            times.theirs.append(_time_bytearrays(_ROUNDS))
            start = time.perf_counter_ns()
            for _ in range(batches):
                release_many(acquire_many(_MANY))
            times.ours.append((time.perf_counter_ns() - start) / (batches * _MANY))
    return times


def _time_filled(pool: pools.SlabPool, data: bytes) -> float:
    acquire, rounds = pool.acquire, _ROUNDS // 4
    start = time.perf_counter_ns()
    for _ in range(rounds):
        with acquire() as lease:
            lease.view[:] = data
    return (time.perf_counter_ns() - start) / rounds


def _python_debug(reps: int, seed: int) -> Times:  # noqa: ARG001  # nothing is random here
    times = Times([], [])
    data = bytes(_BLOCK)
    with pools.SlabPool(_BLOCK, 64) as plain, pools.SlabPool(_BLOCK, 64, debug=True) as watched:
        for _ in range(reps):
            times.theirs.append(_time_filled(plain, data))
            times.ours.append(_time_filled(watched, data))
    return times


PROBES: dict[str, Probe] = {
    probe.name: probe
    for probe in (
        *_probes_of_the_core(),
        Probe("python-single", "with pool.acquire(): pass", f"bytearray({_BLOCK})", _python_single),
        Probe(
            "python-many",
            f"acquire_many({_MANY}) and back, per block",
            f"bytearray({_BLOCK})",
            _python_many,
        ),
        Probe(
            "python-debug",
            f"with pool.acquire() as lease: {_BLOCK} bytes written, debug=True",
            "the same without levels",
            _python_debug,
        ),
    )
}
"""Every probe by name."""


def run_probe(name: str, reps: int, seed: int) -> Times:
    """Run a probe in this process; one more repetition comes first and is not kept."""
    gc.collect()
    times = PROBES[name].run(reps + 1, seed)
    return Times(times.ours[1:], times.theirs[1:])


def main() -> int:
    """What the parent asked for."""
    name, reps, seed = sys.argv[1:]
    print(json.dumps(run_probe(name, int(reps), int(seed))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
