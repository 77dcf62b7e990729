"""A trace in memory: its records, and the names that they refer to."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis import trace_reader
from analysis.errors import TraceError
from analysis.layout import Op, TextKind
from analysis.regions import Regions, regions_of
from analysis.tenures import Tenures, tenures_of
from analysis.trace_reader import MAX_FILE_BYTES, Header, RawTrace

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PoolInfo:
    """What a trace says of one pool."""

    number: int
    name: str
    strategy: str
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass
class Trace:
    """One trace: `records` is a structured array (dtype `analysis.layout.RECORD`), sorted by time.

    `tags` and `stacks` give texts by id (0 is never in them), `pools` gives PoolInfo by number,
    `notes` what was said about the run. `complete` is False where the file was not closed, was
    cut, or lost records; `warnings` then says which, in sentences.
    """

    path: str
    header: Header
    records: npt.NDArray[np.void]
    tags: dict[int, str]
    stacks: dict[int, str]
    pools: dict[int, PoolInfo]
    notes: dict[str, str]
    complete: bool
    warnings: list[str]

    @classmethod
    def open(
        cls, path: str | PathLike[str], *, partial: bool = False, max_bytes: int = MAX_FILE_BYTES
    ) -> Trace:
        """Read a trace; see `analysis.load`. Files beyond `max_bytes` are refused."""
        if not isinstance(path, str | bytes | PathLike):
            raise TypeError(f"a trace to load from {path!r}: give the path of a file")
        raw = trace_reader.read(path, partial=partial, max_bytes=max_bytes)
        return _interpret(str(Path(path)), raw)

    def __repr__(self) -> str:
        """One line."""
        state = "complete" if self.complete else "incomplete"
        return f"<Trace {self.path!r}: {len(self.records):,} records, {self.strategy}, {state}>"

    @property
    def strategy(self) -> str:
        """The note "strategy", else the strategy of the pool with the most records, else "unknown"."""
        if "strategy" in self.notes:
            return self.notes["strategy"]
        pool = self.pools.get(self.main_pool)
        return pool.strategy if pool else "unknown"

    @property
    def label(self) -> str:
        """What tells this trace from others: strategy and, where noted, back end."""
        backend = self.notes.get("backend")
        return f"{self.strategy} ({backend})" if backend else self.strategy

    @cached_property
    def ops(self) -> npt.NDArray[np.uint8]:
        """Operation of each record."""
        return np.ascontiguousarray(self.records["op"])

    @cached_property
    def times(self) -> Int64s:
        """Nanoseconds since the trace was opened, of each record."""
        return np.ascontiguousarray(self.records["time_ns"]).view(np.int64)

    def where(self, *ops: Op) -> Int64s:
        """Indices of the records with one of these operations, in time order."""
        return np.flatnonzero(np.isin(self.ops, ops)).astype(np.int64)

    @property
    def start_ns(self) -> int:
        """Time of the first record; 0 without records."""
        return int(self.times[0]) if len(self.times) else 0

    @property
    def end_ns(self) -> int:
        """Time of the last record; 0 without records."""
        return int(self.times[-1]) if len(self.times) else 0

    @property
    def duration_ns(self) -> int:
        """From the first record to the last."""
        return self.end_ns - self.start_ns

    @cached_property
    def tenures(self) -> Tenures:
        """Every stay of a block at one place with one size; see `analysis.tenures`."""
        return tenures_of(self.records)

    @cached_property
    def regions(self) -> Regions:
        """Every address range a pool held; empty for malloc, which does not tell."""
        return regions_of(self.records)

    @cached_property
    def main_pool(self) -> int:
        """Number of the pool with the most allocated bytes; 0 where there is none."""
        allocs = self.where(Op.ALLOC)
        if not len(allocs):
            return min(self.pools, default=0)
        weights = self.records["granted"][allocs].astype(np.float64) + 1
        return int(np.bincount(self.records["pool"][allocs], weights=weights).argmax())

    @cached_property
    def pool_numbers(self) -> list[int]:
        """Pools that own blocks or regions, in ascending order."""
        owned = self.where(Op.ALLOC, Op.FREE, Op.LEAK, Op.REGION_ADD)
        return [int(number) for number in np.unique(self.records["pool"][owned])]

    def tag_text(self, tag: int) -> str:
        """The text of a tag; "untagged" for 0, and a placeholder where the text was lost."""
        return "untagged" if tag == 0 else self.tags.get(tag, f"tag {tag} (text lost)")

    def site_text(self, stack: int) -> str:
        """The acquisition site, innermost frame first; empty where none was recorded.

        A site is a text of its own kind, or a tag used as one.
        """
        if stack == 0:
            return ""
        return self.stacks.get(stack) or self.tags.get(stack, f"site {stack} (text lost)")

    def pool_name(self, number: int) -> str:
        """The name a pool was given, else its number."""
        pool = self.pools.get(number)
        return pool.name if pool else f"pool {number}"

    def marks(self) -> list[tuple[int, str]]:
        """Labelled instants: (time in ns, text)."""
        return [(int(self.times[i]), self.tag_text(int(self.records["tag"][i]))) for i in self.where(Op.MARK)]


def _interpret(path: str, raw: RawTrace) -> Trace:
    tags: dict[int, str] = {}
    stacks: dict[int, str] = {}
    pools: dict[int, PoolInfo] = {}
    notes: dict[str, str] = {}
    tables = {int(TextKind.TAG): tags, int(TextKind.STACK): stacks}
    for kind, identity, text in raw.texts:
        if kind in tables:
            if identity == 0 or tables[kind].setdefault(identity, text) != text:
                raise TraceError(f"{path!r} is damaged: text id {identity} is given twice, or is 0.")
        elif kind == TextKind.POOL:
            if not 0 < identity < 1 << 16:
                raise TraceError(f"{path!r} is damaged: pool number {identity} is out of range.")
            pools[identity] = _pool_info(identity, text)
        else:
            key, _, value = text.partition("=")
            notes[key] = value
    trace = Trace(path, raw.header, raw.records, tags, stacks, pools, notes, raw.complete, raw.warnings)
    _check_names(trace)
    return trace


def _pool_info(number: int, text: str) -> PoolInfo:
    try:
        parameters = json.loads(text)
    except (ValueError, RecursionError):
        parameters = None
    if not isinstance(parameters, dict):
        return PoolInfo(number, f"pool {number}", "unknown")
    name = parameters.get("name")
    strategy = parameters.get("strategy")
    return PoolInfo(
        number,
        name if isinstance(name, str) and name else f"pool {number}",
        strategy if isinstance(strategy, str) and strategy else "unknown",
        parameters,
    )


def _check_names(trace: Trace) -> None:
    """In a complete trace every id leads to its text; in one that was cut a text may be missing."""
    if not trace.complete:
        return
    for column in ("tag", "stack"):
        for identity in np.unique(trace.records[column]):
            known = identity == 0 or int(identity) in trace.tags or int(identity) in trace.stacks
            if not known:
                raise TraceError(f"{trace.path!r} is damaged: {column} {identity} has no text.")
