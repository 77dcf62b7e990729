"""Python's view of blocks: one lease, or a batch of them."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, TracebackType
from typing import TYPE_CHECKING

from pools._native import CData, ffi, lib
from pools.errors import DoubleRelease, PoolValueError, error_for

if TYPE_CHECKING:
    from pools.pool import Pool

__all__ = ["Batch", "Lease", "site_text"]

_INDEX = 0xFFFF_FFFF
_release = lib.pp_pool_release


def site_text(code: CodeType | None, instruction: int) -> str:
    """``function (file:line)`` for a code object and an instruction offset in it; empty for None."""
    if code is None:
        return ""
    line = code.co_firstlineno
    for start, end, number in code.co_lines():
        if start <= instruction < end and number is not None:
            line = number
    return f"{code.co_qualname} ({code.co_filename}:{line})"


class Lease:
    """One block, owned until ``release()``; also a context manager.

    A lease that is garbage-collected without release is a ``ResourceWarning``, and its
    block goes back to the pool, counted in ``pool.lost_leases``.
    """

    __slots__ = ("_address", "_buffer", "_code", "_instruction", "_view", "handle", "pool", "size")

    pool: Pool
    handle: int
    """The block's 64-bit name in the core; 0 once released or detached."""
    size: int
    """Bytes that ``view`` covers."""

    def __init__(
        self,
        pool: Pool,
        handle: int,
        address: CData | None,
        size: int,
        code: CodeType | None = None,
        instruction: int = 0,
    ):
        self.handle = handle
        self.pool = pool
        self.size = size
        self._address = address  # None where the pool knows it from the handle
        self._view: memoryview | None = None  # with _buffer, made when first asked for
        self._code = code
        self._instruction = instruction

    @property
    def view(self) -> memoryview:
        """The block as a writable memoryview of bytes, valid until the release.

        While any memoryview made from it lives, the block is not given to another owner:
        a release is then deferred until the last one is gone.
        """
        if self._view is None:
            if not self.handle:
                raise self._ended("view")
            self._buffer = self.pool._buffer_of(self)
            self._view = memoryview(self._buffer)
        return self._view

    @property
    def requested(self) -> int:
        """Bytes that were asked for."""
        return self.pool.inspect(self._live("requested")).requested

    @property
    def tag(self) -> str:
        """The label the block carries; empty for none."""
        return self.pool.inspect(self._live("tag")).tag

    @property
    def site(self) -> str:
        """Where the block was acquired: ``function (file:line)``; empty for blocks the engine acquired."""
        return site_text(self._code, self._instruction)

    @property
    def released(self) -> bool:
        """Whether the block is no longer this lease's."""
        return not self.handle

    def _ended(self, what: str) -> DoubleRelease:
        error = DoubleRelease(
            f"{what} of a lease of pool {self.pool.name!r}: the lease was already released or detached; "
            "acquire a new one"
        )
        error.status = "DOUBLE_RELEASE"
        return error

    def _live(self, what: str) -> int:
        if not self.handle:
            raise self._ended(what)
        return self.handle

    def read(self, offset: int = 0, size: int | None = None) -> bytes:
        """Copy ``size`` bytes from ``offset`` (default: to the end)."""
        self._live("read")
        end = self.size if size is None else offset + size
        self._check_range("read", offset, end)
        return bytes(self.view[offset:end])

    def write(self, data: bytes | bytearray | memoryview, offset: int = 0) -> int:
        """Copy ``data`` to ``offset``; returns the bytes written."""
        self._live("write")
        with memoryview(data).cast("B") as source:
            self._check_range("write", offset, offset + len(source))
            self.view[offset : offset + len(source)] = source
            return len(source)

    def _check_range(self, what: str, offset: int, end: int) -> None:
        if offset < 0 or end < offset or end > self.size:
            raise PoolValueError(
                f"{what} of bytes {offset} to {end}: the block has {self.size}; stay within 0 to {self.size}"
            )

    def resize(self, size: int) -> None:
        """Change the requested size. The block may move: earlier views must be gone.

        Raises ``BlockPinned`` while somebody looks at it or a pin holds it where it would have to
        move, ``PoolExhausted``, ``PoolValueError``, ``WrongThread``; the block is then as it was.
        """
        self.pool._resize(self, size)

    @contextmanager
    def pin(self) -> Iterator[memoryview]:
        """Keep the block where it is for the time of the with-block; gives a view of it."""
        handle = self._live("pin")
        pool = self.pool
        status = lib.pp_pool_pin(pool.native, handle, lib.PP_PIN_USER, ffi.NULL)
        if status:
            raise error_for(status, f"pin in pool {pool.name!r}")
        try:
            yield self.view
        finally:
            lib.pp_pool_unpin(pool.native, handle, lib.PP_PIN_USER)

    def release(self) -> None:
        """Give the block back. Raises ``DoubleRelease`` the second time."""
        handle = self.handle
        if not handle:
            raise self._ended("release")
        self.handle = 0
        if self._view is None:  # nobody can be looking
            status = _release(self.pool._c, handle)
            if status:
                raise error_for(status, f"release of block {handle & _INDEX} to pool {self.pool.name!r}")
            return
        self._view = None
        buffer, self._buffer = self._buffer, None
        self.pool._take_back(handle, buffer)

    def detach(self) -> int:
        """Give the ownership to C code: returns the handle; this lease is then at its end."""
        handle = self._live("detach")
        self.handle = 0
        if self._view is not None:
            self._view = None
            self._buffer = None
        return handle

    def __enter__(self) -> Lease:
        self._live("with")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self.handle:
            self.release()

    def __len__(self) -> int:
        return self.size

    def __repr__(self) -> str:
        state = f"block {self.handle & _INDEX}" if self.handle else "released"
        return f"<Lease {self.pool.name!r} {state} {self.size} bytes>"

    def __del__(self) -> None:
        if not getattr(self, "handle", 0) or sys is None or sys.is_finalizing():
            return
        self.pool.lost_leases += 1
        where = self.site
        try:
            warnings.warn(
                f"a lease of pool {self.pool.name!r} was lost without release, acquired "
                + (f"in {where}" if where else "by the engine")
                + "; release it or use it as a context manager",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
        finally:  # also where warnings are errors
            self.release()


class Batch:
    """Blocks that were acquired in one call and are released in one.

    Indexing gives a lease of one block, which then leaves the batch and is released by itself.
    """

    __slots__ = ("_blocks", "_code", "_count", "_instruction", "_taken", "pool")

    def __init__(self, pool: Pool, blocks: CData, count: int, code: CodeType, instruction: int):
        self.pool = pool
        self._blocks = blocks
        self._count = count
        self._taken = 0
        self._code = code
        self._instruction = instruction

    def __len__(self) -> int:
        """Blocks that the batch still owns."""
        return self._count - self._taken

    @property
    def handles(self) -> list[int]:
        """The handles of the blocks that the batch still owns."""
        return [block.handle for block in ffi.unpack(self._blocks, self._count) if block.handle]

    def take(self, index: int) -> Lease:
        """The block acquired as number ``index`` as a lease of its own."""
        if not -self._count <= index < self._count:
            raise IndexError(f"block {index} of a batch of {self._count}")
        block = self._blocks[index % self._count]
        if not block.handle:
            raise DoubleRelease(f"block {index} has left the batch already; keep the lease that take() gave")
        lease = self.pool._lease_class(
            self.pool, block.handle, block.data, block.size, self._code, self._instruction
        )
        block.handle = 0
        self._taken += 1
        return lease

    def __getitem__(self, index: int) -> Lease:
        return self.take(index)

    def __iter__(self) -> Iterator[Lease]:
        for index in range(self._count):
            if self._blocks[index].handle:
                yield self.take(index)

    def release(self) -> None:
        """Give every block back that the batch still owns; releasing twice raises ``DoubleRelease``."""
        self.pool.release_many(self)

    def __enter__(self) -> Batch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._count:
            self.release()

    def __repr__(self) -> str:
        return f"<Batch {self.pool.name!r} {len(self)} blocks>"

    def __del__(self) -> None:
        if not getattr(self, "_count", 0) or len(self) == 0 or sys is None or sys.is_finalizing():
            return
        self.pool.lost_leases += len(self)
        try:
            warnings.warn(
                f"a batch of {len(self)} blocks of pool {self.pool.name!r} was lost without release, "
                f"acquired in {site_text(self._code, self._instruction)}; "
                "call release_many(), or use it as a context manager",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
        finally:
            self.release()
