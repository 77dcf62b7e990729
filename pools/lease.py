"""Python's part in leases: what they are called where somebody reads it, and what is said of lost ones.

The types are in C, below ``pools/bindings/leases``; its header tells how they work.
"""

from __future__ import annotations

import warnings
from types import CodeType
from typing import TYPE_CHECKING

from pools._native import Batch, Lease, Pin, set_up
from pools.errors import error_for

if TYPE_CHECKING:
    from pools.pool import Pool

__all__ = ["Batch", "Lease", "Pin", "site_text"]


def site_text(code: CodeType | None, instruction: int) -> str:
    """``function (file:line)`` for a code object and an instruction offset in it; empty for None."""
    if code is None:
        return ""
    line = code.co_firstlineno
    for start, end, number in code.co_lines():
        if start <= instruction < end and number is not None:
            line = number
    return f"{code.co_qualname} ({code.co_filename}:{line})"


def _warn_of_lost(pool: Pool, code: CodeType | None, instruction: int, count: int) -> None:
    """``count`` is 0 for a lease, otherwise that of a batch's blocks."""
    where = site_text(code, instruction)
    warnings.warn(
        (f"a batch of {count} blocks" if count else "a lease")
        + f" of pool {pool.name!r} was lost without release, acquired "
        + (f"in {where}" if where else "by the engine")
        + ("; call release_many(), or" if count else "; release it or")
        + " use it as a context manager",
        ResourceWarning,
        stacklevel=2,
    )


set_up(error_for, site_text, _warn_of_lost)
