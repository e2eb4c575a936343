"""The end of a sweep on a terminal: a table that fits 80 columns, what to know of it, and where the report is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.advice import alpha_beta
from analysis.advice.model_size import FitsRow
from analysis.report.sections.largest_batch import search_rows
from analysis.table import warnings as warnings_table
from analysis.table.frame import Cell, each_cell, varying
from analysis.table.panels import panels
from analysis.table.rows import ALWAYS, headings, knob_names, levels
from analysis.text import units
from results import verdicts
from results.shown import printable
from terminal import tables
from terminal.tables import PIPE_WIDTH, bare

if TYPE_CHECKING:
    from analysis.report.write import ReportPaths

MOST_TABLES = 12
"""Tables that are printed; a reader scrolls no further."""
NUMBERS = ["step ms", "±", "/s", "eff.", "state", "peak", "parity", "flags"]
BAD, CARE = "bold red", "yellow"


def print_summary(
    table: pd.DataFrame,
    paths: ReportPaths | None,
    warnings: Sequence[str] = (),
    *,
    by_size: Sequence[alpha_beta.Row] = (),
    models: Sequence[FitsRow] = (),
    gpu_memory: str = "",
    console: Console | None = None,
) -> None:
    """Prints a table of cells for each combination of the knobs that vary beside stage and world size.

    Then come ``models`` (how large a model fits ``gpu_memory``) and ``by_size``, a row each, legend, failures and
    warnings, and last the paths. Plain text where the output is not a terminal.
    """
    out = console or tables.console()
    trained = table[~alpha_beta.is_benchmark(table)]
    settings = panels(trained, [name for name in varying(trained) if name not in ALWAYS])
    for panel in settings[:MOST_TABLES]:
        if panel.title:
            out.print(Text(panel.title, style="bold"))
        wide = _table(panel.table, gap=2)
        fits = out.measure(wide, options=out.options.update(max_width=PIPE_WIDTH)).maximum <= out.width
        out.print(wide if fits else _table(panel.table, gap=1))
    if len(settings) > MOST_TABLES:
        left = units.counted(len(settings) - MOST_TABLES, "more setting")
        out.print(Text(f"and {left}, each with a table of its own: in the report", style="dim"))
    if (table["search_tried"] > 0).any():
        out.print(_searches(table))
    if models:
        out.print(_models(models, headings(knob_names(trained))))
        out.print(Text(f"largest model that fits {gpu_memory} a rank, in parameters", style="dim"))
    if by_size:
        out.print(_fits_table(by_size))
        out.print(Text("t = α + β·S, off the line: sizes further from it than they spread", style="dim"))
    for line, style in _notes(table, warnings):
        out.print(Text(printable(line), style=style), soft_wrap=not out.is_terminal)
    if paths is not None:
        for name, path in (("table", paths.csv), ("report", paths.markdown), ("report", paths.html)):
            out.print(Text(f"{name:<7} {path}"), soft_wrap=True)


def _table(part: pd.DataFrame, gap: int) -> Table:
    columns = ("stage", "ranks", "status", *NUMBERS)
    found = bare(columns, ("status", "flags"), whole=columns, gap=gap)
    for _, row in each_cell(part):
        crowded = "oversubscribed" in row["verdicts"]
        found.add_row(*_words(row), style="" if row["status"] == "ok" and not crowded else "dim" if crowded else BAD)
    return found


def _searches(table: pd.DataFrame) -> Table:
    """What each search found, in samples per rank and MiB."""
    names = knob_names(table)
    found = bare((*headings(names), "limit", "largest batch", "peak", "too large"), ())
    for row in search_rows(table, names):
        found.add_row(*row.knobs, row.limit, row.largest, row.peak, row.unfit)
    return found


def _models(models: Sequence[FitsRow], names: Sequence[str]) -> Table:
    found = bare((*names, "bytes/parameter", "measured", "at least", "at most"), ())
    for row in models:
        found.add_row(*row.knobs, row.bytes_per_parameter, row.measured, row.least, row.most)
    return found


def _fits_table(fits: Sequence[alpha_beta.Row]) -> Table:
    unbroken = [name for name in alpha_beta.HEADINGS if name != "off the line"]
    found = bare(alpha_beta.HEADINGS, ("cell", "collective", "off the line"), whole=unbroken)
    for fit in fits:
        found.add_row(fit.cell, fit.kind, fit.alpha, fit.bandwidth, fit.bus, fit.off)
    return found


def _words(row: Cell) -> list[str]:
    """One cell: knobs, status, and numbers in ms, per second, per cent and MiB."""
    reach = max(row["step_time_s_high"] - row["step_time_s"], row["step_time_s"] - row["step_time_s_low"])
    return [
        str(row["stage"]),
        str(row["gpus"]),
        str(row["status"]).replace("_", " "),
        units.ms(row["step_time_s"]),
        units.number(reach * 1e3, 2) if units.known(reach) else "",
        units.short(row["throughput_per_s"]),
        units.percent(row["scaling_efficiency"]),
        units.mib(row["model_state_bytes"]),
        units.mib(row["peak_bytes"]),
        units.error(row["parity_error"]),
        verdicts.letters(row["verdicts"]),
    ]


def _notes(table: pd.DataFrame, warnings: Sequence[str]) -> list[tuple[str, str]]:
    """Lines below the table, each with its style: units, verdicts, failures, warnings."""
    unit = "/".join(f"{name}s" for name in table["unit"].dropna().unique())
    reached = f"; ±: interval at {levels(table)}" if levels(table) else ""
    notes = []
    if unit:
        notes.append((f"/s: {unit} of all ranks; state, peak: MiB per rank{reached}", "dim"))
    notes += [(line, "dim") for line in _whole_at_stage_3(table)]
    for flag in warnings_table.verdicts(table):
        notes.append((f"{verdicts.letters(flag.name)}: {flag.name.replace('_', ' ')}, {flag.cells}", CARE))
    for flag in warnings_table.failures(table):
        reason = f": {flag.reason}" if flag.reason else ""
        notes.append((f"{flag.name.replace('_', ' ')}, {flag.cells}{reason}", BAD))
    notes += [(f"warning: {warning}", CARE) for warning in warnings]
    return notes


def _whole_at_stage_3(table: pd.DataFrame) -> list[str]:
    """For each workload with a cell at stage 3, how much of the model a rank gathers at once."""
    rows = table[table["root_share"].notna()].drop_duplicates(["workload", "root_share", "largest_unit_share"])
    return [
        f"{row['workload']}: at stage 3 a rank holds the root ({units.percent(row['root_share'])} of the parameters) "
        f"whole, and a unit at a time (the largest: {units.percent(row['largest_unit_share'])})"
        for _, row in each_cell(rows)
    ]
