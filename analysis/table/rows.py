"""Headings and values of the settings that name the rows of a table, and the level of their intervals."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.metrics.memory import PARTS
from analysis.table.frame import Cell, varying
from analysis.text import units
from analysis.text.labels import words
from results.identity import INFO

ALWAYS = ("stage", "gpus")
"""Settings that stand in the table even where they do not vary."""

SHORT = {name: facts.heading for name, facts in INFO.items() if facts.heading}
"""Column headings of settings whose name is not one."""


def setting_names(table: pd.DataFrame) -> list[str]:
    """The settings that the table has columns for: what varies, with stage and world size always and last."""
    return [name for name in varying(table) if name not in ALWAYS] + list(ALWAYS)


def headings(names: Sequence[str]) -> list[str]:
    return [SHORT.get(name, words(name.replace("_", " "))) for name in names]


def value(name: str, setting_value: object) -> str:
    """A setting's value under a heading that already names it."""
    if setting_value is None or setting_value != setting_value:  # NaN is not equal to itself
        return "default"
    if isinstance(setting_value, bool):
        return "on" if setting_value else "off"
    return f"{setting_value:g}" if isinstance(setting_value, int | float) else words(setting_value)


def levels(table: pd.DataFrame) -> str:
    """The level of the intervals, such as ``94 % (5 launches)``, for each number of launches that has one."""
    pairs = table.loc[table["launches"] > 1, ["launches", "interval_level"]].drop_duplicates().sort_values("launches")
    texts = []
    for launches, level in pairs.itertuples(index=False):
        count = units.counted(int(launches), "launch")
        texts.append(f"{100 * level:.0f} % ({count})")
    return ", ".join(texts)


def part(row: Cell, name: str) -> float:
    """Bytes of one of ``PARTS`` at the peak."""
    return float(sum(row[f"peak_{kind}_bytes"] for kind in PARTS[name]))
