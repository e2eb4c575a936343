"""The data of a rank: the workload, its share of each global batch, and its number of steps."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

import workloads
from bench.engines.base import Batch
from bench.engines.batches import map_tensors, tensors_of
from bench.job import LoadJob, TrainingJob, WorkloadSpec
from bench.rank_results import LoadResult
from bench.worker import loop
from bench.worker.global_state import watched
from workloads.base import Workload, WorkloadError


def workload(spec: WorkloadSpec) -> Workload:
    """The workload, with its data; loaded once before ranks are forked, which inherit it."""
    return _load_workload(json.dumps(asdict(spec)), spec.called)


def load(job: LoadJob) -> LoadResult:
    """Loads the workload and builds its model, whose own checks come only then; its units where a setting names them.

    Raises WorkloadError for settings that the workload or the model rejects.
    """
    work = workload(job.workload)
    module = work.build()
    if job.workload.options.get("units"):
        work.units(module)
    if job.reads:
        check_reads(job.workload, work)
    wrote = job.files is not None and write_files(job, work, Path(job.files))
    return LoadResult(unit=work.info.unit, units_per_sample=work.info.units_per_sample, wrote_files=wrote)


def check_reads(spec: WorkloadSpec, work: Workload) -> None:
    """Raises WorkloadError where a built-in workload has the samples of ``data_dir`` in memory."""
    is_built_in = getattr(work, "write_files", None) is not None  # another may prepare each sample in its batch()
    if spec.data_dir is not None and is_built_in and work.info.data.in_memory:
        raise WorkloadError(
            f"data=loader reads files as steps need them; workload={work.info.name} has those of "
            f"data_dir={spec.data_dir} in memory. Valid: data_dir with train/CLASS/FILE, or data=pool"
        )


def write_files(job: LoadJob, work: Workload, folder: Path) -> bool:
    """Whether the workload wrote its samples as files into ``folder``; a person's own workload reads what it likes.

    Raises WorkloadError for a built-in one that neither reads files nor takes a set time to read a sample.
    """
    write = getattr(work, "write_files", None)
    wrote = write is not None and write(folder)
    if not wrote and write is not None and not getattr(work, "times_reading", False):
        raise WorkloadError(
            f"data=loader needs samples that are read from files; workload={work.info.name} has them in memory. Valid: "
            "data=pool, or a workload of images or tokens"
        )
    return bool(wrote)


@functools.lru_cache(maxsize=2)
def _load_workload(spec: str, factory: str) -> Workload:
    with watched(factory):
        return Watched(workloads.load(**json.loads(spec)), factory)


class Watched:
    """A workload whose ``build`` leaves no global state behind. All else is the workload's own, at no cost."""

    def __init__(self, own: Workload, factory: str) -> None:
        self._own = own
        self._factory = factory
        self.info, self.units, self.batch, self.loss = own.info, own.units, own.batch, own.loss
        self.write_files = getattr(own, "write_files", None)
        self.times_reading = getattr(own, "times_reading", False)

    def build(self) -> nn.Module:
        with watched(self._factory):
            return self._own.build()


def share_of(job: TrainingJob[Any], rank: int) -> loop.Share:
    """The share of a rank; the ranks of one replica have the same."""
    together = job.ranks_per_replica
    replicas = job.spec.world_size // together
    return loop.Share(rank // together, replicas, job.rank_batch * together, job.spec.accumulate)


def batches(job: TrainingJob[Any], work: Workload, share: loop.Share, step: int, device: torch.device) -> list[Batch]:
    """A rank's micro-batches of ``step``, on the device."""
    sorted_indices = by_label(work, share.global_batch(step)) if job.data_skew == "labels" else None
    micro_batches = []
    for indices in share.micro_batches(step):
        samples: Sequence[int] = [sorted_indices[index] for index in indices] if sorted_indices else indices
        micro_batches.append(map_tensors(work.batch(samples), lambda entry: entry.to(device)))
    return micro_batches


def by_label(work: Workload, indices: range) -> dict[int, int]:
    """Who stands where when the samples of a global batch are sorted by their class labels (one a sample)."""
    labels = tensors_of(work.batch(indices))[-1]
    if labels.dim() != 1 or labels.is_floating_point():
        raise WorkloadError(
            f"data_skew=labels needs one class label a sample; workload={work.info.name} has none. Valid: none, samples"
        )
    order = torch.argsort(labels, stable=True).tolist()
    return {index: indices[position] for index, position in zip(indices, order, strict=True)}


def steps_of(job: TrainingJob[Any], rank: int, steps: int) -> int:
    """How many steps a rank has; under ``data_skew=samples`` the last one has half."""
    short = job.data_skew == "samples" and rank == job.world_size - 1
    return max(1, steps // 2) if short and steps else steps
