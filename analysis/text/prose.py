"""Lists and sentences in prose."""

from __future__ import annotations


def joined(words: list[str]) -> str:
    """Such as ``4 and 8``."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def capital(words: str) -> str:
    return words[:1].upper() + words[1:]
