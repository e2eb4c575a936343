"""A sweep: plans all cells, checks each, times them in interleaved rounds, and ends with a report.

    plan    every request resolved on this machine, or refused by name
    check   one launch a cell: parity, model state, peak bytes, collectives; cells that train the same share a reference
    profile if asked for, another: what the time of a step is made of
    rounds  each round launches every cell once, in shuffled order, so that drift hits all cells alike
    finish  report and tracking, also after Ctrl-C

The record of a cell is rewritten after each of its launches: whatever stops a sweep, what was measured stays.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import random
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import engines, search
from bench.breakdown import Breakdown
from bench.cells import Cell, ceiling_key, plan, reference_key
from bench.config import Config, ConfigError, check_sweep
from bench.job import LaunchResult
from bench.launch import Launcher, LaunchError, launcher_for, server_environment
from bench.measure import conditions, environment, source
from bench.measure.verdicts import disturbances, verdicts
from bench.progress import SweepProgress
from bench.record import (
    NO_ENGINE,
    Attribution,
    Ceiling,
    Collective,
    CollectiveTimes,
    Launch,
    Model,
    Parity,
    RankMemory,
    RankSamples,
    Record,
    Search,
    Source,
    Status,
    StepParts,
    decode,
)
from bench.scratch import scratch
from bench.store import FolderBusy, RecordStore, StoreError
from bench.tracking import Tracker, open_tracker

BAD = ("failed", "timeout", "oom", "parity_failed")
"""Statuses that make the sweep's exit code 1; a refusal is an answer, not a failure."""
INTERRUPTED = 130


def run(configs: list[Config], folder: Path) -> int:
    """Runs every cell that ``configs`` ask for; the exit code. Raises ConfigError before anything starts."""
    check_sweep(configs)
    settings = configs[0]
    breakdown = Breakdown()
    store = open_store(folder, resume=settings.resume)
    preload = engines.preload(*(config.engine["package"] for config in configs))
    with scratch() as folder_for_now:
        try:
            with launcher_for(preload) as launcher:
                # The server imports torch on one core while this process imports what the end needs.
                import analysis.report
                import analysis.terminal  # noqa: F401

                tracker = open_tracker(settings.tracking, folder)
                machine = launcher.machine
                breakdown.lap("warm-up")
                cells = plan(configs, machine, environment.usable_cores())
                code_now = source.collect(sys.argv[1:])
                around = environment.collect(machine, server_environment(), code_now)
                sweep = Sweep(cells, store, launcher, around, folder_for_now, breakdown, code_now)
                if settings.resume:
                    sweep.resume()
                code = sweep.run()
        except LaunchError as error:
            raise ConfigError(str(error)) from error
    breakdown.lap("")
    try:
        return finish(sweep, tracker, code, show_breakdown=settings.measure.timing_breakdown)
    except KeyboardInterrupt:
        print(
            f"interrupted; the records are whole, report them with: python -m analysis report {store.folder}",
            file=sys.stderr,
        )
        return INTERRUPTED


def open_store(folder: Path, *, resume: bool) -> RecordStore:
    """The sweep's folder. Raises ConfigError if it holds a sweep already, or none to resume."""
    held = any((folder / "records").glob("*.json"))
    if resume and not (folder / "records").is_dir():
        raise ConfigError(f"resume=true found no earlier sweep in {folder}; name its folder with hydra.sweep.dir=...")
    if held and not resume:
        raise ConfigError(
            f"{folder} holds a sweep already; resume=true goes on with it, hydra.sweep.dir=... names another"
        )
    try:
        return RecordStore(folder)
    except FolderBusy as error:
        raise ConfigError(f"{error}; hydra.sweep.dir=... names another") from error


def finish(sweep: Sweep, tracker: Tracker, code: int, *, show_breakdown: bool) -> int:
    """Report, tracking, and the table on the terminal; the exit code."""
    from analysis.collectives import fit_rows
    from analysis.load import frame
    from analysis.report import write_report
    from analysis.terminal import print_summary

    store, records = sweep.store, list((sweep.earlier | sweep.records).values())
    table = frame(records)
    try:
        paths = write_report(records, store.folder, store.warnings, table=table)
    except OSError as error:
        paths, code = None, code or 1
        store.warnings.append(f"no report ({error}); later: python -m analysis report {store.folder} --out FOLDER")
    sweep.breakdown.lap("report")
    tracker.log_sweep(list(sweep.records.values()), store.folder)
    sweep.breakdown.lap("tracking")
    if show_breakdown:
        sweep.breakdown.show()
    print_summary(table, paths, [*store.warnings, *tracker.warnings], by_size=fit_rows(records, table))
    return code


