"""A record's file as parsed JSON: duplicate fields are an error, and control characters are replaced."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path
from typing import Any

from results.shown import CONTROL, shown

LARGEST_BYTES = 2**30
ESCAPED = re.compile(r"\\(?:[bfr]|u(?:00[0189]|007[fF]|[dD][89a-fA-F]))")
"""How a file of plain ASCII writes them, but for \\x7f, which may stand as it is."""


def read_document(path: Path) -> Any:
    """Parses the file. Raises OSError, RecursionError, or ValueError, which names a field that occurs twice."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is not a file")  # a pipe would be waited for
    if status.st_size > LARGEST_BYTES:
        raise ValueError(f"{status.st_size} bytes, expected at most {LARGEST_BYTES}")
    text = path.read_text(encoding="utf-8")
    is_clean = text.isascii() and "\x7f" not in text and not ESCAPED.search(text)  # as most are, and twice as fast
    return json.loads(text, object_pairs_hook=_object if is_clean else _cleaned)


def _cleaned(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return _object([(_clean(key), _clean(value)) for key, value in pairs])


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"field {shown(next(name for name in names if names.count(name) > 1))} occurs twice")
    return fields


def _clean(value: Any) -> Any:
    """Text without control characters but tab and line feed; lists of text too."""
    if isinstance(value, str):
        return CONTROL.sub("\ufffd", value)
    if isinstance(value, list) and any(isinstance(entry, str | list) for entry in value):
        return [_clean(entry) for entry in value]
    return value


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())
