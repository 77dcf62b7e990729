"""What a back end uses of its kernel, and what it does without."""

from __future__ import annotations

from typing import NamedTuple

from iocp_adapter._native import CData, ffi, lib

__all__ = ["Feature", "Region", "read_features", "read_regions"]


class Feature(NamedTuple):
    """Something that a kernel may have or lack."""

    on: bool
    why: str
    """It is on, or off."""
    instead: str
    """What is done without it."""
    switch: str
    """The environment variable that turns it off for ports that are created afterwards."""


class Region(NamedTuple):
    """The memory of a pool, and whether the kernel knows it as a whole."""

    pool: str
    """The pool's name."""
    size: int
    """Its bytes."""
    registered: bool
    """False: its blocks are used like any memory."""
    why: str
    """It is, or is not."""


def read_features(port: CData) -> dict[str, Feature]:
    """The features of an open port, by name."""
    count = lib.pp_port_features(port, ffi.NULL, 0)
    rows = ffi.new("pp_feature[]", count)
    lib.pp_port_features(port, rows, count)
    return {_text(row.name): Feature(bool(row.on), *map(_text, _texts(row))) for row in rows}


def read_regions(rows: CData, names: dict[int, str]) -> tuple[Region, ...]:
    """What ``pp_port_regions`` gave; ``names`` are those of the pools by their providers' addresses."""
    return tuple(
        Region(
            names.get(int(ffi.cast("uintptr_t", row.provider)), ""),
            int(row.bytes),
            bool(row.registered),
            _text(row.why),
        )
        for row in rows
    )


def _texts(row: CData) -> tuple[CData, CData, CData]:
    return row.why, row.instead, row.environment


def _text(text: CData) -> str:
    return str(ffi.string(text), "utf-8")
