"""The Pareto front: settings than which none is both faster and needs less memory, or less energy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.table.frame import each_cell, varying
from analysis.table.panels import Panel, describe, panels
from analysis.table.warnings import bearing
from analysis.text import units
from results.identity import frozen, is_task
from results.verdicts import UNRANKED

UNFIT = (*UNRANKED, "state_on_servers")
"""Verdicts on cells that are not ranked, or whose memory is not all counted."""

SAVING = 0.01
"""Share of a price below which nothing is saved."""


@dataclass(frozen=True)
class Price:
    """What is paid for throughput."""

    column: str
    name: str
    title: str
    definition: str


SHARED = (
    "The front, in diamonds, is what no other setting beats in both; its numbers name the settings in the order of "
    "speed. Circles are beaten. Bars are bootstrap intervals of the front's throughput over launches; settings whose "
    "bars overlap may change places. Hollow: oversubscribed; a cross: disturbed while it was timed. Left out: what "
    "failed, was simulated, is outside parity or keeps state on servers. The lower axis need not begin at 0."
)
PRICES = [
    Price(
        "peak_bytes",
        "pareto_memory",
        "Throughput against memory",
        "Throughput of all ranks over the peak memory of the rank that needs most. " + SHARED,
    ),
    Price(
        "joules_per_sample",
        "pareto_energy",
        "Throughput against energy",
        "Throughput of all ranks over the energy of one sample, of all GPUs or processor packages. " + SHARED,
    ),
]


@dataclass(frozen=True)
class FrontRow:
    """One setting of a front, in words."""

    task: str
    against: str
    setting: str
    throughput: str
    price: str


def admissible(table: pd.DataFrame, price: Price) -> pd.DataFrame:
    """The cells that may stand on a front: ended ok, timed, comparable, and with a known price."""
    known = table["throughput_per_s"].notna() & table[price.column].notna()
    return table[(table["status"] == "ok") & ~bearing(table, UNFIT) & known]


def front(throughput: Sequence[float], price: Sequence[float]) -> list[int]:
    """Positions of what nothing beats, fastest first: each costs less, by ``SAVING``, than all that are faster."""
    found: list[int] = []
    for at in sorted(range(len(price)), key=lambda at: (-throughput[at], price[at])):
        if not found or price[at] < price[found[-1]] * (1 - SAVING):
            found.append(at)
    return found


def fronts(table: pd.DataFrame) -> list[tuple[Price, Panel, list[str], list[int]]]:
    """For each price and each task of several settings: the knobs that tell them apart, and the front's places."""
    names = varying(table)
    settings = [name for name in names if not is_task(name)] or ["stage", "gpus"]
    found = []
    for price in PRICES:
        for panel in panels(admissible(table, price), [name for name in names if is_task(name)]):
            part = panel.table
            if len(part) > 1:
                places = front(part["throughput_per_s"].tolist(), part[price.column].tolist())
                telling = [name for name in settings if part[name].map(frozen).nunique() > 1] or settings
                found.append((price, panel, telling, places))
    return found


def front_rows(table: pd.DataFrame) -> list[FrontRow]:
    """All fronts in words, each fastest first."""
    rows = []
    for price, panel, names, places in fronts(table):
        for _, row in each_cell(panel.table.iloc[places]):
            cost = row[price.column]
            paid = units.size(cost) if price.column == "peak_bytes" else f"{units.number(cost)} J per sample"
            speed = f"{units.number(row['throughput_per_s'], 4)} {row['unit']}s/s"
            against = "memory" if price.column == "peak_bytes" else "energy"
            rows.append(FrontRow(panel.title, against, describe(row, names), speed, paid))
    return rows
