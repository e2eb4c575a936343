"""Writes the report of a sweep: summary.csv and .parquet, report.md, report.html (one file, no network), figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.advice import alpha_beta
from analysis.figures import alpha_beta as collectives_figure
from analysis.figures import bucket_size, catalogue
from analysis.figures import overlap as overlap_figure
from analysis.figures import pareto as pareto_figure
from analysis.figures.plot import Plot
from analysis.report import html, markdown
from analysis.report.document import Advised, advised, document
from analysis.report.model.content import Content
from analysis.text import units
from analysis.text.spreadsheet import as_data
from results.atomic import replacing, write_whole

WHOLE = (
    "stage",
    "gpus",
    "launches",
    "hosts",
    "scaling_baseline_gpus",
    "across_hosts_baseline_gpus",
    "parameters",
    "machine_devices",
    "search_tried",
    "max_batch",
    "unfit_batch",
)
"""Columns that hold whole numbers, as do all others that end in ``_bytes``."""
FRACTIONAL = ("model_state_paper_bytes", "sent_predicted_bytes", "sent_bytes", "wire_bytes")
"""Bytes per rank on average, which need not be whole."""

WRITTEN = ("report.html", "report.md", "summary.csv", "summary.parquet", "collectives.csv", "figures")
"""What a report leaves in its folder: its files, and the folder of its figures."""


@dataclass(frozen=True)
class ReportPaths:
    """The files of a report."""

    csv: Path
    markdown: Path
    html: Path
    figures: list[Path]
    """PNG files; each is there as SVG too."""
    parquet: Path


def write_report(content: Content, folder: Path) -> ReportPaths:
    """Write the report on ``content`` into ``folder``.

    Raises OSError where ``folder`` cannot be written; each file is then as it was, or the new one.
    """
    table = content.table
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(table, folder / "summary.csv")
    with replacing(folder / "summary.parquet") as partial:
        typed(table).to_parquet(partial, index=False)
    alpha_beta.write_csv(content.records, table, folder / "collectives.csv")
    advice = advised(content)
    plots = draw(content, advice, folder / "figures")
    whole = document(content, advice, plots, folder)
    paths = ReportPaths(
        csv=folder / "summary.csv",
        markdown=folder / "report.md",
        html=folder / "report.html",
        figures=[drawing.file for plot in plots for drawing in plot.drawings],
        parquet=folder / "summary.parquet",
    )
    write_whole(paths.html, units.plain(html.render(whole)))
    write_whole(paths.markdown, units.plain(markdown.render(whole)))
    return paths


def draw(content: Content, advice: Advised, folder: Path) -> list[Plot]:
    """Every figure that there are data for, saved in ``folder``."""
    records, table = content.records, content.table
    return [
        *catalogue.draw(content.measured, table, folder),
        *pareto_figure.draw(advice.fronts, folder),
        *bucket_size.draw(advice.curves, table, folder),
        *overlap_figure.draw(advice.overlapped, table, folder),
        *collectives_figure.draw(records, table, folder),
    ]


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """A row a cell, bare SI units, empty where nothing was measured."""
    with replacing(path) as partial:
        as_data(typed(table)).to_csv(partial, index=False, lineterminator="\n")


def typed(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a type for each column that a file can keep: whole numbers, fractions, truth values or words.

    A setting whose values are of several types, or lists, is written as words.
    """
    whole = {
        name: "Int64" for name in table.columns if name in WHOLE or (name.endswith("_bytes") and name not in FRACTIONAL)
    }
    columns = table.astype(whole)
    for name in columns.select_dtypes(object):
        columns[name] = _column(columns[name])
    return columns


TYPES: tuple[tuple[set[type], Any], ...] = (
    (set(), "float64"),
    ({bool}, "boolean"),
    ({int}, "Int64"),
    ({int, float}, "float64"),
)
"""What a column is kept as whose values are of these types; all else is words."""


def _column(column: pd.Series) -> pd.Series:
    """A column of plain Python values with the one type that they have; with words in place of several."""
    kinds = {type(value) for value in column if not (value is None or value != value)}
    for covered, dtype in TYPES:
        if kinds <= covered:
            return column.astype(dtype)
    words = [
        None if value is None or value != value else value if isinstance(value, str) else str(value) for value in column
    ]
    return pd.Series(words, index=column.index, dtype="str")
