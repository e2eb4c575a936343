"""Launches of a cell before its rounds: reference, ceiling and check, or the search; and the profile."""

from __future__ import annotations

import dataclasses
from typing import Any

from bench import engines
from bench.engines.spec import EngineUnsupported
from bench.job import LaunchResult
from bench.plan.cell import Cell
from bench.plan.jobs import ceiling_key, noise_key
from bench.rank_results import CheckResult
from bench.sweep import largest_batch, results
from bench.sweep.running import Running
from results.attribution import Attribution
from results.launches import Ceiling
from results.memory import Search
from results.model import Model
from results.parity import Noise, Parity
from results.traces import RankTraces


class Preparation:
    """Makes the launches that each cell needs; those that several cells share are made once."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._models: dict[str, Model | LaunchResult[Any]] = {}
        self._noises: dict[object, Noise] = {}
        self._ceilings: dict[object, Ceiling | None] = {}
        self._noted: set[str] = set()

    def prepare(self, cell: Cell) -> None:
        """Makes a cell's launches before its rounds, without those that it already has."""
        records = self._running.records
        if cell.searches:
            self._search(cell)
        elif not records.is_checked(cell):
            self._check(cell)
        if records.is_to_be_profiled(cell):
            self._profile(cell)

    def _check(self, cell: Cell) -> None:
        """Parity, memory and collectives of one cell, against a reference that is trained when first needed."""
        running = self._running
        record, progress = running.records[cell], running.progress
        progress.start(f"check {cell.id}")
        if not self._take_model(cell):
            return
        measure = cell.config.measure
        if measure.ceiling and not cell.simulated:
            record.ceiling = self._ceiling(cell)
        if measure.parity_steps or measure.memory or measure.collectives:
            result = running.launch(running.jobs(cell).check(), "check")
            running.observe(cell, result)
            if result.status != "ok":
                running.fail(cell, result)
                return
            results.take_check(record, result)
            self._judge_parity(cell)
        if measure.trace and not measure.memory:
            results.add_traces(record, [RankTraces(not_written={"memory": "measure.memory=false"})])
        running.records.write(cell)
        progress.advance(f"checked {cell.id}")
        if record.parity and record.parity.unjudged:
            progress.note(f"{cell.id}: parity_unjudged: {record.parity.unjudged}")
        if record.status == "parity_failed":
            progress.note(f"{cell.id}: parity_failed: {record.reason}")
            progress.advance(cell.id, running.records.launches_left(cell))

    def _judge_parity(self, cell: Cell) -> None:
        """Fails the cell if it computes something else; by the noise of its reference where the usual tolerance does
        not hold."""
        record = self._running.records[cell]
        if record.parity is None:
            return
        if not (record.parity.passed or record.parity.unjudged):
            record.parity = self._by_noise(cell, record.parity)
        if record.parity.failed and record.model and record.model.step.random and cell.traits().own_random:
            record.parity = record.parity.without_judgement(cell.traits().own_random)
        if record.parity.failed:
            failed = record.parity.failed
            record.status, record.reason = "parity_failed", failed
            if record.model:
                record.reason = record.model.explained(failed, is_sharded=cell.is_sharded)

    def _by_noise(self, cell: Cell, parity: Parity) -> Parity:
        job = self._running.jobs(cell).noise()
        key = noise_key(job)
        if key not in self._noises:
            result = self._running.launch(job, "reference")
            if result.status != "ok":
                why = f"the noise of the single process could not be measured ({result.status}: {result.reason})"
                return parity.without_judgement(f"{parity.failed}; {why}")
            self._noises[key] = result.ranks[0].noise
        return parity.judged(self._noises[key])

    def _take_model(self, cell: Cell) -> bool:
        """Takes the model from the reference; False, and the cell fails, if it failed or is unsupported."""
        model = self._reference(cell)
        if isinstance(model, LaunchResult):
            unsupported = model.status in ("unsupported", "unavailable")
            self._running.fail(cell, model, "" if unsupported else "the single-process reference: ")
            return False
        self._running.records[cell].model = model
        self._note_shares(cell, model)
        try:
            engines.check_model(cell.config.engine["package"], cell.spec(), model.step)
        except EngineUnsupported as error:
            self._running.fail(cell, LaunchResult("unsupported", str(error)))
            return False
        return True

    def _note_shares(self, cell: Cell, model: Model) -> None:
        """Prints once for each user model the share of its parameters that stage 3 keeps whole."""
        name = cell.config.workload["name"]
        if cell.config.stage < 3 or name in self._noted or "units" not in cell.config.workload:
            return
        self._noted.add(name)
        self._running.progress.note(
            f"{name}: at stage=3 the root keeps {model.root_share:.0%} of the parameters whole, the largest of "
            f"{model.unit_count} units has {model.largest_unit_share:.0%}; workload.units=... names other units"
        )

    def _reference(self, cell: Cell) -> Model | LaunchResult[Any]:
        job = self._running.jobs(cell).reference()
        key = job.reference
        if key not in self._models:
            result = self._running.launch(job, "reference")
            if result.by_chance:
                return result  # the next cell that needs it tries again
            self._models[key] = result.ranks[0].model if result.status == "ok" else result
        return self._models[key]

    def _ceiling(self, cell: Cell) -> Ceiling | None:
        """The peak of the cell's ranks; None, with a note, where it could not be measured."""
        job = self._running.jobs(cell).ceiling()
        key = ceiling_key(job)
        if key not in self._ceilings:
            result = self._running.launch(job, "ceiling")
            if not result.by_chance:
                self._ceilings[key] = results.ceiling(result, cell.ranks_by_host) if result.status == "ok" else None
            if result.status != "ok":
                self._running.progress.note(f"{cell.id}: no ceiling and so no MFU: {result.status}: {result.reason}")
        return self._ceilings.get(key)

    def _search(self, cell: Cell) -> None:
        """Launches batch after batch until the largest that fits is bracketed; each trial is kept at once."""
        running = self._running
        record = running.records[cell]
        if record.status == "ok" or not (record.model or self._take_model(cell)):
            return

        def launch(batch: int) -> LaunchResult[CheckResult]:
            running.progress.start(f"search {cell.id}: batch {batch}")
            job = dataclasses.replace(running.jobs(cell).check(), rank_batch=batch)
            return running.launch(job, "search")

        def keep(search: Search, result: LaunchResult[CheckResult]) -> None:
            running.observe(cell, result)
            record.search = search
            if search.tried[-1].batch == search.largest_fit:
                record.memory = largest_batch.memory_of(result)
                record.resolved["engine"] = result.ranks[0].description
                record.resolved["rank_batch"] = search.largest_fit
                record.resolved["global_batch"] = search.largest_fit * cell.config.gpus
            running.records.write(cell)

        failed = largest_batch.run(record.search or cell.search(), cell.rank_batch, launch, keep)
        if failed:
            running.fail(cell, failed)
            return
        self._predict_for_measured_batch(cell)
        record.status = "ok"
        running.records.write(cell)
        running.progress.advance(f"searched {cell.id}")

    def _predict_for_measured_batch(self, cell: Cell) -> None:
        """After a search: counts a single process's memory for the batch in the record, not for the first batch.

        None where that cannot be counted.
        """
        running, record = self._running, self._running.records[cell]
        assert record.model and record.search
        batch = record.search.largest_fit
        if batch in (0, cell.rank_batch):
            return
        result = running.launch(running.jobs(cell).reference(batch), "reference")
        measured: Model | None = result.ranks[0].model if result.status == "ok" else None
        if measured is None:
            running.progress.note(f"{cell.id}: no prediction for batch {batch}: {result.status}: {result.reason}")
        record.model = dataclasses.replace(record.model, compute_memory=measured.compute_memory if measured else None)

    def _profile(self, cell: Cell) -> None:
        """Attributes step time to its parts. If the launch fails, its reason is recorded and the cell continues."""
        running = self._running
        is_silenced = cell.config.measure.profile
        attribution = Attribution(
            unprofiled=cell.unprofiled(),
            not_silenced=cell.unsilenced() if is_silenced else "measure.profile=false",
            period=cell.config.local_steps,
        )
        if not attribution.unprofiled:
            running.progress.start(f"profile {cell.id}")
            result = running.launch(running.jobs(cell).profile(), "profile")
            if result.status == "ok":
                is_ordered = all(rank.straggler_known for rank in result.ranks)
                unknown = "" if is_ordered else "not all ranks issue the same collectives in the same order"
                if cell.hosts:
                    unknown = "ranks ran on several hosts, whose clocks cannot be subtracted"
                unknown = cell.traits().uncounted or unknown
                attribution = dataclasses.replace(
                    attribution,
                    steps=[rank.parts for rank in result.ranks],
                    straggler_unknown=unknown,
                    updates=results.updates(result),
                )
                results.take_traces(running.records[cell], result)
            else:
                attribution = dataclasses.replace(attribution, unprofiled=f"{result.status}: {result.reason}")
                running.progress.note(f"{cell.id}: no profile: {attribution.unprofiled}")
        running.records[cell].attribution = attribution
        if cell.config.measure.trace and attribution.unprofiled:
            results.add_traces(running.records[cell], [RankTraces(not_written={"steps": attribution.unprofiled})])
        running.records.write(cell)
        running.progress.advance(f"profiled {cell.id}")
