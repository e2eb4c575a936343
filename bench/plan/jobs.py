"""The launches of a cell, and which cells can share one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.engines.spec import HYPERPARAMETERS, SCHEDULE
from bench.job import (
    CeilingJob,
    CheckJob,
    CollectivesJob,
    LoadJob,
    NoiseJob,
    ProfileJob,
    ReferenceJob,
    TimingJob,
    TracePlace,
    WorkloadSpec,
)
from bench.network.link import link_of
from bench.plan.cell import Cell
from results.precision import PRECISIONS
from results.settings import MAX_SEED


@dataclass(frozen=True)
class Jobs:
    """The launches of ``cell``, one method per purpose; files that they share are in ``scratch``."""

    cell: Cell
    scratch: Path
    first_use: str = ""
    """What the loss uses of the module before it calls it, once the reference has seen it."""
    traces: Path | None = None
    """Folder of the sweep's trace files; None where none are written."""

    def load(self) -> LoadJob:
        makes_files = self.cell.loader is not None and self.cell.config.data_dir is None
        files = str(self.files) if makes_files else None
        given = dataclasses.replace(self._workload, data_dir=self.cell.config.data_dir)
        return LoadJob(workload=given, world_size=1, files=files, reads=self.cell.loader is not None, **self._process)

    def reference(self, rank_batch: int | None = None) -> ReferenceJob:
        """``rank_batch``: another batch than the cell's."""
        training = self._training | ({} if rank_batch is None else {"rank_batch": rank_batch})
        job = ReferenceJob(
            world_size=1,
            parity_steps=self._parity_steps,
            memory=self.cell.config.measure.memory,
            microbatches=self.cell.traits().microbatches,
            reference="",
            **training,
        )
        return dataclasses.replace(job, reference=str(self.scratch / f"{reference_key(job)}.pt"))

    def noise(self) -> NoiseJob:
        reference = self.reference()
        return NoiseJob(
            world_size=1,
            parity_steps=reference.parity_steps,
            reference=reference.reference,
            microbatches=reference.microbatches,
            partial_sums=self.cell.traits().partial_sums,
            **self._training,
        )

    def check(self) -> CheckJob:
        cell, measure = self.cell, self.cell.config.measure
        return CheckJob(
            parity_steps=self._parity_steps,
            reference=self.reference().reference,
            partial_sums=cell.traits().partial_sums,
            memory=measure.memory,
            collectives=measure.collectives and not cell.searches,
            memory_limit_bytes=cell.search().limit_bytes if cell.searches else None,
            traces=self._trace_place if measure.memory else None,
            **self._engine,
        )

    def ceiling(self) -> CeilingJob:
        cell = self.cell
        return CeilingJob(
            world_size=cell.processes,
            device=cell.device,
            backend=cell.backend,
            precision=cell.config.precision,
            ranks_by_host=list(cell.ranks_by_host),
            **self._process,
        )

    def timing(self, *, silent: bool = False, number: int = 0) -> TimingJob:
        """``number``: of the round. With ``target_loss``, each has weights and data of its own."""
        target, synchronous = self.cell.config.target_loss, self.cell.traits().synchronous
        job = TimingJob(silent=silent, target_loss=target, synchronous=synchronous, **self._steps)
        if job.target_loss is None:
            return job
        seed = (job.workload.seed + number) % (MAX_SEED + 1)
        return dataclasses.replace(job, workload=dataclasses.replace(job.workload, seed=seed))

    def profile(self) -> ProfileJob:
        return ProfileJob(traces=self._trace_place, **self._steps)

    def collectives(self) -> CollectivesJob:
        cell, config = self.cell, self.cell.config
        return CollectivesJob(
            world_size=cell.processes,
            device=cell.device,
            backend=cell.backend,
            options=self._workload.options,
            iterations=config.steps,
            warmup=config.warmup,
            network=link_of(config.network, config.gpus),
            ranks_by_host=list(cell.ranks_by_host),
            **self._process,
        )

    def timed(self, *, silent: bool = False, number: int = 0) -> TimingJob | CollectivesJob:
        """The launch of round ``number``."""
        return self.timing(silent=silent, number=number) if self.cell.trains else self.collectives()

    @property
    def files(self) -> Path:
        """Where files are made for a DataLoader without ``data_dir``, for a workload and a seed."""
        config = self.cell.config
        same = json.dumps([config.workload, config.seed], sort_keys=True)
        return self.scratch / f"files-{hashlib.sha256(same.encode()).hexdigest()[:16]}"

    @property
    def _trace_place(self) -> TracePlace | None:
        is_traced = self.traces and self.cell.config.measure.trace
        return TracePlace(str(self.traces), self.cell.id) if is_traced else None

    @property
    def _workload(self) -> WorkloadSpec:
        config = self.cell.config
        options = {key: value for key, value in config.workload.items() if key not in ("name", "factory")}
        data_dir = config.data_dir
        if self.cell.loader and data_dir is None and self.files.is_dir():
            data_dir = str(self.files)
        return WorkloadSpec(config.workload["factory"], config.seed, data_dir, options)

    @property
    def _parity_steps(self) -> int:
        cell = self.cell
        return 0 if cell.outside_parity() or cell.searches else cell.config.measure.parity_steps

    @property
    def _process(self) -> dict[str, Any]:
        config = self.cell.config
        return {"threads": self.cell.threads, "deterministic": config.deterministic, "timeout_s": config.timeout_s}

    @property
    def _training(self) -> dict[str, Any]:
        cell = self.cell
        return self._process | {
            "spec": cell.spec(),
            "workload": self._workload,
            "rank_batch": cell.rank_batch,
            "ranks_per_replica": cell.traits().ranks_per_replica,
            "data_skew": cell.config.data_skew,
        }

    @property
    def _engine(self) -> dict[str, Any]:
        config, loader = self.cell.config, self.cell.loader
        return self._training | {
            "world_size": self.cell.processes,
            "engine": config.engine["package"],
            "first_use": self.first_use,
            "loader": loader and dataclasses.replace(loader, folder=str(self.scratch)),
            "servers": self.cell.traits().servers,
            "network": link_of(config.network, config.gpus),
            "ranks_by_host": list(self.cell.ranks_by_host),
        }

    @property
    def _steps(self) -> dict[str, Any]:
        config = self.cell.config
        return self._engine | {
            "steps": config.steps,
            "warmup": config.warmup,
            "batch_pool": config.measure.batch_pool,
            "straggler_rank": config.straggler.rank,
            "straggler_factor": config.straggler.factor,
        }


def reference_key(job: ReferenceJob) -> str:
    """Cells with the same key share one reference: they train the same model on the same data."""
    spec = job.spec
    same = [spec.world_size, spec.device, spec.precision, spec.optimizer, spec.lr, spec.clip_norm, spec.accumulate]
    same += [dataclasses.asdict(job.workload), job.rank_batch, job.parity_steps, job.deterministic, job.threads]
    same += [job.ranks_per_replica, job.microbatches, job.data_skew, job.memory, spec.backend == "fake"]
    same += [getattr(spec, name) for name in (*HYPERPARAMETERS, *SCHEDULE)]
    same += [spec.checkpointing]  # the training is the same, its memory and its operations are not
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:16]


def noise_key(job: NoiseJob) -> tuple[object, ...]:
    """Cells with the same key share the noise of their reference: sums of their gradients are rounded alike."""
    return job.reference, job.spec.compression, job.partial_sums


def ceiling_key(job: CeilingJob) -> tuple[object, ...]:
    """Cells with the same key share one ceiling: as many ranks, on as many threads, multiply the same numbers."""
    hosts = tuple(job.ranks_by_host)
    return job.device, PRECISIONS[job.precision].compute, job.threads, job.world_size, hosts
