"""A figure as it was drawn: its files, its definition, and the section of the report that shows it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Drawing:
    """One finished panel."""

    title: str
    """The settings that distinguish it within its figure; may be empty."""
    file: Path
    """PNG; the same as SVG is in the same folder."""
    svg: str


@dataclass(frozen=True)
class Plot:
    """One kind of figure as drawn for a report."""

    title: str
    definition: str
    section: str
    """The anchor of the section that shows it."""
    drawings: list[Drawing]
    left_out: int
    """Panels that were not drawn."""
