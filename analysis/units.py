"""How numbers are written for people: one place for every unit.

Bytes are binary (KiB, MiB), times go from nanoseconds to hours, and three significant digits
are enough. None and NaN are an en dash: a value that the trace does not tell is not zero.
"""

from __future__ import annotations

import math
import re

_BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_TIME_UNITS = (("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9), ("min", 60e9), ("h", 3600e9))
MISSING = "–"  # noqa: RUF001 - the dash is meant

# Control characters, zero-width and direction marks, surrogates: what could hide or reorder a text.
_UNPRINTABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff0-\ufffb\ud800-\udfff]"
)


def _is_missing(value: float | None) -> bool:
    return value is None or math.isnan(value)


def _three_digits(value: float) -> str:
    """Three significant digits, without an exponent: 1234 -> 1234, 12.34 -> 12.3, 0.5 -> 0.5."""
    size = abs(value)
    decimals = 0 if size >= 100 else 1 if size >= 10 else 2
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def bytes_text(value: float | None) -> str:
    """1536 -> '1.5 KiB'."""
    if value is None or math.isnan(value):
        return MISSING
    unit = 0
    scaled = float(value)
    while abs(scaled) >= 1023.5 and unit < len(_BYTE_UNITS) - 1:
        scaled /= 1024
        unit += 1
    return f"{_three_digits(scaled)} {_BYTE_UNITS[unit]}"


def duration_text(ns: float | None) -> str:
    """Turn nanoseconds into the unit that reads best: 1_500_000 -> '1.5 ms'."""
    if ns is None or math.isnan(ns):
        return MISSING
    name, scale = _TIME_UNITS[0]
    for candidate, factor in _TIME_UNITS:
        if abs(ns) >= factor:
            name, scale = candidate, factor
    return f"{_three_digits(ns / scale)} {name}"


def count_text(value: float | None) -> str:
    """1234567 -> '1,234,567'; fractions keep three digits."""
    if value is None or math.isnan(value):
        return MISSING
    if float(value).is_integer() or abs(value) >= 100:
        return f"{value:,.0f}"
    return _three_digits(value)


def things_text(count: int, noun: str) -> str:
    """1, block -> '1 block'; 1234, block -> '1,234 blocks'."""
    return f"{count_text(count)} {noun}" + ("" if count == 1 else "s")


def percent_text(ratio: float | None) -> str:
    """0.1234 -> '12.3 %'."""
    if ratio is None or math.isnan(ratio):
        return MISSING
    percent = ratio * 100
    if 0 < percent < 0.05:
        return "<0.1 %"
    return f"{percent:.0f} %" if abs(percent) >= 99.95 or percent == 0 else f"{percent:.1f} %"


def ratio_text(value: float | None) -> str:
    """Plain number with three significant digits."""
    if value is None or math.isnan(value):
        return MISSING
    return _three_digits(value)


def byte_rate_text(bytes_per_s: float | None) -> str:
    """2097152.0 -> '2 MiB/s'."""
    return MISSING if _is_missing(bytes_per_s) else f"{bytes_text(bytes_per_s)}/s"


def rate_text(per_s: float | None) -> str:
    """12345.6 -> '12,346/s'."""
    return MISSING if _is_missing(per_s) else f"{count_text(per_s)}/s"


def label_text(text: str, limit: int = 48) -> str:
    """A foreign text on one line: control and direction characters escaped, cut in the middle at `limit`."""
    safe = _UNPRINTABLE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)
    if len(safe) <= limit:
        return safe
    tail = limit // 3
    return f"{safe[: limit - tail - 1]}…{safe[-tail:]}"
