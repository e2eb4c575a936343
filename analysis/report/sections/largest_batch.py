"""The largest batch that fits a memory limit, in words, for each cell that looked for one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.table.frame import Cell, each_cell
from analysis.table.rows import value
from analysis.text import units


@dataclass(frozen=True)
class SearchRow:
    """What one cell found, in words."""

    knobs: list[str]
    limit: str
    largest: str
    peak: str
    unfit: str
    tried: str


def search_rows(table: pd.DataFrame, names: Sequence[str]) -> list[SearchRow]:
    """A row for each cell that searched, in the table's order."""
    return [_row(row, names) for _, row in each_cell(table[table["search_tried"].notna()])]


def _row(row: Cell, names: Sequence[str]) -> SearchRow:
    largest = f"{row['max_batch']:.0f}" if row["max_batch"] else "none"
    beyond = units.known(row["unfit_batch"])
    return SearchRow(
        knobs=[value(name, row[name]) for name in names],
        limit=units.size(row["memory_limit_bytes"]) if units.known(row["memory_limit_bytes"]) else "the GPU's",
        largest=largest if row["status"] == "ok" else f"{largest} so far",
        peak=units.mib(row["max_batch_peak_bytes"]),
        unfit=f"{row['unfit_batch']:.0f}" if beyond else "no larger one was tried",
        tried=f"{row['search_tried']:.0f}",
    )
