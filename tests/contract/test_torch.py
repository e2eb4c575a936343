"""PyTorch's own settings: each takes effect, stays within parity or says why it cannot, and is rejected by name."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import pytest

from analysis.metrics.traffic import sent_bytes
from analysis.theory import predict_sent
from bench.checks import ConfigError, check
from bench.launch.launcher import Launcher
from results.launches import RankSamples
from results.settings import Config
from tests.conftest import AsRecord, MakeCell, RunCheck, assert_parity, planned, wire_bytes
from tests.contract.test_native_bytes import MATRICES, PARAMETERS_BYTES, STEPS
from tests.undisturbed import counted_undisturbed

MakeConfig = Callable[..., Config]

MEMORY = {"memory": True}
NORMALISED = {"name": "normalised", "factory": "tests.models:Odd", "kind": "normalised"}
MLP = {"name": "mlp", "factory": "workloads.mlp:MLP", "depth": 2, "width": 32}
PARAMETERS = 2 * (32 * 32 + 32)
"""Of ``MLP``."""


@pytest.mark.alone
@pytest.mark.parametrize(
    ("settings", "share"),
    [
        ({}, 1.0),
        ({"compression": "bf16"}, 0.5),
        ({"compression": "fp16"}, 0.5),
        ({"compression": "powersgd"}, 1 / 512),
        ({"local_steps": 4}, 0.25),
    ],
    ids=str,
)
def test_less_is_on_the_wire(
    settings: dict[str, Any],
    share: float,
    make_cell: MakeCell,
    launcher: Launcher,
    timing_job: Callable[..., Any],
) -> None:
    """Of the all-reduce of fp32 gradients, counted on the loopback interface.

    What else this machine sends to itself is counted too, so a disturbed count is taken again. PowerSGD begins at the
    third step. Rank 1 of a matrix of 1024 x 1024 has 2 x 1024 elements, a 512th.
    """
    cell = make_cell(engine="torch", gpus=2, workload=MATRICES, batch_size=1, steps=STEPS, warmup=4, **settings)

    def sent() -> float:
        return wire_bytes(launcher.launch(timing_job(cell)), STEPS) / PARAMETERS_BYTES

    counted_undisturbed(sent, share)


@pytest.mark.parametrize("stage", [0, 1])
@pytest.mark.parametrize("compression", ["bf16", "fp16"])
def test_compressed_gradients_stay_within_parity(
    stage: int, compression: str, make_cell: MakeCell, run_check: RunCheck
) -> None:
    cell = make_cell(engine="torch", stage=stage, gpus=4, compression=compression, optimizer="sgd", lr=0.05)
    ranks = run_check(cell)
    assert_parity(ranks, 0.02)
    assert ranks[0].description["communication_hook"] == f"{compression}_compress_hook"
    assert ranks[0].description["reduce_dtype"] == {"bf16": "bfloat16", "fp16": "float16"}[compression]
    assert_parity(run_check(make_cell(engine="torch", stage=stage, gpus=2, compression=compression)))


def test_compression_goes_with_loss_scaling(make_cell: MakeCell, run_check: RunCheck) -> None:
    settings = {"gpus": 2, "precision": "amp_fp16", "workload": MLP, "compression": "fp16"}
    assert_parity(run_check(make_cell(engine="torch", **settings)), 0.02)


@pytest.mark.parametrize("stage", [0, 1])
def test_powersgd_is_outside_parity_and_keeps_what_it_has_not_sent(
    stage: int, make_config: MakeConfig, run_check: RunCheck
) -> None:
    gradient_bytes = {}
    for rank in (1, 4):
        settings = {"stage": stage, "gpus": 4, "compression": "powersgd", "workload": "mlp", "measure": MEMORY}
        cell = planned(make_config, {"powersgd_rank": rank}, **settings)
        assert cell.outside_parity() == "compression=powersgd reduces a low-rank approximation of the gradients"
        assert (
            cell.resolved()["uncounted"] == "PowerSGD's hook calls most of its collectives on a thread of the backend"
        )
        ranks = run_check(cell)
        assert ranks[0].parity is None
        assert ranks[0].description["communication_hook"] == "powerSGD_hook"
        gradient_bytes[rank] = ranks[0].memory.state_bytes["grads"]
    gradients = 4 * 4 * 257 * 256
    assert gradient_bytes[1] > 2 * gradients * 0.99, "gradients, and as much again that was not sent yet"
    assert gradient_bytes[4] - gradient_bytes[1] == 3 * 4 * 4 * (256 + 256), (
        "three more columns and rows for each of four matrices"
    )


@pytest.mark.parametrize("settings", [{}, {"precision": "amp_fp16", "workload": MLP}, {"accumulate": 2}], ids=str)
def test_local_steps_are_outside_parity(settings: dict[str, Any], make_cell: MakeCell, run_check: RunCheck) -> None:
    cell = make_cell(engine="torch", gpus=2, local_steps=3, **settings)
    assert "local_steps=3 lets each rank step on its own gradients" in cell.outside_parity()
    ranks = run_check(cell)
    assert ranks[0].parity is None
    assert ranks[0].description["average_weights_every_steps"] == 3


@pytest.mark.parametrize(("steps", "workload"), [(2, MLP), (3, MLP), (2, NORMALISED)], ids=str)
def test_the_ledger_of_local_steps_has_the_average_once_in_so_many_steps(
    steps: int, workload: dict[str, Any], make_cell: MakeCell, run_check: RunCheck, as_record: AsRecord
) -> None:
    """And nothing else: the statistics of BatchNorm are each rank's own too."""
    measure = {"parity_steps": 0, "memory": True, "collectives": True}
    cell = make_cell(engine="torch", gpus=2, local_steps=steps, workload=workload, measure=measure)
    ranks = run_check(cell)
    record = as_record(cell, ranks)
    record.collectives = ranks[0].collectives
    assert sent_bytes(record) == predict_sent(record) != 0


