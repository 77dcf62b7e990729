"""Who held which bytes, from when to when.

A tenure is one block's stay at one place with one size. ALLOC opens a tenure; MOVE and RESIZE
end it and open the next; FREE and DISCARD_ALL end it for good. A life is the chain of tenures of
one block, from its acquisition to its release:

    record   ALLOC ------ RESIZE ------------ MOVE ------- FREE ..... UNPIN
    tenure     |--- 0 ---|------- 1 ---------|---- 2 -----|            |
    life       |------------------- 0 --------------------|            |
    held       |-------------------------------------------------------|

A block that is released while the kernel or an export pins it has no owner any more, but its
bytes cannot be reused before the last unpin: they are `held` until then.

Times are record indices, not nanoseconds: the order of the records is the order of the events,
also where the clock stood still between them. A tenure covers [start, end); start is -1 for
blocks whose birth was not recorded, end is the number of records for those that outlive the trace.

The trace names a block by a handle that no other live block of its pool has. Sorting the events
by handle, stably, therefore puts each block's history in one run, and everything below follows
from comparing neighbours. No Python loop runs over records.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from analysis.layout import FLAG_BORN_BEFORE, Op

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_STORY = (Op.ALLOC, Op.FREE, Op.MOVE, Op.RESIZE, Op.LEAK)
_PINS = (Op.PIN, Op.UNPIN)


@dataclass(frozen=True, slots=True)
class Tenures:
    """Columns of equal length, ordered by pool, block and time. Sizes and offsets in bytes."""

    records: int  # in the trace: the `end` of what outlives it
    start: Int64s  # record index; -1: the birth was not recorded
    end: Int64s  # record index of the release; `records`: after the trace
    held: Int64s  # record index at which the bytes can be reused; at least `end`
    pool: Int64s
    block: npt.NDArray[np.uint64]
    offset: Int64s
    requested: Int64s
    granted: Int64s
    tag: Int64s
    stack: Int64s
    first: Bools  # of its life
    last: Bools  # of its life
    freed: Bools  # ended by a FREE record
    born_before: Bools  # live when the trace was attached: it began earlier than `start`
    lost_frees: int  # blocks handed out again although nobody released them
    double_frees: int  # releases of what was released already

    def __len__(self) -> int:
        """Number of tenures."""
        return len(self.start)

    def select(self, chosen: Bools | Int64s) -> Tenures:
        """The tenures at these positions, or where the mask holds."""
        columns = {name: getattr(self, name)[chosen] for name in _COLUMNS}
        return replace(self, **columns)


_COLUMNS = (
    "start", "end", "held", "pool", "block", "offset", "requested", "granted", "tag", "stack",
    "first", "last", "freed", "born_before",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Chain:
    """All records about blocks, sorted by block; `group` numbers the blocks."""

    at: Int64s
    op: npt.NDArray[np.uint8]
    group: Int64s

    def keep(self, mask: Bools) -> _Chain:
        return _Chain(self.at[mask], self.op[mask], self.group[mask])

    @property
    def new(self) -> Bools:
        """Where another block's history begins."""
        return np.append(True, self.group[1:] != self.group[:-1])[: len(self.group)]


def tenures_of(records: npt.NDArray[np.void]) -> Tenures:
    """Derive the tenures of all blocks. `records` is sorted by time."""
    total = len(records)
    everything = _chain_of(records)
    story = everything.keep(~np.isin(everything.op, _PINS))
    # A LEAK record ends nothing; it only tells of a block when it is all that is known of it.
    # Nor does a block that was told of begin anew where a trace is attached while others use the pool: it is
    # announced, though it has been acquired, and perhaps released, since the trace was there.
    announced = (story.op == Op.ALLOC) & ((records["flags"][story.at] & FLAG_BORN_BEFORE) != 0)
    story = story.keep(story.new | ~((story.op == Op.LEAK) | announced))
    at, op, new = story.at, story.op, story.new

    last_of_group = np.append(new[1:], True)[: len(new)]
    following = np.append(at[1:], total)[: len(at)]
    following[last_of_group] = total
    previous = np.append(np.uint8(Op.NONE), op[:-1])[: len(op)]

    # Each record opens at most one tenure after it, and the first of a block may reveal one before.
    opens = np.flatnonzero((op == Op.ALLOC) | (op == Op.MOVE) | (op == Op.RESIZE))
    reveals = np.flatnonzero(new & (op != Op.ALLOC))
    source = np.concatenate([reveals, opens])
    start = np.concatenate([np.full(len(reveals), -1), at[opens]])
    end = np.concatenate([np.where(op[reveals] == Op.LEAK, total, at[reveals]), following[opens]])
    order = np.argsort(source * 2 + (start >= 0), kind="stable")
    source, start, end = source[order], start[order], end[order]
    rows = at[source]
    columns = {name: records[name][rows].astype(np.int64) for name in _PLACE}
    _mend_revealed(columns, np.flatnonzero(start < 0), op[source], records["aux"][rows].astype(np.int64))

    closer = np.append(_ops(records), np.uint8(Op.NONE))[end]
    end, closer = _cut_by_discard(records, columns["pool"], start, end, closer)
    freed = closer == Op.FREE
    group = story.group[source]
    first = (start < 0) | (op[source] == Op.ALLOC)
    last = np.append(first[1:], True)[: len(first)]
    final = freed & np.append(group[1:] != group[:-1], True)[: len(group)]
    flagged = (records["flags"][rows] & FLAG_BORN_BEFORE) != 0
    return Tenures(
        records=total,
        start=start,
        end=end,
        held=np.where(final, _held_until(everything, total)[group], end) if len(group) else end,
        block=records["block"][rows],
        first=first,
        last=last,
        freed=freed,
        born_before=_through_life(first, (start < 0) | (first & flagged)),
        lost_frees=int(np.count_nonzero(~new & (op == Op.ALLOC) & (previous != Op.FREE))),
        double_frees=int(np.count_nonzero(~new & (op == Op.FREE) & (previous == Op.FREE))),
        **columns,
    )


