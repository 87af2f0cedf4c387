"""Numbers of the findings page, in words that a table can hold."""

from __future__ import annotations

import math

NOTHING = "–"  # noqa: RUF001


def between(value: float, low: float, high: float, digits: int, *, sign: bool = False) -> str:
    """A value and its interval; the value alone without one."""
    shown = number(value, digits, sign=sign)
    return shown if math.isnan(low) else f"{shown} {interval(low, high, digits, sign=sign)}"


def interval(low: float, high: float, digits: int, *, sign: bool = False) -> str:
    """An interval in brackets; a dash where there is none."""
    if math.isnan(low):
        return NOTHING
    return f"[{', '.join(number(end, digits, sign=sign) for end in (low, high))}]"


def number(value: float, digits: int, *, sign: bool = False) -> str:
    """A number with so many decimals; a dash where there is none."""
    if math.isnan(value):
        return NOTHING
    return f"{value:{'+' if sign else ''}.{digits}f}"


def significant(value: float) -> str:
    """A number with three significant digits; a dash where there is none."""
    return NOTHING if math.isnan(value) else f"{value:.3g}"


def p_value(value: float) -> str:
    """A p value; a dash where there is none."""
    if math.isnan(value):
        return NOTHING
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}" if value < 0.001 else f"{value:.3f}"
