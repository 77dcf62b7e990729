"""Live bytes by tag over time.

Servers tag by connection: a thousand tags that differ in a number. A group is a tag with its
numbers replaced by #, so that "conn-17" and "conn-18" are "conn-#".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis.metrics.extents import covering
from analysis.trace import Trace

Int64s = npt.NDArray[np.int64]

OTHERS = "others"
_NUMBER = re.compile(r"0x[0-9a-fA-F]+|\d+")


@dataclass(frozen=True)
class Outstanding:
    """Requested bytes that are live, by label, at evenly spaced instants.

    `bytes_of[i]` belongs to `labels[i]`; the last label may be "others". The sum over labels is Q.
    """

    times: Int64s
    labels: list[str]
    bytes_of: npt.NDArray[np.int64]  # shape (labels, times)


def tag_group(tag: str) -> str:
    """conn-17 -> conn-#."""
    return _NUMBER.sub("#", tag)


def outstanding(
    trace: Trace,
    instants: Int64s,
    top: int = 8,
    *,
    grouped: bool = False,
    always: frozenset[str] = frozenset(),
) -> Outstanding:
    """Live bytes of the `top` tags (or tag groups) with the most byte-seconds, and of all others together.

    Tags in `always` get a row of their own before any others do. `instants` are record indices.
    """
    tenures = trace.tenures
    interval, which = covering(tenures.start, tenures.end, instants)
    tags, tag_of = np.unique(tenures.tag[interval], return_inverse=True)
    texts = [trace.tag_text(int(tag)) for tag in tags]
    if grouped:
        texts = [tag_group(text) for text in texts]
    labels = list(dict.fromkeys(texts))
    row_of_tag = np.array([labels.index(text) for text in texts] if grouped else range(len(texts)), np.int64)
    if not len(interval):
        return Outstanding(trace.times[instants], [], np.zeros((0, len(instants)), np.int64))
    table = np.zeros((len(labels), len(instants)), np.int64)
    np.add.at(table, (row_of_tag[tag_of.reshape(-1)], which), tenures.requested[interval])
    weight = table.sum(axis=1, dtype=np.float64)
    order = sorted(range(len(labels)), key=lambda row: (labels[row] not in always, -weight[row], labels[row]))
    kept, rest = order[:top], order[top:]
    kept.sort(key=lambda row: -weight[row])
    rows = [table[row] for row in kept]
    names = [labels[row] for row in kept]
    if rest:
        rows.append(table[rest].sum(axis=0))
        names.append(f"{len(rest)} {OTHERS}" if len(rest) > 1 else labels[rest[0]])
    return Outstanding(trace.times[instants], names, np.array(rows))
