"""A projection on the terminal: the check first, then the fastest configuration and a table per world size."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from rich.console import Console

from analysis.projection.held_out import LEVEL, order_kept
from analysis.projection.project import PAYS_OFF, Projection, ProjectionRow
from analysis.text import units
from terminal.tables import bare

COLUMNS = ("configuration", "step (ms)", "90 % band", "throughput", "efficiency", "exposed", "limit", "peak (MiB)")


def show(projection: Projection, out: Console) -> None:
    """Prints a projection."""
    out.print(f"engine {projection.title}", style="bold", markup=False)
    for line in check_lines(projection):
        out.print(line, markup=False, soft_wrap=True)
    for ranks, rows in projection.rows.items():
        out.print()
        out.print(answer(ranks, rows, projection.unit), style="bold", markup=False, soft_wrap=True)
        table = bare(COLUMNS, ("configuration", "limit"), whole=COLUMNS)
        for row in rows:
            table.add_row(*cells(row))
        out.print(table)
    out.print()
    for line in knee_lines(projection):
        out.print(line, markup=False, soft_wrap=True)
    for line in projection.not_projected:
        out.print(f"not projected: {line}", markup=False, soft_wrap=True)


def check_lines(projection: Projection) -> Iterator[str]:
    """Errors of the projection at measured world sizes."""
    checked = projection.checked
    if projection.timed:
        yield (
            f"Links from workload=collectives: {units.number(1e6 * float(projection.timed.alpha_s))} µs per message, "
            f"{units.short(1e-6 / float(projection.timed.s_per_byte))} MB/s."
        )
    if not checked:
        yield "Not checked: too few world sizes to hold some out. The band assumes 5 % per doubling."
        return
    errors = [abs(one.error) for one in checked]
    sizes = ", ".join(map(str, sorted({one.projected.ranks for one in checked})))
    kept, pairs = order_kept(checked)
    yield (
        f"Checked: fitted on up to {checked[0].fitted_to} ranks, predicting {sizes}: median error "
        f"{units.percent(statistics.median(errors), 2)}, largest {units.percent(max(errors), 2)}; "
        f"{sum(one.is_inside for one in checked)} of {len(checked)} within the {LEVEL:.0%} band."
    )
    if pairs:
        yield f"Order kept in {kept} of {pairs} pairs of configurations that differ by more than the error."


def answer(ranks: int, rows: list[ProjectionRow], unit: str) -> str:
    """The fastest configuration that fits."""
    best = rows[0]
    if best.fits is False:
        return f"{ranks} GPUs: no configuration fits the memory"
    return f"{ranks} GPUs: {best.projected.label} is fastest, {units.short(best.throughput_per_s)} {unit}s/s"


def cells(row: ProjectionRow) -> list[str]:
    """A row of the table in words."""
    projected, parts = row.projected, row.projected.parts
    exposed = (parts.latency_s + parts.bandwidth_s) / projected.step_s
    peak = units.mib(row.peak_bytes) + (" too large" if row.fits is False else "")
    return [
        projected.label,
        units.ms(projected.step_s),
        f"[{units.ms(projected.low_s)}, {units.ms(projected.high_s)}]",
        units.short(row.throughput_per_s),
        units.percent(row.efficiency),
        units.percent(exposed),
        parts.bottleneck,
        peak,
    ]


def knee_lines(projection: Projection) -> Iterator[str]:
    """Up to where doubling the ranks pays off, one line per configuration."""
    gain = f"raises throughput by a factor of {PAYS_OFF} or more"
    for knee in projection.knees:
        if knee.bottleneck:
            yield f"{knee.label}: doubling {gain} up to {knee.ranks} GPUs; beyond, {knee.bottleneck} costs most"
        else:
            yield f"{knee.label}: doubling {gain} up to {knee.ranks} GPUs, the most that was asked or can be projected"