@pytest.mark.parametrize("stage", [pytest.param(2, marks=pytest.mark.exhaustive), 3])
def test_hybrid_sharding_keeps_a_copy_in_each_group_of_ranks(
    stage: int, make_cell: MakeCell, run_check: RunCheck
) -> None:
    ranks = run_check(make_cell(engine="torch", stage=stage, gpus=4, shard_size=2, workload=MLP, measure=MEMORY))
    assert_parity(ranks)
    assert ranks[0].description["shard_size"] == 2
    for rank in ranks:
        assert rank.memory.state_bytes["params"] == 4 * PARAMETERS // 2
    whole = run_check(make_cell(engine="torch", stage=stage, gpus=4, shard_size=4, workload=MLP, measure=MEMORY))
    assert whole[0].description["shard_size"] == 4
    assert whole[0].memory.state_bytes["params"] == 4 * PARAMETERS // 4


@pytest.mark.parametrize("stage", [2, 3])
def test_sharded_master_weights_begin_from_rounded_weights_and_are_judged_by_what_they_round_to(
    stage: int, make_cell: MakeCell, run_check: RunCheck
) -> None:
    """At a small learning rate, whose path is no longer than what rounding moves."""
    cell = make_cell(engine="torch", stage=stage, gpus=2, precision="bf16_master", workload=MLP, lr=1e-4)
    assert_parity(run_check(cell), 0.02)


def test_hybrid_sharding_clips_by_the_global_norm_and_accumulates(make_cell: MakeCell, run_check: RunCheck) -> None:
    settings = {"accumulate": 2, "clip_norm": 0.1, "optimizer": "sgd", "lr": 0.1}
    assert_parity(run_check(make_cell(engine="torch", stage=3, gpus=4, shard_size=2, **settings)))


