"""The look of all figures, and how one becomes a PNG file and an SVG that follows the page's colours."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis.figures.plot import Drawing
from analysis.text.units import plain
from results.atomic import replacing, write_whole

WIDTH = 4.1
"""Inches: a figure fills a phone's width without its text becoming small."""

INK, FAINT, PAPER = "#16181d", "#d4d7dd", "#fefefe"
"""Text and axes, grid, and the inside of hollow marks; in SVG they become the page's own colours."""

PAGE_COLOURS = {INK: "currentColor", FAINT: "var(--line)", PAPER: "var(--card)"}

LEGEND_ROW, TITLE_ROW, AXIS_ROOM = 0.19, 0.25, 0.52

TITLE_POINTS, TITLE_LETTER, SMALLEST_TITLE = 9.5, 0.076, 0.75
"""Of a title that fits: its size, and the width of a letter in inches."""
"""Inches kept above and below the axes."""

DPI = 300
"""Of PNG files: 1,230 pixels wide."""

PNG_LEVEL = 3
"""Of compression: half the time of the default, for a sixth more bytes."""

DOT = r"M (\S+) (\S+) \n(?:C .*\n){3}C (?:\S+ ){5}(\S+) \n(?:C .*\n){4}z\n"
"""One dot of a hatch as matplotlib writes it: a circle of eight curves, from its lowest point by its highest."""

DOTS = re.compile(rf'<path d="((?:{DOT})+)"(.*?)stroke-width: (\S+); stroke-linecap: butt')

SCALES = (("µs", 1e6), ("ms", 1e3), ("s", 1.0))


@contextmanager
def style() -> Iterator[None]:
    """The settings of all figures; nothing global is left changed."""
    settings: dict[str, Any] = {
        **sns.axes_style("whitegrid"),
        **sns.plotting_context("paper"),
        "font.family": ["sans-serif"],
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 9,
        "axes.labelsize": 9,
        "axes.titlesize": 9.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "legend.fontsize": 8.5,
        "legend.frameon": False,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "grid.color": FAINT,
        "grid.linewidth": 0.6,
        "hatch.linewidth": 0.6,
        "text.parse_math": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "analysis",
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():  # type: ignore[arg-type]
        warnings.filterwarnings("ignore", message="Glyph")  # a letter that the font lacks is a box in the PNG
        yield


def canvas(height: float, title: str, legend: Sequence[Artist], *, left: float = 0.66) -> tuple[Figure, Axes]:
    """A figure whose axes are ``height`` inches tall, with its legend above them.

    Room is reckoned from the number of letters, not by drawing text twice to measure it.
    """
    longest = max((len(str(handle.get_label())) for handle in legend), default=0)
    columns = max(1, min(len(legend), int((WIDTH - 0.1) / (0.42 + 0.075 * longest))))
    rows = -(-len(legend) // columns)
    above = rows * LEGEND_ROW + (TITLE_ROW if title else 0) + 0.12
    total = height + above + AXIS_ROOM
    figure = Figure(figsize=(WIDTH, total))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((left / WIDTH, AXIS_ROOM / total, 1 - (left + 0.12) / WIDTH, height / total))
    _title(figure, title, total)
    if legend:
        top = 1 - (TITLE_ROW if title else 0) / total
        figure.legend(
            handles=[handle for column in range(columns) for handle in legend[column::columns]],  # row by row
            loc="upper left",
            bbox_to_anchor=(0, top),
            ncols=columns,
            borderpad=0.3,
            handlelength=2.2,
            columnspacing=1.0,
            handletextpad=0.5,
        )
    sns.despine(ax=axes)
    return figure, axes


def pair(height: float, title: str, left: float) -> tuple[Figure, Axes, Axes]:
    """A figure with two axes of ``height`` inches next to each other, with room for the names of rows at the left."""
    above = (TITLE_ROW if title else 0) + 0.08
    room = AXIS_ROOM + LEGEND_ROW  # a label of two lines
    total = height + above + room
    figure = Figure(figsize=(WIDTH, total))
    FigureCanvasAgg(figure)
    wide = (WIDTH - left - 0.22) / 2
    first, second = (
        figure.add_axes((at / WIDTH, room / total, wide / WIDTH, height / total)) for at in (left, left + wide + 0.14)
    )
    _title(figure, title, total)
    for axes in (first, second):
        sns.despine(ax=axes)
    return figure, first, second


def _title(figure: Figure, title: str, total: float) -> None:
    """A title that fits the figure's width; cut where its letters would become too small to read."""
    if not title:
        return
    longest = int((WIDTH - 0.1) / (TITLE_LETTER * SMALLEST_TITLE))
    shown = title if len(title) <= longest else f"{title[: longest - 1]}…"
    shrink = min(1.0, (WIDTH - 0.1) / (TITLE_LETTER * len(shown)))
    figure.text(0.012, 1 - 0.08 / total, shown, va="top", weight="bold", fontsize=TITLE_POINTS * shrink)


def save(figure: Figure, file: Path, title: str, alternative: str) -> Drawing:
    """Writes ``file`` as PNG and SVG; ``alternative`` describes the figure in words."""
    with replacing(file) as partial:
        options = {"compress_level": PNG_LEVEL}
        figure.savefig(
            partial, format="png", dpi=DPI, facecolor="white", metadata={"Software": None}, pil_kwargs=options
        )
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    document = DOTS.sub(_as_caps, plain(buffer.getvalue()))
    write_whole(file.with_suffix(".svg"), file_svg(document))
    return Drawing(title, file, page_svg(document, alternative))


def _as_caps(path: re.Match[str]) -> str:
    """A hatch of dots as round ends of lines without length, which look alike: a tenth of the letters."""
    dots = re.findall(DOT, path[1])
    (_, low, high), width = dots[0], float(path[6])
    diameter = abs(float(low) - float(high)) + width
    places = "".join(f"M {x} {(float(bottom) + float(top)) / 2:g} h0\n" for x, bottom, top in dots)
    return f'<path d="{places}"{path[5]}stroke-width: {diameter:g}; stroke-linecap: round'


def file_svg(document: str) -> str:
    """A matplotlib SVG as a file of its own: on white, since a viewer may be dark."""
    start = document.index(">", document.index("<svg")) + 1
    return f'{document[:start]}\n <rect width="100%" height="100%" fill="white"/>{document[start:]}'


def page_svg(document: str, alternative: str) -> str:
    """A matplotlib SVG as an element of a page: fluid, in the page's colours and font, with a text alternative."""
    body = document[document.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"(<svg[^>]*?) width=\"[^\"]*\"", r"\1", body, count=1)
    body = re.sub(r"(<svg[^>]*?) height=\"[^\"]*\"", r"\1", body, count=1)
    quoted = alternative.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    body = body.replace("<svg", f'<svg role="img" aria-label="{quoted}"', 1)
    body = re.sub(r"'DejaVu Sans'(, sans-serif)?", "var(--font)", body)
    for ours, theirs in PAGE_COLOURS.items():
        body = body.replace(ours, theirs)
    return body
