"""What a pool's policy has to say of a request that it let end without a block."""

from __future__ import annotations

import threading
from typing import NamedTuple

from pools._native import ffi, lib

__all__ = ["Refusal", "interrupt", "interruption", "last_refusal"]


class Refusal(NamedTuple):
    """Why a request was refused."""

    tag: str
    """Whose quota refused it; empty for the pool's own."""
    live: int
    """Bytes or blocks that counted then."""
    limit: int
    unit: str
    """``bytes`` or ``blocks``: of both."""
    waited_seconds: float
    of_quota: bool
    """A quota stood in the way at last; otherwise memory did, and what is above says nothing."""


def last_refusal() -> Refusal | None:
    """The calling thread's last one; only right after the call that was refused."""
    refusal = ffi.new("pp_refusal *")
    lib.pp_last_refusal(refusal)
    if refusal.pool == ffi.NULL:
        return None
    size = ffi.new("size_t *")
    text = lib.pp_pool_tag_text(refusal.pool, refusal.tag, size) if refusal.tag else ffi.NULL
    return Refusal(
        "" if text == ffi.NULL else bytes(ffi.buffer(text, size[0])).decode("utf-8", "replace"),
        refusal.live,
        refusal.limit,
        "blocks" if refusal.by_blocks else "bytes",
        refusal.waited_ns / 1e9,
        refusal.status == lib.PP_QUOTA,
    )


class _Interruption(threading.local):
    error: BaseException | None = None


_interruption = _Interruption()


def interrupt(error: BaseException) -> None:
    """Keep what a callback raised until the call that it was called from has come back from C."""
    _interruption.error = error


def interruption() -> BaseException | None:
    """What was kept, once."""
    error, _interruption.error = _interruption.error, None
    return error
