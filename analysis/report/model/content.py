"""The input of a report: every configuration as measured, and the settings that distinguish them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import pandas as pd

from analysis.advice.alpha_beta import is_benchmark
from analysis.advice.time_to_target import Race, races
from analysis.metrics import hosts
from analysis.metrics.measured import Measured
from analysis.report.model.section import Column, Table, Value, settings, table
from analysis.table import rows
from analysis.table.frame import measure_all, tabulate
from analysis.text import units
from analysis.text.labels import words
from results.record import Record

DEFINITIONS = "Definitions: docs/reference/metrics.md."


@dataclass(frozen=True)
class Content:
    """The configurations of a report; what several sections need is computed once."""

    records: Sequence[Record]
    warnings: Sequence[str] = ()
    """Such as unreadable files."""
    gpu_memory_bytes: int | None = None
    """The memory that a model has to fit; None without ``--gpu-memory``."""

    @cached_property
    def measured(self) -> list[Measured]:
        """One entry per record, in their order."""
        return measure_all(self.records)

    @cached_property
    def table(self) -> pd.DataFrame:
        return tabulate(self.measured)

    @cached_property
    def trained(self) -> pd.DataFrame:
        """The part of the table that trained, rather than timed collectives."""
        return self.table[~is_benchmark(self.table)]

    @cached_property
    def names(self) -> list[str]:
        """The settings that head the columns of the sections' tables."""
        return rows.setting_names(self.trained if len(self.trained) else self.table)

    @cached_property
    def headings(self) -> list[str]:
        return rows.headings(self.names)

    @cached_property
    def levels(self) -> str:
        """The level of the intervals, such as ``97 % (6 launches)``."""
        return rows.levels(self.table)

    @property
    def intervals(self) -> str:
        """A note on the intervals of a table."""
        return f"In brackets: bootstrap confidence interval over launches, at {self.levels}." if self.levels else ""

    @cached_property
    def races(self) -> list[Race]:
        """Who reached the target loss first, per workload and target; empty where none was set."""
        return races(list(self.cells()))

    def cells(self) -> Iterator[Measured]:
        """The configurations that trained, in the table's order."""
        return (self.measured[int(at)] for at in self.trained.index)

    def where(self, wanted: Callable[[Measured], bool]) -> list[Measured]:
        return [cell for cell in self.cells() if wanted(cell)]

    def settings(self, cell: Measured, names: Sequence[str] | None = None) -> list[Value]:
        """The entries of a table's row that name the configuration."""
        spans = units.counted(hosts.count(cell.record), "host") if hosts.count(cell.record) > 1 else ""
        return [
            Value(rows.value(name, cell.settings[name]), f"on {spans}" if spans and name == "gpus" else "")
            for name in (self.names if names is None else names)
        ]

    def cell_table(
        self, cells: Sequence[Measured], row: Callable[[Measured], list[Value]], *columns: Sequence[Column]
    ) -> list[Table]:
        """A table with a row per configuration: its settings, then ``row``. Empty without cells."""
        headings = [*settings(self.headings), *chain(*columns)]
        return table(headings, [[*self.settings(cell), *row(cell)] for cell in cells])

    @property
    def title(self) -> str:
        return f"DDP and ZeRO: {', '.join(sorted({words(name) for name in self.table['workload'].map(str)}))}"
