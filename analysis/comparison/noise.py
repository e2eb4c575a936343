"""The noise floor: how small a change a number of launches can find, from launches that do not differ (A/A).

docs/explanation/regression_checks.md derives it. What is resampled are the logarithms of ratios of like launches, so no
distribution is assumed; what these launches never showed, such as a rare spike, is not in the answer either.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from math import ceil, expm1, inf, log1p, nan, sqrt
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.table import Table

from analysis.comparison.time_gate import POWER, per_step_s
from analysis.comparison.verdict import NothingToCompare, Row, cell_table, telling
from analysis.metrics.rounds import in_shared_rounds
from analysis.metrics.scaling import is_ranked
from analysis.statistics import paired
from analysis.statistics.medians import Floats
from analysis.text.spreadsheet import cell_as_data
from analysis.text.units import is_finite
from results.atomic import replacing, write_whole
from results.entries import entries_with_role
from results.environment import Environment
from results.identity import hardware, identity, settings_of
from results.launches import ENOUGH_LAUNCHES
from results.record import Record

ONE_SIDED = 0.025
"""Of a 95 % interval."""
LAUNCHES = (6, 10, 20, 40)
"""Numbers of launches that the table has a column for."""
CHANGES = (0.01, 0.03, 0.05, 0.1)
RESAMPLED = 60
"""More launches than this are extrapolated: what they find falls with the square root of their number."""
DRAWS = 1000
SCHEMA = 1


@dataclass(frozen=True)
class Floor:
    """The noise of one cell."""

    cell_id: str
    settings: dict[str, Any]
    pairs: int
    interleaved: bool
    """Whether the launches of a pair were of one round; else they are of two rounds that follow each other."""
    spread: float
    """Median distance of a pair's ratio from 1, as a share."""
    detects: dict[int, float]
    """By number of launches a side: the smallest change of the step time, as a share, that they find."""
    needs: dict[float, int]
    """By change, as a share: the launches a side that find it."""
    sweeps: int
    between_sweeps: float
    """Largest over smallest of the sweeps' median steps, less 1; NaN for one sweep."""
    logs: list[float]
    """Logarithms of the pairs' ratios."""


def floors(records: Sequence[Record]) -> tuple[list[Floor], list[str]]:
    """The noise of each cell with enough launches, and warnings. Raises NothingToCompare if no cell has them."""
    cells: dict[Any, list[Record]] = {}
    for record in records:
        if is_ranked(record):
            cells.setdefault((identity(settings_of(record)), hardware(record)), []).append(record)
    cell_floors, few = [], []
    for of_cell in cells.values():
        logs, interleaved = pair_logs(of_cell)
        if len(logs) < ENOUGH_LAUNCHES:
            few.append(of_cell[0].cell_id)
            continue
        cell_floors.append(floor(of_cell, logs, interleaved))
    if not cell_floors:
        raise NothingToCompare(
            f"no configuration has {ENOUGH_LAUNCHES} pairs of launches; valid: two sweeps of bench.regress with equal "
            f"code, or sweeps of at least {2 * ENOUGH_LAUNCHES} rounds"
        )
    warnings = [f"fewer than {ENOUGH_LAUNCHES} pairs of launches: {', '.join(sorted(set(few)))}"] if few else []
    return cell_floors, warnings + other_code(records)


def other_code(records: Sequence[Record]) -> list[str]:
    """A warning if the records were not all measured with the same code."""
    codes = dict(map(_code, records))
    return [f"not the same code: {'; '.join(sorted(codes.values()))}"] if len(codes) > 1 else []


def _code(record: Record) -> tuple[str, str]:
    """Identity of the code, and its name; of a record without a digest of files, the commit."""
    source = record.source
    if source is None:
        commit = str(record.environment.get("git", {}).get("commit"))
        return commit, f"commit {commit}"
    return source.digest, f"{source.described()}, files {source.digest[:10]}"


