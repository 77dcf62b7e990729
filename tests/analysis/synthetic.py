"""Writes traces byte by byte, from a list of events, without the package under test.

`TraceBuilder` knows the format by `struct` alone, so that a mistake in the reader's dtypes cannot
hide in its own tests. `workload` draws a seeded random history and keeps the levels in plain Python.
"""

from __future__ import annotations

import json
import random
import struct
from dataclasses import dataclass, field
from pathlib import Path

HEADER = 65536
CHUNK = 65536
PER_CHUNK = 1023

ALLOC, FREE, MOVE, PIN, UNPIN, DISCARD_ALL, FAIL = 1, 2, 3, 4, 5, 6, 7
REGION_ADD, REGION_REMOVE, SAMPLE, PROCESS, MARK, RESIZE, LEAK = 8, 9, 10, 11, 12, 13, 14
BORN_BEFORE = 1
TAG, STACK, POOL, NOTE = 1, 2, 3, 4


@dataclass
class TraceBuilder:
    """Collects events and writes them as a trace file."""

    records: list[tuple[int, bytes]] = field(default_factory=list)  # thread, 64 bytes
    texts: list[tuple[int, int, bytes]] = field(default_factory=list)  # kind, id, text
    ids: dict[tuple[int, str], int] = field(default_factory=dict)
    version: int = 1
    dropped: int = 0

    def text(self, kind: int, text: str) -> int:
        if not text:
            return 0
        if (kind, text) not in self.ids:
            self.ids[kind, text] = len(self.ids) + 1
            self.texts.append((kind, self.ids[kind, text], text.encode()))
        return self.ids[kind, text]

    def pool(self, number: int = 1, **about: object) -> None:
        self.texts.append((POOL, number, json.dumps(about).encode()))

    def note(self, key: str, value: object) -> None:
        self.texts.append((NOTE, 0, f"{key}={value}".encode()))

    def event(
        self,
        op: int,
        time: int,
        *,
        block: int = 0,
        offset: int = 0,
        requested: int = 0,
        granted: int = 0,
        aux: int = 0,
        tag: str = "",
        stack: str = "",
        pool: int = 1,
        thread: int = 7,
        flags: int = 0,
    ) -> None:
        names = (self.text(TAG, tag), self.text(STACK, stack))
        packed = struct.pack(
            "<6Q3IHBB", time, block, offset, requested, granted, aux, thread, *names, pool, op, flags
        )
        self.records.append((thread, packed))

    def alloc(
        self, time: int, block: int, offset: int, requested: int, granted: int = 0, **rest: object
    ) -> None:
        self.event(
            ALLOC, time, block=block, offset=offset, requested=requested, granted=granted or requested, **rest
        )

    def free(
        self, time: int, block: int, offset: int = 0, requested: int = 0, granted: int = 0, **rest: object
    ) -> None:
        self.event(
            FREE, time, block=block, offset=offset, requested=requested, granted=granted or requested, **rest
        )

    def region(self, time: int, offset: int, size: int, metadata: int = 0, **rest: object) -> None:
        self.event(REGION_ADD, time, offset=offset, granted=size, aux=metadata, **rest)

    def sample(self, time: int, R: int, B: int, Q: int, F: int, L: int, **rest: object) -> None:  # noqa: N803
        self.event(SAMPLE, time, block=R, granted=B, requested=Q, offset=F, aux=L, **rest)

    def process(self, time: int, resident: int, cpu_ns: int) -> None:
        self.event(PROCESS, time, aux=resident, requested=cpu_ns, pool=0)

    def to_bytes(self, *, closed: bool = True, sealed: bool | None = None) -> bytes:
        """The whole file. An unsealed chunk has `used` 0, as one whose writer was killed."""
        sealed = closed if sealed is None else sealed
        chunks = self._text_chunks() + self._record_chunks(sealed)
        numbered = [self._numbered(chunk, at) for at, chunk in enumerate(chunks)]
        end = max((struct.unpack_from("<Q", record)[0] for _, record in self.records), default=0)
        header = struct.pack(
            "<8s4I4QII64s", b"PPTRACE\n", self.version, HEADER, CHUNK, 64, 1_700_000_000_000_000_000,
            end + 1 if closed else 0, len(chunks) if closed else 0, self.dropped, 4242, 8, b"poolport 0.1.0",
        )  # fmt: skip
        return header.ljust(HEADER, b"\0") + b"".join(numbered)

    def write(self, path: Path, *, closed: bool = True, sealed: bool | None = None) -> Path:
        path.write_bytes(self.to_bytes(closed=closed, sealed=sealed))
        return path

    @staticmethod
    def _numbered(chunk: bytes, sequence: int) -> bytes:
        return chunk[:8] + struct.pack("<I", sequence) + chunk[12:]

    def _text_chunks(self) -> list[bytes]:
        chunks, body = [], b""
        for kind, identity, text in self.texts:
            entry = struct.pack("<4I", kind, identity, len(text), 0) + text
            entry += bytes(-len(entry) % 8)
            if len(body) + len(entry) > CHUNK - 64:
                chunks.append(body)
                body = b""
            body += entry
        if body:
            chunks.append(body)
        return [
            (struct.pack("<4s5I5Q", b"PPck", 2, 0, 1, len(body), 0, 0, 0, 0, 0, 0) + body).ljust(CHUNK, b"\0")
            for body in chunks
        ]

    def _record_chunks(self, sealed: bool) -> list[bytes]:
        chunks = []
        for thread in dict.fromkeys(thread for thread, _ in self.records):
            mine = [record for owner, record in self.records if owner == thread]
            for at in range(0, len(mine), PER_CHUNK):
                part = mine[at : at + PER_CHUNK]
                times = [struct.unpack_from("<Q", record)[0] for record in (part[0], part[-1])]
                used = len(part) if sealed else 0
                head = struct.pack("<4s5I5Q", b"PPck", 1, 0, thread, used, 0, *times, 0, 0, 0)
                chunks.append((head + b"".join(part)).ljust(CHUNK, b"\0"))
        return chunks


