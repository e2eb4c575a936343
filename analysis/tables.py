"""What tables look like on a terminal: no lines, bold headings, words to the left and numbers to the right."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.console import Console, JustifyMethod
from rich.table import Table

PIPE_WIDTH = 120
"""Columns of an output that is not a terminal, where a table may not be cropped."""


def console() -> Console:
    """Standard output: of a terminal's width, or of one at which no table is cropped."""
    out = Console(highlight=False)
    if not out.is_terminal:
        out.width = PIPE_WIDTH
    return out


def bare(
    columns: Sequence[str], words: Collection[str] | None = None, *, whole: Collection[str] = (), gap: int = 2
) -> Table:
    """A table without rows yet. ``words``: the columns of text (None: all), ``whole``: those never broken into lines.

    ``gap`` is the space between columns.
    """
    found = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    for name in columns:
        justify: JustifyMethod = "left" if words is None or name in words else "right"
        found.add_column(name, justify=justify, no_wrap=name in whole, overflow="ellipsis" if name in whole else "fold")
    return found
