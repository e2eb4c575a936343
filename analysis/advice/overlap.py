"""Overlap on against off, each cell with the one that differs in nothing else: rows of the report, and the figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.comparison.compare import MARGIN, compare
from analysis.comparison.verdict import Comparison, Pair
from analysis.metrics.scaling import is_ranked
from results.identity import identity, settings_of
from results.record import Record


@dataclass(frozen=True)
class Overlapped:
    """One pair of cells."""

    index: int
    """Of the cell with overlap, in the table."""
    outcome: Comparison
    """With overlap over without."""


def overlapped(records: Sequence[Record], table: pd.DataFrame) -> list[Overlapped]:
    """The pairs of cells that were both timed, in the table's order; cells of one sweep are paired."""
    without: dict[object, Record] = {}
    for record in records:
        if record.config.get("overlap") is False and is_ranked(record):
            without[_key(record)] = record
    pairs = []
    for index in map(int, map(str, table.index)):
        record = records[index]
        if record.config.get("overlap") is True and is_ranked(record) and (other := without.get(_key(record))):
            pairs.append(Overlapped(index, compare(Pair(other, record), MARGIN)))
    return pairs


def _key(record: Record) -> object:
    return record.sweep_id, identity(settings_of(record), without=["overlap"])
