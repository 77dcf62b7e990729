"""The laws that every trace must obey, checked.

    R = B + F + metadata        in every SAMPLE, and at every event
    Q <= B,  L <= F             likewise
    B and R of a SAMPLE are those that the events add up to
    blocks lie inside regions, and not over each other
    no block is handed out twice, none released twice
    mean live count = arrival rate x mean lifetime          (Little)

A law that does not hold means a defect in the pool, in the writer or in this package; it is
reported as a sentence, never averaged away. A trace that lost records breaks laws for that reason,
and its warnings say so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis import units
from analysis.errors import BalanceError
from analysis.layout import Op
from analysis.metrics.extents import FreeExtents
from analysis.metrics.levels import Levels, Samples
from analysis.metrics.lifetimes import Lives, littles_law
from analysis.trace import Trace


@dataclass(frozen=True)
class Violation:
    """One law, broken `count` times, first at `at_ns`."""

    law: str
    at_ns: int
    count: int
    detail: str

    def __str__(self) -> str:
        """One sentence."""
        times = "once" if self.count == 1 else f"{units.count_text(self.count)} times, first"
        return f"{self.law} is broken {times} at {units.duration_text(self.at_ns)}: {self.detail}."


def require(violations: list[Violation]) -> None:
    """Raise BalanceError with the first violation; nothing where there is none."""
    if violations:
        raise BalanceError(str(violations[0]))


def check_samples(trace: Trace, pool: int, levels: Levels, samples: Samples) -> list[Violation]:
    """Compare what a pool said of itself with itself, and with its events."""
    if not len(samples):
        return []
    found = [
        _first(
            "Q <= B", samples.times, samples.requested > samples.granted, samples.requested, samples.granted
        ),
        _first("L <= F", samples.times, samples.largest > samples.free, samples.largest, samples.free),
    ]
    metadata = samples.reserved - samples.granted - samples.free
    if levels.has_regions:
        expected = levels.metadata[samples.at]
        found.append(_first("R = B + F + metadata", samples.times, metadata != expected, metadata, expected))
        reserved = levels.reserved[samples.at]
        found.append(
            _first("R of samples = R of events", samples.times, samples.reserved != reserved,
                   samples.reserved, reserved)
        )  # fmt: skip
    else:
        found.append(_first("R >= B + F", samples.times, metadata < 0, metadata, np.zeros_like(metadata)))
    if _single_writer(trace, pool):
        granted = levels.granted[samples.at]
        # Blocks that other threads gave back are gone from the sample before the owner records their FREE.
        returning = _freed_later(trace, pool)[samples.at]
        differs = (samples.granted > granted) | (samples.granted < granted - returning)
        found.append(_first("B of samples = B of events", samples.times, differs, samples.granted, granted))
    return [violation for violation in found if violation]


def check_events(levels: Levels) -> list[Violation]:
    """Check the levels that the events of one pool add up to."""
    found = [
        _first("Q <= B", levels.times, levels.requested > levels.granted, levels.requested, levels.granted)
    ]
    if levels.has_regions:
        found.append(_first("F >= 0", levels.times, levels.free < 0, levels.free, np.zeros_like(levels.free)))
    return [violation for violation in found if violation]


def check_blocks(trace: Trace) -> list[Violation]:
    """Check that no block was handed out or released twice."""
    tenures = trace.tenures
    found = []
    for count, law in (
        (tenures.lost_frees, "A handle is handed out only after its release: that"),
        (tenures.double_frees, "A block is released once: that"),
    ):
        if count:
            found.append(Violation(law, trace.start_ns, count, "the trace has two such records in a row"))
    return found


def check_places(extents: FreeExtents, trace: Trace, pool: int) -> list[Violation]:
    """Check that blocks lie inside regions and not over each other, at the swept instants."""
    if not extents.misplaced:
        return []
    detail = f"blocks of {trace.pool_name(pool)!r} lie outside its regions or over each other"
    return [Violation("Every block has its own place: that", trace.start_ns, extents.misplaced, detail)]


def check_littles_law(trace: Trace, levels: Levels, lives: Lives) -> list[Violation]:
    """Compare the two mean live counts, to 1e-6 of the larger one."""
    counted, expected = littles_law(trace, levels, lives)
    if abs(counted - expected) <= 1e-6 * max(counted, expected, 1.0):
        return []
    detail = f"{counted:.6g} blocks live on average, rate x lifetime is {expected:.6g}"
    return [Violation("Little's law", trace.start_ns, 1, detail)]


def _first(
    law: str,
    times: npt.NDArray[np.int64],
    broken: npt.NDArray[np.bool_],
    value: npt.NDArray[np.int64],
    limit: npt.NDArray[np.int64],
) -> Violation | None:
    if not broken.any():
        return None
    at = int(broken.argmax())
    detail = f"{int(value[at])} bytes against {int(limit[at])}"
    return Violation(law, int(times[at]), int(np.count_nonzero(broken)), detail)


def _single_writer(trace: Trace, pool: int) -> bool:
    """Whether one thread wrote all of a pool's records: only then do samples fall between events."""
    threads = trace.records["thread"][trace.records["pool"] == pool]
    return len(threads) > 0 and bool((threads == threads[0]).all())


def _freed_later(trace: Trace, pool: int) -> npt.NDArray[np.int64]:
    """Bytes that FREE records after each record give back."""
    freed = np.where(
        (trace.ops == Op.FREE) & (trace.records["pool"] == pool), trace.records["granted"].astype(np.int64), 0
    )
    left: npt.NDArray[np.int64] = freed.sum() - np.cumsum(freed)
    return left
