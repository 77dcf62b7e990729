"""Live bytes by tag over time.

Servers tag by connection: a thousand tags that differ in a number. A group is a tag with its
numbers replaced by #, so that "conn-17" and "conn-18" are "conn-#".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis.metrics.extents import covering
from analysis.trace import Trace

Int64s = npt.NDArray[np.int64]

_NUMBER = re.compile(r"0x[0-9a-fA-F]+|\d+")


@dataclass(frozen=True)
class Outstanding:
    """Requested bytes that are live, by label, at the instants asked for. They add up to Q."""

    times: Int64s
    bytes_of: dict[str, Int64s]
    others: Int64s  # of tags without a label


def tag_group(tag: str) -> str:
    """conn-17 -> conn-#."""
    return _NUMBER.sub("#", tag)


def outstanding(trace: Trace, instants: Int64s, label_of: Mapping[int, str]) -> Outstanding:
    """Live requested bytes at `instants` (record indices, ascending).

    `label_of` gives the label of a tag id; several tags may share one. Tags that are not in it
    are added up as others.
    """
    tenures = trace.tenures
    interval, which = covering(tenures.start, tenures.end, instants)
    labels = list(dict.fromkeys(label_of.values()))
    tags, tag_of = np.unique(tenures.tag, return_inverse=True)
    row_of_label = {label: row for row, label in enumerate(labels)}
    row_of_tag = np.array(
        [row_of_label.get(label_of.get(tag, ""), len(labels)) for tag in tags.tolist()], np.int64
    )
    table = np.zeros((len(labels) + 1, len(instants)), np.int64)
    if len(interval):
        np.add.at(table, (row_of_tag[tag_of.reshape(-1)[interval]], which), tenures.requested[interval])
    return Outstanding(trace.times[instants], dict(zip(labels, table, strict=False)), table[-1])