def pair_logs(records: Sequence[Record]) -> tuple[list[float], bool]:
    """Logarithms of the ratios of like launches, and whether all pairs are of one round.

    Where a run has the cell more than once (two sides of ``bench.regress``), launches of one round are a pair; else
    those of two rounds that follow each other.
    """
    runs: dict[str, list[Record]] = {}
    for record in records:
        runs.setdefault(record.rounds_id, []).append(record)
    logs: list[float] = []
    for sides in runs.values():
        if len(sides) > 1:
            for first, second in zip(sides[::2], sides[1::2], strict=False):
                logs += paired.logs_of_ratios(*in_shared_rounds(first, second, per_step_s)).tolist()
        else:
            in_order = sorted(sides[0].launches, key=lambda launch: launch.round)
            series = [per_step_s(sides[0], launch) for launch in in_order]
            logs += paired.logs_of_ratios(series[0 : len(series) // 2 * 2 : 2], series[1::2]).tolist()
    return logs, all(len(sides) > 1 for sides in runs.values())


def floor(records: Sequence[Record], logs: list[float], interleaved: bool) -> Floor:
    medians: dict[str, list[float]] = {}
    for record in records:
        medians.setdefault(record.rounds_id, []).extend(per_step_s(record, launch) for launch in record.launches)
    middles = [median(values) for values in medians.values()]
    values = np.asarray(logs)
    smallest_change = cache(partial(detectable, values))
    return Floor(
        cell_id=records[0].cell_id,
        settings=settings_of(records[0]),
        pairs=len(logs),
        interleaved=interleaved,
        spread=expm1(float(np.median(np.abs(values)))),
        detects={count: smallest_change(count) for count in LAUNCHES},
        needs={change: launches_for(smallest_change, change) for change in CHANGES},
        sweeps=len(medians),
        between_sweeps=max(middles) / min(middles) - 1 if len(medians) > 1 else nan,
        logs=logs,
    )


def detectable(logs: Floats, launches: int) -> float:
    """The smallest change, as a share, whose 95 % interval leaves out 1 in four of five comparisons.

    The interval moves with the logarithms, so a change is found where it exceeds what the lower end lies below 0
    without one: the answer is the 80th percentile of that over resamples.
    """
    if launches > RESAMPLED:
        return expm1(log1p(detectable(logs, RESAMPLED)) * sqrt(RESAMPLED / launches))
    cut = paired.left_out(launches, ONE_SIDED)
    if cut < 0:
        return inf
    which, signs = _draws(len(logs), launches)
    lower = np.partition(paired.walsh(logs[which] * signs), cut, axis=1)[:, cut]
    return expm1(float(np.quantile(-lower, POWER)))


@cache
def _draws(pairs: int, launches: int) -> tuple[Any, Any]:
    """The pairs of each resample and their orientation: without a difference, both are equally likely."""
    draw = np.random.default_rng([pairs, launches])
    shape = (DRAWS, launches)
    return draw.integers(0, pairs, shape), draw.choice([-1.0, 1.0], shape)


def launches_for(smallest_change: Callable[[int], float], change: float) -> int:
    """The fewest launches per side that detect ``change``; ``smallest_change`` gives what a number of them detects."""
    few, many = ENOUGH_LAUNCHES - 1, RESAMPLED
    if smallest_change(many) > change:
        return ceil(RESAMPLED * (log1p(smallest_change(many)) / log1p(change)) ** 2)
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if smallest_change(middle) <= change else (middle, many)
    return many


def table(floors: Sequence[Floor], records: Sequence[Record]) -> Table:
    """A row per cell: its noise, what launches detect, and what a change takes."""
    names = telling(list({record.cell_id: record for record in records}.values()))
    columns = ["pairs", "spread", *(f"{count} find" for count in LAUNCHES)]
    columns += [f"for {100 * change:g} %" for change in CHANGES]
    several = any(is_finite(entry.between_sweeps) for entry in floors)
    rows = []
    for entry in floors:
        texts = [
            str(entry.pairs) + ("" if entry.interleaved else "*"),
            share(entry.spread),
            *(share(value) for value in entry.detects.values()),
            *(f"{count:,}" for count in entry.needs.values()),
            share(entry.between_sweeps),
        ]
        rows.append(Row(entry.settings, texts if several else texts[:-1]))
    return cell_table(names, [*columns, *(["sweep to sweep"] if several else [])], rows)


def share(value: float) -> str:
    if not is_finite(value):
        return "–"
    return f"{100 * value:.2g} %" if value < 1 else f"{100 * value:.0f} %"


def write(floors: Sequence[Floor], records: Sequence[Record], path: Path) -> None:
    """Writes the floors, as JSON, or as CSV where the name ends so. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        with replacing(path) as partial, partial.open("w", newline="") as file:
            rows = [csv_row(entry) for entry in floors]
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows({name: cell_as_data(value) for name, value in row.items()} for row in rows)
        return
    last = max(records, key=lambda record: str(record.environment.get("time", ""))).environment
    kept = ("time", *entries_with_role(Environment, "hardware"), "torch", "git")
    document = {
        "schema_version": SCHEMA,
        "level": 1 - 2 * ONE_SIDED,
        "power": POWER,
        "environment": {name: last.get(name) for name in kept},
        "cells": [
            asdict(entry) | {"between_sweeps": entry.between_sweeps if is_finite(entry.between_sweeps) else None}
            for entry in floors
        ],
    }
    write_whole(path, json.dumps(document, indent=1, allow_nan=False) + "\n")


def csv_row(entry: Floor) -> dict[str, Any]:
    numbers: Mapping[str, Any] = {f"detects_with_{count}": value for count, value in entry.detects.items()}
    launches = {f"launches_for_{100 * change:g}_percent": count for change, count in entry.needs.items()}
    named = {"cell_id": entry.cell_id, "pairs": entry.pairs, "interleaved": entry.interleaved, "spread": entry.spread}
    return named | dict(numbers) | launches | {"sweeps": entry.sweeps, "between_sweeps": entry.between_sweeps}
