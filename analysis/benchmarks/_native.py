"""The compiled workloads, with types; see ``poolport/workload.h``."""

from __future__ import annotations

import importlib
from typing import Any, Protocol, TypeAlias

__all__ = ["CData", "Library", "ffi", "lib"]

CData: TypeAlias = Any


class Library(Protocol):
    """The functions of ``poolport/workload.h``."""

    def pp_workload_begin(self, config: CData, provider: CData) -> CData: ...
    def pp_workload_run(self, workload: CData, out: CData) -> None: ...
    def pp_workload_drain(self, workload: CData) -> None: ...
    def pp_workload_end(self, workload: CData) -> None: ...
    def pp_workload_name(self, kind: int) -> CData: ...
    def pp_workload_text(self, kind: int) -> CData: ...
    def pp_workload_direct(self, acquire: int, release: int, out: CData) -> None: ...


# Not by an import statement: the package's own lazy attributes hide the compiled module from checkers.
_workloads = importlib.import_module("analysis._workloads")
ffi: Any = _workloads.ffi
lib: Library = _workloads.lib
