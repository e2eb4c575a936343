"""Values in error messages: of bounded length, without control characters."""

from __future__ import annotations

import re
from typing import Any

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""What moves a cursor, rings or recolours, and what UTF-8 cannot hold."""
SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\r(?=\n)")
"""A terminal's colours, cursor moves and titles, and the return before a line feed."""
MOST_CHARACTERS = 80


def shown(value: Any) -> str:
    """A value as Python writes it, text in quotes; cut where it has no end."""
    return cut(repr(value))


def printable(text: str) -> str:
    """Text that a terminal shows and does not obey: without its sequences, and with no control characters but tab and
    line feed."""
    return CONTROL.sub("\ufffd", SEQUENCE.sub("", text))


def cut(text: str) -> str:
    """Text of at most ``MOST_CHARACTERS`` characters, and dots where there was more."""
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}..."
