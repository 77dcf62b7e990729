"""What every pool can be created with besides its strategy's own parameters."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Collection
from typing import Any, get_type_hints

from pools._native import CData, ffi, lib
from pools.debugging import Debug, attach, debug_from
from pools.memory import MemoryOptions, claim, lend
from pools.parameters import yes_or_no
from pools.policy import Policy, PolicyOptions, policy_of

__all__ = ["PoolOptions", "RegionOptions", "create"]


class PoolOptions(PolicyOptions, total=False):
    """Keyword parameters of every pool."""

    thread_safe: bool
    """Every thread may acquire; without it only the owner may, and any thread may release. Default False."""
    scrub: bool
    """Zero a block before its next owner sees it. Default False."""
    ages: bool
    """Keep the acquisition time of each block, which leak reports tell (5.6 ns an acquire). Default True."""
    strict: bool
    """``close()`` raises ``LeakError`` when something is live. Default False."""
    debug: Debug | bool | None
    """What to watch; True for all but guard pages. Default None: what ``POOLPORT_DEBUG`` says."""


class RegionOptions(PoolOptions, MemoryOptions, total=False):
    """Keyword parameters of every pool that has memory of its own."""


def create(
    constructor: Callable[[CData, CData], int],
    config: CData,
    name: str | None,
    options: PoolOptions,
    about: dict[str, Any],
    accepted: type = RegionOptions,
) -> tuple[int, CData]:
    """Call a strategy's constructor in the core; gives its status, and the pool if that is 0.

    Fills in ``config.pool`` from the options, and ``about`` with what of them belongs into a trace.
    """
    called = about["name"] or "malloc"
    of = f" of pool {called!r}"
    unknown = options.keys() - get_type_hints(accepted).keys()
    if unknown:
        raise TypeError(_unknown(min(unknown), of, accepted, about))
    flags = {what: _flag(options, what, of) for what in ("thread_safe", "scrub", "huge_pages", "strict")}
    ages = _flag(options, "ages", of, True)
    encoded = ffi.NULL if name is None else ffi.new("char[]", name.encode("utf-8", "surrogatepass"))
    config.pool.name = encoded
    config.pool.threads = lib.PP_THREADS_SHARED if flags["thread_safe"] else lib.PP_THREADS_OWNER
    config.pool.scrub = flags["scrub"]
    config.pool.ages = ages
    config.pool.huge_pages = flags["huge_pages"]
    about["thread_safe"] = flags["thread_safe"]
    about["scrub"] = flags["scrub"]
    about["ages"] = ages  # for the pool itself, which takes it out
    debug = debug_from(options.get("debug"))
    if debug:
        about["debug"] = dataclasses.asdict(debug)
        constructor = attach(constructor, debug, options.get("debug"), called)
    policy = policy_of(options, called)
    if policy and policy.grows:
        policy.widen(config, about)
    lent = lend(config, options, about["name"])
    try:
        return claim(*_construct(constructor, config, policy, about), lent, options, about)
    except BaseException:
        if lent:
            lent.finish()
        raise


def _unknown(name: str, of: str, accepted: type, about: Collection[str]) -> str:
    what = f"unknown keyword argument {name!r}{of}: "
    if name in get_type_hints(MemoryOptions):
        return what + "its memory is the library's, which decides where it comes from; leave it out"
    near = difflib.get_close_matches(name, get_type_hints(accepted).keys() | set(about), 1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    return what + meant + f"see help() of its class and of pools.options.{accepted.__name__}"


def _flag(options: PoolOptions, what: str, of: str, usual: bool = False) -> bool:
    value = options.get(what)
    return usual if value is None else yes_or_no(what, value, of)


def _construct(
    constructor: Callable[[CData, CData], int], config: CData, policy: Policy | None, about: dict[str, Any]
) -> tuple[int, CData]:
    out = ffi.new("pp_pool **")
    status = constructor(config, out)
    if status or not policy:
        return status, out[0]
    about.update(policy.about)
    return status, policy.impose(out[0], about["name"])
