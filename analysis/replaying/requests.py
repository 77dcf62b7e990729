"""From a trace to the requests that its program made: what every strategy is asked again.

A request says nothing of where a block lay or what it was called, so blocks are numbered anew,
in the order in which they were acquired. What a record becomes:

| record | requests |
|---|---|
| ALLOC | ACQUIRE; where the block is still live by the trace, whose FREE was then lost, RELEASE before it |
| FREE | RELEASE |
| RESIZE | RESIZE |
| PIN, UNPIN | the same; those of blocks that the trace does not know otherwise are left out |
| DISCARD_ALL | RELEASE of all that is live, oldest first |
| FAIL | TRY: acquired and, where that succeeds now, released at once, since the program went on without |
| any of a block that was never acquired | ACQUIRE before the first record, as far as its size is known |
| MOVE, REGION_*, SAMPLE, PROCESS, MARK, LEAK | none: they tell what the strategy did |

`analysis.tenures` says which records belong to one block; nothing here decides that again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from analysis.errors import TraceError, UsageError
from analysis.layout import Op
from analysis.tenures import Tenures
from analysis.trace import Trace

__all__ = ["REQUEST", "Kind", "Requests", "requests_of"]

Int64s = npt.NDArray[np.int64]


class Kind(IntEnum):
    """What is asked for: `pp_request_kind`."""

    ACQUIRE = 0
    RELEASE = 1
    RESIZE = 2
    PIN = 3
    UNPIN = 4
    TRY = 5


REQUEST = np.dtype(
    [
        ("time_ns", "<u8"),
        ("bytes", "<u8"),
        ("block", "<u4"),
        ("tag", "<u4"),
        ("site", "<u4"),
        ("kind", "u1"),
        ("pin", "u1"),
        ("reserved", "<u2"),
    ]
)
"""One request: the twin of `pp_request` in `poolport/replay.h`."""

_LARGEST = (1 << 48) - 1
_PIN_KINDS = 3
_TEXT_BYTES = 4096  # of a tag of a pool


@dataclass(frozen=True)
class Requests:
    """The requests that a program made of one pool, in order, and what is known of them beforehand."""

    rows: npt.NDArray[np.void]  # dtype REQUEST
    blocks: int  # numbered from 0
    tags: list[str]  # by number; number 0 is "no tag"
    sites: list[str]  # likewise
    sizes: dict[int, int]  # bytes -> how often acquired or resized to, without TRY
    largest: int  # bytes, of `sizes`; 0 without any
    peak_bytes: int  # the most that is live at once, as requested, where nothing is refused
    peak_blocks: int
    peak_at: int  # the request with which `peak_bytes` is first reached; 0 without blocks
    start_ns: int  # of the first request
    end_ns: int  # of the trace
    leaks: bool  # the pool was closed with live blocks, as far as the trace tells


@dataclass(frozen=True)
class _Spans:
    """Stays of blocks with one size: tenures, but for those that a MOVE began. In order of block and time."""

    first: npt.NDArray[np.bool_]  # of its block
    last: npt.NDArray[np.bool_]
    number: Int64s  # the block's, by its place here
    start: Int64s  # record index; -1: before the first
    end: Int64s
    requested: Int64s
    handle: npt.NDArray[np.uint64]
    tag: Int64s
    stack: Int64s


def requests_of(trace: Trace, pool: int | None = None) -> Requests:
    """Derive the requests of one pool (default: the trace's main one).

    Raises `UsageError` where there is no such pool, `TraceError` where it was never asked for a block.
    """
    number = trace.main_pool if pool is None else pool
    spans = _spans_of(trace.tenures.select(trace.tenures.pool == number), trace)
    fails = trace.where(Op.FAIL)
    fails = fails[trace.records["pool"][fails] == number]
    if not len(spans.start) and not len(fails):
        if not trace.pool_numbers:
            raise TraceError(
                f"{trace.path!r} holds no request: no pool was attached to it with pool.attach(trace)."
            )
        if pool is not None and pool not in trace.pools:
            raise UsageError(f"pool {pool} is not in {trace.path!r}; it has {_pools_text(trace)}")
        raise TraceError(f"{trace.path!r} holds no request of pool {trace.pool_name(number)!r}.")
    order, rows, delta = _in_order(trace, spans, fails, number)
    return _finished(trace, spans, rows[order], delta[order], number)


def pool_named(trace: Trace, name: str) -> int:
    """The number of the pool with this name, or with this number; raises `UsageError`."""
    for number in trace.pool_numbers:
        if name in (trace.pool_name(number), str(number)):
            return number
    raise UsageError(f"no pool {name!r} in {trace.path!r}; it has {_pools_text(trace)}")


def _pools_text(trace: Trace) -> str:
    return ", ".join(repr(trace.pool_name(number)) for number in trace.pool_numbers[:20]) or "none"


def _spans_of(tenures: Tenures, trace: Trace) -> _Spans:
    """Cut tenures into blocks: what goes on where it ended is the same block, all else another one."""
    total = len(tenures)
    fresh = tenures.first.copy()
    fresh[1:] |= tenures.end[:-1] != tenures.start[1:]
    began = np.append(trace.ops, np.uint8(Op.NONE))[tenures.start]  # of -1: NONE
    keep = fresh | (began == Op.RESIZE)
    first = fresh[keep]
    last = np.append(first[1:], True)[: len(first)]
    # What a MOVE began belongs to the span before it, which ends where the last of these does.
    following = np.append(np.flatnonzero(keep)[1:], total)[: len(first)]
    end = tenures.end[following - 1]
    return _Spans(
        first=first,
        last=last,
        number=np.cumsum(first) - 1,
        start=tenures.start[keep],
        end=end,
        requested=tenures.requested[keep],
        handle=tenures.block[keep],
        tag=tenures.tag[keep],
        stack=tenures.stack[keep],
    )


def _in_order(
    trace: Trace, spans: _Spans, fails: Int64s, pool: int
) -> tuple[Int64s, npt.NDArray[np.void], Int64s]:
    """All requests, the order in which they come, and by how much each changes the live bytes."""
    total = len(trace.records)
    released = np.flatnonzero(spans.last & (spans.end < total))
    pins, pinned = _pins_of(trace, spans, pool)
    counts = [len(spans.start), len(released), len(pins), len(fails)]
    rows = np.zeros(sum(counts), REQUEST)
    delta = np.zeros(len(rows), np.int64)
    at = np.concatenate([spans.start, spans.end[released], pins, fails])
    # A RELEASE comes before what else the same record asks for; several of one record, oldest first.
    turn = np.concatenate([np.ones(counts[0], np.int64), np.zeros(counts[1], np.int64), *(
        np.ones(count, np.int64) for count in counts[2:])])  # fmt: skip
    birth = spans.start[spans.first]
    age = np.concatenate([spans.start, birth[spans.number[released]], pins, fails])

    part = np.cumsum([0, *counts])
    asked, freed, held, tried = (slice(part[i], part[i + 1]) for i in range(4))
    rows["kind"][asked] = np.where(spans.first, Kind.ACQUIRE, Kind.RESIZE)
    rows["bytes"][asked] = spans.requested
    rows["block"][asked] = spans.number
    before = np.append(0, spans.requested[:-1])[: len(spans.requested)]
    delta[asked] = spans.requested - np.where(spans.first, 0, before)
    rows["kind"][freed] = Kind.RELEASE
    rows["block"][freed] = spans.number[released]
    delta[freed] = -spans.requested[released]
    rows["kind"][held] = np.where(trace.ops[pins] == Op.PIN, Kind.PIN, Kind.UNPIN)
    rows["pin"][held] = trace.records["aux"][pins]
    rows["block"][held] = pinned
    rows["kind"][tried] = Kind.TRY
    rows["bytes"][tried] = np.minimum(trace.records["requested"][fails], np.uint64(_LARGEST))
    times = np.append(trace.times, trace.start_ns)
    rows["time_ns"] = times[at]  # of -1: the start
    rows["tag"][asked], rows["site"][asked] = spans.tag, spans.stack
    rows["tag"][tried], rows["site"][tried] = trace.records["tag"][fails], trace.records["stack"][fails]
    order = np.lexsort((age, turn, at))
    return order.astype(np.int64), rows, delta


def _pins_of(trace: Trace, spans: _Spans, pool: int) -> tuple[Int64s, Int64s]:
    """Record indices of the pins and unpins of known blocks, and the blocks' numbers."""
    at = trace.where(Op.PIN, Op.UNPIN)
    rows = trace.records[at]
    at = at[(rows["pool"] == pool) & (rows["aux"] < _PIN_KINDS)]
    if not len(at) or not len(spans.start):
        return at[:0], at[:0]
    handles, rank = np.unique(spans.handle, return_inverse=True)
    mine = trace.records["block"][at]
    found = np.minimum(np.searchsorted(handles, mine), len(handles) - 1)
    # Spans are sorted by (handle, start), so the latest one that began before the pin is one search away.
    scale = len(trace.records) + 2
    row = np.searchsorted(rank * scale + spans.start + 1, found * scale + at + 1, side="right") - 1
    known = (row >= 0) & (handles[found] == mine) & (rank[row] == found)
    # Nobody pins what is gone; an unpin may come after the release.
    known &= (trace.ops[at] == Op.UNPIN) | (at < spans.end[row])
    return at[known], spans.number[row[known]]


def _finished(trace: Trace, spans: _Spans, rows: npt.NDArray[np.void], delta: Int64s, pool: int) -> Requests:
    """Number blocks by age and texts by first use, and look at the levels."""
    births = rows["block"][rows["kind"] == Kind.ACQUIRE]
    renumber = np.zeros(len(births), np.uint32)
    renumber[births] = np.arange(len(births), dtype=np.uint32)
    named = rows["kind"] != Kind.TRY
    rows["block"][named] = renumber[rows["block"][named]]
    tags = _number_texts(rows, "tag", trace.tag_text)
    sites = _number_texts(rows, "site", trace.site_text)
    live = np.cumsum(delta)
    blocks = np.cumsum((rows["kind"] == Kind.ACQUIRE).astype(np.int64) - (rows["kind"] == Kind.RELEASE))
    sizes, counts = np.unique(spans.requested, return_counts=True)
    leaks = trace.where(Op.LEAK)
    return Requests(
        rows=rows,
        blocks=len(births),
        tags=tags,
        sites=sites,
        sizes=dict(zip(sizes.tolist(), counts.tolist(), strict=True)),
        largest=int(sizes[-1]) if len(sizes) else 0,
        peak_bytes=int(live.max(initial=0)),
        peak_blocks=int(blocks.max(initial=0)),
        peak_at=int(live.argmax()),
        start_ns=int(rows["time_ns"][0]),
        end_ns=trace.end_ns,
        leaks=bool((trace.records["pool"][leaks] == pool).any()),
    )


def _number_texts(rows: npt.NDArray[np.void], column: str, text_of: Callable[[int], str]) -> list[str]:
    """Replace a trace's text ids by numbers from 1, in order of first use; the texts by number."""
    ids, first, inverse = np.unique(rows[column], return_index=True, return_inverse=True)
    order = np.argsort(first)
    order = order[ids[order] != 0]
    numbers = np.zeros(len(ids), np.uint32)
    numbers[order] = np.arange(1, len(order) + 1, dtype=np.uint32)
    rows[column] = numbers[inverse.reshape(-1)]
    return ["", *(_cut(text_of(int(identity))) for identity in ids[order])]


def _cut(text: str) -> str:
    """At most as long as a pool's tag may be, in whole characters."""
    return text.encode("utf-8", "replace")[:_TEXT_BYTES].decode("utf-8", "ignore")
