"""What parameters may be: a wrong one is refused here, by its name and value."""

from __future__ import annotations

import operator

from pools._native import Lender
from pools.errors import PoolValueError

__all__ = ["a_pool", "function", "power_of_two", "seconds", "text", "whole", "yes_or_no"]

_SPELLED_OUT = 1 << 20


def _number(number: int) -> str:
    for power, after in ((number, ""), (number + 1, " - 1")):
        if number >= _SPELLED_OUT and power & (power - 1) == 0:
            return f"2**{power.bit_length() - 1}{after}"
    return str(number)


def whole(
    name: str,
    value: object,
    low: int,
    high: int,
    of: str = "",
    remedy: str = "",
    *,
    means: str = "",
    refusal: type[ValueError] | None = None,
) -> int:
    """A whole number from ``low`` to ``high``.

    ``of`` says whose parameter it is, ``means`` what ``low`` does. Raises ``TypeError`` or
    ``PoolValueError``; with ``refusal`` that, for both.
    """
    number = None
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # which is what is asked here
    except TypeError:
        if refusal is None:
            raise TypeError(
                f"{name}={value!r}{of}: give a whole number from {_number(low)} to {_number(high)}, which "
                f"{type(value).__name__} is not"
            ) from None
    if number is not None and low <= number <= high:
        return number
    from_low = f"{_number(low)} ({means})" if means else _number(low)
    remedy = remedy or f"give {from_low} to {_number(high)}"
    raise (refusal or PoolValueError)(f"{name}={value!r}{of}: {remedy}")


def power_of_two(name: str, value: object, low: int, high: int, of: str = "", *, zero: bool = False) -> int:
    """A power of two from ``low`` to ``high``; with ``zero`` also that. Raises as ``whole`` does."""
    remedy = f"give {'0 or ' * zero}a power of two from {_number(low)} to {_number(high)}"
    number = whole(name, value, 0 if zero else low, high, of, remedy)
    if number & (number - 1) or 0 < number < low:
        raise PoolValueError(f"{name}={number}{of}: {remedy}")
    return number


def seconds(
    name: str, value: object, low: float, high: float, of: str = "", *, optional: bool = False
) -> float:
    """A number of seconds; ``optional`` says that the caller would take None. Raises as ``whole`` does."""
    remedy = f"give {low} to {high:.0f} seconds{', or None' * optional}"
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise TypeError(f"{name}={value!r}{of}: {remedy}")
    if not low <= float(value) <= high:  # and so no NaN
        raise PoolValueError(f"{name}={value}{of}: {remedy}")
    return float(value)


def text(name: str, value: object, of: str = "") -> str:
    """A text. Raises ``TypeError``."""
    if not isinstance(value, str):
        raise TypeError(f"{name}={value!r}{of}: give a text")
    return value


def a_pool(what: str, value: object) -> None:
    """A pool, which ``what`` is about. Raises ``TypeError``."""
    if not isinstance(value, Lender):
        raise TypeError(f"{what} of {value!r}: give a pool, such as a SlabPool")


def yes_or_no(name: str, value: object, of: str = "") -> bool:
    """True or False. Raises ``TypeError`` for anything else: the text "no" would be true."""
    if not isinstance(value, int) or value not in (0, 1):
        raise TypeError(f"{name}={value!r}{of}: give True or False")
    return bool(value)


def function(name: str, value: object, of: str = "") -> None:
    """Something that can be called, or None. Raises ``TypeError``."""
    if value is not None and not callable(value):
        raise TypeError(f"{name}={value!r}{of}: give a function, or None")
