"""The records of a sweep's cells: created empty, asked for missing launches, and written after each launch."""

from __future__ import annotations

import contextlib
import dataclasses
import sys

from bench.measure.machine.torch_build import Machine
from bench.measure.verdicts import disturbances, verdicts
from bench.plan.cell import Cell
from results.environment import Environment
from results.health import Health
from results.record import NO_ENGINE, Record
from results.source import Source
from results.store import RecordStore, StoreError, sweep_name
from results.traces import FOLDER

GOES_ON = ("ok", "interrupted")
"""Statuses of a cell that may still be launched."""


class SweepRecords:
    """One record a cell, of the present machine and code; written after each of the cell's launches."""

    def __init__(
        self,
        cells: list[Cell],
        store: RecordStore,
        machine: Machine,
        environment: Environment,
        source: Source | None,
        health: Health | None = None,
    ) -> None:
        self.cells = cells
        self.store = store
        self.environment = environment
        self.source = source
        self.health = health
        self._machine = machine
        self.sweep_id = sweep_name(store.folder)
        self.traces_folder = (store.folder / FOLDER).resolve()
        self.by_cell = {cell.id: self.new(cell) for cell in cells}
        self.earlier: dict[str, Record] = {}
        """The folder's earlier records; reported and logged with the rest."""

    def __getitem__(self, cell: Cell) -> Record:
        return self.by_cell[cell.id]

    def __setitem__(self, cell: Cell, record: Record) -> None:
        self.by_cell[cell.id] = record

    def new(self, cell: Cell) -> Record:
        """A cell's record with nothing measured."""
        config = dataclasses.asdict(cell.config)
        for name in ("tracking", "reproduce"):
            del config[name]  # says nothing of the cell, and an address may hold a password
        config["cluster"] = {name: config["cluster"][name] for name in ("kind", "hosts", "ranks_per_host")}
        if not cell.trains:
            config["engine"] = {"name": NO_ENGINE}
        record = Record(
            cell_id=cell.id,
            sweep_id=self.sweep_id,
            config=config,
            resolved=cell.resolved(),
            environment=self.environment,
            source=self.source,
            health=self.health,
        )
        if cell.status:
            record.status, record.reason = cell.status, cell.reason
        return record

    def rename(self, sweep_id: str) -> None:
        """Names the sweep: as before if it resumes, or as a side of a run. The default is its folder's name."""
        self.sweep_id = sweep_id
        for record in self.by_cell.values():
            record.sweep_id = sweep_id

    @property
    def rounds_begun(self) -> int:
        """The number of the next round. A round that an earlier run began is not continued."""
        records = (self.earlier | self.by_cell).values()
        return max((launch.round + 1 for record in records for launch in record.launches), default=0)

    def is_checked(self, cell: Cell) -> bool:
        """Whether the cell has all that its check measures."""
        record, measure = self[cell], cell.config.measure
        return not cell.trains or bool(
            record.model
            and (record.parity or not measure.parity_steps or record.resolved.get("outside_parity"))
            and (record.memory or not measure.memory)
            and (record.collectives is not None or not measure.collectives)
        )

    def is_to_be_profiled(self, cell: Cell) -> bool:
        """Whether the cell lacks the profile of its settings; a search has none, of whichever batch."""
        record, measure = self[cell], cell.config.measure
        needs_profile = (measure.profile or measure.trace) and not cell.searches
        return needs_profile and not record.attribution and record.status in GOES_ON

    def launches_left(self, cell: Cell) -> int:
        """Launches that the cell still has to make, as progress counts them."""
        if cell.searches:
            return int(self[cell].status != "ok")  # unknown how many; it counts as one
        rounds = max(0, cell.config.repeats - len(self[cell].launches))
        silent = rounds if cell.config.measure.profile and not cell.unsilenced() else 0
        return rounds + silent + (not self.is_checked(cell)) + self.is_to_be_profiled(cell)

    def write(self, cell: Cell) -> None:
        """Writes the cell's record with verdicts on its present content. Raises StoreError."""
        record = self[cell]
        record.verdict_reasons = disturbances(record)
        record.verdicts = verdicts(record, cell.oversubscribed(self._machine))
        count = len(self.store.warnings)
        try:
            self.store.write(record)
        finally:
            for warning in self.store.warnings[count:]:
                print(f"warning: {warning}", file=sys.stderr)

    def write_all(self) -> None:
        """Writes every cell's record, also empty ones, as far as the disk has room."""
        with contextlib.suppress(StoreError):
            for cell in self.cells:
                self.write(cell)
