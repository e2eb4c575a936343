"""Writes the report of a sweep: summary.csv and .parquet, report.md, report.html (one file, no network), figures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from analysis.advice import alpha_beta, overlap, pareto
from analysis.advice.answer import answers
from analysis.advice.bucket_size import Curve, curves
from analysis.advice.model_size import FitsRow, fits_rows
from analysis.figures import bucket_size, catalogue
from analysis.figures import overlap as overlap_figure
from analysis.figures import pareto as pareto_figure
from analysis.figures.alpha_beta import draw
from analysis.metrics import scaling_loss
from analysis.metrics.step_parts import PARTS, WORDS
from analysis.report.sections.bucket_size import advice, bucket_rows
from analysis.report.sections.communication import ledger_rows
from analysis.report.sections.largest_batch import search_rows
from analysis.report.sections.memory import higher_stages, memory_rows
from analysis.report.sections.overlap import overlap_rows
from analysis.report.sections.scaling_loss import can_be_told, loss_rows
from analysis.report.sections.serial_fraction import serial_rows, trends
from analysis.report.sections.step_parts import step_rows
from analysis.table import provenance, rows
from analysis.table.frame import AXES, COLUMNS, frame
from analysis.table.warnings import failures, verdicts
from analysis.text import units
from analysis.text.spreadsheet import as_data
from results.atomic import replacing, write_whole
from results.record import STATUSES, Record

WHOLE = (
    "stage",
    "gpus",
    "launches",
    "scaling_baseline_gpus",
    "parameters",
    "devices",
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
    """What a report consists of."""

    csv: Path
    markdown: Path
    html: Path
    figures: list[Path]
    """PNG files; beside each is the same as SVG."""
    parquet: Path
    fits: list[FitsRow]
    """How large a model fits, a row a cell, where that was asked."""


def write_report(
    records: Sequence[Record],
    folder: Path,
    warnings: Sequence[str] = (),
    *,
    table: pd.DataFrame | None = None,
    gpu_memory_bytes: int | None = None,
) -> ReportPaths:
    """Writes the report on ``records`` into ``folder``; ``table`` is their frame, if it is at hand.

    ``warnings`` (such as unreadable files) are shown at the top. With ``gpu_memory_bytes`` it also says how large a
    model fits so much memory per rank. Raises OSError where ``folder`` cannot be written; each file is then
    as it was, or the new one.
    """
    table = frame(records) if table is None else table
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(table, folder / "summary.csv")
    with replacing(folder / "summary.parquet") as partial:
        typed(table).to_parquet(partial, index=False)
    alpha_beta.write_csv(records, table, folder / "collectives.csv")
    figures = folder / "figures"
    by_bucket, by_overlap = curves(records, table), overlap.overlapped(records, table)
    drawn = catalogue.draw(table, figures) + pareto_figure.draw(table, figures)
    drawn += bucket_size.draw(by_bucket, table, figures) + overlap_figure.draw(by_overlap, table, figures)
    drawn += draw(records, table, figures)
    content = contents(records, table, drawn, warnings, gpu_memory_bytes) | tuning(by_bucket, by_overlap, table)
    paths = ReportPaths(
        csv=folder / "summary.csv",
        markdown=folder / "report.md",
        html=folder / "report.html",
        figures=[drawing.file for plot in drawn for drawing in plot.drawings],
        parquet=folder / "summary.parquet",
        fits=content["fits"],
    )
    page = _environment(is_html=True).get_template("report.html.j2").render(content)
    write_whole(paths.html, units.plain(page))
    text = _environment(is_html=False).get_template("report.md.j2").render(content)
    write_whole(paths.markdown, units.plain(re.sub(r"\n{3,}", "\n\n", text).strip()) + "\n")
    return paths


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """A row a cell, bare SI units, empty where nothing is known."""
    with replacing(path) as partial:
        as_data(typed(table)).to_csv(partial, index=False, lineterminator="\n")


def typed(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a type for each column that a file can keep: whole numbers, fractions, truth values or words.

    A knob whose values are of several types, or lists, is written as words.
    """
    whole = {
        name: "Int64" for name in table.columns if name in WHOLE or (name.endswith("_bytes") and name not in FRACTIONAL)
    }
    found = table.astype(whole)
    for name in found.select_dtypes(object):
        found[name] = _column(found[name])
    return found


