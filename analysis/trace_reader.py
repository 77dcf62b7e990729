"""From a file of bytes to checked arrays.

The file is read, never mapped: a trace whose writer is still alive is cut when it closes, and a
page that vanishes under a mapping kills the reader. It is read in blocks of whole chunks, so
that what is allocated follows what the file holds and not what its header claims.

Two kinds of incomplete file are told apart. A trace that was never closed (its writer was
killed) is read up to the last whole record. A trace that was closed, but is shorter than its
header says, is a copy that went wrong: it is refused unless the caller asks for the part.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from analysis import layout, units
from analysis.errors import TraceError
from analysis.layout import ChunkKind, Op, TextKind

MAX_FILE_BYTES = 16 << 30
_CHUNKS_PER_READ = 256
_TEXT_KINDS = frozenset(int(kind) for kind in TextKind)

# A size or a place beyond these comes from no allocator; below them, sums stay exact in 64 bits.
_MAX_SIZE = 1 << 48
_MAX_PLACE = 1 << 62


@dataclass(frozen=True, slots=True)
class Header:
    """The file's header; see `pp_trace_header`."""

    version: int
    opened_unix_ns: int
    closed_ns: int
    chunks: int
    dropped: int
    process: int
    pointer_bytes: int
    writer: str


@dataclass(slots=True)
class RawTrace:
    """What a file holds, before anybody asks what it means."""

    header: Header
    records: npt.NDArray[np.void]  # dtype layout.RECORD, sorted by time
    texts: list[tuple[int, int, str]] = field(default_factory=list)  # kind, id, text
    warnings: list[str] = field(default_factory=list)
    complete: bool = True


def read(path: str | os.PathLike[str], *, partial: bool = False, max_bytes: int = MAX_FILE_BYTES) -> RawTrace:
    """Read and check a trace file; `TraceError` in every other case."""
    try:
        # Asked before opening, which would wait for the other end of a pipe.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise TraceError(f"{_name(path)} is not a regular file, so it cannot be a trace.")
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if status.st_size > max_bytes:
                raise TraceError(
                    f"{_name(path)} has {units.bytes_text(status.st_size)}, more than the limit of "
                    f"{units.bytes_text(max_bytes)}: record a shorter run."
                )
            return _read_open(file, status.st_size, _name(path), partial)
    except OSError as error:
        raise TraceError(f"{_name(path)} cannot be read: {error.strerror or error}.") from error
    except MemoryError as error:
        raise TraceError(f"{_name(path)} does not fit into memory: record a shorter run.") from error


def _name(path: str | os.PathLike[str]) -> str:
    return repr(str(Path(path)))


def _read_open(file: BinaryIO, size: int, name: str, partial: bool) -> RawTrace:
    header = _read_header(file.read(layout.HEADER_BYTES), name)
    closed = header.closed_ns != 0
    whole = (size - layout.HEADER_BYTES) // layout.CHUNK_BYTES
    raw = RawTrace(header, np.empty(0, layout.RECORD))
    if not closed:
        raw.complete = False
        raw.warnings.append("The trace was never closed: its program was killed, or is still running.")
    elif whole < header.chunks:
        if not partial:
            raise TraceError(
                f"{name} is cut off: it holds {whole} of {header.chunks} chunks. Copy it again, "
                f"or read what is there: --partial, in Python partial=True."
            )
        raw.complete = False
        raw.warnings.append(f"The file is cut off: it holds {whole} of {header.chunks} chunks.")
    if header.dropped:
        raw.complete = False
        raw.warnings.append(
            f"{units.count_text(header.dropped)} records were dropped because the file could not grow: "
            f"levels and leaks after that are not reliable."
        )

    parts: list[npt.NDArray[np.void]] = []
    limit = header.chunks if closed else None
    for first, chunks, present in _chunk_blocks(file, limit):
        heads = chunks[:, : layout.CHUNK_HEAD_BYTES].copy().view(layout.CHUNK_HEAD)[:, 0]
        _check_heads(heads, first, name)
        if present < layout.CHUNK_BYTES:
            heads["used"][-1] = 0  # it may count what was cut off: scan it instead
        parts.append(_records_of(chunks, heads, name))
        for index in np.flatnonzero(heads["kind"] == ChunkKind.TEXTS):
            cut_at = present if index == len(chunks) - 1 else layout.CHUNK_BYTES
            data = chunks[index, :cut_at].tobytes()
            used = int(heads["used"][index]) if closed else 0  # it is stored after the text it counts
            raw.texts.extend(_texts_of(data, used, first + int(index), name))
        if not closed and not heads["kind"].any():
            break  # the preallocated rest of the file
    records = np.concatenate(parts) if parts else raw.records
    _check_values(records, name)
    raw.records = _sorted_by_time(records)
    return raw


