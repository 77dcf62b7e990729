"""What a pool does when it has nothing to give, and how much it may give to whom."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict

from pools._native import CData, ffi, lib
from pools.errors import PoolValueError, error_for
from pools.refusals import interrupt

if TYPE_CHECKING:
    from pools.pool import Pool

__all__ = ["Crossing", "PolicyOptions", "Quota", "QuotaLevels", "policy_of", "quota_levels", "set_quota"]

_RANGE = 1 << 63
_FOREVER = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Quota:
    """Bounds of what may be live at once, of a pool or of a tag; None is no bound.

    ``high`` and ``low`` are watermarks, in bytes: the pool's ``on_watermark`` is called when what is live
    rises to ``high``, and again only after it has fallen to ``low``, for which it is called as well.
    """

    bytes: int | None = None
    """As requested, not as granted."""
    blocks: int | None = None
    high: int | None = None
    low: int | None = None


class Crossing(NamedTuple):
    """A watermark was crossed."""

    pool: str
    """The pool's name."""
    tag: str
    """Whose mark; empty for the pool's own."""
    rising: bool
    """True: the high mark was reached; False: the low one."""
    bytes: int
    """Live after the call that crossed it."""
    mark: int


class QuotaLevels(NamedTuple):
    """What counts against a quota now."""

    quota: Quota
    bytes: int
    blocks: int
    refusals: int
    """Requests that it refused."""
    above: bool
    """The high mark was reached, and the low one not since."""


class PolicyOptions(TypedDict, total=False):
    """Keyword parameters of every pool about its limits."""

    on_exhausted: Literal["raise", "wait", "grow", "fallback"] | Callable[[int, str], object]
    """When no block is left: ``raise`` PoolExhausted (default); ``wait`` for a release; ``grow`` to
    ``hard_limit``, then raise; ``fallback`` to malloc; or a function of the bytes lacking and the tag,
    which may release blocks, and returns whether to try again."""
    timeout: float | None
    """Seconds that ``wait`` lasts at most, until ``PoolTimeout``. Default None: as long as it takes."""
    quota: Quota | int | None
    """What may be live at once; a number is bytes. ``QuotaExceeded`` beyond it."""
    tag_quota: Quota | int | Mapping[str, Quota | int] | None
    """The same of every tag, or of the tags named."""
    high_watermark: int | None
    low_watermark: int | None
    """Of the pool's live bytes; the same as ``Quota(high=, low=)``."""
    on_watermark: Callable[[Crossing], object] | None
    """Called at each crossing, in the thread whose call caused it, which may be a release."""
    soft_limit: int | None
    """Bytes. When more was live and the use falls, free blocks beyond it give their memory back."""
    hard_limit: int | None
    """Bytes of memory for blocks beyond which the pool never grows."""
    fallback_limit: int | None
    """Bytes that ``fallback`` may have at once. Default None: no limit."""
    notify: bool
    """Tell an engine that takes its buffers here when memory came back. Default False; ``wait`` tells too."""


# ---- what C calls back ----------------------------------------------------------------------


def _tag_text(pool: CData, tag: int) -> str:
    size = ffi.new("size_t *")
    text = lib.pp_pool_tag_text(pool, tag, size)
    return "" if text == ffi.NULL else bytes(ffi.buffer(text, size[0])).decode("utf-8", "replace")


def _keep(_kind: type[BaseException], error: BaseException, _trace: types.TracebackType | None) -> None:
    """The request ends with PP_STOPPED, and then with this error."""
    interrupt(error)


def _tell(_kind: type[BaseException], error: BaseException, _trace: types.TracebackType | None) -> None:
    """A release cannot fail because somebody was told of it."""
    sys.unraisablehook(
        types.SimpleNamespace(
            exc_type=type(error),
            exc_value=error,
            exc_traceback=error.__traceback__,
            err_msg="Exception ignored in on_watermark",
            object=None,
        )
    )


@ffi.def_extern(onerror=_keep, error=-1)  # type: ignore[untyped-decorator]
def pp_python_exhausted(context: CData, pool: CData, size: int, tag: int, _why: int, _attempt: int) -> int:
    """The core's ``exhausted``."""
    return 1 if ffi.from_handle(context).exhausted(size, _tag_text(pool, tag)) else 0


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
            _tag_text(crossing.pool, crossing.tag) if crossing.tag else "",
            bool(crossing.rising),
            crossing.bytes,
            crossing.mark_bytes,
        )
    )


