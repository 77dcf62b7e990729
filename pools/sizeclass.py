"""Blocks of any size, cut from slabs by size class."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Sequence
from typing import Any, Unpack

from pools._native import ffi, lib
from pools.errors import PoolValueError, error_for
from pools.learning import CLASSES_MAX, histogram, learn_classes
from pools.memory import OwnMemory
from pools.options import RegionOptions, create
from pools.parameters import power_of_two, text, whole
from pools.pool import Pool
from pools.trace import Trace

__all__ = ["SizeClassPool"]

_CAPACITY_MAX = 1 << 34
_BLOCK_MAX = 1 << 27


class SizeClassPool(OwnMemory, Pool):
    """Slabs by size class for requests of any size from 1 to ``max_block`` bytes.

    A request is granted the smallest class that holds it. By default there are eight classes to a
    doubling up to 32 KiB, so that at most 12.5 % of a block is waste (below 57 bytes: the next
    multiple of 8, at least 16); larger requests get whole pages of 4 KiB. ``classes`` replaces them
    by an ascending list of block sizes in bytes, at most 254; ``SizeClassPool.learn`` finds good
    ones. Memory moves between classes when a slab becomes empty.

    ``capacity`` is the hard limit of memory for blocks, in bytes, at most 16 GiB; it is reserved
    as address space and committed as needed. With ``on_exhausted="grow"`` a larger ``hard_limit`` takes
    its place. ``alignment`` holds for every block: a power of two
    from 8 to 4096; 0 means 8, and a block whose class is a multiple of a larger power of two is
    aligned to that. The other parameters are ``SlabPool``'s.

    Raises ``PoolValueError`` or ``OutOfMemory``.
    """

    strategy = "sizeclass"
    _larger = "create the pool with a larger capacity"
    _fits_and_yet = "other classes have the room, it fits by now, or a limit refuses it"
    _wider = "create the pool with a larger max_block"

    def __init__(
        self,
        max_block: int = 1 << 20,
        *,
        capacity: int = 1 << 30,
        classes: Sequence[int] | None = None,
        name: str = "sizeclass",
        alignment: int = 0,
        **options: Unpack[RegionOptions],
    ):
        _check_configuration(name, max_block, capacity, classes, alignment)
        about: dict[str, Any] = {
            "name": name,
            "max_block": max_block,
            "capacity": capacity,
            "alignment": alignment,
        }
        config = ffi.new("pp_sizeclass_config *")
        config.max_block_bytes = max_block
        config.capacity_bytes = capacity
        config.alignment = alignment
        if classes is not None:
            sizes = ffi.new("size_t[]", list(classes))
            config.classes = sizes
            config.class_count = len(classes)
        status, native = create(lib.pp_sizeclass_create, config, name, options, about)
        if status:
            raise error_for(
                status,
                f"SizeClassPool {name!r} with a capacity of {about['capacity']} bytes",
                f"it has at most {_CAPACITY_MAX}, to which on_exhausted='grow' raises it by hard_limit=",
            )
        self.max_block = max_block
        self.classes: tuple[int, ...] = _classes_of(native)
        """The block sizes in use, ascending, in bytes."""
        about["classes"] = list(self.classes)
        super().__init__(native, strict=options.get("strict", False), about=about)

    def granted(self, size: int) -> int:
        """The bytes that a request of ``size`` bytes gets. Raises ``PoolValueError`` if none."""
        if not 0 < operator.index(size) <= self.max_block:
            raise self._size_refusal(size)
        return lib.pp_sizeclass_granted(self._c, size)

    @staticmethod
    def learn(
        source: str | os.PathLike[str] | Trace | Iterable[int] | Iterable[tuple[int, int]],
        classes: int = 32,
        *,
        alignment: int = 8,
    ) -> list[int]:
        """The at most ``classes`` block sizes that waste the fewest bytes for these requests.

        ``source`` is a trace (its path, or the closed ``Trace``), an iterable of requested sizes in
        bytes, or one of (size, count) pairs. Each request counts once, however long the block
        lived. The result is exact, not a heuristic, for blocks aligned to ``alignment``; requests
        above 32 KiB are left out, since whole pages serve them. Pass it as ``classes``.

        Raises ``PoolValueError`` for sizes or counts below 1, no sizes at all, a number of classes
        outside 1 to 254, or a file that is not a trace; ``OSError`` if it cannot be read.
        """
        return learn_classes(histogram(source), classes, alignment)


def _check_configuration(
    name: str, max_block: int, capacity: int, classes: Sequence[int] | None, alignment: int
) -> None:
    of = f" of pool {text('name', name)!r}"
    whole("max_block", max_block, 1, _BLOCK_MAX, of)
    is_less = hasattr(capacity, "__index__") and 0 < operator.index(capacity) < max_block
    whole(
        "capacity",
        capacity,
        max_block,
        _CAPACITY_MAX,
        of,
        f"give max_block={max_block} to {_CAPACITY_MAX} bytes" + ", or a smaller max_block too" * is_less,
    )
    power_of_two("alignment", alignment, 8, 4096, of, zero=True)
    if classes is None:
        return
    if isinstance(classes, (str, bytes)) or not isinstance(classes, Sequence):
        raise TypeError(f"classes={classes!r}{of}: give a list of block sizes in bytes")
    if not 0 < len(classes) <= CLASSES_MAX:
        raise PoolValueError(f"{len(classes)} classes of pool {name!r}: give 1 to {CLASSES_MAX}")
    for index, (before, size) in enumerate(zip((0, *classes), classes, strict=False)):
        whole(
            f"classes[{index}]",
            size,
            before + 1,
            max_block,
            of,
            f"give ascending sizes from 1 to max_block={max_block}",
        )


def _classes_of(pool: Any) -> tuple[int, ...]:
    sizes = ffi.new("size_t[]", CLASSES_MAX)
    count = lib.pp_sizeclass_classes(pool, sizes, CLASSES_MAX)
    return tuple(ffi.unpack(sizes, count))
