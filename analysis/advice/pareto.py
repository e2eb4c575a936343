"""Pareto-optimal configurations: no other of the same world size is both faster and needs less memory, or energy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.table.frame import varying
from analysis.table.panels import Panel, panels
from analysis.table.warnings import bearing
from results.identity import frozen, is_task
from results.verdicts import UNRANKED

UNFIT = (*UNRANKED, "state_on_servers")
"""Verdicts on cells that are not ranked, or whose memory is not all counted."""

SAVING = 0.01
"""Share of a price below which nothing is saved."""


@dataclass(frozen=True)
class Price:
    """The cost of throughput."""

    column: str
    name: str
    title: str
    definition: str


SHARED = (
    "Joined and labelled: Pareto-optimal; with bootstrap intervals over launches. Hollow: oversubscribed. Cross: "
    "disturbed while it was timed. The lower axis need not begin at 0."
)
PRICES = [
    Price(
        "peak_bytes",
        "pareto_memory",
        "Throughput and memory",
        "Throughput of all ranks over peak memory of the rank with the most. " + SHARED,
    ),
    Price(
        "joules_per_sample",
        "pareto_energy",
        "Throughput and energy",
        "Throughput of all ranks over energy per sample, of all GPUs or processor packages. " + SHARED,
    ),
]


@dataclass(frozen=True)
class Front:
    """The Pareto-optimal configurations of one task at one world size."""

    price: Price
    panel: Panel
    names: list[str]
    """The settings that distinguish its configurations."""
    places: list[int]
    """Of the Pareto-optimal ones in the panel's table, fastest first."""


def admissible(table: pd.DataFrame, price: Price) -> pd.DataFrame:
    """The cells that may stand on a front: ended ok, timed, comparable, and with a price."""
    is_complete = table["throughput_per_s"].notna() & table[price.column].notna()
    return table[(table["status"] == "ok") & ~bearing(table, UNFIT) & is_complete]


def front(throughput: Sequence[float], price: Sequence[float]) -> list[int]:
    """Pareto-optimal positions, fastest first: each costs less, by ``SAVING``, than all that are faster."""
    positions: list[int] = []
    for at in sorted(range(len(price)), key=lambda at: (-throughput[at], price[at])):
        if not positions or price[at] < price[positions[-1]] * (1 - SAVING):
            positions.append(at)
    return positions


def fronts(table: pd.DataFrame) -> list[Front]:
    """For each price, each task and each world size with several settings: which are Pareto-optimal."""
    names = varying(table)
    among = [name for name in names if is_task(name) or name == "gpus"]
    settings = [name for name in names if name not in among] or ["stage", "gpus"]
    panel_fronts = []
    for price in PRICES:
        for panel in panels(admissible(table, price), among):
            part = panel.table
            if len(part) > 1:
                places = front(part["throughput_per_s"].tolist(), part[price.column].tolist())
                distinguishing = [name for name in settings if part[name].map(frozen).nunique() > 1] or settings
                panel_fronts.append(Front(price, panel, distinguishing, places))
    return panel_fronts
