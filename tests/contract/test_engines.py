"""The contract of every engine: the same assertions for each, on real ranks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.groups import options
from bench.launch.launcher import Launcher
from bench.plan.cell import Cell
from bench.plan.jobs import Jobs
from tests.broken_sweep import ranks_below
from tests.conftest import MakeCell, RunCheck, assert_parity, each_engine

ENGINES = each_engine(options("engine"))
STAGES = (0, 1, 2, 3)
SHARDED_BEYOND_ITS_STAGE = (("torch", 2), ("fsdp1", 2), ("fabric", 2), ("deepspeed", 1))
"""fully_shard and FSDP1 have no stage that keeps parameters; DeepSpeed frees gradients of others from stage 1 on."""
KEPT_BY_VIEWS = (("deepspeed", 1, "grads"), ("deepspeed", 2, "grads"))
"""DeepSpeed's shards of gradients are views, which keep the whole gradient of a parameter at their edge."""
WRONG = {("deepspeed", 0, "bf16_master"): "differs by a quarter of the training path even on one rank"}
"""What parity finds in published engines. A cell that is here and passes is to be taken out."""
PARAMETERS = 567_498
"""Of the digits workload."""


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[0, 1, pytest.param(2, marks=pytest.mark.exhaustive), 3])
def stage(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(params=[0, *(pytest.param(stage, marks=pytest.mark.exhaustive) for stage in (1, 2)), 3])
def extreme(request: pytest.FixtureRequest) -> int:
    """The stage that shards nothing and the one that shards all; the others in make exhaustive."""
    return int(request.param)


def check_parity(cell: Cell, run_check: RunCheck) -> None:
    if cell.status:
        assert "engine=" in cell.reason
        pytest.skip(cell.reason)
    assert_parity(run_check(cell))


def worlds() -> Iterator[Any]:
    """Every stage on three ranks, and every world size and optimizer; the other combinations are exhaustive."""
    for gpus, optimizer in ((1, "adamw"), (2, "rmsprop"), (3, "adam"), (4, "sgd")):
        for stage in STAGES:
            often = (gpus == 3 and stage != 2) or (stage, gpus) in ((0, 1), (3, 4))
            yield pytest.param(stage, gpus, optimizer, marks=() if often else pytest.mark.exhaustive)


@pytest.mark.parametrize(("stage", "gpus", "optimizer"), worlds())
def test_training_equals_a_single_process_at_any_world_size_with_any_optimizer(
    engine: str, stage: int, gpus: int, optimizer: str, make_cell: MakeCell, run_check: RunCheck
) -> None:
    lr = 0.05 if optimizer == "sgd" else 1e-3
    check_parity(make_cell(engine=engine, stage=stage, gpus=gpus, optimizer=optimizer, lr=lr), run_check)


@pytest.mark.parametrize("precision", ["bf16", "bf16_master"])
def test_training_equals_a_single_process_at_any_precision(
    engine: str, extreme: int, precision: str, make_cell: MakeCell, run_check: RunCheck
) -> None:
    cell = make_cell(engine=engine, stage=extreme, gpus=2, precision=precision)
    if (engine, extreme, precision) not in WRONG:
        check_parity(cell, run_check)
        return
    parity = run_check(cell)[0].parity
    assert parity.error > parity.tolerance, "it is right now"


def test_three_ranks_divide_gradients_without_rounding_them(
    engine: str, extreme: int, make_cell: MakeCell, run_check: RunCheck
) -> None:
    """Under amp_bf16: a third of a loss, folded into it before a backward, would round every activation's gradient."""
    check_parity(make_cell(engine=engine, stage=extreme, gpus=3, precision="amp_bf16"), run_check)


@pytest.mark.parametrize("clip_norm", [pytest.param(None, marks=pytest.mark.exhaustive), 0.01])
def test_loss_scaling_equals_a_single_process(
    engine: str, extreme: int, clip_norm: float | None, make_cell: MakeCell, run_check: RunCheck
) -> None:
    mlp = {"name": "mlp", "factory": "workloads.mlp:MLP", "depth": 2, "width": 32}
    settings = {"precision": "amp_fp16", "clip_norm": clip_norm, "workload": mlp, "optimizer": "sgd", "lr": 0.05}
    check_parity(make_cell(engine=engine, stage=extreme, gpus=2, **settings), run_check)


def test_accumulation_and_clipping_equal_a_single_process(
    engine: str, extreme: int, make_cell: MakeCell, run_check: RunCheck
) -> None:
    cell = make_cell(engine=engine, stage=extreme, gpus=2, accumulate=4, clip_norm=0.1, optimizer="sgd", lr=0.1)
    check_parity(cell, run_check)


@pytest.mark.parametrize("workload", ["gpt", "cnn_cifar", pytest.param("resnet18", marks=pytest.mark.exhaustive)])
def test_every_workload_trains_at_every_stage(
    engine: str, extreme: int, workload: str, make_cell: MakeCell, run_check: RunCheck
) -> None:
    cell = make_cell(
        engine=engine,
        stage=extreme,
        gpus=2,
        workload=workload,
        batch_size=4,
        optimizer="sgd",
        lr=0.01,
        measure={"parity_steps": 2},
    )
    check_parity(cell, run_check)


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.exhaustive)])
def test_nested_batches_and_a_loss_that_calls_parts_of_the_module_train_alike(
    engine: str, extreme: int, precision: str, make_cell: MakeCell, run_check: RunCheck
) -> None:
    workload = {"name": "parts", "factory": "tests.models:Parts", "kind": "parts"}
    check_parity(make_cell(engine=engine, stage=extreme, gpus=2, workload=workload, precision=precision), run_check)


