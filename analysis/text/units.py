"""Numbers as a person reads them: ms, MiB, per cent, three significant digits."""

from __future__ import annotations

import re
from math import isfinite
from numbers import Real
from typing import Any

MISSING = "–"
MIB = 2**20
UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
"""Controls, overrides of the direction of writing, halves of characters: the first and the last are no XML either."""


def number(value: float | None, digits: int = 3) -> str:
    """Three significant digits without an exponent, such as ``1,234``, ``12.3`` or ``0.0456``."""
    if not is_finite(value):
        return MISSING
    assert value is not None
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    if abs(rounded) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    if abs(rounded) < 1e-4:
        return f"{value:.1e}"
    decimals = max(0, digits - 1 - int(f"{rounded:e}".partition("e")[2]))
    return f"{rounded:.{decimals}f}"


def short(value: float | None) -> str:
    """At most five or six characters, such as ``8,737``, ``123k`` or ``4.56M``."""
    if not is_finite(value) or value is None or value < 1e5:
        return number(value)
    return f"{number(value / 1e3)}k" if value < 1e6 else f"{number(value / 1e6)}M"


def count(value: float) -> str:
    """Parameters as the field counts them, such as ``660``, ``124 M`` or ``7.50 B``."""
    scaled = float(value)
    for scale in ("", " k", " M", " B", " T"):
        if scaled < 999.5 or scale == " T":
            break
        scaled /= 1000
    return number(scaled) + scale


def ms(seconds: float | None) -> str:
    return number(None if seconds is None else seconds * 1e3)


def mib(size_bytes: float | None) -> str:
    return number(None if size_bytes is None else size_bytes / MIB)


def size(size_bytes: float) -> str:
    """Bytes with the binary unit that suits them, such as ``3.2 MiB``."""
    scaled, unit = float(size_bytes), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(scaled) < 1024 or unit == "TiB":
            break
        scaled /= 1024
    return f"{number(scaled)} {unit}"


def percent(fraction: float | None, digits: int = 0) -> str:
    """Whole per cent, or with ``digits`` significant digits."""
    if not is_finite(fraction):
        return MISSING
    assert fraction is not None
    return f"{number(100 * fraction, digits) if digits else format(100 * fraction, '.0f')} %"


def error(value: float | None) -> str:
    """A relative error, such as ``3.1e-07`` or ``0.31``."""
    if not is_finite(value):
        return MISSING
    assert value is not None
    return f"{value:.2g}" if value == 0 or abs(value) >= 1e-3 else f"{value:.1e}"


def is_finite(value: Any) -> bool:
    """Whether a table's entry is a finite number."""
    return isinstance(value, Real) and isfinite(value)


def interval(low: float | None, high: float | None, factor: float = 1) -> str:
    """Both ends in brackets, such as ``[33.1, 34.2]``; empty where there is no interval."""
    if not (is_finite(low) and is_finite(high)):
        return ""
    assert low is not None and high is not None
    return f"[{number(low * factor)}, {number(high * factor)}]"


def plain(document: str) -> str:
    """A document in which each character that no reader can see, or that turns the writing around, is a mark."""
    return UNSEEN.sub("\N{REPLACEMENT CHARACTER}", document)


def spoken(name: str) -> str:
    """A status or verdict in words, such as ``parity failed``."""
    return name.replace("_", " ")


def counted(count: int, noun: str) -> str:
    """Such as ``1 cell`` or ``16 cells``."""
    plural = noun if count == 1 else noun + ("es" if noun.endswith(("s", "ch")) else "s")
    return f"{count:,} {plural}"
