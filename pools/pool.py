"""What every pool has, whatever its strategy."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Callable, Iterable
from types import CodeType, FrameType, TracebackType
from typing import Any, ClassVar

from pools._native import CData, ffi, lib
from pools.errors import LeakError, PoolCorrupt, PoolError, PoolValueError, error_for
from pools.leaks import Leak, LeakReport
from pools.lease import Batch, Lease, site_text
from pools.stats import STATES, BlockInfo, read_stats, read_walk
from pools.trace import Trace

__all__ = ["Pool"]

_INDEX = 0xFFFF_FFFF
_HANDLE_MIN = 1 << 32  # pp_pool_acquire_handle(): smaller results are statuses
_BATCH_MAX = 1 << 24
_NAME_TRACED = 200
_BLOCKS = ffi.typeof("pp_block[]")


class _ReferenceProbe:
    """Stands in for a pool once, to learn how many references a buffer has that nobody exports.

    The number depends on how the interpreter passes arguments, so it is measured on the very
    path that ``Lease.release`` takes, not assumed.
    """

    name = "probe"
    seen = 0

    def _buffer_of(self, lease: Lease) -> CData:  # noqa: ARG002  # the signature of Pool's
        return ffi.buffer(ffi.new("char[1]"))

    def _take_back(self, handle: int, buffer: CData) -> None:  # noqa: ARG002  # the signature of Pool's
        self.seen = sys.getrefcount(buffer)


def _references_on_release() -> int:
    probe = _ReferenceProbe()
    lease = Lease(probe, _HANDLE_MIN, None, 1)  # type: ignore[arg-type]
    assert len(lease.view) == 1
    lease.release()
    return probe.seen


def _references_to(pair: tuple[int, CData]) -> int:
    """References to the buffer that a pair of handle and buffer holds."""
    return sys.getrefcount(pair[1])


def _untraced(measure: Callable[[], int]) -> int:
    """A measurement that no debugger, looking at the frames, adds references to."""
    tracer, profiler = sys.gettrace(), sys.getprofile()
    sys.settrace(None)
    sys.setprofile(None)
    try:
        return measure()
    finally:
        sys.settrace(tracer)
        sys.setprofile(profiler)


_RELEASED_AT_REST = _untraced(_references_on_release)
_LISTED_AT_REST = _untraced(lambda: _references_to((0, ffi.buffer(ffi.new("char[1]")))))


class Pool:
    """Base class: acquire, release, look, close. Create a ``SlabPool`` or another strategy.

    Threads: without ``thread_safe`` the creating thread (or the one that called ``adopt()``)
    acquires and any thread releases; with it every thread does everything.
    """

    strategy: str = ""
    _lease_class: ClassVar[type[Lease]] = Lease

    def __init__(self, native: CData, *, strict: bool, about: dict[str, Any]):
        self._c: CData = ffi.gc(native, lib.pp_pool_destroy)
        self.name: str = about["name"]
        self.lost_leases = 0
        """Leases that were garbage-collected without release."""
        self._strict = strict
        self._about = about
        self._default_size: int = about.get("block_size", 0)
        self._tags: dict[str, int] = {}
        self._marked_site = 0
        self._sites: dict[tuple[CodeType, int], int] = {}
        # Released while somebody looked at them. Each call on it is atomic and there is no lock: a
        # lease can be collected, and so released, in the middle of any other call of this thread.
        self._exported: deque[tuple[int, CData]] = deque()
        self._trace: Trace | None = None
        self._closed = False
        self._provider: CData = ffi.new("pp_provider *")
        lib.pp_pool_provider(self._c, self._provider)
        # What a buffer's pointer keeps alive: the C pool, and so the memory it points into.
        self._keep_memory = _Keeper(self._c)

    # ---- blocks --------------------------------------------------------------------

    @property
    def native(self) -> CData:
        """The C pool, for code that calls the core itself."""
        return self._c

    @property
    def provider_address(self) -> int:
        """Address of this pool's ``pp_provider`` table, valid while the pool object lives."""
        return int(ffi.cast("uintptr_t", self._provider))

    def acquire(self, size: int | None = None, tag: str | int = 0) -> Lease:
        """One block of at least ``size`` bytes (default: the block size), labelled ``tag``.

        Raises ``PoolExhausted``, ``PoolValueError`` (size out of range), ``PoolClosed``,
        ``WrongThread`` or ``OutOfMemory``.
        """
        frame = sys._getframe(1)
        size = self._default_size if size is None else size
        tag = self._prepare(size, tag, frame)
        block = ffi.new("pp_block *")
        status = lib.pp_pool_acquire(self._c, size, tag, block)
        if self._trace is not None:
            self._site_done()
        if status:
            raise self._refusal(status, 1, size)
        return self._lease_class(self, block.handle, block.data, block.size, frame.f_code, frame.f_lasti)

    def _prepare(self, size: int, tag: str | int, frame: FrameType) -> int:
        """What precedes every acquire; gives the tag's number."""
        if not 0 < size <= self._provider.max_bytes:
            raise PoolValueError(
                f"a block of {size} bytes from pool {self.name!r}: "
                f"it serves 1 to {self._provider.max_bytes} bytes"
            )
        if self._exported:
            self._sweep()
        if self._trace is not None:
            self._set_site(frame.f_code, frame.f_lasti)
        return tag if isinstance(tag, int) else self.tag(tag)

    def acquire_many(self, count: int, size: int | None = None, tag: str | int = 0) -> Batch:
        """``count`` blocks in one call, all or none; a block then costs a few nanoseconds.

        Raises what ``acquire`` raises.
        """
        frame = sys._getframe(1)
        if not 0 < count <= _BATCH_MAX:
            raise PoolValueError(f"acquire_many of {count} blocks: ask for 1 to {_BATCH_MAX}")
        size = self._default_size if size is None else size
        tag = self._prepare(size, tag, frame)
        blocks = ffi.new(_BLOCKS, count)
        status = lib.pp_pool_acquire_batch(self._c, count, size, tag, blocks)
        if self._trace is not None:
            self._site_done()
        if status:
            raise self._refusal(status, count, size)
        return Batch(self, blocks, count, frame.f_code, frame.f_lasti)

    def release(self, lease: Lease) -> None:
        """Give a lease of this pool back; the same as ``lease.release()``.

        Raises ``ForeignBlock`` for another pool's lease and ``DoubleRelease`` for one released.
        """
        if lease.pool is not self:
            raise error_for(_FOREIGN, f"release of a lease of pool {lease.pool.name!r} to pool {self.name!r}")
        lease.release()

    def release_many(self, batch: Batch | Iterable[Lease]) -> None:
        """Give back a whole batch in one call, or each lease of an iterable.

        Every good block is released; then the first failure, if any, is raised.
        """
        if not isinstance(batch, Batch):
            self._release_each(batch)
            return
        if batch.pool is not self:
            raise error_for(_FOREIGN, f"release of a batch of pool {batch.pool.name!r} to pool {self.name!r}")
        if not batch._count:
            raise error_for(_DOUBLE_RELEASE, f"release of a batch of pool {self.name!r}")
        count, batch._count = batch._count, 0
        owned, batch._taken = count - batch._taken, 0
        why = ffi.new("pp_status *")
        if lib.pp_pool_release_blocks(self._c, batch._blocks, count, why) < owned:
            raise error_for(why[0], f"release of a batch of {owned} blocks of pool {self.name!r}")

    def _release_each(self, leases: Iterable[Lease]) -> None:
        first: PoolError | None = None
        for lease in leases:
            try:
                self.release(lease)
            except PoolError as error:
                first = first or error
        if first is not None:
            raise first

    def lease(self, handle: int, address: int, size: int) -> Lease:
        """Wrap a block that C code acquired from this pool's provider and hands over."""
        return self._lease_class(self, handle, ffi.cast("char *", address), size)

    def _buffer_of(self, lease: Lease) -> CData:
        """A buffer over the lease's block, whose life keeps the pool's memory mapped."""
        return self._buffer(lease._address, lease.size)

    def _buffer(self, address: CData, size: int) -> CData:
        return ffi.buffer(ffi.gc(ffi.cast("char *", address), self._keep_memory), size)

    _cached_references: ClassVar[int] = 0
    """References to a buffer that the strategy itself keeps."""

    def _take_back(self, handle: int, buffer: CData) -> None:
        """Release a handle, or wait with it while somebody still looks at the block."""
        if sys.getrefcount(buffer) > _RELEASED_AT_REST + self._cached_references:
            self._exported.append((handle, buffer))
            return
        status = lib.pp_pool_release(self._c, handle)
        if status:
            raise error_for(status, f"release of block {handle & _INDEX} to pool {self.name!r}")

    def _sweep(self) -> None:
        """Release what was exported when its owner released it and is no longer."""
        at_rest = _LISTED_AT_REST + self._cached_references
        for _ in range(len(self._exported)):
            try:
                pair = self._exported.popleft()
            except IndexError:
                return  # another thread sweeps as well
            if _references_to(pair) > at_rest:
                self._exported.append(pair)
            else:
                lib.pp_pool_release(self._c, pair[0])

    def _is_viewed(self, lease: Lease) -> bool:
        """Whether anybody but the lease looks at its block; if not, the lease's own view is dropped."""
        if lease._view is None:
            return False
        lease._view = None
        if _references_to((lease.handle, lease._buffer)) > _LISTED_AT_REST + self._cached_references + 1:
            lease._view = memoryview(lease._buffer)  # so that its release waits for the others
            return True
        lease._buffer = None
        return False

    def _resize(self, lease: Lease, size: int) -> None:
        handle = lease._live("resize")
        if self._is_viewed(lease):
            raise error_for(
                _PINNED,
                f"resize of a block of pool {self.name!r} to {size} bytes",
                "somebody looks at it: drop every view first, and take lease.view again afterwards",
            )
        block = ffi.new("pp_block *")
        status = lib.pp_pool_resize(self._c, handle, min(max(size, 0), self._provider.max_bytes + 1), block)
        if status == _EXHAUSTED:
            raise self._refusal(status, 1, size)
        if status:
            raise error_for(status, f"resize of a block of pool {self.name!r} to {size} bytes")
        lease._address = block.data
        lease.size = block.size

    def _refusal(self, status: int, count: int, size: int) -> Exception:
        what = f"acquire of {count} x {size} bytes" if count > 1 else f"acquire of {size} bytes"
        what += f" from pool {self.name!r}"
        if status != _EXHAUSTED:
            return error_for(status, what)
        levels = self.stats()
        extents = max(levels.free_extents, 1)
        fits = levels.largest_free_bytes >= size
        index = -1.0 if fits else 1 - (1 + levels.free_bytes / size) / extents
        tag, held = ffi.new("uint32_t *"), ffi.new("uint64_t *")
        lib.pp_pool_top_tag(self._c, tag, held)
        holder = f"; tag {self.tag_text(tag[0])!r} holds the most, {held[0]} bytes" if tag[0] else ""
        return error_for(
            status,
            f"{what} ({levels.live_blocks} of {levels.capacity_blocks or 'any number of'} blocks live, "
            f"{levels.free_bytes} bytes free, the largest free extent {levels.largest_free_bytes}, "
            f"fragmentation index {index:.2f}{holder})",
            self._remedy_when_exhausted(),
        )

    def _remedy_when_exhausted(self) -> str:
        return "release blocks sooner, or create the pool larger"

    # ---- tags and sites ----------------------------------------------------------------

    def tag(self, text: str) -> int:
        """Intern a label; the same text gives the same number, which every call takes for ``tag``.

        Raises ``PoolValueError`` for an empty text or one longer than 4096 bytes of UTF-8.
        """
        known = self._tags.get(text)
        if known is not None:
            return known
        data = text.encode("utf-8", "surrogatepass")
        out = ffi.new("uint32_t *")
        status = lib.pp_pool_tag(self._c, data, len(data), out)
        if status:
            raise error_for(status, f"a tag of {len(data)} bytes", "use 1 to 4096 bytes of UTF-8")
        self._tags[text] = out[0]
        return int(out[0])

    def tag_text(self, tag: int) -> str:
        """The text of a tag number; empty for 0 and for numbers never given."""
        size = ffi.new("size_t *")
        text = lib.pp_pool_tag_text(self._c, tag, size)
        return "" if text == ffi.NULL else bytes(ffi.buffer(text, size[0])).decode("utf-8", "replace")

    def mark_site(self, text: str) -> None:
        """The acquisition site that blocks carry which C code acquires from now on; empty for none."""
        self._marked_site = self.tag(text) if text else 0
        self._site_done()

    def _site_done(self) -> None:
        """What C code acquires from here on is not from the line of Python that acquired last."""
        lib.pp_pool_set_site(self._c, self._marked_site)

    def _set_site(self, code: CodeType, instruction: int) -> None:
        number = self._sites.get((code, instruction))
        if number is None:
            number = self._sites[code, instruction] = self.tag(site_text(code, instruction)[:1000])
        lib.pp_pool_set_site(self._c, number)

    # ---- the pool as a whole --------------------------------------------------------------

    def stats(self) -> Any:
        """Levels and counters now, as a frozen ``PoolStats``; see ``pools.STATISTICS``."""
        return read_stats(self._c)

    def walk(self) -> list[BlockInfo]:
        """Every block in address order, free ones included. Raises ``WrongThread``."""
        status, blocks = read_walk(self._c, self.tag_text)
        if status:
            raise error_for(status, f"walk of pool {self.name!r}")
        return blocks

    def inspect(self, handle: int) -> BlockInfo:
        """One block by its handle. Raises ``StaleHandle``, ``ForeignBlock`` or ``WrongThread``."""
        info = ffi.new("pp_block_info *")
        status = lib.pp_pool_inspect(self._c, handle, info)
        if status:
            raise error_for(status, f"inspect of block {handle & _INDEX} of pool {self.name!r}")
        return BlockInfo(
            info.handle, info.offset, info.requested, info.granted, STATES[info.state],
            self.tag_text(info.tag), self.tag_text(info.site), info.age_ns / 1e9, info.ordinal,
            (info.pins[0], info.pins[1], info.pins[2]),
        )  # fmt: skip

    def check(self) -> None:
        """Validate every invariant of the structure. Raises ``PoolCorrupt`` or ``WrongThread``."""
        fault = ffi.new("pp_fault *")
        status = lib.pp_pool_check(self._c, fault)
        if status == _CORRUPT:
            raise PoolCorrupt(
                f"pool {self.name!r}: {str(ffi.string(fault.what), 'ascii')}, at {fault.where}; "
                "please report this"
            )
        if status:
            raise error_for(status, f"check of pool {self.name!r}")

    def trim(self, keep_bytes: int = 0) -> int:
        """Return the memory of free blocks to the system, but for ``keep_bytes``; the bytes returned."""
        return lib.pp_pool_trim(self._c, max(keep_bytes, 0))

    def adopt(self) -> None:
        """Make the calling thread the owner of an owner-only pool. Raises ``Unsupported`` if shared."""
        status = lib.pp_pool_adopt(self._c)
        if status:
            raise error_for(status, f"adopt of pool {self.name!r}", "a thread-safe pool needs no owner")

    # ---- tracing -------------------------------------------------------------------------

    def attach(self, trace: Trace | None) -> None:
        """Send every later event to ``trace``, live blocks first; None stops it."""
        native = ffi.NULL if trace is None else trace.native
        # A text of a trace has a limit, and half an object is none.
        about = json.dumps(
            self._about | {"name": self.name[:_NAME_TRACED], "strategy": self.strategy}
        ).encode()
        status = lib.pp_pool_trace(self._c, native, about)
        if status:
            raise error_for(status, f"attach of pool {self.name!r} to a trace")
        if self._trace is not None:
            self._trace._pools.discard(self)
        self._trace = trace
        if trace is not None:
            trace._pools.add(self)
        else:
            self._site_done()

    def sample(self, interval_seconds: float = 0.0) -> None:
        """Write the pool's levels to the trace, at most once per interval."""
        lib.pp_pool_sample(self._c, int(interval_seconds * 1e9))

    # ---- the end ---------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""
        return self._closed

    def close(self) -> LeakReport:
        """Refuse every later acquire and say what is still live.

        Leases may still be released afterwards; the memory is freed when the last of them,
        the last view and the pool object are gone. Raises ``LeakError`` if the pool was
        created with ``strict=True`` and something is live, ``WrongThread`` if not the owner.
        """
        self._sweep()
        exported = {handle for handle, _ in list(self._exported)}
        live = [block for block in self.walk() if block.handle and block.state != "cached"]
        report = LeakReport(
            self.name,
            tuple(
                Leak(b.tag, b.site, b.age_seconds, b.requested, b.granted, b.state, b.handle in exported)
                for b in live
            ),
        )
        lib.pp_pool_close(self._c)
        if self._trace is not None:
            self.attach(None)
        self._closed = True
        if not live:
            self.trim()
        if live and self._strict:
            raise LeakError(str(report))
        return report

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if not self._closed:
            self.close()

    def __repr__(self) -> str:
        levels = self.stats()
        return (
            f"<{type(self).__name__} {self.name!r} {levels.live_blocks} live, {levels.free_bytes} bytes free"
            f"{', closed' if self._closed else ''}>"
        )


class _Keeper:
    """Keeps a C pool alive for as long as some buffer points into it."""

    __slots__ = ("_native",)

    def __init__(self, native: CData):
        self._native = native

    def __call__(self, pointer: CData) -> None:
        """Called by cffi when the pointer goes away; there is nothing to do but to let go."""


_EXHAUSTED = lib.PP_EXHAUSTED
_PINNED = lib.PP_PINNED
_FOREIGN = lib.PP_FOREIGN
_DOUBLE_RELEASE = lib.PP_DOUBLE_RELEASE
_CORRUPT = lib.PP_CORRUPT
