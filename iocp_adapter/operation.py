"""Operations: their names, and how one is submitted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iocp_adapter._native import CData, Submitter, lib
from iocp_adapter.errors import error_for

if TYPE_CHECKING:
    from iocp_adapter.completion_port import CompletionPort

__all__ = ["Operation", "Submission"]


class Operation:
    """The name of a submitted operation."""

    __slots__ = ("_name", "_port", "_what")

    def __init__(self, port: CompletionPort, name: int, what: str):
        self._port = port
        self._what = what
        self._name = name

    def cancel(self) -> bool:
        """Ask for it back. False: it had completed already.

        True: its completion tells whether it was cancelled (``OSError`` with ECANCELED) or had its
        result all the same.
        """
        status = lib.pp_port_cancel(self._port._native.c, self._name)
        if status not in {lib.PP_OK, lib.PP_STALE}:
            raise error_for(status, "cancel")
        return status == lib.PP_OK

    def __repr__(self) -> str:
        return f"<Operation {self._name:#x} {self._what}>"


class Submission(Submitter):
    """One submission on its way: a token for what it keeps alive, until the core has been asked."""

    __slots__ = ("c", "out", "port")

    port: CompletionPort
    c: CData
    """Of the port."""
    out: CData
    """Where the core puts the operation's name."""

    def done(self, status: int, what: str, takes: str = "") -> Operation:
        """``takes``: what the call wants of its endpoint, told where it is not so."""
        if status:
            raise error_for(status, what, invalid=takes)
        return Operation(self.port, self.out[0], what)