# ---- from options to the core -------------------------------------------------------------------


def _bounded(name: str, value: int | None) -> int:
    if value is None:
        return 0
    if not isinstance(value, int) or not 0 < value < _RANGE:
        raise PoolValueError(f"{name}={value!r}: give a number from 1 to 2**63 - 1, or None for no bound")
    return value


def _fill(quota: CData, wanted: Quota | int | None, what: str) -> None:
    wanted = wanted if isinstance(wanted, Quota) else Quota(bytes=wanted)
    quota.max_bytes = _bounded(f"{what}: bytes", wanted.bytes)
    quota.max_blocks = _bounded(f"{what}: blocks", wanted.blocks)
    quota.high_bytes = _bounded(f"{what}: high", wanted.high)
    quota.low_bytes = _bounded(f"{what}: low", wanted.low or None)
    if wanted.low is not None and wanted.low >= (wanted.high or 0):
        raise PoolValueError(
            f"{what}: the low mark {wanted.low} is not below the high one, {wanted.high}; give low < high"
        )


def _pool_quota(options: Mapping[str, Any]) -> Quota:
    quota = options.get("quota")
    quota = quota if isinstance(quota, Quota) else Quota(bytes=quota)
    high, low = options.get("high_watermark"), options.get("low_watermark")
    if (high is not None and quota.high is not None) or (low is not None and quota.low is not None):
        raise PoolValueError("a watermark is given twice: in quota= and by itself; give it once")
    return Quota(
        quota.bytes,
        quota.blocks,
        quota.high if high is None else high,
        quota.low if low is None else low,
    )


