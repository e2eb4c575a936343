"""How an error's line shows a value that somebody wrote: of bounded length, whatever the value is."""

from __future__ import annotations

from typing import Any

MOST_CHARACTERS = 80


def shown(value: Any) -> str:
    """A value as Python writes it, text in quotes; cut where it has no end."""
    return cut(repr(value))


def cut(text: str) -> str:
    """Text of at most ``MOST_CHARACTERS`` characters, and dots where there was more."""
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}..."
