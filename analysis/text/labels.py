"""The words for a setting and its value."""

from __future__ import annotations

from typing import Any

from results.identity import INFO, REQUEST_SUFFIX

LONGEST = 60
"""Letters of a value that are shown."""


def words(value: Any) -> str:
    """A value on one line, cut where no table or figure has room for more; summary.csv has all of it."""
    text = " ".join(str(value).split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def label(name: str, value: Any) -> str:
    """A setting and its value in a reader's words, such as ``stage 3`` or ``bucket 25 MiB``."""
    name = name.removesuffix(REQUEST_SUFFIX)
    missing = value is None or value != value  # NaN is not equal to itself
    facts = INFO.get(name)
    if name == "machine":
        return "default" if missing else words(value)
    if facts is None or not facts.label:
        return f"{name} {'default' if missing else value_words(value)}"
    if missing:
        return facts.label_unset or f"{name} default"
    text = facts.label.format(value_words(value))
    return text.removesuffix("s") if name == "gpus" and value == 1 else text


def value_words(value: Any) -> str:
    """One value of a setting in words: numbers without a needless fraction, on and off."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else words(value)