_PLACE = ("pool", "offset", "requested", "granted", "tag", "stack")


def _ops(records: npt.NDArray[np.void]) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(records["op"])


def _chain_of(records: npt.NDArray[np.void]) -> _Chain:
    """Sort the records about blocks by (pool, block); each block's stay in order of time."""
    ops = _ops(records)
    at = np.flatnonzero(np.isin(ops, _STORY + _PINS)).astype(np.int64)
    blocks = records["block"][at]
    pools = records["pool"][at]
    one_pool = len(pools) == 0 or bool((pools == pools[0]).all())
    order = np.argsort(blocks, kind="stable") if one_pool else np.lexsort((blocks, pools))
    at, blocks, pools = at[order], blocks[order], pools[order]
    new = np.append(True, (blocks[1:] != blocks[:-1]) | (pools[1:] != pools[:-1]))[: len(at)]
    return _Chain(at, ops[at], np.cumsum(new) - 1)


def _mend_revealed(
    columns: dict[str, Int64s], revealed: Int64s, op: npt.NDArray[np.uint8], aux: Int64s
) -> None:
    """Say where a block was before the first record that tells of it."""
    op, aux = op[revealed], aux[revealed]
    columns["offset"][revealed] = np.where(op == Op.MOVE, aux, columns["offset"][revealed])
    # A RESIZE tells the old granted size but not the old requested one, which is at most that.
    for name in ("granted", "requested"):
        columns[name][revealed] = np.where(op == Op.RESIZE, aux, columns[name][revealed])


def _cut_by_discard(
    records: npt.NDArray[np.void], pool: Int64s, start: Int64s, end: Int64s, closer: npt.NDArray[np.uint8]
) -> tuple[Int64s, npt.NDArray[np.uint8]]:
    """End tenures at the next DISCARD_ALL of their pool."""
    discards = np.flatnonzero(_ops(records) == Op.DISCARD_ALL)
    pools = records["pool"][discards]
    for number in np.unique(pools):
        of_pool = discards[pools == number]
        mine = np.flatnonzero(pool == number)
        following = np.append(of_pool, len(records))[np.searchsorted(of_pool, start[mine])]
        cut = mine[following < end[mine]]
        end[cut] = following[following < end[mine]]
        closer[cut] = Op.DISCARD_ALL
    return end, closer


def _held_until(chain: _Chain, total: int) -> Int64s:
    """For each block: the record at which its last owner and its last pin are gone."""
    groups = int(chain.group[-1]) + 1 if len(chain.group) else 0
    until = np.zeros(groups, np.int64)
    ends = np.isin(chain.op, (Op.FREE, Op.UNPIN))
    np.maximum.at(until, chain.group[ends], chain.at[ends])
    pins = (chain.op == Op.PIN).astype(np.int64) - (chain.op == Op.UNPIN)
    still_pinned = np.bincount(chain.group, weights=pins, minlength=groups) > 0
    until[still_pinned] = total
    return until


def _through_life(first: Bools, value_at_first: Bools) -> Bools:
    """Give every tenure of a life the value that its first one has."""
    if not len(first):
        return value_at_first
    spread: Bools = value_at_first[first][np.cumsum(first) - 1]
    return spread