def _read_header(data: bytes, name: str) -> Header:
    if not data:
        raise TraceError(f"{name} is empty: the traced program ended before it wrote anything.")
    if not data.startswith(layout.TRACE_MAGIC[: len(data)]):
        raise TraceError(f"{name} is not a poolport trace: it does not begin with the trace signature.")
    if len(data) < layout.HEADER_BYTES:
        raise TraceError(
            f"{name} is cut off within its header: {len(data)} of {layout.HEADER_BYTES} bytes. Copy it again."
        )
    fields = np.frombuffer(data, layout.HEADER, count=1)[0]
    version = int(fields["version"])
    if version > layout.TRACE_VERSION:
        raise TraceError(
            f"{name} has trace version {version}, this poolport reads up to version "
            f"{layout.TRACE_VERSION}: upgrade with pip install --upgrade poolport."
        )
    if version < 1:
        raise TraceError(f"{name} has trace version {version}, which never existed: the file is damaged.")
    for what, expected in (
        ("header_bytes", layout.HEADER_BYTES),
        ("chunk_bytes", layout.CHUNK_BYTES),
        ("record_bytes", layout.RECORD_BYTES),
    ):
        if int(fields[what]) != expected:
            raise TraceError(
                f"{name} says {what} = {int(fields[what])} where version {version} has {expected}: "
                f"the file is damaged."
            )
    writer = bytes(fields["writer"]).decode("utf-8", "replace")
    return Header(
        version=version,
        opened_unix_ns=int(fields["opened_unix_ns"]),
        closed_ns=int(fields["closed_ns"]),
        chunks=int(fields["chunks"]),
        dropped=int(fields["dropped"]),
        process=int(fields["process"]),
        pointer_bytes=int(fields["pointer_bytes"]),
        writer=writer,
    )


def _chunk_blocks(file: BinaryIO, limit: int | None) -> Iterator[tuple[int, npt.NDArray[np.uint8], int]]:
    """Yield (number of the first chunk, chunks as rows of bytes, bytes present of the last one).

    A chunk cut short keeps its whole records and is padded with zeros.
    """
    first = 0
    while limit is None or first < limit:
        want = _CHUNKS_PER_READ if limit is None else min(_CHUNKS_PER_READ, limit - first)
        data = file.read(want * layout.CHUNK_BYTES)
        if not data:
            return
        cut = len(data) % layout.CHUNK_BYTES
        whole = cut // layout.RECORD_BYTES * layout.RECORD_BYTES  # a head is as long as a record
        missing = layout.CHUNK_BYTES - whole if cut else 0
        if cut:
            data = data[: len(data) - cut + whole] + bytes(missing)
        chunks = np.frombuffer(data, np.uint8).reshape(-1, layout.CHUNK_BYTES)
        yield first, chunks, layout.CHUNK_BYTES - missing
        first += len(chunks)


def _check_heads(heads: npt.NDArray[np.void], first: int, name: str) -> None:
    kinds = heads["kind"]
    begun = kinds != ChunkKind.NONE
    numbers = np.arange(first, first + len(heads))
    for wrong, what in (
        (begun & (heads["magic"] != layout.CHUNK_MAGIC), "has no chunk signature"),
        (~begun & (heads["magic"] != layout.CHUNK_MAGIC) & (heads["magic"] != b""), "has no chunk signature"),
        (kinds > ChunkKind.TEXTS, "is of a kind this version does not have"),
        (begun & (heads["sequence"] != numbers), "carries another chunk's number"),
        (
            (kinds == ChunkKind.RECORDS) & (heads["used"] > layout.RECORDS_PER_CHUNK),
            f"claims more than {layout.RECORDS_PER_CHUNK} records",
        ),
        (
            (kinds == ChunkKind.TEXTS) & (heads["used"] > layout.CHUNK_BYTES - layout.CHUNK_HEAD_BYTES),
            "claims more text than a chunk holds",
        ),
    ):
        if wrong.any():
            raise TraceError(f"{name} is damaged: chunk {numbers[wrong][0]} {what}.")


