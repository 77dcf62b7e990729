"""What a pool does when it has nothing to give, and how much it may give to whom."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypedDict

from pools._native import CData, ffi, lib, write_unraisable
from pools.errors import PoolError, PoolValueError, error_for
from pools.parameters import function, seconds
from pools.quotas import Crossing, Quota, bounded, fill_quota, impose_quota, quota_of, tag_text
from pools.refusals import interrupt
from pools.stats import read_stats

__all__ = ["PolicyOptions", "policy_of"]

_FOREVER = 2**64 - 1
_WATCHED = ("high_watermark", "low_watermark", "quota", "tag_quota")
_LIMITS = ("soft_limit", "hard_limit", "fallback_limit")


class PolicyOptions(TypedDict, total=False):
    """Keyword parameters of every pool about its limits."""

    on_exhausted: Literal["raise", "wait", "grow", "fallback"] | Callable[[int, str], object]
    """When no block is left: ``raise`` PoolExhausted (default); ``wait`` for a release; ``grow`` to
    ``hard_limit``, or as far as the strategy's own parameters say, then raise; ``fallback`` to malloc; or a
    function of the bytes lacking and the tag, which may release blocks, and returns whether to try again."""
    timeout: float | None
    """Seconds that ``wait`` lasts at most, until ``PoolTimeout``. Default None: as long as it takes."""
    quota: Quota | int | None
    """What may be live at once; a number is bytes. ``QuotaExceeded`` beyond it."""
    tag_quota: Quota | int | Mapping[str, Quota | int] | None
    """The same of every tag, or of the tags named."""
    high_watermark: int | None
    low_watermark: int | None
    """Of the pool's live bytes; the same as ``Quota(high=, low=)``. Without ``on_watermark`` it is
    ``quota_levels(pool).above`` that tells."""
    on_watermark: Callable[[Crossing], object] | None
    """Called at each crossing, in the thread whose call caused it, which may be a release."""
    soft_limit: int | None
    """Bytes. When more was live and the use falls, free blocks beyond it give their memory back."""
    hard_limit: int | None
    """Bytes of memory for blocks beyond which the pool never grows."""
    fallback_limit: int | None
    """Bytes that ``fallback`` may have at once. Default None: no limit."""


# ---- what C calls back ----------------------------------------------------------------------


def _keep(_kind: type[BaseException], error: BaseException, _trace: types.TracebackType | None) -> None:
    """The request ends with PP_STOPPED, and then with this error."""
    interrupt(error)


def _tell(_kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
    """A release cannot fail because somebody was told of it."""
    write_unraisable(error.with_traceback(trace), "on_watermark")


@ffi.def_extern(onerror=_keep, error=-1)  # type: ignore[untyped-decorator]
def pp_python_exhausted(context: CData, pool: CData, size: int, tag: int, _why: int, _attempt: int) -> int:
    """The core's ``exhausted``."""
    return 1 if ffi.from_handle(context).exhausted(size, tag_text(pool, tag)) else 0


@ffi.def_extern(onerror=_keep, error=1)  # type: ignore[untyped-decorator]
def pp_python_interrupted(_context: CData, _pool: CData) -> int:
    """The core's ``interrupted``: Python handles signals when a function begins, this one as well."""
    return 0


@ffi.def_extern(onerror=_tell)  # type: ignore[untyped-decorator]
def pp_python_crossed(context: CData, crossing: CData) -> None:
    """The core's ``crossed``."""
    ffi.from_handle(context).crossed(
        Crossing(
            str(ffi.string(lib.pp_pool_name(crossing.pool)), "utf-8", "replace"),
            tag_text(crossing.pool, crossing.tag) if crossing.tag else "",
            bool(crossing.rising),
            crossing.bytes,
            crossing.mark_bytes,
        )
    )


# ---- from options to the core -------------------------------------------------------------------


