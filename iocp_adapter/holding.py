"""Blocks of a server that somebody has held for too long, told while it serves.

A leak is known for certain when a pool is closed, and a server's is closed last. A handler that forgot a
lease in a list, or a peer that does not read what was sent to it, shows long before by the age of the
block; so a timer of the port wakes the serving thread twice in the limit to look for old ones. A look
costs as much as walking the pool. Each block is told once for each owner.
"""

from __future__ import annotations

import logging

from iocp_adapter._native import ffi, lib
from iocp_adapter.errors import error_for
from iocp_adapter.native_port import NativePort
from pools import BlockInfo, Pool, PoolError, Unsupported

__all__ = ["HoldWatch"]

_log = logging.getLogger("iocp_adapter")


class HoldWatch:
    """Looks for blocks older than ``limit_ns``; used by the serving thread, which owns the pool."""

    @staticmethod
    def refuse(provider: Pool) -> None:
        """Raises ``Unsupported`` for a pool whose blocks have no age."""
        if not provider.keeps_ages:
            raise Unsupported(
                f"hold_limit of a server whose pool {provider.name!r} keeps no ages: create it with ages=True"
            )

    def __init__(self, port: NativePort, provider: Pool, limit_ns: int):
        self.told = 0
        """Blocks that were told so far."""
        self._port = port
        self._provider = provider
        self._limit_ns = limit_ns
        self._known: set[int] = set()
        self._operation = ffi.new("pp_operation *")
        provider.record_sites()
        self._arm()

    def _arm(self) -> None:
        status = lib.pp_port_timer(self._port.c, 0, max(1, self._limit_ns // 2), 0, self._operation)
        if status:
            raise error_for(status, "the timer of hold_limit")

    def look(self) -> None:
        """The timer has come: tell what is new, and set it again."""
        try:
            old = self._provider.held(self._limit_ns / 1e9)
        except PoolError:
            _log.exception("hold_limit: the pool cannot be looked at, and will not be again")
            return
        fresh = [block for block in old if block.handle not in self._known]
        self._known = {block.handle for block in old}
        self.told += len(fresh)
        for (tag, site, state), blocks in _grouped(fresh).items():
            _log.warning(
                "%d %s, %d bytes, held for %.3f s and longer than hold_limit allows: %s, %s, %s",
                len(blocks),
                "block" if len(blocks) == 1 else "blocks",
                sum(block.granted for block in blocks),
                blocks[0].age_seconds,
                f"tag {tag!r}" if tag else "no tag",
                f"acquired in {site}" if site else "received by the engine",
                state,
            )
        self._arm()

    def end(self) -> None:
        """Look no more."""
        lib.pp_port_cancel(self._port.c, self._operation[0])


def _grouped(blocks: list[BlockInfo]) -> dict[tuple[str, str, str], list[BlockInfo]]:
    groups: dict[tuple[str, str, str], list[BlockInfo]] = {}
    for block in blocks:
        groups.setdefault((block.tag, block.site, block.state), []).append(block)
    return groups