@dataclass
class Workload:
    """A random history of one slab-like pool, and what is true of it."""

    builder: TraceBuilder
    requested: list[int]  # Q after each record
    granted: list[int]  # B
    blocks: list[int]  # live
    free: list[int]  # F
    extents: list[list[int]]  # sizes of the free extents, in order of address
    end: int  # time of the last record


def workload(seed: int, steps: int = 300, slots: int = 24, slot: int = 4096, *, leak: int = 0) -> Workload:
    """Blocks of one size come and go; `leak` of those live at the end get LEAK records."""
    rng = random.Random(seed)
    builder = TraceBuilder()
    builder.pool(1, name="recv", strategy="slab")
    builder.note("strategy", "slab")
    builder.note("seed", seed)
    metadata = 1000
    size = slots * slot
    held: dict[int, tuple[int, int, str]] = {}  # slot -> handle, requested, tag
    levels: tuple[list[int], ...] = ([], [], [], [])
    extents: list[list[int]] = []
    time = 0
    handle = 0

    def note_levels() -> None:
        q = sum(requested for _, requested, _ in held.values())
        b = len(held) * slot
        for column, value in zip(levels, (q, b, len(held), size - b), strict=True):
            column.append(value)
        runs, run = [], 0
        for index in range(slots):
            if index in held:
                runs.append(run)
                run = 0
            else:
                run += slot
        extents.append([length for length in (*runs, run) if length])

    builder.region(time, 0, size, metadata)
    note_levels()
    for _ in range(steps):
        time += rng.randrange(0, 5) * 100_000
        choice = rng.random()
        if choice < 0.08:
            q, b = sum(entry[1] for entry in held.values()), len(held) * slot
            builder.sample(time, size + metadata, b, q, size - b, max(extents[-1], default=0))
        elif choice < 0.11:
            builder.process(time, 10_000_000 + len(held) * slot, time)
        elif len(held) == slots or (held and choice < 0.5):
            index = rng.choice(sorted(held))
            old, requested, tag = held.pop(index)
            builder.free(time, old, index * slot, requested, slot, tag=tag)
        else:
            index = rng.choice([index for index in range(slots) if index not in held])
            handle += 1
            held[index] = (
                1 << 56 | handle << 32 | index,
                rng.randrange(1, slot + 1),
                f"conn-{rng.randrange(6)}",
            )
            block, requested, tag = held[index]
            builder.alloc(time, block, index * slot, requested, slot, tag=tag, stack="serve (server.py:10)")
        note_levels()
    for index in sorted(held)[:leak]:
        block, requested, tag = held[index]
        builder.event(
            LEAK, time, block=block, offset=index * slot, requested=requested, granted=slot, tag=tag,
            stack="serve (server.py:10)",
        )  # fmt: skip
        note_levels()
    return Workload(builder, *levels, extents, time)
