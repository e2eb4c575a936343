"""Overlap on and off: rows of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.advice.overlap import Overlapped
from analysis.comparison.compare import verdict_words
from analysis.comparison.verdict import Outcome
from analysis.metrics.time import step_time_s
from analysis.table.frame import each_cell
from analysis.table.rows import value
from analysis.text import units
from results.record import Record


@dataclass(frozen=True)
class OverlapRow:
    """One pair in words."""

    knobs: list[str]
    off_ms: str
    on_ms: str
    ratio: str
    ratio_range: str
    verdict: str


def overlap_rows(found: Sequence[Overlapped], table: pd.DataFrame, names: Sequence[str]) -> list[OverlapRow]:
    """A row a pair; ``names`` are its knobs without overlap."""
    held = dict(each_cell(table))
    return [
        OverlapRow(
            knobs=[value(name, held[entry.index][name]) for name in names],
            off_ms=_step_ms(entry.outcome.pair.first),
            on_ms=_step_ms(entry.outcome.pair.second),
            ratio=units.number(entry.outcome.step.value),
            ratio_range=_span(entry.outcome),
            verdict=verdict_words(entry.outcome),
        )
        for entry in found
    ]


def _step_ms(record: Record) -> str:
    return units.ms(float(np.median([step_time_s(launch) for launch in record.launches])))


def _span(outcome: Outcome) -> str:
    low, high = outcome.step.low, outcome.step.high
    return f"{units.number(low)} to {units.number(high)}" if units.known(low) else ""
