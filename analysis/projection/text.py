"""A projection on the terminal: the check first, then the fastest configuration and a table per world size."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from rich.console import Console

from analysis.projection.held_out import LEVEL, UNCHECKED, order_kept
from analysis.projection.project import PAYS_OFF, Projection, ProjectionRow
from analysis.text import units
from terminal.tables import bare

COLUMNS = ("configuration", "step (ms)", "throughput", "efficiency", "exposed", "limit", "peak (MiB)")


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
            label, *each, exposed, limit, peak = cells(row)
            with_bands = [f"{value}\n{band}" for value, band in zip(each[::2], each[1::2], strict=True)]
            table.add_row(label, *with_bands, exposed, limit, peak)
        out.print(table)
    out.print()
    if projection.rows:
        out.print("In brackets: the 90 % band.", markup=False)
    for line in (*knee_lines(projection), *memory_lines(projection)):
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
        yield (
            f"Not checked: {projection.why_unchecked}. The band assumes an error of {units.percent(UNCHECKED)} per "
            "doubling."
        )
        return
    errors = [abs(one.error) for one in checked]
    sizes = ", ".join(map(str, sorted({one.projected.ranks for one in checked})))
    kept, pairs = order_kept(checked)
    yield (
        f"Check: fitted on up to {max(one.fitted_to for one in checked)} GPUs, the model predicts the step time at "
        f"{sizes} GPUs. Median error {units.percent(statistics.median(errors), 2)}, largest "
        f"{units.percent(max(errors), 2)}; {sum(one.is_inside for one in checked)} of {len(checked)} measured times "
        f"are within the {LEVEL:.0%} band."
    )
    if pairs:
        yield (
            f"Check: {kept} of {pairs} pairs of configurations that differ by more than the error are predicted in the "
            "right order."
        )


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
        *numbers(row),
        units.percent(exposed),
        "memory" if row.fits is False else parts.bottleneck,
        peak,
    ]


def numbers(row: ProjectionRow) -> list[str]:
    """Step, throughput and efficiency, each followed by its band."""
    projected, (slow, fast), (least, most) = row.projected, row.throughput_band, row.efficiency_band
    return [
        units.ms(projected.step_s),
        f"[{units.ms(projected.low_s)}, {units.ms(projected.high_s)}]",
        units.short(row.throughput_per_s),
        f"[{units.short(slow)}, {units.short(fast)}]",
        units.percent(row.efficiency),
        f"[{units.percent(least)}, {units.percent(most)}]",
    ]


def knee_lines(projection: Projection) -> Iterator[str]:
    """Up to where doubling the ranks pays off, one line per configuration; none where nothing was projected."""
    for knee in projection.knees if projection.rows else ():
        band = f" (90 % band: {knee.low} to {knee.high})" if knee.low < knee.high else ""
        text = f"{knee.label}: doubling the GPUs raises throughput by a factor of {PAYS_OFF} or more "
        text += f"up to {knee.ranks} GPUs{band}"
        text += (
            f". Beyond, {knee.bottleneck} grows most."
            if knee.bottleneck
            else ", the largest world size that was asked for or can be projected."
        )
        if knee.dips:
            exceptions = ", ".join(f"from {ranks} to {2 * ranks} ({part})" for ranks, part in knee.dips.items())
            text += f" Exceptions: {exceptions}."
        yield text


def memory_lines(projection: Projection) -> Iterator[str]:
    """World sizes at which a configuration does not fit, one line per configuration."""
    too_large: dict[str, list[int]] = {}
    for ranks, rows in projection.rows.items():
        for row in rows:
            if row.fits is False:
                too_large.setdefault(row.projected.label, []).append(ranks)
    for label, sizes in too_large.items():
        yield f"{label}: does not fit the memory of a GPU at {', '.join(map(str, sizes))} GPUs."
