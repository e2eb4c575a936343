"""The serial fraction of strong scaling (Karp and Flatt 1990) as a person reads it: by world size, and its trend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.metrics.scaling import baselines, by_round
from analysis.statistics.medians import NOTHING, Interval, median_interval
from analysis.table.frame import each_cell
from analysis.table.panels import describe, group_keys
from analysis.table.rows import span, value
from analysis.text import units
from results.record import Record


@dataclass(frozen=True)
class SerialRow:
    """One cell in words, fractions in per cent of the baseline's time."""

    knobs: list[str]
    speedup: str
    fraction: str
    fraction_range: str
    note: str


def serial_rows(table: pd.DataFrame, names: Sequence[str]) -> list[SerialRow]:
    """A row for each cell that has a serial fraction, in the table's order."""
    found = []
    for _, row in each_cell(table[table["serial_fraction"].notna()]):
        growth = row["gpus"] / row["scaling_baseline_gpus"]
        crowded = "oversubscribed" in row["verdicts"].split(";")
        found.append(
            SerialRow(
                knobs=[value(name, row[name]) for name in names],
                speedup=f"{units.number(growth * row['scaling_efficiency'])} of {growth:g}",
                fraction=units.percent(row["serial_fraction"], 2),
                fraction_range=span(row, "serial_fraction", 100),
                note="oversubscribed: says nothing about scaling" if crowded else _note(row["serial_fraction"]),
            )
        )
    return found


def _note(fraction: float) -> str:
    if fraction > 1:
        return "above 100 %: slower than its baseline"
    return "below 0 %: the speedup was more than ideal" if fraction < 0 else ""


def trends(records: Sequence[Record], table: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """For each setting what becomes of its serial fraction as the world grows, and what that means."""
    fair = table[table["serial_fraction"].notna() & ~table["verdicts"].str.contains("oversubscribed")]
    others = [name for name in names if name != "gpus"]
    if fair.empty:
        return []
    said = []
    bases = baselines(list(records))
    for _, part in fair.groupby(group_keys(fair, others), sort=False):
        worlds = part.sort_values("gpus")
        first, last = worlds.iloc[0], worlds.iloc[-1]
        change = _change(records, bases, int(str(first.name)), int(str(last.name)))
        said.append(f"{describe(first, others)}: {trend(first, last, change)}")
    return said


def _change(records: Sequence[Record], bases: Sequence[Record | None], first: int, last: int) -> Interval:
    """How much larger the serial fraction of the last is than the first's: the median of the rounds that both ran."""
    fractions = []
    for at in (first, last):
        base = bases[at]
        assert base is not None, "a cell with a serial fraction has a baseline"
        growth = records[at].resolved["world_size"] / base.resolved["world_size"]
        rounds = by_round(records[at], base)
        fractions.append({key: (1 / share - 1) / (growth - 1) for key, share in rounds.items()})
    shared = sorted(set(fractions[0]) & set(fractions[1]))
    return median_interval([fractions[1][key] - fractions[0][key] for key in shared]) if shared else NOTHING


def trend(first: pd.Series, last: pd.Series, change: Interval) -> str:
    """The trend from the smallest to the largest world, in words."""
    start = f"{units.percent(first['serial_fraction'], 2)} at {first['gpus']} ranks"
    if first["gpus"] == last["gpus"]:
        return f"{start}; one world size shows no trend."
    path = f"from {start} to {units.percent(last['serial_fraction'], 2)} at {last['gpus']}"
    if not units.known(change.low):
        return f"{path}; one launch cannot tell whether it changes."
    by = f"by {100 * change.low:+.1f} to {100 * change.high:+.1f} points, {change.level_text()}"
    if change.low > 0:
        return f"it rises {path} ({by}): what is lost grows with the number of ranks, as overhead does."
    if change.high < 0:
        return (
            f"it falls {path} ({by}): what is lost grows less than a serial part would, so it is not one; part of it "
            "comes with the first ranks beyond the baseline."
        )
    limit = ""
    if last["serial_fraction_low"] > 0:
        limit = f" If it is one, no number of ranks is more than {1 / last['serial_fraction']:.1f} times as fast."
    return f"no change can be told {path} ({by}): as a serial part of fixed size would do.{limit}"
