"""Debug levels of a pool: which there are, and how they are chosen, in code or by the environment."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, fields

from pools._native import CData, ffi, lib
from pools.errors import PoolValueError, error_for
from pools.faults import Operation, history_of
from pools.lease import Lease
from pools.parameters import whole, yes_or_no

__all__ = ["Debug", "block_history", "debug_from"]

_VARIABLE = "POOLPORT_DEBUG"
_QUARANTINE = 16
_QUARANTINE_BYTES = 32768  # what waits, and who uses a block meanwhile, stay in a first cache of 48 KiB
_HISTORY = 8


@dataclass(frozen=True, slots=True)
class Debug:
    """What to watch in a pool; every level is chosen by itself, and none by default.

    Damage is raised as ``BlockCorrupted`` by the call that finds it.
    """

    canaries: bool = False
    """Secret bytes behind each block, compared at release, resize, walk, check and close."""
    poison: bool = False
    """A pattern over released blocks, compared before they are handed out again, and by walk and check."""
    poison_bytes: int | None = lib.PP_POISON_DEFAULT_BYTES
    """How much of a block, half at its start and half at its end; None for all of it.

    As it is, 64 bytes in between are poisoned as well, which move on with each owner of the block."""
    quarantine: int = 0
    """How many released blocks wait before they are used again, at most 65536."""
    quarantine_bytes: int = 0
    """And how many bytes at most, though one block waits whatever its size; 0 for no bound."""
    random_order: int | None = None
    """A seed: released blocks come back in random order."""
    guard_pages: int | bool = False
    """True: each block ends at a page that nobody may touch, so that an overrun ends the process where it
    happens. N: one acquire in N, chosen at random, gets such a block."""
    guard_seed: int = 0
    """For the choice of those."""
    history: int = 0
    """How many operations each block remembers, at most 16: time, thread, tag, site."""

    @classmethod
    def everything(cls) -> Debug:
        """All levels but guard pages: what ``debug=True`` chooses."""
        return cls(
            canaries=True,
            poison=True,
            quarantine=_QUARANTINE,
            quarantine_bytes=_QUARANTINE_BYTES,
            random_order=0,
            history=_HISTORY,
        )

    @classmethod
    def from_text(cls, text: str) -> Debug:
        """What ``POOLPORT_DEBUG`` says: names with commas between them, such as ``poison,history=16``.

        A name alone is True, or the number that ``debug=True`` has for it; ``all`` is ``everything()``. Where
        ``quarantine`` is named, that many blocks wait, however large. Raises ``PoolValueError``.
        """
        named: dict[str, int | bool | None] = {}
        usual = cls.everything()
        beneath: dict[str, int | bool | None] = {}
        for item in filter(None, (part.strip() for part in text.split(","))):
            name, _, number = item.partition("=")
            if name == "all" and not number:
                beneath = {field.name: getattr(usual, field.name) for field in fields(cls)}
            elif name not in _NAMES or (number and not number.isdigit()):
                raise PoolValueError(
                    f"{_VARIABLE}={text!r}: {item!r} is no debug level; give some of all, "
                    f"{', '.join(_NAMES)}, with =NUMBER where it takes one"
                )
            else:
                named[name] = int(number) if number else getattr(usual, name) or True
        if "quarantine" in named:
            beneath.pop("quarantine_bytes", None)
        chosen = beneath | named
        levels = cls(**chosen)  # type: ignore[arg-type]  # checked by native()
        levels.native(f" of {_VARIABLE}={text!r}")
        return levels

    def native(self, of: str = " of Debug()") -> CData:
        """The same for the core; ``of`` says where the values are from.

        Raises ``PoolValueError`` for a number outside its range.
        """
        limits = {
            "poison_bytes": (self.poison_bytes, 1, 2**62),
            "quarantine": (self.quarantine, 0, lib.PP_QUARANTINE_MAX),
            "quarantine_bytes": (self.quarantine_bytes, 0, 2**62),
            "random_order": (self.random_order, 0, 2**64 - 1),
            "guard_pages": (self.guard_pages, 0, 2**32 - 1),
            "guard_seed": (self.guard_seed, 0, 2**64 - 1),
            "history": (self.history, 0, lib.PP_DEBUG_HISTORY_MAX),
        }
        for name in ("canaries", "poison"):
            yes_or_no(name, getattr(self, name), of)
        for name, (value, low, high) in limits.items():
            if value is not None or name not in ("poison_bytes", "random_order"):
                whole(name, value, low, high, of)
        config = ffi.new("pp_debug_config *")
        config.canaries = self.canaries
        config.poison = self.poison
        config.poison_bytes = 2**63 - 1 if self.poison_bytes is None else self.poison_bytes
        config.quarantine_count = self.quarantine
        config.quarantine_bytes = self.quarantine_bytes
        config.shuffle = self.random_order is not None
        config.seed = self.random_order or 0
        config.guard_seed = self.guard_seed
        config.guards = int(self.guard_pages)
        config.history = self.history
        return config

    def __bool__(self) -> bool:
        """Whether any level is chosen."""
        return self != Debug()


_NAMES = tuple(field.name for field in fields(Debug))


def debug_from(option: Debug | bool | None) -> Debug:
    """What a pool's ``debug`` option means; None is what the environment says.

    Raises ``PoolValueError`` when that is not understood.
    """
    if isinstance(option, Debug):
        return option
    if option is None:
        return Debug.from_text(os.environ.get(_VARIABLE, ""))
    if not isinstance(option, bool):
        raise PoolValueError(
            f"debug={option!r}: give True, False, a Debug, or None for what {_VARIABLE} says"
        )
    return Debug.everything() if option else Debug()


def attach(
    constructor: Callable[[CData, CData], int], debug: Debug, option: object, name: str
) -> Callable[[CData, CData], int]:
    """A constructor whose pools have the debug levels.

    ``option`` is what the program gave for them, ``name`` the pool's, for errors.
    """
    levels = debug.native()

    def construct(config: CData, out: CData) -> int:
        config.pool.canaries = debug.canaries
        status = constructor(config, out)
        if status:
            return status
        status = lib.pp_pool_debug(out[0], levels)
        if not status:
            return status
        strategy = str(ffi.string(lib.pp_pool_strategy(out[0])), "ascii")
        lib.pp_pool_destroy(out[0])
        if status == lib.PP_UNSUPPORTED:
            given = f"{_VARIABLE}={os.environ.get(_VARIABLE, '')!r}" if option is None else "debug="
            raise error_for(
                status,
                f"guard_pages={debug.guard_pages!r} of {given} of pool {name!r}",
                "leave guard_pages out, or take canaries",
                why=f"blocks of a {strategy} pool move, and guard pages do not",
            )
        return status

    return construct


def block_history(lease: Lease) -> tuple[Operation, ...]:
    """The last operations on a lease's block, the oldest first; none in a pool that keeps no history."""
    if not isinstance(lease, Lease):
        raise TypeError(f"block_history of {lease!r}: give a lease")
    return history_of(lease.pool.native, lease.handle)