@pytest.mark.parametrize("stage", [0, 1])
def test_a_static_graph_computes_the_same(stage: int, make_config: MakeConfig, run_check: RunCheck) -> None:
    ranks = run_check(planned(make_config, {"static_graph": True}, stage=stage, gpus=2))
    assert ranks[0].description["static_graph"] is True
    assert_parity(ranks)


@pytest.mark.parametrize(("engine", "stage"), [("torch", 0), ("torch", 3), ("native", 3)])
def test_a_compiled_module_computes_the_same_and_compiles_before_the_clock_starts(
    engine: str,
    stage: int,
    make_cell: MakeCell,
    run_check: RunCheck,
    launcher: Launcher,
    timing_job: Callable[..., Any],
) -> None:
    settings = {"gpus": 2, "compile": True, "workload": MLP, "accumulate": 2, "timeout_s": 300.0}
    cell = make_cell(engine=engine, stage=stage, **settings)
    ranks = run_check(cell)
    assert ranks[0].description["compile"]
    assert_parity(ranks)
    result = launcher.launch(timing_job(cell, steps=4))
    samples = result.ranks[0].samples
    measured = [a + b for a, b in zip(samples.forward_backward_s, samples.optimizer_s, strict=True)]
    assert samples.warmup_step_s[0] > 5 * median(measured), samples


def test_compiling_needs_a_step_before_the_clock_starts(make_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match="compile=true needs warmup of at least 1"):
        check(make_config(compile=True, warmup=0))


