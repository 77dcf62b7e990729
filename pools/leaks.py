"""What was still live when a pool was closed."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pools._native import Batch, Lease
from pools.errors import LeakError

if TYPE_CHECKING:
    from pools.pool import Pool
    from pools.stats import BlockInfo

__all__ = ["Leak", "LeakReport", "leave", "report_of", "sites_of_leases"]

_GROUPS_IN_A_LINE = 3


class Leak(NamedTuple):
    """One block that was live at the close; sizes in bytes."""

    tag: str
    site: str
    """As recorded, or else as its lease knows, if that is alive; empty for blocks that C code acquired."""
    age_seconds: float
    """0.0 unless the pool was created with ``ages=True``."""
    requested: int
    granted: int
    state: str
    exported: bool
    """Its lease was released while a memoryview of it was alive, which still is: nobody forgot the release.

    ``state`` is nevertheless ``owned``, since the core is told when the last view is gone.
    """


def sites_of_leases(pool: Pool) -> dict[int, str]:
    """By handle, where each block was acquired whose lease or batch is still alive.

    Leases know their line of Python at no cost, but nobody keeps a list of them; the collector does. It is
    asked for what refers to the pool, not for all objects: among those may be a tuple that another thread is
    in the middle of making, which fails where somebody else refers to it, too (CPython before 3.14).
    """
    sites: dict[int, str] = {}
    for each in gc.get_referrers(pool):
        if isinstance(each, Lease):
            sites[each.handle] = each.site
        elif isinstance(each, Batch):
            sites |= dict.fromkeys(each.handles, each.site)
    return sites


def report_of(pool: Pool, live: Sequence[BlockInfo], exported: Container[int]) -> LeakReport:
    """What is told of the blocks that are live when a pool is closed."""
    blocks = list(live)
    known = {} if all(block.site for block in blocks) else sites_of_leases(pool)
    return LeakReport(
        pool.name,
        tuple(
            Leak(
                block.tag,
                block.site or known.get(block.handle, ""),
                block.age_seconds,
                block.requested,
                block.granted,
                block.state,
                block.handle in exported,
            )
            for block in blocks
        ),
    )


@dataclass(frozen=True, slots=True)
class LeakReport:
    """All leaks of one pool; true when there are any, and readable as text."""

    pool: str
    leaks: tuple[Leak, ...]

    def __bool__(self) -> bool:
        return bool(self.leaks)

    def __len__(self) -> int:
        return len(self.leaks)

    def __iter__(self) -> Iterator[Leak]:
        return iter(self.leaks)

    @property
    def forgotten(self) -> LeakReport:
        """Those that nobody released: without the blocks that are only looked at."""
        return LeakReport(self.pool, tuple(leak for leak in self.leaks if not leak.exported))

    @property
    def summary(self) -> str:
        """One line: how many, how large, and of the largest groups how many, the tag and the site."""
        groups = self.by_tag_and_site()
        parts = [
            f"{blocks} " + (f"tagged {tag!r}" if tag else "without a tag") + (f" from {site}" if site else "")
            for tag, site, blocks, _, _ in groups[:_GROUPS_IN_A_LINE]
        ]
        if more := sum(blocks for _, _, blocks, _, _ in groups[_GROUPS_IN_A_LINE:]):
            parts.append(f"{more} more")
        return self._first_line() + (": " + ", ".join(parts) if parts else "")

    def _first_line(self) -> str:
        if not self.leaks:
            return f"pool {self.pool!r} closed with nothing live"
        blocks = f"{len(self.leaks)} live block" + "s" * (len(self.leaks) > 1)
        return f"pool {self.pool!r} closed with {blocks}, {self.total_bytes} bytes"

    @property
    def total_bytes(self) -> int:
        """Bytes granted to blocks that were live."""
        return sum(leak.granted for leak in self.leaks)

    def by_tag_and_site(self) -> list[tuple[str, str, int, int, float]]:
        """(tag, site, blocks, bytes, oldest age in seconds), the most bytes first."""
        groups: dict[tuple[str, str], list[Leak]] = {}
        for leak in self.leaks:
            groups.setdefault((leak.tag, leak.site), []).append(leak)
        rows = [
            (
                tag,
                site,
                len(group),
                sum(leak.granted for leak in group),
                max(leak.age_seconds for leak in group),
            )
            for (tag, site), group in groups.items()
        ]
        return sorted(rows, key=lambda row: (-row[3], row[0], row[1]))

    def __str__(self) -> str:
        if not self.leaks:
            return self._first_line()
        lines = [self._first_line() + ":"]
        for tag, site, blocks, size, age in self.by_tag_and_site():
            counted = f"  {blocks} block{'s' * (blocks > 1)}, {size} bytes, "
            what = counted + (f"tag {tag!r}" if tag else "no tag")
            lines.append(what + (f", from {site}" if site else "") + (f", oldest {age:.3f} s" if age else ""))
        return "\n".join(lines)


def leave(pool: Pool, error: BaseException | None, stacklevel: int) -> None:
    """The end of a with-block of a pool, which ``error`` ended if it is one.

    What was forgotten is told once: here, and then not again when its leases are collected. An error that is
    on its way is the more important news, and mostly why nobody released them: it carries the report.
    """
    if pool.closed:
        return
    try:
        report = pool.close().forgotten
    except LeakError as leaks:
        if error is None:
            raise
        error.add_note(str(leaks))
        return
    if not report:
        return
    if error is not None:
        error.add_note(str(report))
        return
    pool._told = True
    warnings.warn(
        f"{report.summary}; release every lease before the with-block of the pool ends",
        ResourceWarning,
        stacklevel=stacklevel,
    )
