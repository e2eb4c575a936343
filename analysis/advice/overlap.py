"""Overlap on against off, each cell with the one that differs in nothing else: rows of the report, and the figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd

from analysis.comparison.compare import MARGIN, compare
from analysis.comparison.verdict import Comparison, Pair
from analysis.metrics.counterparts import counterparts
from analysis.metrics.scaling import is_ranked
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
    without = counterparts(records, ["overlap"], partial(_is_timed, overlap=False))
    pairs = []
    for index in map(int, map(str, table.index)):
        record, other = records[index], without[index]
        if other and _is_timed(record, overlap=True):
            pairs.append(Overlapped(index, compare(Pair(other, record), MARGIN)))
    return pairs


def _is_timed(record: Record, *, overlap: bool) -> bool:
    return record.config.get("overlap") is overlap and is_ranked(record)