class Sweep:
    """All cells of one sweep and their records."""

    def __init__(
        self,
        cells: list[Cell],
        store: RecordStore,
        launcher: Launcher,
        environment_now: dict[str, Any],
        scratch: Path,
        breakdown: Breakdown,
        source_now: Source | None = None,
    ) -> None:
        self.cells = cells
        self.store = store
        self.launcher = launcher
        self.machine = launcher.machine
        self.environment = environment_now
        self.source = source_now
        self.scratch = scratch
        self.breakdown = breakdown
        self.resolutions: dict[str, float] = {}
        self.models: dict[str, Model | LaunchResult] = {}
        self.ceilings: dict[object, Ceiling | None] = {}
        self.records = {cell.id: self._new_record(cell) for cell in cells}
        self.earlier: dict[str, Record] = {}
        """What the folder held before; reported, and logged only where it was taken over."""

    def _new_record(self, cell: Cell) -> Record:
        config = dataclasses.asdict(cell.config)
        for name in ("tracking", "reproduce"):
            del config[name]  # says nothing of the cell, and an address may hold a password
        if not cell.trains:
            config["engine"] = {"name": NO_ENGINE}
        record = Record(
            cell_id=cell.id,
            sweep_id=self.store.folder.name,
            config=config,
            resolved=cell.resolved(),
            environment=self.environment,
            source=self.source,
        )
        if cell.status:
            record.status, record.reason = cell.status, cell.reason
        return record

    def resume(self) -> None:
        """Takes over what an earlier run in this folder measured. Raises ConfigError if that was another machine.

        A cell that other code has finished is kept, with a warning: that code is in its record, and a sweep is often
        resumed because its code was mended. One that it has begun is begun anew, so that no cell mixes two codes.
        """
        from analysis.usable import check

        self.earlier = self.store.existing(check)
        others = []
        for cell_id, earlier in self.earlier.items():
            changed = environment.differences(earlier.environment, self.environment)
            if changed:
                raise ConfigError(f"resume: {self.store.folder} was measured elsewhere ({'; '.join(changed)})")
            if cell_id in self.records and earlier.status in ("failed", "timeout", "oom") and earlier.launches:
                earlier = dataclasses.replace(earlier, status="interrupted", reason="", failure=[])  # one launch failed
            if cell_id in self.records and earlier.status in ("ok", "interrupted"):
                self.records[cell_id] = earlier
                if self.source and source.differences(earlier, self.source, self.environment):
                    others.append(cell_id)
        unfinished = [cell for cell in self.cells if cell.id in others and self.launches_left(cell)]
        for cell in unfinished:
            self.store.set_aside(self.records[cell.id])
            self.records[cell.id] = self._new_record(cell)
        if self.source and others:
            self.store.warnings.append(
                f"resume: the sweep now mixes codes: {len(others)} cell(s) differ from the rest "
                f"({source.differences(self.earlier[others[0]], self.source, self.environment)}); "
                f"{len(unfinished)} of them, not finished, began anew"
            )
            print(self.store.warnings[-1], file=sys.stderr)

    def run(self) -> int:
        """Checks and times all cells; the exit code."""
        self._show_plan()
        todo = [cell for cell in self.cells if not cell.status]
        launches = sum(self.launches_left(cell) for cell in todo)
        code = 0
        try:
            with SweepProgress(launches) as self.progress:
                for cell in todo:
                    self.prepare(cell)
                self._run_rounds([cell for cell in todo if not cell.searches])
        except KeyboardInterrupt:
            code = INTERRUPTED
            print("interrupted: what is finished is kept and reported", file=sys.stderr)
        except StoreError as error:
            print(f"stopped: {error}; resume=true goes on once there is room", file=sys.stderr)
            code = 1
        self.write_all()
        code = code or int(self.store.rescued)
        statuses = [record.status for record in self.records.values()]
        return code or int(any(status in BAD for status in statuses) or "ok" not in statuses)

    def prepare(self, cell: Cell) -> None:
        """All launches of a cell before its rounds."""
        if cell.searches:
            self._search(cell)
        elif not self._checked(cell):
            self._check(cell)
        if self._to_profile(cell):
            self._profile(cell)

    def write_all(self) -> None:
        """Every cell's record, also of those that nothing was measured of; as far as there is room."""
        with contextlib.suppress(StoreError):
            for cell in self.cells:
                self._write(cell)

    def _show_plan(self) -> None:
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        run_here = [cell for cell in self.cells if not cell.status]
        names = [cell.id for cell in self.cells]
        devices = ", ".join(sorted({f"{cell.device} over {cell.backend}" for cell in run_here})) or "nothing to run"
        console.print(
            f"{len(names)} cell{'' if len(names) == 1 else 's'}, {devices}; records in {self.store.folder}",
            markup=False,
        )
        for cell in self.cells:
            threads = f", {cell.threads} thread(s) a rank" if cell.device == "cpu" else ""
            work = f"global batch {cell.global_batch}" if cell.trains else "collectives by size"
            note = f"{cell.status}: {cell.reason}" if cell.status else f"{work}{threads}"
            if cell.searches and not cell.status:
                note = f"search={cell.config.search} from {cell.rank_batch} samples a rank{threads}"
            note += ", simulated: rank 0 runs alone" if cell.simulated and not cell.status else ""
            console.print(f"  {cell.id}  {note}", markup=False)
        crowded = sorted({cell.config.gpus for cell in run_here if cell.oversubscribed(self.machine)})
        if crowded:
            what = f"{self.cells[0].cores} cores" if run_here[0].device == "cpu" else "the GPUs"
            console.print(
                f"oversubscribed: world sizes {', '.join(map(str, crowded))} share {what}; "
                "their times say nothing about scaling",
                markup=False,
            )

    def _checked(self, cell: Cell) -> bool:
        record, measure = self.records[cell.id], cell.config.measure
        return not cell.trains or bool(
            record.model
            and (record.parity or not measure.parity_steps or record.resolved.get("outside_parity"))
            and (record.memory or not measure.memory)
            and (record.collectives is not None or not measure.collectives)
        )

    def launches_left(self, cell: Cell) -> int:
        """Launches that the cell still has to make, as progress counts them."""
        if cell.searches:
            return int(self.records[cell.id].status != "ok")  # nobody knows how many; it counts as one
        rounds = max(0, cell.config.repeats - len(self.records[cell.id].launches))
        silent = rounds if cell.config.measure.profile and not cell.unsilenced() else 0
        return rounds + silent + (not self._checked(cell)) + self._to_profile(cell)

    def _to_profile(self, cell: Cell) -> bool:
        record = self.records[cell.id]
        return cell.config.measure.profile and not record.attribution and record.status in ("ok", "interrupted")

    def _profile(self, cell: Cell) -> None:
        """What steps are made of. A launch that fails here leaves a reason, and the cell goes on."""
        record = self.records[cell.id]
        found = Attribution(unprofiled=cell.unprofiled(), not_silenced=cell.unsilenced())
        if not found.unprofiled:
            self.progress.start(f"profile {cell.id}")
            result = self.launcher.launch(cell.job("profile", self.scratch))
            self.breakdown.add("profile", result.total_s)
            if result.status == "ok":
                steps = [decode(rank["parts"], list[StepParts], "parts") for rank in result.ranks]
                known = all(rank["straggler_known"] for rank in result.ranks)
                unknown = "" if known else "not all ranks meet in every collective, in the same order"
                unknown = cell.traits().uncounted or unknown
                found = dataclasses.replace(found, steps=steps, straggler_unknown=unknown)
            else:
                found = dataclasses.replace(found, unprofiled=f"{result.status}: {result.reason}")
                self.progress.note(f"{cell.id}: no profile: {found.unprofiled}")
        record.attribution = found
        self._write(cell)
        self.progress.advance(f"profiled {cell.id}")

    def _check(self, cell: Cell) -> None:
        """Parity, memory and collectives of one cell, against a reference that is trained when first needed."""
        record = self.records[cell.id]
        self.progress.start(f"check {cell.id}")
        if not self._take_model(cell):
            return
        measure = cell.config.measure
        if measure.ceiling and not cell.simulated:
            record.ceiling = self._ceiling(cell)
        if measure.parity_steps or measure.memory or measure.collectives:
            result = self.launcher.launch(cell.job("check", self.scratch))
            self.breakdown.add("check", result.total_s)
            if result.status != "ok":
                self._fail(cell, result)
                return
            self._take_check(cell, result.ranks)
        self._write(cell)
        self.progress.advance(f"checked {cell.id}")
        if record.status == "parity_failed":
            self.progress.note(f"{cell.id}: parity_failed: {record.reason}")
            self.progress.advance(cell.id, self.launches_left(cell))

    def _take_model(self, cell: Cell) -> bool:
        """What the model is, from the reference; False if that failed, and the cell with it."""
        model = self._reference(cell)
        if isinstance(model, LaunchResult):
            refused = model.status in ("unsupported", "unavailable")
            self._fail(cell, model, "" if refused else "the single-process reference: ")
            return False
        self.records[cell.id].model = model
        return True

    def _search(self, cell: Cell) -> None:
        """Launches batch after batch until the largest that fits is bracketed; each trial is kept at once."""
        record = self.records[cell.id]
        if record.status == "ok" or not (record.model or self._take_model(cell)):
            return

        def launch(batch: int) -> LaunchResult:
            self.progress.start(f"search {cell.id}: batch {batch}")
            result = self.launcher.launch(dataclasses.replace(cell.job("check", self.scratch), rank_batch=batch))
            self.breakdown.add("search", result.total_s)
            return result

        def keep(found: Search, result: LaunchResult) -> None:
            record.search = found
            if found.tried[-1].batch == found.largest_fit:
                record.memory = search.memory_of(result)
                record.resolved["engine"] = result.ranks[0]["describe"]
                record.resolved["rank_batch"] = found.largest_fit
                record.resolved["global_batch"] = found.largest_fit * cell.config.gpus
            self._write(cell)

        failed = search.run(record.search or cell.search(), cell.rank_batch, launch, keep)
        if failed:
            self._fail(cell, failed)
            return
        record.status = "ok"
        self._write(cell)
        self.progress.advance(f"searched {cell.id}")

    def _take_check(self, cell: Cell, ranks: list[dict[str, Any]]) -> None:
        record = self.records[cell.id]
        record.resolved["engine"] = ranks[0]["describe"]
        if ranks[0]["memory"]:
            record.memory = [decode(rank["memory"], RankMemory, "memory") for rank in ranks]
        if ranks[0]["collectives"] is not None:
            ledgers = [decode(rank["collectives"], list[Collective], "collectives") for rank in ranks]
            record.collectives = ledgers[0]
            record.collectives_by_rank = ledgers if any(ledger != ledgers[0] for ledger in ledgers) else []
        if ranks[0]["parity"]:
            record.parity = decode(ranks[0]["parity"], Parity, "parity")
            if not record.parity.passed:
                record.parity = record.parity.widened(self._resolution(cell))
            if not record.parity.passed:
                record.status = "parity_failed"
                record.reason = (
                    f"differs from a single process by {record.parity.error:.2g} of its training path; "
                    f"tolerance {record.parity.tolerance:.2g}"
                )

    def _resolution(self, cell: Cell) -> float:
        """How finely parity can judge this training, for a cell that missed the usual tolerance."""
        job = cell.job("resolution", self.scratch)
        key = reference_key(job)
        if key not in self.resolutions:
            result = self.launcher.launch(job)
            self.breakdown.add("reference", result.total_s)
            if result.by_chance:
                return 0.0
            self.resolutions[key] = result.ranks[0]["resolution"] if result.status == "ok" else 0.0
        return self.resolutions[key]

    def _ceiling(self, cell: Cell) -> Ceiling | None:
        """The peak of the cell's ranks; None, with a note, where it could not be measured."""
        job = cell.job("ceiling", self.scratch)
        key = ceiling_key(job)
        if key not in self.ceilings:
            result = self.launcher.launch(job)
            self.breakdown.add("ceiling", result.total_s)
            if not result.by_chance:
                self.ceilings[key] = None
            if result.status == "ok":
                found = decode(result.ranks[0]["ceiling"], Ceiling, "ceiling")
                disturbing = conditions.together(rank["conditions"] for rank in result.ranks)
                self.ceilings[key] = dataclasses.replace(found, conditions=disturbing)
            else:
                self.progress.note(f"{cell.id}: no ceiling and so no MFU: {result.status}: {result.reason}")
        return self.ceilings.get(key)

    def _reference(self, cell: Cell) -> Model | LaunchResult:
        job = cell.job("reference", self.scratch)
        key = reference_key(job)
        if key not in self.models:
            result = self.launcher.launch(job)
            self.breakdown.add("reference", result.total_s)
            if result.by_chance:
                return result  # the next cell that needs it tries again
            self.models[key] = decode(result.ranks[0]["model"], Model, "model") if result.status == "ok" else result
        return self.models[key]

    def _run_rounds(self, cells: list[Cell]) -> None:
        order = random.Random(cells[0].config.seed if cells else 0)
        for number in range(max((cell.config.repeats for cell in cells), default=0)):
            for cell in order.sample(cells, len(cells)):
                self.take_turn(cell, number)

    def take_turn(self, cell: Cell, number: int) -> None:
        """A cell's launch of one round, unless it has that already, has no more, or has failed."""
        record = self.records[cell.id]
        done = any(launch.round == number for launch in record.launches)
        if number < cell.config.repeats and not done and record.status in ("ok", "interrupted"):
            self._launch(cell, number)

    def _launch(self, cell: Cell, number: int) -> None:
        record, where = self.records[cell.id], f"round {number + 1}/{cell.config.repeats}"
        self.progress.start(f"{where} {cell.id}")
        found = self._timed(cell, number)
        if isinstance(found, LaunchResult):
            self._fail(cell, found)
            return
        record.launches.append(found)
        record.status = "ok"
        self._write(cell)
        self.progress.advance(where)
        if cell.config.measure.profile and not cell.unsilenced():
            self._launch_silent(cell, number)
            self.progress.advance(where)

    def _launch_silent(self, cell: Cell, number: int) -> None:
        """The same with nothing sent. One that fails leaves a reason, and the cell goes on."""
        record = self.records[cell.id]
        if record.attribution and not record.attribution.not_silenced:
            found = self._timed(cell, number, silent=True)
            reason = ""
            if isinstance(found, LaunchResult):
                reason = f"{found.status}: {found.reason}"
            elif not all(math.isfinite(loss) for rank in found.ranks for loss in rank.losses):
                reason = "its numbers are not finite, and not as fast to compute with"
            else:
                record.attribution.silent.append(found)
            if reason:
                record.attribution = dataclasses.replace(record.attribution, not_silenced=reason)
                self.progress.note(f"{cell.id}: no launch without communication: {reason}")
            self._write(cell)

    def _timed(self, cell: Cell, number: int, *, silent: bool = False) -> Launch | LaunchResult:
        """A launch that was timed, or how it failed."""
        started_at = environment.now()
        result = self.launcher.launch(cell.job(cell.measured, self.scratch, silent=silent))
        if result.status != "ok":
            return result
        phases = {name for rank in result.ranks for name in rank["seconds"]}
        seconds = {name: max(rank["seconds"].get(name, 0.0) for rank in result.ranks) for name in sorted(phases)}
        self.breakdown.add_launch(seconds, result.total_s)
        samples = [decode(rank["samples"], RankSamples, "samples") for rank in result.ranks if "samples" in rank]
        times = decode(result.ranks[0].get("collective_times", []), list[CollectiveTimes], "collective_times")
        self.records[cell.id].resolved["start_method"] = result.start_method
        return Launch(
            number,
            started_at,
            seconds | {"total_s": result.total_s},
            samples,
            result.servers,
            conditions=conditions.together(rank["conditions"] for rank in result.ranks),
            foreign=result.ranks[0]["foreign"],
            collective_times=times,
        )

    def _fail(self, cell: Cell, result: LaunchResult, prefix: str = "") -> None:
        record = self.records[cell.id]
        left = self.launches_left(cell)
        record.status = decode(result.status, Status, "status")
        record.reason = prefix + result.reason
        record.failure = result.ends
        self._write(cell)
        self.progress.note(f"{cell.id}: {record.status}: {record.reason}")
        self.progress.advance(cell.id, left)

    def _write(self, cell: Cell) -> None:
        record = self.records[cell.id]
        record.verdict_reasons = disturbances(record)
        record.verdicts = verdicts(record, cell.oversubscribed(self.machine))
        known = len(self.store.warnings)
        try:
            self.store.write(record)
        finally:
            for warning in self.store.warnings[known:]:
                print(f"warning: {warning}", file=sys.stderr)
