"""The plain shape of a pool: ``allocate()`` and ``deallocate(block)``."""

from __future__ import annotations

import weakref
from types import TracebackType

from pools._native import lib
from pools.errors import error_for
from pools.leaks import LeakReport, leave
from pools.lease import Lease
from pools.slab import SlabPool

__all__ = ["MemoryPool"]


class MemoryPool:
    """``block_count`` blocks of ``block_size`` bytes, each a writable memoryview while it is allocated.

    For programs that were written for such a pool: a block is known by the object that ``allocate()``
    gave, never by its content or address, so one that comes round again is another object, and what was
    deallocated can be neither used nor deallocated once more. Any thread may do everything. New programs
    use ``SlabPool``, whose leases say where they were acquired when they are lost.

    Raises ``PoolValueError`` for sizes out of range, ``OutOfMemory``.
    """

    def __init__(self, block_size: int, block_count: int, *, name: str = "memory pool"):
        self._pool = SlabPool(block_size, block_count, name=name, thread_safe=True)
        self._taken: dict[int, tuple[memoryview, Lease]] = {}  # by the identity of the block
        self._outlived: dict[int, weakref.ref[memoryview]] = {}  # deallocated, but exported by an array
        self.block_size = block_size
        self.block_count = block_count

    def allocate(self) -> memoryview:
        """A block of ``block_size`` bytes, with whatever its last owner left in it.

        Raises ``PoolExhausted`` when all are taken, ``PoolClosed`` after ``close()``.
        """
        lease = self._pool.acquire()
        block = lease.view
        self._taken[id(block)] = block, lease
        return block

    def deallocate(self, block: memoryview) -> None:
        """Give a block back; the object can no longer be used then.

        A slice or array made from it still can, and keeps the memory from being allocated again until the
        last of them is gone.

        Raises ``DoubleRelease`` for a block that was deallocated before, ``ForeignBlock`` for anything
        else that did not come from this pool's ``allocate()``.
        """
        key = id(block)
        if key not in self._taken:
            raise self._refusal(block)
        # It shows that it is given back before it is no longer taken, so that of several threads those who
        # come too late see the one or the other.
        try:
            block.release()
        except BufferError:  # an array exports it: the lease waits for that
            outlived = self._outlived
            outlived[key] = weakref.ref(block, lambda _: outlived.pop(key, None))
        taken = self._taken.pop(key, None)
        if taken is None:
            raise self._refusal(block)
        taken[1].release()

    def _refusal(self, block: object) -> Exception:
        what = f"deallocate of {block!r} in pool {self._pool.name!r}"
        if id(block) in self._outlived or _is_released(block):
            return error_for(lib.PP_DOUBLE_RELEASE, what, "deallocate each block once")
        return error_for(
            lib.PP_FOREIGN, what, "give the very object that allocate() returned, not a copy or a slice"
        )

    @property
    def available(self) -> int:
        """Blocks that ``allocate()`` can give now."""
        levels = self._pool.stats()
        return int(levels.free_blocks + levels.cached_blocks)

    def close(self) -> LeakReport:
        """Refuse every later ``allocate()`` and say what is still allocated, which stays usable."""
        return self._pool.close()

    def __enter__(self) -> MemoryPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        leave(self._pool, error, stacklevel=3)

    def __repr__(self) -> str:
        return f"<MemoryPool {self._pool.name!r} {self.available} of {self.block_count} blocks available>"


def _is_released(block: object) -> bool:
    if not isinstance(block, memoryview):
        return False
    try:
        len(block)
    except ValueError:
        return True
    return False
