"""A search for the largest batch with real launches: it finds what trying every batch finds, and loses nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest

from bench.job import CheckJob, Job, LaunchResult
from bench.launch.launcher import Launcher
from bench.measure.machine.torch_build import Machine
from bench.plan.jobs import Jobs
from bench.plan.resolve import plan
from bench.sweep import largest_batch
from bench.sweep.breakdown import Breakdown
from bench.sweep.resume import take_over
from bench.sweep.run import INTERRUPTED, Sweep
from results.memory import Search, Trial
from results.record import Record
from results.settings import Config
from results.store import RecordStore
from tests.conftest import CPU_ONLY

WIDTH, DEPTH = 256, 3
MLP = {"name": "mlp", "factory": "workloads.mlp:MLP", "depth": DEPTH, "width": WIDTH}
MOST = 8
PER_SAMPLE_BYTES = 4 * WIDTH


class Cut:
    """The launcher of a sweep that is interrupted at one of its launches, or whose rank is killed there."""

    def __init__(self, launcher: Launcher, at: int | None = None, *, killed: bool = False) -> None:
        self.launcher = launcher
        self.machine: Machine = CPU_ONLY
        self.left = at
        self.killed = killed
        self.batches: list[int] = []

    def launch(self, job: Job) -> LaunchResult:
        if isinstance(job, CheckJob):
            if self.left is not None and len(self.batches) == self.left:
                if self.killed:
                    return LaunchResult("failed", "rank 0: killed by signal 9 (SIGKILL)", by_chance=True)
                raise KeyboardInterrupt
            self.batches.append(job.rank_batch)
        return self.launcher.launch(job)


Searched = Callable[..., tuple[int, Record, list[int]]]


@pytest.fixture
def searched(make_config: Callable[..., Config], launcher: Launcher, scratch: Path, tmp_path: Path) -> Searched:
    """Runs a sweep of one search: its exit code, the record on disk, and the batches that it launched."""

    def sweep(
        cut: int | None = None, *, killed: bool = False, resume: bool = False, **settings: Any
    ) -> tuple[int, Record, list[int]]:
        config = make_config(engine="native", workload=MLP, search="max_batch", resume=resume, **settings)
        cells = plan([config], CPU_ONLY, cores=2)
        recorder = Cut(launcher, cut, killed=killed)
        made = Sweep(cells, RecordStore(tmp_path), cast(Launcher, recorder), {}, scratch, Breakdown())
        if resume:
            take_over(made.records)
        return made.run(), Record.read(tmp_path / "records" / f"{cells[0].id}.json"), recorder.batches

    return sweep


@pytest.fixture
def peaks(make_config: Callable[..., Config], launcher: Launcher, scratch: Path) -> list[int]:
    """The peak at each batch from 1 to MOST, by launches of the same kind."""
    config = make_config(engine="native", workload=MLP, search="max_batch", memory_limit="1GiB")
    job = Jobs(plan([config], CPU_ONLY, cores=2)[0], scratch).check()
    results = [launcher.launch(dataclasses.replace(job, rank_batch=batch)) for batch in range(1, MOST + 1)]
    return [cast(int, largest_batch.trial(1, result, None).peak_bytes) for result in results]


@pytest.mark.parametrize("killed", [False, True])
def test_the_answer_is_that_of_trying_all_batches_also_of_a_search_that_was_cut_off(
    peaks: list[int], searched: Searched, killed: bool
) -> None:
    rises = [after - before for before, after in pairwise(peaks)]
    assert rises == [rises[0]] * len(rises) and rises[0] % PER_SAMPLE_BYTES == 0, peaks  # every sample costs the same
    limit = (peaks[4] + peaks[5]) // 2
    settings = {"memory_limit": f"{limit}B", "search_most": MOST, "batch_size": 2}
    code, cut, before = searched(2, killed=killed, **settings)
    assert (code, cut.status, len(before)) == ((1, "failed", 2) if killed else (INTERRUPTED, "interrupted", 2))
    assert cut.search and [trial.batch for trial in cut.search.tried] == before
    code, record, after = searched(resume=True, **settings)
    assert (code, record.status) == (0, "ok")
    assert record.search and (record.search.largest_fit, record.search.smallest_unfit) == (5, 6)
    assert [trial.batch for trial in record.search.tried] == before + after
    assert record.search.tried[: len(before)] == cut.search.tried
    assert all(trial.peak_bytes == peaks[trial.batch - 1] for trial in record.search.tried)
    assert (record.search.peak_bytes, record.resolved["rank_batch"]) == (peaks[4], 5)
    assert record.launches == [] and record.parity is None and record.memory[0].peak_bytes == peaks[4]


def test_batches_are_whole_micro_batches_and_end_at_search_most(searched: Searched) -> None:
    code, record, tried = searched(memory_limit="1GiB", search_most=7, accumulate=2, batch_size=2, gpus=2)
    assert (code, tried) == (0, [2, 4, 6])
    assert record.search and (record.search.largest_fit, record.search.smallest_unfit) == (6, None)
    assert record.resolved["global_batch"] == 12


def test_activations_are_predicted_for_the_batch_that_was_measured(searched: Searched) -> None:
    """Eight samples: each of three layers keeps one activation, and the loss is one number.

    Backward of the last layer holds two more of their size: the gradients of its output and of its input.
    """
    code, record, _ = searched(memory_limit="1GiB", search_most=8, batch_size=2)
    assert (code, record.resolved["rank_batch"]) == (0, 8)
    assert record.model and record.model.compute_memory
    compute, activation = record.model.compute_memory, 8 * PER_SAMPLE_BYTES
    assert (compute.activation_bytes, compute.temporary_bytes) == (DEPTH * activation + 4, 2 * activation)
    assert compute.batch_bytes == 2 * activation
    assert compute.handover_bytes == 4 * WIDTH * (WIDTH + 1)


def test_a_search_attributes_no_step_which_would_be_one_of_its_first_batch(searched: Searched) -> None:
    code, record, _ = searched(memory_limit="1GiB", search_most=2, batch_size=1, measure={"profile": True})
    assert (code, record.resolved["rank_batch"], record.attribution) == (0, 2, None)


def test_running_out_of_memory_is_an_answer_and_any_other_end_is_not(
    make_config: Callable[..., Config], launcher: Launcher, scratch: Path
) -> None:
    """The workload of ``how=exhaust`` asks for more than any machine has, and is refused."""

    def ends(how: str) -> LaunchResult:
        workload = {"name": "faulty", "factory": "tests.faults:Faulty", "how": how, "rank": 0}
        cell = plan([make_config(workload=workload, search="max_batch", memory_limit="1GiB")], CPU_ONLY, cores=2)[0]
        return launcher.launch(Jobs(cell, scratch).check())

    exhausted, broken = ends("exhaust"), ends("raise")
    assert (exhausted.status, broken.status) == ("oom", "failed")
    kept = [Search(limit_bytes=2**30, multiple_of=1, max_batch=1024)]

    def run(result: LaunchResult) -> LaunchResult | None:
        return largest_batch.run(kept[0], 64, lambda batch: result, lambda state, _: kept.append(state))

    assert run(broken) is broken and len(kept) == 1
    assert run(exhausted) is None
    assert kept[-1].tried == [Trial(64, None, fits=False), Trial(1, None, fits=False)]


@pytest.mark.gpu
def test_on_a_gpu_the_limit_is_real(make_config: Callable[..., Config], launcher: Launcher, scratch: Path) -> None:
    """A model of 12 MiB of state does not fit 4 MiB, and no GPU has a pebibyte."""
    ends = []
    for limit in ("4MiB", "1GiB", "1024TiB"):
        big = MLP | {"width": 512, "depth": 3}
        config = make_config(engine="native", workload=big, search="max_batch", memory_limit=limit)
        result = launcher.launch(Jobs(plan([config], launcher.machine, cores=2)[0], scratch).check())
        ends.append(result.status)
    assert ends == ["oom", "ok", "unsupported"]
