"""The layout of a figure: the settings of its axis, series and panels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import pandas as pd

from analysis.table.frame import Cell, varying
from analysis.text.labels import label
from results.identity import frozen

MOST_PANELS = 12
"""Panels of one figure; beyond, a reader looks at summary.csv, and ``FEW_PANELS`` are drawn."""
FEW_PANELS = 4


@dataclass(frozen=True)
class PanelLayout:
    """The settings of a table by their place in a figure."""

    axis: str
    series: str | None
    panels: list[str]


@dataclass(frozen=True)
class Panel:
    """One small figure: cells that differ only in the axis and the series."""

    title: str
    """What tells it from other panels; empty if there is only one."""
    slug: str
    """What its file is named by; empty if there is only one."""
    table: pd.DataFrame
    peers: pd.DataFrame
    """The cells of all panels with the same workload, which share their scales."""


def layout(table: pd.DataFrame) -> PanelLayout:
    """World size is the axis and stage the series where they vary; what else varies makes panels."""
    names = varying(table)
    preferred = [name for name in ("gpus", "bucket_mb", "batch_size", "stage") if name in names]
    axis = (preferred or names or ["gpus"])[0]
    rest = [name for name in names if name != axis]
    telling = [name for name in rest if name != "scaling"]  # weak and strong scaling answer two questions
    series = "stage" if "stage" in rest else (telling[0] if telling else None)
    return PanelLayout(axis, series, [name for name in rest if name != series])


def panels(table: pd.DataFrame, settings: list[str]) -> list[Panel]:
    """The table split by ``settings``, in the table's order."""
    if table.empty:
        return []
    if not settings:
        return [Panel("", "", table, table)]
    peers = dict(iter(table.groupby("workload", sort=False, dropna=False)))
    split = []
    for at, (_, part) in enumerate(table.groupby(group_keys(table, settings), sort=False)):
        first = part.iloc[0]
        title = " · ".join(label(name, first[name]) for name in settings)
        split.append(Panel(title, f"-{at + 1:02}", part, peers[first["workload"]]))
    return split


def group_keys(table: pd.DataFrame, settings: list[str]) -> pd.Series:
    """By row what cells share that are alike in ``settings``."""
    frozen_columns = [table[name].map(frozen) for name in settings]
    return pd.Series([" ".join(values) for values in zip(*frozen_columns, strict=True)], index=table.index)


T = TypeVar("T")


def drawn(split: Sequence[T]) -> Sequence[T]:
    """The panels that a figure shows: all, or a few to see what it is like where there are too many to look at."""
    return split if len(split) <= MOST_PANELS else split[:FEW_PANELS]


def describe(row: Cell, names: list[str]) -> str:
    """A cell by the settings that tell it from its neighbours, such as ``stage 3 · 8 ranks``."""
    return " · ".join(label(name, row[name]) for name in names)
