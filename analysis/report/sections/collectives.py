"""Collectives by size: start-up time and bandwidth of each kind, and the sizes that the line does not fit."""

from __future__ import annotations

from analysis.advice.alpha_beta import Fit, benchmarks, fits
from analysis.report.model.content import Content
from analysis.report.model.section import Section, Value, numbers, settings, table, words
from analysis.text import units


def section(content: Content) -> Section:
    """A row for each kind of each configuration that timed collectives."""
    rows = [
        [Value(name), *row(fit)] for name, record in benchmarks(content.records, content.table) for fit in fits(record)
    ]
    columns = [
        *settings(["configuration", "collective"]),
        *numbers("α (µs)", "1/β (GB/s)", "bus (GB/s)", "bus at the largest size (GB/s)"),
        *words("not on the line"),
    ]
    return Section(
        "Collectives by size",
        "collectives",
        tables=table(columns, rows),
        notes=[
            "t = α + β·S: S is the size of the whole array in bytes, t the slowest rank's time. Bus bandwidth: S/t "
            "times the factor of nccl-tests. " + content.intervals,
            "Not on the line: sizes whose residual exceeds their spread. Size by size: collectives.csv.",
        ],
    )


def row(fit: Fit) -> list[Value]:
    largest = fit.points[-1]
    return [
        Value(fit.kind.replace("_", "-")),
        Value(units.number(fit.alpha_s.value * 1e6), units.interval(fit.alpha_s.low, fit.alpha_s.high, 1e6)),
        Value(units.number(fit.bandwidth.value / 1e9), units.interval(fit.bandwidth.low, fit.bandwidth.high, 1e-9)),
        Value(units.number(fit.bus / 1e9)),
        Value(units.number(largest.bus_bandwidth / 1e9)),
        Value(fit.where_off()),
    ]
