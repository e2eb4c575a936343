"""Renders a document as Markdown, with figures as linked files."""

from __future__ import annotations

import re
from collections.abc import Iterator

from analysis.figures.plot import Plot
from analysis.report.model.section import Alert, Document, ListItem, Points, Section, Table, Value

ALIGNMENT = {"setting": "---:", "status": "---", "number": "---:", "words": "---"}


def render(document: Document) -> str:
    """The whole report; every word of a record is escaped."""
    blocks = [f"# {escaped(document.title)}", f"{escaped(document.sweep)}."]
    for at, machine in enumerate(document.machines):
        blocks.append(f"{escaped(machine)}{f', {escaped(document.date)}' if document.date and at == 0 else ''}.")
    counts = ", ".join(f"{count} {escaped(status.replace('_', ' '))}" for status, count in document.counts)
    blocks.append(f"Configurations: {counts}.")
    for at, section in enumerate(document.sections):
        blocks += _section(section)
        if at == 0:
            blocks += map(_alert, document.alerts)
            blocks.append(_contents(document))
    return "\n\n".join(blocks) + "\n"


def _alert(alert: Alert) -> str:
    return f"**{escaped(alert.text)}** ([details](#{alert.anchor}))"


def _contents(document: Document) -> str:
    return "Contents: " + " · ".join(f"[{escaped(one.title)}](#{one.anchor})" for one in document.sections)


def _section(section: Section) -> Iterator[str]:
    yield f'<a id="{section.anchor}"></a>\n\n## {escaped(section.title)}'
    yield from map(escaped, section.prose)
    for plot in section.figures:
        yield from _figure(plot)
    for points in section.lists:
        yield from _points(points)
    yield from map(_table, section.tables)
    if section.commands:
        yield "\n".join(f"    {' '.join(command.split())}" for command in section.commands)
    yield from map(escaped, section.notes)


def _figure(plot: Plot) -> Iterator[str]:
    yield f"### {escaped(plot.title)}"
    left = f" {plot.left_out} more panels are not drawn; their numbers are in summary.csv." if plot.left_out else ""
    yield escaped(plot.definition) + left
    yield "\n".join(
        f"![{escaped(plot.title)}{f': {escaped(one.title)}' if one.title else ''}](figures/{one.file.name})"
        for one in plot.drawings
    )


def _points(points: Points) -> Iterator[str]:
    if points.title:
        yield f"### {escaped(points.title)}"
    yield "\n".join(f"- {_point(point)}" for point in points.points)


def _point(point: ListItem) -> str:
    parts = []
    if point.about:
        parts.append(f"**{escaped(point.about)}{'.' if not point.tag else ''}**")
    if point.tag:
        parts.append(f"{escaped(point.tag)}:")
    parts += [escaped(point.text)] if point.text else []
    parts += [f"[{escaped(link.text)}]({link.address})" for link in point.links]
    parts += [escaped(point.quoted)] if point.quoted else []
    return " ".join(parts)


def _table(table: Table) -> str:
    lines = [_line([escaped(column.heading) for column in table.columns])]
    lines.append(_line([ALIGNMENT[column.kind] for column in table.columns]))
    lines += [_line([_value(value) for value in row.values]) for row in table.rows]
    return "\n".join(lines)


def _line(entries: list[str]) -> str:
    return f"| {' | '.join(entries)} |"


def _value(value: Value) -> str:
    return " ".join(escaped(part) for part in (value.text, value.below) if part)


def escaped(text: object) -> str:
    """Text that Markdown shows as it is, on one line, also inside a table's cell.

    An interval such as ``[1.2, 1.4]`` is left as it is: it links to nothing.
    """
    words = " ".join(str(text).split())
    words = words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"(?P<kept>\[[-+\d.,e ]+\](?![(\[:]))|(?P<mark>[\\`*_\[\]|#])", _kept_or_marked, words)


def _kept_or_marked(match: re.Match[str]) -> str:
    return match["kept"] or f"\\{match['mark']}"
