"""The table of cells as a person reads it: headings, and each cell's numbers in ms, MiB and per cent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.metrics.memory import PARTS
from analysis.table.frame import Cell, each_cell, varying
from analysis.text import units
from analysis.text.labels import words
from results.identity import INFO

ALWAYS = ("stage", "gpus")
"""Knobs that stand in the table even where they do not vary."""

SHORT = {name: facts.heading for name, facts in INFO.items() if facts.heading}
"""Column headings of settings whose name is not one."""


@dataclass(frozen=True)
class Row:
    """One cell of the sweep, in words."""

    knobs: list[str]
    status: str
    step_ms: str
    step_interval: str
    throughput: str
    efficiency: str
    efficiency_interval: str
    mfu: str
    state_mib: str
    predicted_mib: str
    peak_mib: str
    parity: str
    flags: list[str]

    @property
    def is_ok(self) -> bool:
        return self.status == "ok"

    @property
    def is_crowded(self) -> bool:
        return "oversubscribed" in self.flags


def knob_names(table: pd.DataFrame) -> list[str]:
    """The knobs that the table has columns for: what varies, with stage and world size always and last."""
    return [name for name in varying(table) if name not in ALWAYS] + list(ALWAYS)


def headings(names: Sequence[str]) -> list[str]:
    return [SHORT.get(name, words(name.replace("_", " "))) for name in names]


def rows(table: pd.DataFrame, names: Sequence[str]) -> list[Row]:
    """One Row per row of ``table``."""
    return [_row(row, names) for _, row in each_cell(table)]


def _row(row: Cell, names: Sequence[str]) -> Row:
    parity = units.error(row["parity_error"])
    return Row(
        knobs=[value(name, row[name]) for name in names],
        status=str(row["status"]),
        step_ms=units.ms(row["step_time_s"]),
        step_interval=span(row, "step_time_s", 1e3),
        throughput=units.number(row["throughput_per_s"], 4),
        efficiency=units.percent(row["scaling_efficiency"], 3),
        efficiency_interval=span(row, "scaling_efficiency", 100) if row["gpus"] != row["scaling_baseline_gpus"] else "",
        mfu=units.percent(row["mfu"], 3),
        state_mib=units.mib(row["model_state_bytes"]),
        predicted_mib=units.mib(row["model_state_predicted_bytes"]),
        peak_mib=units.mib(row["peak_bytes"]),
        parity="NaN" if row["status"] == "parity_failed" and parity == units.MISSING else parity,
        flags=[name for name in row["verdicts"].split(";") if name],
    )


def value(name: str, held: object) -> str:
    """A knob's value under a heading that already names it."""
    if held is None or held != held:  # NaN is not equal to itself
        return "default"
    if isinstance(held, bool):
        return "on" if held else "off"
    return f"{held:g}" if isinstance(held, int | float) else words(held)


def span(row: Cell, column: str, factor: float) -> str:
    """An interval as ``low to high``; empty where there is none."""
    low, high = row[f"{column}_low"], row[f"{column}_high"]
    return f"{units.number(low * factor)} to {units.number(high * factor)}" if units.known(low) else ""


def levels(table: pd.DataFrame) -> str:
    """What the intervals attain, such as ``94 % (5 launches)``, for each number of launches that occurs."""
    found = table.loc[table["launches"] > 0, ["launches", "interval_level"]].drop_duplicates().sort_values("launches")
    said = []
    for launches, level in found.itertuples(index=False):
        count = units.counted(int(launches), "launch")
        said.append(f"{100 * level:.0f} % ({count})" if launches > 1 else f"none ({count})")
    return ", ".join(said)


def part(row: Cell, name: str) -> float:
    """Bytes of one of ``PARTS`` at the peak."""
    return float(sum(row[f"peak_{kind}_bytes"] for kind in PARTS[name]))