class Policy:
    """The policy that some options ask for; also what the core's callbacks find."""

    def __init__(self, options: Mapping[str, Any]):
        self.config = ffi.new("pp_policy_config *")
        self.about: dict[str, Any] = {}
        """What belongs into a trace."""
        self.crossed: Callable[[Crossing], object] | None = options.get("on_watermark")
        self.exhausted: Callable[[int, str], object] | None = None
        self._tags: Mapping[str, Quota | int] = {}
        self.hard_limit = _bounded("hard_limit", options.get("hard_limit"))
        self.grows = options.get("on_exhausted") == "grow"
        self._choose(options.get("on_exhausted", "raise"), options.get("timeout"))
        self._bound(options)
        config = self.config
        self.handle = config.context = ffi.new_handle(self)
        if self.crossed is not None:
            config.crossed = lib.pp_python_crossed
        for name in ("on_exhausted", "timeout", "quota", "tag_quota", "soft_limit", "hard_limit"):
            value = options.get(name)
            if value is not None:
                self.about[name] = value if isinstance(value, (int, float, str)) else repr(value)

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
        elif exhausted in choices:
            config.on_exhausted = choices[str(exhausted)]
        else:
            raise PoolValueError(
                f"on_exhausted={exhausted!r}: give 'raise', 'wait', 'grow', 'fallback' or a function"
            )
        if timeout is not None and not 0 <= timeout < _RANGE / 1e9:
            raise PoolValueError(f"timeout={timeout}: give seconds from 0, or None to wait without end")
        if timeout is not None and exhausted != "wait":
            raise PoolValueError(f"timeout={timeout}: only a pool with on_exhausted='wait' waits")
        config.timeout_ns = _FOREVER if timeout is None else int(timeout * 1e9)
        config.interrupted = lib.pp_python_interrupted

    def _bound(self, options: Mapping[str, Any]) -> None:
        config, each = self.config, options.get("tag_quota")
        _fill(config.quota, _pool_quota(options), "quota")
        if isinstance(each, Mapping):
            self._tags = each
            config.tag_quotas = 1
        else:
            _fill(config.tag_quota, each, "tag_quota")
        config.soft_limit = _bounded("soft_limit", options.get("soft_limit"))
        config.hard_limit = self.hard_limit
        config.fallback_limit = _bounded("fallback_limit", options.get("fallback_limit"))
        config.notify = bool(options.get("notify"))

    def widen(self, config: CData, about: dict[str, Any]) -> None:
        """Let the strategy grow to the hard limit, where its own parameters did not say how far."""
        if hasattr(config, "max_count") and config.max_count == config.block_count:
            if not self.hard_limit:
                raise PoolValueError(
                    f"on_exhausted='grow' of pool {about['name']!r}: give max_count= or hard_limit="
                )
            most = min(self.hard_limit // max(config.block_bytes, 1), 1 << 28)
            config.max_count = about["max_count"] = max(most, config.block_count)
        if hasattr(config, "max_capacity_bytes") and self.hard_limit > config.max_capacity_bytes:
            config.max_capacity_bytes = about["max_capacity"] = self.hard_limit

    def impose(self, native: CData, name: str) -> CData:
        """Make it the policy of a new pool; gives the pool, which keeps this object alive.

        Raises ``PoolValueError`` or ``OutOfMemory``; the pool is then destroyed.
        """
        try:
            status = lib.pp_pool_set_policy(native, self.config)
            if status:
                raise error_for(
                    status,
                    f"policy of pool {name!r} (hard_limit {self.hard_limit or None})",
                    "hard_limit is at least what the pool commits from the beginning",
                )
            for tag, quota in self._tags.items():
                if not tag:
                    raise PoolValueError(f"tag_quota={dict(self._tags)}: an empty text is no tag; name each")
                _set_quota(native, quota, tag, name)
        except Exception:
            lib.pp_pool_destroy(native)
            raise
        return ffi.gc(native, self._outlive)

    def _outlive(self, native: CData) -> None:
        """Bound to the C pool's pointer, so that callbacks find this object as long as there is a pool."""


def policy_of(options: Mapping[str, Any]) -> Policy | None:
    """The policy that a pool's options ask for; None where they ask for nothing beyond raising."""
    given = {
        name
        for name in PolicyOptions.__annotations__
        if options.get(name) is not None and options[name] is not False
    }
    policy = Policy(options) if given else None
    return None if given <= {"on_exhausted"} and options.get("on_exhausted") == "raise" else policy


# ---- at run time ------------------------------------------------------------------------------------


def _intern(native: CData, tag: str) -> int:
    data = tag.encode("utf-8", "surrogatepass")
    out = ffi.new("uint32_t *")
    status = lib.pp_pool_tag(native, data, len(data), out)
    if status:
        raise error_for(status, f"a tag of {len(data)} bytes", "use 1 to 4096 bytes of UTF-8")
    return int(out[0])


def _set_quota(native: CData, quota: Quota | int | None, tag: str, name: str) -> None:
    wanted = ffi.new("pp_quota *")
    what = f"quota of tag {tag!r}" if tag else "quota"
    _fill(wanted, quota, what)
    status = lib.pp_pool_set_quota(native, _intern(native, tag) if tag else 0, wanted)
    if status:
        raise error_for(status, f"{what} of pool {name!r}", _REMEDY if status == _UNSUPPORTED else "")


def set_quota(pool: Pool, quota: Quota | int | None, tag: str = "") -> None:
    """Replace the quota of a tag, or without one of the pool; what is live stays so, even beyond it.

    Raises ``Unsupported`` for a pool that was created without a quota of the kind, ``PoolValueError`` and
    ``WrongThread``.
    """
    _set_quota(pool.native, quota, tag, pool.name)


def quota_levels(pool: Pool, tag: str = "") -> QuotaLevels:
    """What counts against the quota of a tag, or without one of the pool.

    Raises ``Unsupported`` for a pool that was created without a quota of the kind.
    """
    out = ffi.new("pp_quota_levels *")
    status = lib.pp_pool_quota_levels(pool.native, _intern(pool.native, tag) if tag else 0, out)
    if status:
        raise error_for(status, f"quota_levels of pool {pool.name!r}", _REMEDY)
    bounds = out.quota
    return QuotaLevels(
        Quota(
            bounds.max_bytes or None,
            bounds.max_blocks or None,
            bounds.high_bytes or None,
            bounds.low_bytes or None,
        ),
        out.bytes,
        out.blocks,
        out.refusals,
        bool(out.above),
    )


_UNSUPPORTED = lib.PP_UNSUPPORTED
_REMEDY = "create the pool with quota=, or for tags with tag_quota="
