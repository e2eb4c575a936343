"""Overlap of communication with the backward pass: on compared with off."""

from __future__ import annotations

import numpy as np

from analysis.advice.overlap import Overlapped
from analysis.comparison.compare import MARGIN, verdict_words
from analysis.metrics.time import step_time_s
from analysis.report.model.content import Content
from analysis.report.model.section import Section, Value, numbers, settings, table, words
from analysis.table.rows import headings, setting_names
from analysis.text import units
from results.record import Record


def section(content: Content, pairs: list[Overlapped]) -> Section:
    """A row for each pair of configurations that differ in overlap alone."""
    names = [name for name in setting_names(content.table) if name != "overlap"]
    columns = [*settings(headings(names)), *numbers("off (ms)", "on (ms)", "on / off"), *words("overlap is")]
    rows = [[*content.settings(content.measured[pair.index], names), *row(pair)] for pair in pairs]
    return Section(
        "Overlap on compared with off",
        "overlap",
        tables=table(columns, rows),
        folded="details",
        notes=[
            "On / off: median of the rounds' ratios of step time, with its interval; below 1, overlap is faster. Same: "
            f"the whole interval is within ±{100 * MARGIN:g} %."
        ],
    )


def row(pair: Overlapped) -> list[Value]:
    step = pair.outcome.step
    return [
        Value(_step_ms(pair.outcome.pair.first)),
        Value(_step_ms(pair.outcome.pair.second)),
        Value(units.number(step.value), units.interval(step.low, step.high)),
        Value(verdict_words(pair.outcome)),
    ]


def _step_ms(record: Record) -> str:
    return units.ms(float(np.median([step_time_s(launch) for launch in record.launches])))