def _records_of(
    chunks: npt.NDArray[np.uint8], heads: npt.NDArray[np.void], name: str
) -> npt.NDArray[np.void]:
    """The written records of the RECORDS chunks, in file order."""
    wanted = heads["kind"] == ChunkKind.RECORDS
    rows: npt.NDArray[np.void] = chunks[wanted][:, layout.CHUNK_HEAD_BYTES :].view(layout.RECORD)
    ops = rows["op"]
    used = heads["used"][wanted]
    unwritten = ops == Op.NONE
    first_unwritten = np.where(unwritten.any(axis=1), unwritten.argmax(axis=1), layout.RECORDS_PER_CHUNK)
    if (first_unwritten < used).any():
        number = heads["sequence"][wanted][first_unwritten < used][0]
        raise TraceError(f"{name} is damaged: a record counted in chunk {number} was never written.")
    counts = np.where(used > 0, used, first_unwritten)
    written: npt.NDArray[np.void] = rows[np.arange(layout.RECORDS_PER_CHUNK) < counts[:, None]]
    return written


def _texts_of(data: bytes, used: int, number: int, name: str) -> Iterator[tuple[int, int, str]]:
    """Yield the texts of one chunk; one that runs into the cut end of the file is left out."""
    cut = len(data) < layout.CHUNK_BYTES
    end = layout.CHUNK_HEAD_BYTES + used if used else len(data)
    at = layout.CHUNK_HEAD_BYTES
    while at + layout.TEXT_HEAD.itemsize <= end:
        kind, identity, length, _ = struct.unpack_from("<4I", data, at)
        if kind == 0:
            return
        at += layout.TEXT_HEAD.itemsize
        if kind not in _TEXT_KINDS:
            raise TraceError(f"{name} is damaged: chunk {number} holds a text of unknown kind {kind}.")
        if length > end - at:
            if cut and length <= layout.CHUNK_BYTES:
                return
            raise TraceError(
                f"{name} is damaged: a text in chunk {number} claims {length} bytes, "
                f"where {end - at} are left."
            )
        yield kind, identity, data[at : at + length].decode("utf-8", "replace")
        at += -(-length // 8) * 8


def _check_values(records: npt.NDArray[np.void], name: str) -> None:
    """Refuse what no writer writes, so that everything later may compute in signed 64 bits."""
    if not len(records):
        return
    ops = records["op"]
    if int(ops.max()) >= layout.OP_COUNT:
        raise TraceError(
            f"{name} is damaged: a record has operation {int(ops.max())}, the last one known is "
            f"{layout.OP_COUNT - 1}."
        )
    if int(records["time_ns"].max()) >= _MAX_PLACE:
        raise TraceError(f"{name} is damaged: a record's time is {int(records['time_ns'].max())} ns.")
    sized = np.isin(ops, [Op.ALLOC, Op.FREE, Op.MOVE, Op.RESIZE, Op.REGION_ADD, Op.REGION_REMOVE, Op.LEAK])
    for fields, where, limit in (
        (("requested", "granted"), sized, _MAX_SIZE),
        (("offset",), sized, _MAX_PLACE),
        (("aux",), np.isin(ops, [Op.REGION_ADD, Op.REGION_REMOVE, Op.RESIZE]), _MAX_SIZE),
        (("aux",), np.isin(ops, [Op.MOVE, Op.LEAK, Op.PROCESS]), _MAX_PLACE),
        (("block", "granted", "requested", "offset", "aux"), ops == Op.SAMPLE, _MAX_SIZE),
        (("requested", "granted"), ops == Op.PROCESS, _MAX_PLACE),
    ):
        for column in fields:
            worst = int(records[column].max(initial=0, where=where))
            if worst >= limit:
                raise TraceError(f"{name} is damaged: a record's {column} is {worst}, beyond {limit}.")
    total = float(records["granted"].sum(where=ops == Op.ALLOC, dtype=np.float64))
    if total >= float(_MAX_PLACE):
        raise TraceError(f"{name} is damaged: its blocks add up to {total:.3g} bytes.")


def _sorted_by_time(records: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    times = np.ascontiguousarray(records["time_ns"])
    if not (times[1:] < times[:-1]).any():
        return records
    ordered: npt.NDArray[np.void] = records[np.argsort(times, kind="stable")]
    return ordered
