"""Which block sizes waste least for a given mix of requests.

Sort the distinct requested sizes, rounded up to the alignment: x(1) < ... < x(m), requested c(j)
times. A class serves all sizes above the class before it, so a choice of classes is a cut of that
row into groups, and the last size of each group is its class. Up to a constant (the bytes
requested), the waste is the sum of x(last) * (requests in the group). With C(j) = c(1) + ... + c(j)
and f(k, j) the least cost of the first j sizes in k groups,

    f(k, j) = min over i < j of f(k - 1, i) + x(j) * (C(j) - C(i))

For a fixed k this asks for the lowest of the lines f(k - 1, i) - C(i) * x at x = x(j): their slopes
fall with i and the questions rise with j, so the lower envelope is kept as a queue, and one k costs
O(m). All numbers are integers, so the optimum is exact. Below 32 KiB there are at most 4096 sizes
to tell apart at the least alignment, so none is ever merged with its neighbour.
"""

from __future__ import annotations

import operator
import os
import struct
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import cast

from pools._native import lib
from pools.errors import PoolValueError
from pools.parameters import power_of_two, whole
from pools.trace import Trace

__all__ = ["CLASSES_MAX", "histogram", "learn_classes", "waste"]

CLASSES_MAX = 254
TOP = 32768
"""Larger requests get whole pages, which waste less than a class would."""

_RECORD = struct.Struct("<24xQ16xIIIHBB")
_HEAD = struct.Struct("<4sI")


def histogram(
    source: str | os.PathLike[str] | Trace | Iterable[int] | Iterable[tuple[int, int]],
) -> Counter[int]:
    """How often each size was requested; see ``SizeClassPool.learn`` for the sources."""
    if isinstance(source, Trace):
        source = source.path
    if isinstance(source, str | os.PathLike):
        return Counter(_requests_of(Path(source)))
    if not isinstance(source, Iterable):
        raise TypeError(f"learn from {source!r}: give a trace, its path, sizes, or (size, count) pairs")
    counts: Counter[int] = Counter()
    for entry in cast(Iterable[int | tuple[int, int]], source):
        if isinstance(entry, tuple) and len(entry) != 2:
            raise PoolValueError(f"sizes to learn from: {entry!r} is among them; give (size, count) pairs")
        size, count = entry if isinstance(entry, tuple) else (entry, 1)
        counts[_checked("sizes", size)] += _checked("counts", count)
    return counts


def _checked(what: str, value: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if not 0 < number < 1 << 63:
        raise PoolValueError(
            f"{what} to learn from: {value!r} is among them; give whole numbers from 1 to 2**63 - 1"
        )
    return number


def _requests_of(path: Path) -> Iterator[int]:
    """The requested sizes of all allocations and resizes in a trace, as far as it was written."""
    with path.open("rb") as file:
        magic, version, header, chunk, record = struct.unpack("<8sIIII", file.read(24).ljust(24, b"\0"))
        if magic != b"PPTRACE\n" or version != lib.PP_TRACE_VERSION:
            raise PoolValueError(f"{os.fspath(path)!r} is not a trace of version {lib.PP_TRACE_VERSION}")
        if record != _RECORD.size or not lib.PP_TRACE_CHUNK_HEAD_BYTES < chunk <= 1 << 24:
            raise PoolValueError(f"{os.fspath(path)!r}: chunks of {chunk} and records of {record} bytes")
        file.seek(header)
        while len(head := file.read(lib.PP_TRACE_CHUNK_HEAD_BYTES)) == lib.PP_TRACE_CHUNK_HEAD_BYTES:
            body = file.read(chunk - lib.PP_TRACE_CHUNK_HEAD_BYTES)
            if _HEAD.unpack_from(head) == (b"PPck", lib.PP_CHUNK_RECORDS):
                yield from _requests_in(body[: len(body) // record * record])


def _requests_in(records: bytes) -> Iterator[int]:
    wanted = (lib.PP_OP_ALLOC, lib.PP_OP_RESIZE)
    for requested, _thread, _tag, _stack, _pool, op, _flags in _RECORD.iter_unpack(records):
        if op in wanted and requested:
            yield requested


def learn_classes(requests: Counter[int], classes: int, alignment: int = 8) -> list[int]:
    """The best at most ``classes`` block sizes for a histogram of requests, ascending."""
    classes = whole("classes", classes, 1, CLASSES_MAX, " to learn")
    alignment = power_of_two("alignment", alignment, 8, 4096, " of classes to learn")
    if not requests:
        raise PoolValueError("there is no request to learn from; give at least one size")
    rounded: Counter[int] = Counter()
    for size, count in requests.items():
        if size <= TOP:
            rounded[-(-size // alignment) * alignment] += count
    sizes = sorted(rounded)
    if not sizes:
        return [max(16, alignment)]  # everything is served by pages; a pool has at least one class
    return _best_cut(sizes, [rounded[size] for size in sizes], min(classes, len(sizes)))


def _best_cut(sizes: list[int], counts: list[int], groups: int) -> list[int]:
    """The last sizes of the groups; see the module's text."""
    total = [0]
    for count in counts:
        total.append(total[-1] + count)
    cost = [0] + [size * total[j] for j, size in enumerate(sizes, 1)]  # f(1, j)
    cuts: list[list[int]] = []
    for k in range(2, groups + 1):
        cost, cut = _one_more_group(sizes, total, cost, k)
        cuts.append(cut)
    chosen, j = [], len(sizes)
    for cut in reversed(cuts):
        chosen.append(sizes[j - 1])
        j = cut[j]
    chosen.append(sizes[j - 1])
    return chosen[::-1]


def _one_more_group(
    sizes: list[int], total: list[int], cost: list[int], k: int
) -> tuple[list[int], list[int]]:
    """f(k, j) for all j from k on, and the i that gives each, from f(k - 1, .)."""
    lines: deque[int] = deque()
    new, cut = list(cost), [0] * (len(sizes) + 1)
    for j in range(k, len(sizes) + 1):
        i = j - 1  # the newest line, which falls most steeply
        while len(lines) > 1 and _is_hidden(cost, total, lines[-2], lines[-1], i):
            lines.pop()
        lines.append(i)
        x = sizes[j - 1]
        while len(lines) > 1 and cost[lines[1]] - total[lines[1]] * x <= cost[lines[0]] - total[lines[0]] * x:
            lines.popleft()
        cut[j] = lines[0]
        new[j] = cost[lines[0]] + x * (total[j] - total[lines[0]])
    return new, cut


def _is_hidden(cost: list[int], total: list[int], a: int, b: int, c: int) -> bool:
    """Whether line b is nowhere below both a and c, whose slopes fall in this order."""
    return (cost[c] - cost[a]) * (total[b] - total[a]) <= (cost[b] - cost[a]) * (total[c] - total[a])


def waste(requests: Counter[int], classes: list[int], page: int = 4096) -> int:
    """Bytes granted and not requested, over all requests, by a pool with these classes."""
    wasted = 0
    for size, count in requests.items():
        fitting = [block for block in classes if block >= size]
        wasted += count * ((fitting[0] if fitting else -(-size // page) * page) - size)
    return wasted
