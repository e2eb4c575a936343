"""Sizes in bytes as a person writes them."""

from __future__ import annotations

import re

SIZES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
SIZES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


MOST_BYTES = 2**50


def size_bytes(text: str) -> int:
    """A size such as ``2GiB`` or ``1.5GB``. Raises ValueError if it is none, below a byte or above a pebibyte."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kKMGT]?i?B)", text)
    if not found or found[2] not in SIZES or not 1 <= float(found[1]) * SIZES[found[2]] <= MOST_BYTES:
        raise ValueError(text)
    return int(float(found[1]) * SIZES[found[2]])
