"""The section model: one part of a report, independent of its rendering (HTML, Markdown, terminal)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from analysis.figures.plot import Plot

Kind = Literal["setting", "status", "number", "words"]


@dataclass(frozen=True)
class Value:
    """One entry of a table."""

    text: str
    below: str = ""
    """Small print below it, such as its interval ``[1.2, 1.4]`` or its prediction."""


@dataclass(frozen=True)
class Column:
    """One column of a table; ``kind`` decides how it is aligned and wrapped."""

    heading: str
    kind: Kind = "number"


@dataclass(frozen=True)
class TableRow:
    """One row of a table."""

    values: Sequence[Value]
    look: Literal["ok", "wrong", "crowded"] = "ok"


@dataclass(frozen=True)
class Table:
    """Rows under columns."""

    columns: Sequence[Column]
    rows: Sequence[TableRow]


@dataclass(frozen=True)
class FileLink:
    """A file next to the report."""

    text: str
    address: str
    """Relative to the report's folder."""


@dataclass(frozen=True)
class ListItem:
    """One entry of a list: topic, text, and quoted source."""

    text: str
    about: str = ""
    tag: str = ""
    """A status or warning in words."""
    quoted: str = ""
    """Words that come from a rank, a file or a library, shown as they are."""
    links: Sequence[FileLink] = ()


@dataclass(frozen=True)
class Points:
    """A list under a heading of its own, which may be empty."""

    points: Sequence[ListItem]
    title: str = ""


@dataclass(frozen=True)
class Section:
    """One part of a report. Its parts are shown in the order of the fields."""

    title: str
    anchor: str
    prose: Sequence[str] = ()
    figures: Sequence[Plot] = ()
    lists: Sequence[Points] = ()
    tables: Sequence[Table] = ()
    commands: Sequence[str] = ()
    notes: Sequence[str] = ()
    """Definitions and sources, in small print."""
    folded: Literal["nothing", "details", "all"] = "nothing"
    """What a page shows only when a reader opens it: lists and tables (with their notes), or all but the title."""
    tone: Literal["plain", "bad", "care"] = "plain"

    @property
    def is_empty(self) -> bool:
        return not (self.prose or self.figures or self.lists or self.tables or self.commands)


def table(columns: Sequence[Column], rows: Sequence[Sequence[Value | str]]) -> list[Table]:
    """One table in a list, or none where there are no rows."""
    filled = [TableRow([one if isinstance(one, Value) else Value(one) for one in row]) for row in rows]
    return [Table(columns, filled)] if filled else []


def settings(headings: Sequence[str]) -> list[Column]:
    """The columns that tell the rows of a table apart."""
    return [Column(heading, "setting") for heading in headings]


def numbers(*headings: str) -> list[Column]:
    return [Column(heading) for heading in headings]


def words(*headings: str) -> list[Column]:
    return [Column(heading, "words") for heading in headings]


@dataclass(frozen=True)
class Alert:
    """One line on the first screen, linked to the section that has the rest."""

    text: str
    anchor: str
    tone: Literal["bad", "care"]


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    sweep: str
    """What was run, in a line."""
    machines: Sequence[str]
    date: str
    counts: Sequence[tuple[str, int]]
    """Configurations by status."""
    alerts: Sequence[Alert]
    sections: Sequence[Section] = field(default=())