def _pool_quota(options: Mapping[str, Any], of: str) -> tuple[Quota, dict[str, str]]:
    """The quota of the pool, and what the program calls its parts."""
    quota = quota_of(options.get("quota"), "quota", of)
    names = {name: f"Quota.{name}" for name in ("bytes", "blocks", "high", "low")}
    if quota.bytes is options.get("quota"):
        names["bytes"] = "quota"
    if quota.high is None:
        names["high"] = "high_watermark"
    if quota.low is None:
        names["low"] = "low_watermark"
    high, low = options.get("high_watermark"), options.get("low_watermark")
    if (high is not None and quota.high is not None) or (low is not None and quota.low is not None):
        raise PoolValueError(f"a watermark{of} is given twice: in quota= and by itself; give it once")
    quota = Quota(
        quota.bytes,
        quota.blocks,
        quota.high if high is None else high,
        quota.low if low is None else low,
    )
    return quota, names


class Policy:
    """The policy that some options ask for; also what the core's callbacks find."""

    def __init__(self, options: Mapping[str, Any], name: str):
        of = self._of = f" of pool {name!r}"
        self.config = ffi.new("pp_policy_config *")
        self.about: dict[str, Any] = {}
        """What belongs into a trace."""
        self.crossed: Callable[[Crossing], object] | None = options.get("on_watermark")
        function("on_watermark", self.crossed, of)
        if self.crossed is not None and all(options.get(name) is None for name in _WATCHED):
            raise PoolValueError(
                f"on_watermark={self.crossed!r}{of}: the pool counts nothing that it could be called for; "
                "give high_watermark= too, or marks in quota= or tag_quota="
            )
        self.exhausted: Callable[[int, str], object] | None = None
        self._tags: Mapping[str, Quota | int] = {}
        self.hard_limit = bounded("hard_limit", options.get("hard_limit"), of)
        self.grows = options.get("on_exhausted") == "grow"
        self._choose(options.get("on_exhausted", "raise"), options.get("timeout"))
        self._bound(options)
        config = self.config
        self.handle = config.context = ffi.new_handle(self)
        if self.crossed is not None:
            config.crossed = lib.pp_python_crossed
        for option in ("on_exhausted", "timeout", "quota", "tag_quota", *_LIMITS):
            value = options.get(option)
            if value is not None:
                self.about[option] = value if isinstance(value, (int, float, str)) else repr(value)

    def _choose(self, exhausted: object, timeout: float | None) -> None:
        choices = {
            "raise": lib.PP_EXHAUSTION_RAISE,
            "grow": lib.PP_EXHAUSTION_RAISE,
            "wait": lib.PP_EXHAUSTION_WAIT,
            "fallback": lib.PP_EXHAUSTION_FALLBACK,
        }
        config = self.config
        if callable(exhausted):
            self.exhausted = exhausted
            config.on_exhausted = lib.PP_EXHAUSTION_CALL
            config.exhausted = lib.pp_python_exhausted
        elif isinstance(exhausted, str) and exhausted in choices:
            config.on_exhausted = choices[exhausted]
        else:
            raise PoolValueError(
                f"on_exhausted={exhausted!r}{self._of}: give 'raise', 'wait', 'grow', 'fallback' or a "
                "function"
            )
        if timeout is not None:
            timeout = seconds("timeout", timeout, 0, 9e9, self._of, optional=True)
        if timeout is not None and exhausted != "wait":
            raise PoolValueError(
                f"timeout={timeout}{self._of}: only on_exhausted='wait' waits; give that too"
            )
        config.timeout_ns = _FOREVER if timeout is None else int(timeout * 1e9)
        config.interrupted = lib.pp_python_interrupted

    def _bound(self, options: Mapping[str, Any]) -> None:
        config, each, of = self.config, options.get("tag_quota"), self._of
        quota, names = _pool_quota(options, of)
        fill_quota(config.quota, quota, of, names)
        if isinstance(each, Mapping):
            self._tags = each
            config.tag_quotas = 1
        else:
            fill_quota(config.tag_quota, quota_of(each, "tag_quota", of), " of the tags" + of)
        config.soft_limit = bounded("soft_limit", options.get("soft_limit"), of)
        config.hard_limit = self.hard_limit
        config.fallback_limit = bounded("fallback_limit", options.get("fallback_limit"), of)
        if config.fallback_limit and config.on_exhausted != lib.PP_EXHAUSTION_FALLBACK:
            raise PoolValueError(
                f"fallback_limit={config.fallback_limit}{of}: it has no fallback; give "
                "on_exhausted='fallback' too"
            )

    def widen(self, config: CData, about: dict[str, Any]) -> None:
        """Let the strategy grow to the hard limit, where its own parameters did not say how far.

        Raises ``PoolValueError`` where nothing did.
        """
        if "max_count" in about:
            if about["max_count"] == about["block_count"]:
                blocks = self._end(about, "max_count=") // max(about["block_size"], 1)
                about["widened"] = self.hard_limit
                config.max_count = about["max_count"] = min(max(blocks, about["block_count"]), 2**32 - 1)
        elif "max_capacity" in about:
            if about["max_capacity"] == about["capacity"]:
                about["widened"] = self.hard_limit
                config.max_capacity_bytes = about["max_capacity"] = max(
                    self._end(about, "max_capacity="), about["capacity"]
                )
        elif "capacity" in about:
            about["widened"] = self.hard_limit
            config.capacity_bytes = about["capacity"] = max(self._end(about), about["capacity"])
        elif not about["max_bytes"]:
            self._end(about, "max_bytes=")

    def _end(self, about: dict[str, Any], own: str = "") -> int:
        if self.hard_limit:
            return self.hard_limit
        raise PoolValueError(
            f"on_exhausted='grow' of pool {about['name'] or 'malloc'!r}: nothing says how far; give "
            "hard_limit=" + (f", or {own}" if own else "; capacity= is what it begins with")
        )

    def impose(self, native: CData, name: str) -> CData:
        """Make it the policy of a new pool; gives the pool, which keeps this object alive.

        Raises ``PoolValueError`` or ``OutOfMemory``; the pool is then destroyed.
        """
        try:
            status = lib.pp_pool_set_policy(native, self.config)
            if status:
                raise self._refused(status, native, name)
            for tag, quota in self._tags.items():
                if not isinstance(tag, str) or not tag:
                    raise PoolValueError(
                        f"tag_quota={dict(self._tags)}: {tag!r} is no tag; give each by its text, "
                        "which is not empty"
                    )
                impose_quota(native, quota, tag, name)
        except Exception:
            lib.pp_pool_destroy(native)
            raise
        return ffi.gc(native, self._outlive)

    def _refused(self, status: int, native: CData, name: str) -> PoolError:
        levels = read_stats(native)
        least = levels.granted_bytes + levels.free_bytes
        if not self.hard_limit:
            return error_for(status, f"policy of pool {name!r}")
        remedy, why = f"give {least} or more", f"the pool commits {least} bytes from the beginning"
        if self.hard_limit >= least:
            remedy = "give its largest block or more, a CompactingPool segment_size (256 KiB by itself)"
            why = "it leaves room for no block"
        return error_for(status, f"hard_limit={self.hard_limit} of pool {name!r}", remedy, why=why)

    def _outlive(self, native: CData) -> None:
        """Bound to the C pool's pointer, so that callbacks find this object as long as there is a pool."""


def policy_of(options: Mapping[str, Any], name: str) -> Policy | None:
    """The policy that a pool's options ask for; None where they ask for nothing beyond raising."""
    given = {
        name
        for name in PolicyOptions.__annotations__
        if options.get(name) is not None and options[name] is not False
    }
    policy = Policy(options, name) if given else None
    return None if given <= {"on_exhausted"} and options.get("on_exhausted") == "raise" else policy
