"""Renders a document as one HTML page: no network, no script; light and dark, desktop, phone and print."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from analysis.report.model.section import Document


def render(document: Document) -> str:
    """The whole page; every word of a record is escaped."""
    environment = Environment(
        loader=PackageLoader("analysis.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = Markup  # drawn by analysis.figures.canvas, which escapes what it writes
    return environment.get_template("report.html.j2").render(document=document)
