"""What tables look like on a terminal: no lines, bold headings, words to the left and numbers to the right."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.console import Console, JustifyMethod, OverflowMethod, RenderableType
from rich.style import StyleType
from rich.table import Table
from rich.text import Text

PIPE_WIDTH = 120
"""Columns of an output that is not a terminal, where a table may not be cropped."""


def console() -> Console:
    """Standard output: of a terminal's width, or of one at which no table is cropped."""
    out = Console(highlight=False)
    if not out.is_terminal:
        out.width = PIPE_WIDTH
    return out


class Plain(Table):
    """A table whose words are taken as they are: a knob's value such as ``[red]`` is no markup."""

    def add_row(self, *cells: RenderableType | None, style: StyleType | None = None, end_section: bool = False) -> None:
        plain = (Text(cell) if isinstance(cell, str) else cell for cell in cells)
        super().add_row(*plain, style=style, end_section=end_section)


def bare(
    columns: Sequence[str], words: Collection[str] | None = None, *, whole: Collection[str] = (), gap: int = 2
) -> Plain:
    """A table without rows yet. ``words``: the columns of text (None: all), ``whole``: those never broken into lines.

    ``gap`` is the space between columns.
    """
    found = Plain(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    for name in columns:
        justify: JustifyMethod = "left" if words is None or name in words else "right"
        overflow: OverflowMethod = "ellipsis" if name in whole else "fold"
        found.add_column(Text(name), justify=justify, no_wrap=name in whole, overflow=overflow)
    return found