TYPES: tuple[tuple[set[type], Any], ...] = (
    (set(), "float64"),
    ({bool}, "boolean"),
    ({int}, "Int64"),
    ({int, float}, "float64"),
)
"""What a column is kept as whose values are of these types; all else is words."""


def _column(held: pd.Series) -> pd.Series:
    """A column of plain Python values with the one type that they have; with words in place of several."""
    kinds = {type(value) for value in held if not (value is None or value != value)}
    for covered, dtype in TYPES:
        if kinds <= covered:
            return held.astype(dtype)
    words = [
        None if value is None or value != value else value if isinstance(value, str) else str(value) for value in held
    ]
    return pd.Series(words, index=held.index, dtype="str")


def contents(
    records: Sequence[Record],
    table: pd.DataFrame,
    drawn: Sequence[catalogue.Plot],
    warnings: Sequence[str],
    gpu_memory_bytes: int | None = None,
) -> dict[str, Any]:
    """What both templates show, in the order in which they show it."""
    trained = table[~alpha_beta.is_benchmark(table)]
    names = rows.knob_names(trained if len(trained) else table)
    counts = table["status"].value_counts()
    environments = {str(record.environment): record.environment for record in records}
    nouns = table["unit"].dropna().unique()
    return {
        "title": f"DDP and ZeRO: {', '.join(sorted(map(str, table['workload'].unique())))}",
        "sweep": provenance.sweep_line(records, table),
        "machines": list(dict.fromkeys(map(provenance.machine_line, environments.values()))),
        "date": min((launch.started_at for record in records for launch in record.launches), default=""),
        "counts": [(status, int(counts[status])) for status in STATUSES if status in counts],
        "failures": failures(table),
        "verdicts": verdicts(table),
        "warnings": list(warnings),
        "answers": answers(trained),
        "knobs": rows.headings(names),
        "rows": rows.rows(trained, names),
        "unit": f"{nouns[0]}s" if len(nouns) == 1 else "units",
        "levels": rows.levels(table),
        "searches": search_rows(trained, names),
        "ledger": ledger_rows(records, trained, names),
        "steps": step_rows(records, trained, names),
        "parts": [WORDS.get(part, part) for part in PARTS],
        "losses": loss_rows(records, trained, names),
        "loss_can_be_told": can_be_told(records, trained),
        "loss_parts": [WORDS.get(part, part) for part in scaling_loss.PARTS],
        "serial": serial_rows(trained, names),
        "serial_trends": trends(records, trained, names),
        "memory": memory_rows(trained, names),
        "higher_stages": higher_stages(trained, names),
        "gpu_memory": units.size(gpu_memory_bytes) if gpu_memory_bytes else "",
        "fits": fits_rows(records, trained, names, gpu_memory_bytes) if gpu_memory_bytes else [],
        "collectives": alpha_beta.fit_rows(records, table),
        "collectives_headings": alpha_beta.HEADINGS,
        "plots": drawn,
        "environment": provenance.environment_rows(records),
        "commands": provenance.commands(records),
        "columns": f"{', '.join(AXES)}, ... ({len(COLUMNS)} columns and every other knob that varies)",
    }


def tuning(by_bucket: Sequence[Curve], by_overlap: Sequence[overlap.Overlapped], table: pd.DataFrame) -> dict[str, Any]:
    """What both templates show of knobs that were swept to find the best value."""
    names = rows.knob_names(table)
    without = [name for name in names if name != "overlap"]
    last = [*(name for name in names if name != "bucket_mb"), "bucket_mb"]
    return {
        "buckets": bucket_rows(by_bucket, table, last),
        "bucket_knobs": rows.headings(last),
        "bucket_advice": advice(by_bucket),
        "overlaps": overlap_rows(by_overlap, table, without),
        "overlap_knobs": rows.headings(without),
        "fronts": (fronts := pareto.front_rows(table)),
        "tasks": any(row.task for row in fronts),
    }


def _environment(*, is_html: bool) -> Environment:
    found = Environment(
        loader=PackageLoader("analysis.report"),
        autoescape=is_html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["md"] = markdown_text
    found.filters["svg"] = Markup  # drawn by analysis.figures.canvas, which escapes what it writes
    return found


def markdown_text(text: object) -> str:
    """Text that markdown shows as it is, on one line and inside a table's cell."""
    words = " ".join(str(text).split())
    words = words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", words)
