"""Ranks that differ on purpose: a straggler, skewed labels, unequal numbers of samples."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch

from bench.job import Job
from bench.launch.launcher import Launcher
from bench.plan.jobs import Jobs
from bench.worker.batches import batches, share_of, workload
from bench.worker.straggler import compute_s, slowed
from tests.conftest import MakeCell
from tests.undisturbed import undisturbed
from workloads.base import WorkloadError

pytestmark = pytest.mark.alone


def step_times_s(launcher: Launcher, job: Job) -> list[list[float]]:
    result = launcher.launch(job)
    assert result.status == "ok", result
    return [rank.samples.step_times_s() for rank in result.ranks]


@pytest.mark.parametrize("engine", ["native", "torch"])
@pytest.mark.parametrize("stage", [0, 3])
def test_every_rank_waits_for_a_straggler(
    engine: str, stage: int, make_cell: MakeCell, launcher: Launcher, timing_job: Callable[..., Any]
) -> None:
    even = timing_job(make_cell(engine=engine, stage=stage, gpus=2, batch_size=32), steps=8)
    uneven = dataclasses.replace(even, straggler_rank=1, straggler_factor=12.0)

    def claim(jobs: list[list[float]]) -> None:
        (alone, _), (slow, straggler) = jobs
        assert slow == pytest.approx(straggler, rel=0.15)
        assert slow > 2 * alone

    undisturbed(lambda: [list(map(median, step_times_s(launcher, job))) for job in (even, uneven)], claim)


def test_the_delay_is_what_the_factor_says() -> None:
    module, batch = torch.nn.Linear(4, 4), (torch.ones(2, 4),)

    def loss_fn(module: torch.nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        time.sleep(0.02)
        return module(batch[0]).sum()

    cpu = torch.device("cpu")

    def claim(own_s: float) -> None:
        assert 0.02 <= own_s < 0.1

    undisturbed(lambda: compute_s(module, batch, loss_fn, "fp32", cpu), claim)
    assert module.weight.grad is None, "it was timed on a copy"
    assert torch.equal(slowed(loss_fn, 0.0, cpu)(module, batch), loss_fn(module, batch))


def test_skewed_labels_deal_the_same_samples_by_class(make_cell: MakeCell) -> None:
    skewed, plain = (
        Jobs(make_cell(gpus=4, batch_size=16, data_skew=skew), Path()).timing() for skew in ("labels", "none")
    )
    work = workload(plain.workload)
    cpu = torch.device("cpu")

    def labels(job: Job) -> list[list[int]]:
        return [batches(job, work, share_of(job, rank), 3, cpu)[0][-1].tolist() for rank in range(4)]

    skewed_labels, even = labels(skewed), labels(plain)
    assert list(chain(*skewed_labels)) == sorted(chain(*even))
    assert max(len(set(share)) for share in skewed_labels) < min(len(set(share)) for share in even)


def test_skewed_labels_need_labels(make_cell: MakeCell) -> None:
    job = Jobs(make_cell(gpus=2, workload="mlp", data_skew="labels"), Path()).timing()
    work = workload(job.workload)
    with pytest.raises(WorkloadError, match="data_skew=labels needs one class label a sample; workload=mlp"):
        batches(job, work, share_of(job, 0), 0, torch.device("cpu"))


def test_unequal_samples_need_an_engine_with_join(make_cell: MakeCell) -> None:
    cell = make_cell(engine="native", gpus=2, data_skew="samples")
    assert (cell.status, "data_skew=samples" in cell.reason) == ("unsupported", True)