def test_without_a_compiler_compiling_is_unavailable(make_cell: MakeCell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    cell = make_cell(engine="torch", compile=True)
    assert cell.status == "unavailable"
    assert cell.reason.startswith(
        "compile=true needs a C++ compiler, and no-such-compiler is not installed; install g++"
    )


def ragged(
    make_cell: MakeCell, launcher: Launcher, timing_job: Callable[..., Any], **settings: Any
) -> list[RankSamples]:
    """Samples of ranks of which the last one has half as many batches."""
    cell = make_cell(engine="torch", data_skew="samples", **settings)
    assert cell.status is None, cell.reason
    assert cell.outside_parity()
    result = launcher.launch(timing_job(cell, steps=6, warmup=settings.get("warmup", 2)))
    assert result.status == "ok", result.ends
    return [rank.samples for rank in result.ranks]


@pytest.mark.parametrize("stage", [0, 1])
@pytest.mark.parametrize("settings", [{}, {"compression": "bf16"}, {"compression": "powersgd"}], ids=str)
def test_a_rank_that_has_run_out_does_not_stop_the_others(
    stage: int, settings: dict[str, Any], make_cell: MakeCell, launcher: Launcher, timing_job: Callable[..., Any]
) -> None:
    ranks = ragged(make_cell, launcher, timing_job, stage=stage, gpus=3, **settings)
    assert [len(rank.losses) for rank in ranks] == [6, 6, 3]
    assert [len(rank.warmup_step_s) for rank in ranks] == [2, 2, 1]


def test_a_sharded_optimizer_continues_to_train_the_shard_of_a_rank_that_has_run_out(
    make_cell: MakeCell, launcher: Launcher, timing_job: Callable[..., Any]
) -> None:
    whole, sharded = (
        ragged(make_cell, launcher, timing_job, stage=stage, gpus=2, warmup=0)[0].losses for stage in (0, 1)
    )
    assert sharded == pytest.approx(whole, rel=1e-5)


def test_ranks_may_see_few_classes_each(
    make_cell: MakeCell, launcher: Launcher, timing_job: Callable[..., Any]
) -> None:
    result = launcher.launch(timing_job(make_cell(engine="torch", gpus=2, data_skew="labels")))
    assert result.status == "ok", result.ends


@pytest.mark.parametrize(
    ("settings", "options", "reason"),
    [
        ({"stage": 2, "compression": "bf16"}, {}, "has no compression=bf16: fully_shard takes no communication hook"),
        ({"compression": "fp16", "precision": "bf16"}, {}, "has no compression=fp16 with precision=bf16"),
        ({"compression": "powersgd", "bucket_mb": 1.0}, {}, "has no bucket_mb with compression=powersgd"),
        ({"compression": "powersgd", "precision": "amp_fp16"}, {}, "has no compression=powersgd with precision=amp_fp"),
        ({"stage": 0, "shard_size": 2}, {}, "has no shard_size=2: DistributedDataParallel shards nothing"),
        ({"stage": 1, "shard_size": 4}, {}, "has no shard_size=4: DistributedDataParallel shards nothing"),
        ({"stage": 3, "shard_size": 3}, {}, "has no shard_size=3: valid with gpus=4: 2, 4"),
        ({"stage": 2, "shard_size": 1}, {}, "has no shard_size=1: valid with gpus=4: 2, 4"),
        ({"stage": 1, "local_steps": 2}, {}, "has no local_steps=2: ZeroRedundancyOptimizer updates each weight on"),
        ({"stage": 3, "local_steps": 2}, {}, "has no local_steps=2: no rank has the weights"),
        ({"local_steps": 2, "clip_norm": 1.0}, {}, "has no clip_norm with local_steps=2"),
        ({"local_steps": 2, "compression": "bf16"}, {}, "has no compression=bf16 with local_steps=2"),
        ({"local_steps": 2, "data_skew": "samples"}, {}, "has no join=true (data_skew=samples) with local_steps=2"),
        ({"stage": 3, "data_skew": "samples"}, {}, "has no join=true (data_skew=samples)"),
        ({"stage": 1, "data_skew": "samples", "accumulate": 2}, {}, "has no accumulate with join=true"),
        ({"stage": 1, "data_skew": "samples", "clip_norm": 1.0}, {}, "has no clip_norm with join=true"),
        ({"stage": 1, "data_skew": "samples", "precision": "amp_fp16"}, {}, "has no precision=amp_fp16 with join=true"),
        ({"compile": True, "bucket_mb": 0.5}, {}, "has no bucket_mb=0.5 with compile=true"),
        ({"accumulate": 2}, {"static_graph": True}, "has no engine.static_graph=true with accumulate"),
        ({"compile": True}, {"static_graph": True}, "has no engine.static_graph=true with compile=true"),
        ({"stage": 2}, {"static_graph": True}, "has no engine.static_graph=true: it is DistributedDataParallel's"),
    ],
    ids=str,
)
def test_what_cannot_go_together_is_rejected_by_its_name(
    settings: dict[str, Any], options: dict[str, Any], reason: str, make_config: MakeConfig
) -> None:
    cell = planned(make_config, options, gpus=4, **settings)
    assert cell.status == "unsupported"
    assert f"engine=torch at stage={settings.get('stage', 0)} {reason}" in cell.reason


@pytest.mark.parametrize("options", [{"powersgd_rank": 0}, {"static_graph": "yes"}], ids=str)
def test_an_option_that_is_never_valid_ends_before_the_sweep(options: dict[str, Any], make_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match=f"engine.{next(iter(options))}=.* is not valid; valid: "):
        planned(make_config, options, gpus=2)


def test_a_rank_of_powersgd_without_powersgd_is_rejected(make_config: MakeConfig) -> None:
    cell = planned(make_config, {"powersgd_rank": 7}, gpus=2)
    assert cell.status == "unsupported"
    assert "engine.powersgd_rank=7" in cell.reason


@pytest.mark.parametrize("stage", [0, 1])
def test_parameters_without_a_gradient_are_looked_for_where_that_is_asked(
    stage: int, make_config: Callable[..., Config], run_check: RunCheck
) -> None:
    workload = {"name": "unused", "factory": "tests.models:Odd", "kind": "unused"}
    ranks = run_check(planned(make_config, {"find_unused_parameters": True}, stage=stage, gpus=2, workload=workload))
    assert_parity(ranks)
    assert ranks[0].description["find_unused_parameters"] is True