def test_model_state_is_what_the_stage_keeps(engine: str, stage: int, make_cell: MakeCell, run_check: RunCheck) -> None:
    """fp32 Adam: 4 + 4 + 8 bytes a parameter, of which the stage divides some by N=2."""
    cell = make_cell(engine=engine, stage=stage, gpus=2, measure={"memory": True})
    if cell.status or cell.traits().ranks_per_replica > 1:  # a part of the model: tests/contract/test_model_parallel.py
        pytest.skip(cell.reason or "no rank has a whole copy")
    ranks = run_check(cell)
    states = [rank.memory.state_bytes for rank in ranks]
    optimizer = 0 if cell.traits().servers else 8 * PARAMETERS  # servers keep it
    whole = {"params": 4 * PARAMETERS, "grads": 4 * PARAMETERS, "optimizer": optimizer}
    sharded = {0: (), 1: ("optimizer",), 2: ("optimizer", "grads"), 3: ("optimizer", "grads", "params")}[stage]
    for kind, size in whole.items():
        total = sum(state[kind] for state in states)
        if (engine, stage, kind) in KEPT_BY_VIEWS:
            assert total >= size, kind
        elif kind in sharded:
            assert size <= total <= 1.005 * size, kind
        elif (engine, stage) not in SHARDED_BEYOND_ITS_STAGE:
            assert all(size <= state[kind] <= 1.005 * size for state in states), kind


def test_the_peak_is_above_what_was_there_at_rest(engine: str, make_cell: MakeCell, run_check: RunCheck) -> None:
    cell = make_cell(engine=engine, stage=3, gpus=2, measure={"memory": True})
    if cell.status:
        cell = make_cell(engine=engine, stage=0, gpus=2, measure={"memory": True})
    for rank in run_check(cell):
        memory = rank.memory
        assert 0 < memory.rest_bytes < memory.peak_bytes
        assert memory.peak_bytes > sum(memory.state_bytes.values())


def test_a_launch_ends_cleanly_and_leaves_no_process(engine: str, make_cell: MakeCell, launcher: Launcher) -> None:
    cells = [make_cell(engine=engine, stage=stage, gpus=2, workload="mlp") for stage in STAGES]
    runnable = [cell for cell in cells if cell.status is None]
    if not runnable:
        pytest.skip(cells[0].reason)
    cell = runnable[-1]
    result = launcher.launch(Jobs(cell, Path()).timing())
    assert (result.status, result.reason, result.ends) == ("ok", "", [])
    assert len(result.ranks) == 2
    assert not ranks_below(psutil.Process(launcher._process.pid))
