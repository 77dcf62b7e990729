"""The trace's bytes, as numpy sees them: the twin of `poolport/trace.h`.

Names, order and sizes follow the C header field by field; a test parses that header and
compares. Everything is little-endian.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

TRACE_VERSION = 1
HEADER_BYTES = 65536
CHUNK_BYTES = 65536
CHUNK_HEAD_BYTES = 64
RECORD_BYTES = 64
RECORDS_PER_CHUNK = 1023

FLAG_BORN_BEFORE = 1

TRACE_MAGIC = b"PPTRACE\n"
CHUNK_MAGIC = b"PPck"


class Op(IntEnum):
    """What a record tells: `pp_trace_op`."""

    NONE = 0
    ALLOC = 1
    FREE = 2
    MOVE = 3
    PIN = 4
    UNPIN = 5
    DISCARD_ALL = 6
    FAIL = 7
    REGION_ADD = 8
    REGION_REMOVE = 9
    SAMPLE = 10
    PROCESS = 11
    MARK = 12
    RESIZE = 13
    LEAK = 14


OP_COUNT = len(Op)


class ChunkKind(IntEnum):
    """What a chunk holds: `pp_trace_chunk_kind`."""

    NONE = 0
    RECORDS = 1
    TEXTS = 2


class TextKind(IntEnum):
    """What a text is about: `pp_trace_text_kind`."""

    TAG = 1
    STACK = 2
    POOL = 3
    NOTE = 4


RECORD = np.dtype(
    [
        ("time_ns", "<u8"),
        ("block", "<u8"),
        ("offset", "<u8"),
        ("requested", "<u8"),
        ("granted", "<u8"),
        ("aux", "<u8"),
        ("thread", "<u4"),
        ("tag", "<u4"),
        ("stack", "<u4"),
        ("pool", "<u2"),
        ("op", "u1"),
        ("flags", "u1"),
    ]
)

CHUNK_HEAD = np.dtype(
    [
        ("magic", "S4"),
        ("kind", "<u4"),
        ("sequence", "<u4"),
        ("thread", "<u4"),
        ("used", "<u4"),
        ("reserved0", "<u4"),
        ("first_ns", "<u8"),
        ("last_ns", "<u8"),
        ("reserved1", "<u8", (3,)),
    ]
)

TEXT_HEAD = np.dtype([("kind", "<u4"), ("id", "<u4"), ("bytes", "<u4"), ("reserved", "<u4")])

HEADER = np.dtype(
    [
        ("magic", "S8"),
        ("version", "<u4"),
        ("header_bytes", "<u4"),
        ("chunk_bytes", "<u4"),
        ("record_bytes", "<u4"),
        ("opened_unix_ns", "<u8"),
        ("closed_ns", "<u8"),
        ("chunks", "<u8"),
        ("dropped", "<u8"),
        ("process", "<u4"),
        ("pointer_bytes", "<u4"),
        ("writer", "S64"),
    ]
)
