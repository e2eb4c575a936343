"""Tensor and pipeline parallelism: the ranks of a replica compute together what a single process does."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import workloads
from bench.checks import ConfigError
from bench.engines.pipeline.stages import chain_of, cut
from bench.engines.spec import EngineUnsupported
from bench.engines.tensor_parallel.adapter import plan_of
from bench.launch.launcher import Launcher
from bench.plan.resolve import plan
from results.settings import Config
from tests.conftest import CPU_ONLY, MakeCell, RunCheck, assert_parity, planned

MakeConfig = Callable[..., Config]

MEMORY = {"memory": True}
GPT = {"name": "gpt", "factory": "workloads.gpt:GPT", "size": "tiny", "sequence_length": 32, "tie": True}
UNTIED = GPT | {"tie": False}
MLP = {"name": "mlp", "factory": "workloads.mlp:MLP", "depth": 4, "width": 64}
MLP_PARAMETERS = 4 * 64 * 65
NORMALISED = {"name": "normalised", "factory": "tests.models:Odd", "kind": "normalised"}
FROZEN = {"name": "sliced_frozen", "factory": "tests.models:Odd", "kind": "sliced_frozen"}
MODELS = {"tensor_parallel": GPT, "pipeline": UNTIED}


@pytest.mark.parametrize(
    ("model", "gpus"),
    [("mlp", 2), ("gpt", 4), *(pytest.param(*one, marks=pytest.mark.exhaustive) for one in (("mlp", 4), ("gpt", 2)))],
)
@pytest.mark.parametrize(("engine", "stage"), [("tensor_parallel", 0), ("tensor_parallel", 3), ("pipeline", 0)])
def test_training_equals_a_single_process(
    engine: str, stage: int, model: str, gpus: int, make_cell: MakeCell, run_check: RunCheck
) -> None:
    workload = MLP if model == "mlp" else MODELS[engine]
    ranks = run_check(make_cell(engine=engine, stage=stage, gpus=gpus, workload=workload))
    assert_parity(ranks)
    assert ranks[0].description["replicas"] == gpus // 2


@pytest.mark.parametrize(
    ("engine", "stage", "optimizer"),
    [("tensor_parallel", 0, "sgd"), ("tensor_parallel", 3, "adamw"), ("pipeline", 0, "rmsprop")],
)
def test_any_optimizer_will_do(
    engine: str, stage: int, optimizer: str, make_cell: MakeCell, run_check: RunCheck
) -> None:
    lr = 0.05 if optimizer == "sgd" else 1e-3
    cell = make_cell(engine=engine, stage=stage, gpus=2, workload=MODELS[engine], optimizer=optimizer, lr=lr)
    assert_parity(run_check(cell))


@pytest.mark.parametrize("precision", ["amp_bf16", "bf16"])
@pytest.mark.parametrize("model", ["mlp", pytest.param("gpt", marks=pytest.mark.exhaustive)])
def test_tensor_parallelism_rounds_partial_sums_and_is_judged_by_that(
    model: str, precision: str, make_cell: MakeCell, run_check: RunCheck
) -> None:
    settings = {"engine": "tensor_parallel", "workload": MLP if model == "mlp" else GPT, "precision": precision}
    assert_parity(run_check(make_cell(gpus=2, optimizer="sgd", lr=0.05, **settings)), 0.05)
    assert_parity(run_check(make_cell(gpus=4, **settings)), 0.15)


@pytest.mark.parametrize("gpus", [2, 4])
def test_a_pipeline_under_autocast_rounds_as_one_process_with_its_microbatches(
    gpus: int, make_cell: MakeCell, run_check: RunCheck
) -> None:
    settings = {"engine": "pipeline", "gpus": gpus, "workload": UNTIED, "precision": "amp_bf16"}
    assert_parity(run_check(make_cell(**settings)), 0.003)


@pytest.mark.parametrize("stage", [0, 3])
def test_tensor_parallelism_accumulates(stage: int, make_cell: MakeCell, run_check: RunCheck) -> None:
    cell = make_cell(engine="tensor_parallel", stage=stage, gpus=4, workload=GPT, accumulate=4)
    assert_parity(run_check(cell))


@pytest.mark.parametrize(
    ("options", "workload"),
    [
        ({"schedule": "1f1b"}, UNTIED),
        ({"schedule": "1f1b", "microbatches": 8}, MLP),
        ({"schedule": "1f1b", "microbatches": 4, "degree": 4}, MLP),
        ({"microbatches": 1}, MLP),
        ({"microbatches": 4}, NORMALISED),
        ({"degree": 4}, {"name": "digits", "factory": "workloads.digits:Digits"}),
    ],
    ids=str,
)
def test_any_schedule_computes_the_same(
    options: dict[str, Any], workload: dict[str, Any], make_config: MakeConfig, run_check: RunCheck
) -> None:
    """Among them a chain with BatchNorm, whose statistics are those of a microbatch in the single process too."""
    ranks = run_check(planned(make_config, options, engine="pipeline", gpus=4, workload=workload))
    assert_parity(ranks)
    schedule = {"gpipe": "ScheduleGPipe", "1f1b": "Schedule1F1B"}[options.get("schedule", "gpipe")]
    assert ranks[0].description["schedule"] == schedule


def test_one_replica_of_four_ranks(make_config: MakeConfig, run_check: RunCheck) -> None:
    cell = planned(make_config, {"degree": 4}, engine="tensor_parallel", gpus=4, workload=GPT)
    assert cell.traits().ranks_per_replica == 4
    assert_parity(run_check(cell))


def test_a_slice_of_each_layer_is_kept_and_sharded_over_the_replicas_at_stage_3(
    make_cell: MakeCell, run_check: RunCheck
) -> None:
    """The plan slices all four layers, of the rowwise ones all but the bias."""
    weights = {"engine": "tensor_parallel", "workload": MLP | {"bias": False}, "measure": MEMORY}
    for stage, gpus, parts in ((0, 2, 2), (0, 4, 2), (3, 4, 4)):
        ranks = run_check(make_cell(stage=stage, gpus=gpus, **weights))
        assert ranks[0].description["sliced_share"] == 1
        for rank in ranks:
            state = rank.memory.state_bytes
            assert state["params"] == state["grads"] == 4 * 4 * 64 * 64 // parts, (stage, gpus)
            assert state["optimizer"] == 2 * state["params"] + 4 * 4, "two moments, and a step counter for each layer"


def test_attention_stays_whole(make_cell: MakeCell, run_check: RunCheck) -> None:
    described = run_check(make_cell(engine="tensor_parallel", gpus=2, workload=GPT))[0].description
    assert set(described["plan"]) == {
        f"blocks.{block}.feed_forward.{layer}" for block in (0, 1) for layer in ("expand", "project")
    }


def test_each_stage_of_a_pipeline_keeps_its_own_layers(make_cell: MakeCell, run_check: RunCheck) -> None:
    ranks = run_check(make_cell(engine="pipeline", gpus=4, workload=MLP, measure=MEMORY))
    assert ranks[0].description["parameters_per_stage"] == [MLP_PARAMETERS // 2] * 2
    assert [rank.memory.state_bytes["params"] for rank in ranks] == [4 * MLP_PARAMETERS // 2] * 4


def test_an_odd_last_layer_stays_whole(make_cell: MakeCell, run_check: RunCheck) -> None:
    ranks = run_check(make_cell(engine="tensor_parallel", gpus=2, workload=MLP | {"depth": 3}))
    assert ranks[0].description["plan"] == {"0": "colwise", "2": "rowwise"}
    assert_parity(ranks)


@pytest.mark.parametrize(("stage", "gpus"), [(0, 2), (3, 4)])
def test_a_frozen_slice_stays_as_it_is(stage: int, gpus: int, make_cell: MakeCell, run_check: RunCheck) -> None:
    assert_parity(run_check(make_cell(engine="tensor_parallel", stage=stage, gpus=gpus, workload=FROZEN)))


def test_replicas_that_would_train_a_frozen_slice_are_rejected_by_its_name(
    make_cell: MakeCell, launcher: Launcher, timing_job: Callable[..., Any]
) -> None:
    result = launcher.launch(timing_job(make_cell(engine="tensor_parallel", gpus=4, workload=FROZEN)))
    assert result.status == "unsupported"
    assert "engine=tensor_parallel at stage=0 has no replicas with a frozen 0.weight" in result.reason


def test_a_slice_of_a_tied_weight_is_rejected_by_its_name() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    module.tp_plan = {"0": "colwise", "1": "rowwise"}  # type: ignore[assignment]
    assert plan_of(module, 2) == module.tp_plan
    module[2].weight = module[0].weight
    with pytest.raises(EngineUnsupported, match=r"cannot slice 0 of Sequential: 2 has its weights too"):
        plan_of(module, 2)


def test_a_chain_is_cut_where_units_begin() -> None:
    chain = nn.Sequential(nn.Flatten(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    units = [chain[1], chain[3], chain[5]]
    parts = chain_of(chain)
    assert [len(stage) for stage in cut(parts, units, 2)] == [5, 1]
    assert [len(stage) for stage in cut(parts, units, 3)] == [3, 2, 1]
    with pytest.raises(EngineUnsupported, match=r"a chain of 3 units into engine.degree=4 stages"):
        cut(parts, units, 4)


def test_a_module_that_a_chain_calls_twice_is_two_parts_of_it() -> None:
    layer, activation = nn.Linear(2, 2), nn.Tanh()
    chain = nn.Sequential(layer, activation, layer, activation)
    assert chain_of(chain) == [layer, activation, layer, activation]


def test_a_chain_with_a_forward_of_its_own_is_rejected() -> None:
    class Residual(nn.Sequential):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs + self[0](inputs)

    with pytest.raises(EngineUnsupported, match=r"without a forward of its own, .*; Residual is neither"):
        chain_of(Residual(nn.Linear(2, 2), nn.Linear(2, 2)))


def test_the_parts_of_a_plan_are_the_module() -> None:
    work = workloads.load("workloads.gpt:GPT", seed=0, data_dir=None, options={"size": "tiny"})
    module = work.build()
    tokens, _ = work.batch(range(2))
    value = tokens
    for part in chain_of(module):
        value = part(value)
    assert torch.equal(value, module(tokens))


def test_a_plan_that_lacks_a_weight_is_rejected() -> None:
    module = nn.Module()
    module.first, module.second = nn.Linear(2, 2), nn.Linear(2, 2)
    module.pipeline_plan = [module.first]  # type: ignore[assignment]
    with pytest.raises(EngineUnsupported, match=r"its pipeline_plan lacks second.weight"):
        chain_of(module)


@pytest.mark.parametrize(
    ("engine", "options", "settings", "reason"),
    [
        ("tensor_parallel", {}, {"gpus": 1}, "engine.degree=2 has no gpus=1: valid: a multiple of 2"),
        ("tensor_parallel", {"degree": 4}, {"gpus": 6}, "engine.degree=4 has no gpus=6"),
        ("tensor_parallel", {}, {"gpus": 2, "stage": 1}, "engine=tensor_parallel has no stage=1"),
        ("tensor_parallel", {}, {"gpus": 2, "clip_norm": 1.0}, "engine=tensor_parallel has no clip_norm=1.0"),
        ("tensor_parallel", {}, {"gpus": 2, "precision": "amp_fp16"}, "has no precision=amp_fp16"),
        ("tensor_parallel", {}, {"gpus": 2, "precision": "bf16", "optimizer": "rmsprop"}, "has no optimizer=rmsprop"),
        ("pipeline", {}, {"gpus": 3}, "engine.degree=2 has no gpus=3"),
        ("pipeline", {}, {"gpus": 2, "stage": 3}, "engine=pipeline has no stage=3"),
        ("pipeline", {}, {"gpus": 2, "accumulate": 2}, "engine=pipeline has no accumulate=2: engine.microbatches"),
        ("pipeline", {}, {"gpus": 2, "clip_norm": 1.0}, "engine=pipeline has no clip_norm=1.0"),
        ("pipeline", {}, {"gpus": 2, "data_skew": "samples"}, "engine=pipeline has no join=true"),
        ("pipeline", {"schedule": "1f1b", "degree": 4}, {"gpus": 4}, "has no engine.microbatches=2: valid: at least"),
    ],
    ids=str,
)
def test_what_it_cannot_do_is_rejected_by_its_name(
    engine: str, options: dict[str, Any], settings: dict[str, Any], reason: str, make_config: MakeConfig
) -> None:
    cell = planned(make_config, options, engine=engine, workload=MLP, **settings)
    assert cell.status == "unsupported"
    assert reason in cell.reason


@pytest.mark.parametrize(
    ("engine", "options", "reason"),
    [
        ("tensor_parallel", {"degree": 1}, "engine.degree=1 is not valid; valid: a whole number of at least 2"),
        ("pipeline", {"schedule": "zero"}, "engine.schedule=zero is not valid; valid: gpipe, 1f1b"),
    ],
    ids=str,
)
def test_an_option_that_is_never_valid_ends_before_the_sweep(
    engine: str, options: dict[str, Any], reason: str, make_config: MakeConfig
) -> None:
    with pytest.raises(ConfigError, match=re.escape(reason)):
        planned(make_config, options, engine=engine, gpus=2, workload=MLP)


@pytest.mark.parametrize("engine", ["tensor_parallel", "pipeline"])
def test_a_rank_that_has_no_step_of_its_own_is_no_straggler(engine: str, make_config: MakeConfig) -> None:
    config = make_config(engine=engine, gpus=2, workload=MLP)
    config.straggler.rank = 1
    cell = plan([config], CPU_ONLY, cores=2)[0]
    assert cell.status == "unsupported"
    assert f"engine={engine} has no straggler.rank=1: 2 ranks share one forward and backward" in cell.reason


@pytest.mark.parametrize(
    ("engine", "options", "workload", "reason"),
    [
        ("tensor_parallel", {}, "digits", "slices what a module's tp_plan names; Sequential has none"),
        ("tensor_parallel", {}, MLP | {"width": 63}, "cannot slice 0 of Sequential: 63 does not divide by"),
        ("pipeline", {}, GPT, "stages 0 and 1 share tokens.weight (tied weights; gpt has workload.tie=false)"),
        ("pipeline", {}, "resnet18", "or what a module's pipeline_plan lists; ResNet is neither"),
        ("pipeline", {"degree": 4}, UNTIED, "cannot cut a chain of 2 units into engine.degree=4 stages"),
        ("pipeline", {"microbatches": 5}, MLP, "cannot cut a replica's 16 samples into engine.microbatches=5"),
    ],
    ids=str,
)
def test_a_module_that_it_cannot_split_is_rejected_by_its_name(
    engine: str,
    options: dict[str, Any],
    workload: Any,
    reason: str,
    make_config: MakeConfig,
    launcher: Launcher,
    timing_job: Callable[..., Any],
) -> None:
    cell = planned(make_config, options, engine=engine, gpus=max(2, options.get("degree", 2)), workload=workload)
    assert cell.status is None, cell.reason
    result = launcher.launch(timing_job(cell))
    assert result.status == "unsupported"
    assert f"engine={engine}" in result.reason
    assert reason in result.reason
