"""Pages of results whose table a benchmark writes below an introduction that a person wrote."""

from __future__ import annotations

from pathlib import Path

TABLE = "## Table\n"


def write_table(page: Path, table: str) -> None:
    """Replaces what follows the heading «Table» of a Markdown file."""
    introduction = page.read_text(encoding="utf-8").partition(TABLE)[0]
    page.write_text(f"{introduction}{TABLE}\n{table}\n", encoding="utf-8")
