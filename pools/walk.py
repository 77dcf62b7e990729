"""The blocks of a pool at one moment.

The core visits a million blocks in some ten milliseconds; making a Python object of each takes seconds.
So C copies the blocks that are wanted in one walk, and each becomes an object when somebody looks at it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import overload

from pools._native import CData, ffi, lib
from pools.errors import PoolValueError
from pools.stats import STATES, BlockInfo

__all__ = ["LIVE", "OWNED", "Walk", "info_of", "read_walk"]

OWNED = ("owned", "owned and in flight")
LIVE = ("free", "owned", "in flight", "owned and in flight")
"""With ``named``: all that somebody has or had a handle of, but for what is on its way home."""

_AT_ONCE = 1024
_LONGEST_SECONDS = 1e9


class Walk(Sequence[BlockInfo]):
    """Blocks in address order, all of one moment; like a list, but made as it is read."""

    def __init__(self, selection: CData, texts: dict[int, str]):
        self._selection = selection
        self._texts = texts

    def __len__(self) -> int:
        return int(self._selection.count)

    def _made(self, block: CData) -> BlockInfo:
        return info_of(block, self._text)

    def _text(self, label: int) -> str:
        return self._texts.get(label, "")

    @overload
    def __getitem__(self, index: int) -> BlockInfo: ...
    @overload
    def __getitem__(self, index: slice) -> list[BlockInfo]: ...
    def __getitem__(self, index: int | slice) -> BlockInfo | list[BlockInfo]:
        numbers = range(len(self))[index]
        if isinstance(numbers, range):
            return [self._made(self._selection.blocks[number]) for number in numbers]
        return self._made(self._selection.blocks[numbers])

    def __iter__(self) -> Iterator[BlockInfo]:
        blocks, count = self._selection.blocks, len(self)
        for first in range(0, count, _AT_ONCE):
            for block in ffi.unpack(blocks + first, min(_AT_ONCE, count - first)):
                yield self._made(block)

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Walk of {len(self)} block{'' if len(self) == 1 else 's'}>"


def info_of(block: CData, text: Callable[[int], str]) -> BlockInfo:
    """A ``pp_block_info`` as Python has it; ``text`` turns the id of a tag or site into its text."""
    return BlockInfo(
        block.handle,
        block.offset,
        block.requested,
        block.granted,
        STATES[block.state],
        text(block.tag),
        text(block.site),
        block.age_ns / 1e9,
        block.ordinal,
        (block.pins[0], block.pins[1], block.pins[2]),
    )


def read_walk(
    pool: CData,
    tag_text: Callable[[int], str],
    states: Sequence[str] = (),
    *,
    named: bool = False,
    min_age_seconds: float = 0.0,
) -> tuple[int, Walk]:
    """The status of a walk of a C pool, and its blocks; ``tag_text`` turns a tag id into its text.

    Only those in one of the ``states`` (none: all), that have a handle if ``named``, and are owned for at
    least so long. Raises ``PoolValueError`` for another word than those in ``STATES``.
    """
    selection = ffi.gc(ffi.new("pp_selection *"), lib.pp_selection_free)
    for state in states or STATES:
        if state not in STATES:
            raise PoolValueError(f"blocks that are {state!r}: give some of {', '.join(map(repr, STATES))}")
        selection.states |= 1 << STATES.index(state)
    selection.named = named
    if math.isnan(min_age_seconds):
        raise PoolValueError("blocks that are nan seconds old: give a number of seconds")
    selection.min_age_ns = int(min(max(min_age_seconds, 0.0), _LONGEST_SECONDS) * 1e9)
    status = lib.pp_pool_select(pool, selection)
    labels = ffi.unpack(selection.labels, selection.label_count) if selection.label_count else ()
    return int(status), Walk(selection, {label: tag_text(label) for label in labels})
