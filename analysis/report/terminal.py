"""Renders a report on a terminal: the answer, a table that fits 80 columns, warnings, and where the files are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.metrics.hosts import count as host_count
from analysis.report.model.content import Content
from analysis.report.model.section import Section
from analysis.report.sections import answer, collectives, largest_batch, memory, model_size, target
from analysis.table import warnings as warnings_table
from analysis.table.frame import varying
from analysis.table.panels import panels
from analysis.table.rows import ALWAYS
from analysis.text import units
from results import verdicts
from results.shown import printable
from terminal import tables
from terminal.tables import PIPE_WIDTH, bare

if TYPE_CHECKING:
    from analysis.metrics.measured import Measured
    from analysis.report.write import ReportPaths

MOST_TABLES = 12
"""Tables that are printed; a reader scrolls no further."""
NUMBERS = ["/s", "[low, high]", "ms", "eff.", "state", "peak", "warn."]
BAD, CARE = "bold red", "yellow"


def print_summary(
    content: Content, paths: ReportPaths | None, warnings: Sequence[str] = (), *, console: Console | None = None
) -> None:
    """Print the answer, a table of configurations for each combination of other settings, notes, and last the paths.

    ``warnings`` come in addition to those of ``content``. Plain text where the output is not a terminal.
    """
    out = console or tables.console()
    for line in (line for section in answer.sections(content)[:1] for line in section.prose):
        out.print(Text(printable(line), style="bold"), soft_wrap=not out.is_terminal)
    settings = panels(content.trained, [name for name in varying(content.trained) if name not in ALWAYS])
    for panel in settings[:MOST_TABLES]:
        if panel.title:
            out.print(Text(panel.title, style="bold"))
        cells = [content.measured[int(index)] for index in panel.table.index]
        wide = _table(cells, gap=2)
        fits = out.measure(wide, options=out.options.update(max_width=PIPE_WIDTH)).maximum <= out.width
        out.print(wide if fits else _table(cells, gap=1))
    if len(settings) > MOST_TABLES:
        left = units.counted(len(settings) - MOST_TABLES, "more setting")
        out.print(Text(f"and {left}, each with a table of its own: in the report", style="dim"))
    for module in (target, largest_batch, model_size, collectives):
        _print_section(module.section(content), out)
    for line, style in _notes(content, warnings):
        out.print(Text(printable(line), style=style), soft_wrap=not out.is_terminal)
    if paths is not None:
        for name, path in (("table", paths.csv), ("report", paths.markdown), ("report", paths.html)):
            out.print(Text(f"{name:<7} {path}"), soft_wrap=True)


def _print_section(section: Section, out: Console) -> None:
    """A section's title, tables and first note; nothing of an empty one."""
    if section.is_empty:
        return
    out.print(Text(section.title, style="bold"))
    for line in section.prose:
        out.print(Text(printable(line)))
    for table in section.tables:
        headings = [column.heading for column in table.columns]
        wrapped = [column.heading for column in table.columns if column.kind in ("words", "setting")]
        grid = bare(headings, wrapped)
        for row in table.rows:
            grid.add_row(*(value.text for value in row.values))
        out.print(grid)
    for note in section.notes[:1]:
        out.print(Text(printable(note), style="dim"), soft_wrap=not out.is_terminal)


def _table(cells: Sequence[Measured], gap: int) -> Table:
    columns = ("stage", "ranks", "status", *NUMBERS)
    table = bare(columns, ("status", "warn."), whole=columns, gap=gap)
    for cell in cells:
        table.add_row(*_words(cell), style=BAD if not cell.is_ok else "dim" if cell.is_oversubscribed else "")
    return table


def _words(cell: Measured) -> list[str]:
    """One configuration: settings, status, and numbers per second, in ms, per cent and MiB."""
    speed, cell_memory = cell.throughput_per_s, cell.memory
    ends = f"[{units.short(speed.low)}, {units.short(speed.high)}]" if units.is_finite(speed.low) else ""
    return [
        str(cell.settings["stage"]),
        f"{cell.world_size} on {hosts}" if (hosts := host_count(cell.record)) > 1 else str(cell.world_size),
        units.spoken(cell.record.status),
        units.short(speed.value),
        ends,
        units.ms(cell.step_time_s.value),
        _efficiency(cell),
        units.mib(cell_memory.state_bytes),
        units.mib(cell_memory.peak_bytes),
        verdicts.letters(";".join(cell.warnings)),
    ]


def _efficiency(cell: Measured) -> str:
    """Whole per cent; ``base`` for what others are measured against."""
    if cell.efficiency is None:
        return units.MISSING
    return "base" if cell.baseline is None else units.percent(cell.efficiency.interval.value)


def _notes(content: Content, warnings: Sequence[str]) -> list[tuple[str, str]]:
    """Lines below the table, each with its style: units, warnings, failures."""
    table = content.table
    unit = "/".join(f"{name}s" for name in table["unit"].dropna().unique())
    level = f"; [low, high]: confidence interval at {content.levels}" if content.levels else ""
    notes = []
    if unit:
        notes.append((f"/s: {unit} of all ranks{level}", "dim"))
        notes.append(("ms: step time; eff.: scaling efficiency (base: baseline); state, peak: MiB per rank", "dim"))
    if (table["hosts"] > 1).any():
        notes.append(("ranks: 4 on 2 means 4 ranks on 2 hosts", "dim"))
    notes += [(line, "dim") for line in memory.gathered_at_stage_3(content)]
    for flag in warnings_table.verdicts(table):
        notes.append((f"{verdicts.letters(flag.name)}: {units.spoken(flag.name)}, {flag.cells}", CARE))
    for flag in warnings_table.failures(table):
        reason = f": {flag.reason}" if flag.reason else ""
        notes.append((f"{units.spoken(flag.name)}, {flag.cells}{reason}", BAD))
    return notes + [(f"warning: {warning}", CARE) for warning in (*content.warnings, *warnings)]
