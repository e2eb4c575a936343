"""Lists and sentences in prose."""

from __future__ import annotations


def joined(words: list[str]) -> str:
    """Such as ``4 and 8``."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def tied(names: list[str]) -> str:
    """That these are tied with what the sentence has named before."""
    return f"{joined(names)} {'is' if len(names) == 1 else 'are'} tied with it"


def capital(words: str) -> str:
    return words[:1].upper() + words[1:]
