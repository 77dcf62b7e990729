"""What every pool has, whatever its strategy."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

from pools._native import CData, ffi, lib
from pools.errors import LeakError, PoolCorrupt, PoolError, Unsupported, error_for
from pools.exhausted import Offer, most_held, refusal_of, size_refusal_of
from pools.labels import Labels
from pools.leaks import LeakReport, leave, report_of
from pools.lease import Lease
from pools.parameters import seconds, whole
from pools.stats import BlockInfo, read_stats
from pools.strip import html_of
from pools.trace import Trace
from pools.walk import LIVE, OWNED, Walk, info_of, read_walk

if TYPE_CHECKING:
    from pools.memory import Loan

__all__ = ["Pool"]

_INDEX = 0xFFFF_FFFF
_ALL = 2**64 - 1
_NAME_TRACED = 200


class Pool(Labels):
    """Base class: acquire, release, look, close. Create a ``SlabPool`` or another strategy.

    Threads: without ``thread_safe`` the creating thread (or the one that called ``adopt()``)
    acquires and any thread releases; with it every thread does everything.

    ``acquire``, ``acquire_many``, ``release_many`` and ``lease`` are the base class's, in C.
    """

    strategy: str = ""
    _together: ClassVar[str] = ""
    """How free memory comes together of which there is enough, but in pieces; ends with a comma."""
    _larger: ClassVar[str] = "create the pool larger"
    _wider: ClassVar[str | None] = None
    """How the program gets a pool with larger blocks; None: as ``_larger``, empty: it cannot."""
    _fits_and_yet: ClassVar[str] = "it fits by now, or a limit refuses it"
    """What can be said of a request that was refused, and is no longer than the largest free piece."""
    _unresizable: ClassVar[tuple[str, str]] = ("", "")
    """Why a block cannot be resized that is none of the usual ones, and what to do instead."""
    _lease_class: ClassVar[type[Lease]] = Lease

    def __init__(
        self, native: CData | None = None, *, strict: bool = False, about: dict[str, Any] | None = None
    ):
        if native is None or about is None:
            raise TypeError("Pool() is what all pools have in common: create a SlabPool or another strategy")
        self._c: CData = ffi.gc(native, lib.pp_pool_destroy)
        self.name: str = about["name"]
        self._strict = strict
        self.keeps_ages: bool = about.pop("ages", True)
        """Whether the acquisition time of each block is kept."""
        self.thread_safe: bool = about["thread_safe"]
        """Whether every thread may acquire."""
        self._loan: Loan | None = about.pop("loan", None)
        self._widened = bool(about.pop("widened", 0))
        """Whether the hard limit took the place of the strategy's own."""
        self._about: dict[str, Any] = about
        self._tags = {}
        self._sites = {}
        self._trace: Trace | None = None
        self._closed = False
        self._provider: CData = ffi.new("pp_provider *")
        lib.pp_pool_provider(self._c, self._provider)
        address = int(ffi.cast("uintptr_t", native))
        self._bind(address, self._c, about.get("block_size", 0), self._lease_class, self._tags)
        self._waits = about.get("on_exhausted") == "wait"
        if "debug" in about:
            self.record_sites()

    # ---- blocks --------------------------------------------------------------------

    @property
    def native(self) -> CData:
        """The C pool, for code that calls the core itself."""
        return self._c

    @property
    def limit_bytes(self) -> int | None:
        """Bytes of blocks, as granted, beyond which there are never more live at once, whatever its quotas.

        Capacity is counted as it was rounded up, ``hard_limit`` as it was rounded down to pages; what is left
        at the ends of segments and runs is not taken off. None where only the machine bounds them, and
        where malloc serves blocks besides: with ``on_exhausted="fallback"``, and with guard pages.
        """
        most = most_held(self, 1)
        return None if most is None else self._bytes_of(most)

    def _bytes_of(self, most: int) -> int:
        """Bytes of all blocks of an empty pool, which gives ``most`` blocks of one byte."""
        return most

    @property
    def provider_address(self) -> int:
        """Address of this pool's ``pp_provider`` table, valid while the pool object lives."""
        return int(ffi.cast("uintptr_t", self._provider))

    def release(self, lease: Lease) -> None:
        """Give a lease of this pool back; the same as ``lease.release()``.

        Raises ``ForeignBlock`` for another pool's lease and ``DoubleRelease`` for one released.
        """
        if not isinstance(lease, Lease):
            raise TypeError(f"release of {lease!r} to pool {self.name!r}: give a lease that it gave")
        if lease.pool is not self:
            lib.pp_pool_count_refusal(self._c, _FOREIGN)
            raise error_for(_FOREIGN, f"release of a lease of pool {lease.pool.name!r} to pool {self.name!r}")
        lease.release()

    def _release_each(self, leases: Iterable[Lease]) -> None:
        if not (hasattr(leases, "__iter__") or hasattr(leases, "__getitem__")):
            raise TypeError(
                f"release_many of {leases!r} to pool {self.name!r}: give a batch that it gave, or leases; "
                "one lease has a release() of its own"
            )
        first: Exception | None = None
        for lease in leases:
            try:
                self.release(lease)
            except (PoolError, TypeError) as error:
                first = first or error
        if first is not None:
            raise first

    def _offer(self, size: int) -> Offer:
        """What a request of ``size`` bytes finds, where every extent serves that is long enough."""
        levels = self.stats()
        return Offer(size, levels.largest_free_bytes, levels.free_extents, "extent")

    def _refusal(self, status: int, count: int, size: int, verb: str = "") -> Exception:
        return refusal_of(self, status, count, size, verb)

    def _size_refusal(self, size: int | None, verb: str = "") -> Exception:
        return size_refusal_of(self, self._provider.max_bytes, size, verb)

    def _error(self, status: int, verb: str, remedy: str = "") -> PoolError:
        return error_for(status, f"{verb} of pool {self.name!r}", remedy, self._c)

    # ---- the pool as a whole --------------------------------------------------------------

    def stats(self) -> Any:
        """Levels and counters now, as a frozen ``PoolStats``; see ``pools.STATISTICS``."""
        return read_stats(self._c)

    def walk(self, *states: str) -> Walk:
        """Every block in address order, free ones included, or those in the states named.

        They are of one moment, and like a list, but each is made when it is looked at: stopping early
        costs nothing. Raises ``PoolValueError`` for what is no state, and ``WrongThread``.
        """
        status, blocks = read_walk(self._c, self.tag_text, states)
        if status:
            raise self._error(status, "walk")
        return blocks

    def held(self, longer_than: float) -> list[BlockInfo]:
        """The blocks that somebody has owned for at least so many seconds, the oldest first.

        ``site`` is where each was acquired, if that was recorded: ``record_sites()``. Looks at every block
        of the pool. Raises ``PoolValueError``, ``WrongThread``, or ``Unsupported`` where it was created with
        ``ages=False``.
        """
        oldest = seconds("longer_than", longer_than, 0, math.inf, f" of held blocks of pool {self.name!r}")
        if not self.keeps_ages:
            raise Unsupported(
                f"held blocks of pool {self.name!r}: no ages are kept; create it with ages=True"
            )
        status, old = read_walk(self._c, self.tag_text, OWNED, min_age_seconds=oldest)
        if status:
            raise self._error(status, "held blocks")
        return sorted(old, key=lambda block: (-block.age_seconds, block.ordinal))

    def inspect(self, handle: int) -> BlockInfo:
        """One block by its handle. Raises ``StaleHandle``, ``ForeignBlock`` or ``WrongThread``."""
        info = ffi.new("pp_block_info *")
        handle = whole("handle", handle, 0, _ALL, f" of pool {self.name!r}", "give lease.handle")
        status = lib.pp_pool_inspect(self._c, handle, info)
        if status:
            raise self._error(status, f"inspect of block {handle & _INDEX}")
        return info_of(info, self.tag_text)

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
            raise self._error(status, "check")

    def trim(self, keep_bytes: int = 0) -> int:
        """Return the memory of free blocks to the system, but for ``keep_bytes``; the bytes returned.

        Raises ``PoolValueError`` or ``WrongThread``.
        """
        keep_bytes = whole("keep_bytes", keep_bytes, 0, _ALL, f" of trim of pool {self.name!r}")
        status = lib.pp_pool_admits(self._c)
        if status:
            raise self._error(status, "trim")
        return lib.pp_pool_trim(self._c, keep_bytes)

    def adopt(self) -> None:
        """Make the calling thread the owner of an owner-only pool. Raises ``Unsupported`` if shared."""
        status = lib.pp_pool_adopt(self._c)
        if status:
            remedy = "a thread-safe pool needs no owner" if status == _UNSUPPORTED else ""
            raise self._error(status, "adopt", remedy)

    # ---- tracing -------------------------------------------------------------------------

    def attach(self, trace: Trace | None) -> None:
        """Send every later event to ``trace``, live blocks first; None stops it."""
        if trace is not None and not isinstance(trace, Trace):
            raise TypeError(f"attach of {trace!r} to pool {self.name!r}: give a Trace, or None for none")
        with Trace._turning:
            self._turn_to(trace)

    def _turn_to(self, trace: Trace | None) -> None:
        native = ffi.NULL if trace is None else trace.native
        lib.pp_pool_keep_sites(self._c, trace is not None or self._sites_wanted)
        # A text of a trace has a limit, and half an object is none.
        about = json.dumps(
            self._about | {"name": self.name[:_NAME_TRACED], "strategy": self.strategy}
        ).encode()
        status = lib.pp_pool_trace(self._c, native, about)
        if status:
            lib.pp_pool_keep_sites(self._c, self._records_sites)
            self._record_sites_if_wanted()
            raise error_for(status, f"attach of pool {self.name!r} to a trace", "", self._c)
        if self._trace is not None:
            self._trace._writers.discard(self._c)
        self._trace = trace
        if trace is not None:
            trace._writers.add(self._c)
        self._records_sites = trace is not None or self._sites_wanted
        self._record_sites_if_wanted()

    def _record_sites_if_wanted(self) -> None:
        # Perhaps only since attach() looked, by another thread: a call into C lets others run.
        if self._sites_wanted:
            self.record_sites()

    def sample(self, interval_seconds: float = 0.0) -> None:
        """Write the pool's levels to the trace, at most once per interval."""
        wait = seconds("interval_seconds", interval_seconds, 0, 1e9, f" of sample of pool {self.name!r}")
        lib.pp_pool_sample(self._c, int(wait * 1e9))

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

        In the child of a fork by another thread than the owner nothing is live: the leases are the parent's.

        A with-block that ends by itself warns of the leases that nobody released (``ResourceWarning``); an
        error that ends it carries the report as a note, and is not replaced by ``LeakError``.
        """
        if lib.pp_pool_orphaned(self._c):
            return self._abandon()
        self._sweep()
        exported = self._exported()
        status, live = read_walk(self._c, self.tag_text, LIVE, named=True)
        if status:
            raise self._error(status, "close")
        report = report_of(self, live, exported)
        lib.pp_pool_close(self._c)
        if self._trace is not None:
            self.attach(None)
        self._closed = True
        if not report:
            self.trim()
            if self._loan is not None:
                self._loan.finish()
        if report and self._strict:
            raise LeakError(str(report))
        return report

    def _abandon(self) -> LeakReport:
        if self._trace is not None:
            self._trace._writers.discard(self._c)
            self._trace = None
        self._closed = True
        return LeakReport(self.name, ())

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        leave(self, error, stacklevel=3)

    def _repr_html_(self) -> str:
        return html_of(self)

    def __repr__(self) -> str:
        levels = self.stats()
        return (
            f"<{type(self).__name__} {self.name!r} {levels.live_blocks} live, {levels.free_bytes} bytes free"
            f"{', closed' if self._closed else ''}>"
        )


_FOREIGN = lib.PP_FOREIGN
_CORRUPT = lib.PP_CORRUPT
_UNSUPPORTED = lib.PP_UNSUPPORTED
