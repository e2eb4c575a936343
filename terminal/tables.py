"""Tables on a terminal: no lines, bold headings, words to the left and numbers to the right."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Sequence

from rich.console import Console, ConsoleOptions, JustifyMethod, OverflowMethod, RenderableType
from rich.segment import Segment
from rich.style import StyleType
from rich.table import Table
from rich.text import Text

from terminal.output import without_controls

PIPE_WIDTH = 120
"""Columns of an output that is not a terminal, where a table may not be cropped."""


class Terminal(Console):
    """A console that styles text, and writes none of the control characters in it."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=without_controls(segment.text))


def console(*, stderr: bool = False, soft_wrap: bool = False) -> Console:
    """Standard output or error: of a terminal's width, or of one at which no table is cropped."""
    stream = sys.stderr if stderr else sys.stdout
    while below := getattr(stream, "rich_proxied_file", None):
        stream = below
    out = Terminal(file=stream, highlight=False, soft_wrap=soft_wrap)
    if not out.is_terminal:
        out.width = PIPE_WIDTH
    return out


class Plain(Table):
    """A table whose words are taken as they are: a setting's value such as ``[red]`` is not markup."""

    def add_row(self, *cells: RenderableType | None, style: StyleType | None = None, end_section: bool = False) -> None:
        plain = (Text(without_controls(cell)) if isinstance(cell, str) else cell for cell in cells)
        super().add_row(*plain, style=style, end_section=end_section)


def bare(
    columns: Sequence[str], words: Collection[str] | None = None, *, whole: Collection[str] = (), gap: int = 2
) -> Plain:
    """A table without rows yet. ``words``: the columns of text (None: all), ``whole``: those never broken into lines.

    ``gap`` is the space between columns.
    """
    table = Plain(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    for name in columns:
        justify: JustifyMethod = "left" if words is None or name in words else "right"
        overflow: OverflowMethod = "ellipsis" if name in whole else "fold"
        table.add_column(Text(name), justify=justify, no_wrap=name in whole, overflow=overflow)
    return table
