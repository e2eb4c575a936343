"""Quantities in settings: sizes such as ``2GiB``, rates such as ``100mbit``, times such as ``1ms``."""

from __future__ import annotations

import re
from collections.abc import Mapping

SIZES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
SIZES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
RATES = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0}

MAX_BYTES = 2**50


def size_bytes(text: str) -> int:
    """A size such as ``2GiB`` or ``1.5GB`` in bytes. Raises ValueError below one byte and above one pebibyte."""
    return int(_quantity(text, SIZES, 1, MAX_BYTES))


def bits_per_s(text: str, *, maximum: float = 1e11) -> float:
    """A rate such as ``1.5gbit`` in bits per second. Raises ValueError outside 8kbit to ``maximum``."""
    return _quantity(text, RATES, 8e3, maximum)


def delay_s(text: str, *, minimum: float = 1e-5) -> float:
    """A time such as ``1ms`` in seconds. Raises ValueError outside ``minimum`` to 10s."""
    return _quantity(text, TIMES, minimum, 10.0)


def slurm_minutes(text: str) -> float:
    """A time limit as sbatch takes it, such as ``90`` (minutes), ``1:30:00`` or ``2-00:00:00``. Raises ValueError."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d\d))?(?::(\d\d))?", str(text))
    if not match:
        raise ValueError(text)
    days, first, second, third = match.groups()
    if days is not None or third is not None:  # hours, minutes, seconds
        return 1440 * int(days or 0) + 60 * int(first) + int(second or 0) + int(third or 0) / 60
    return int(first) + int(second or 0) / 60


def _quantity(text: str, units: Mapping[str, float], minimum: float, maximum: float) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([a-zA-Z]+)", str(text))
    if not match or match[2] not in units or not minimum <= float(match[1]) * units[match[2]] <= maximum:
        raise ValueError(text)
    return float(match[1]) * units[match[2]]
