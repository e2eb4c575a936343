"""Two runs under deterministic=true give the same bits; an engine whose runs differ in the last bit is found out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bench.launch.launcher import Launcher
from bench.plan.cell import Cell
from bench.plan.resolve import plan
from benchmarks import determinism
from results.settings import Config
from tests.conftest import CPU_ONLY

MakeConfig = Callable[..., Config]


@pytest.fixture
def outcome_of(launcher: Launcher, scratch: Path) -> Callable[[Config], determinism.Outcome]:
    def outcome(config: Config) -> determinism.Outcome:
        return determinism.run_all(config, [launcher, launcher], [scratch, scratch])

    return outcome


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("engine", ["native", "torch", "deepspeed"])
def test_two_runs_on_three_ranks_give_the_same_bits(
    make_config: MakeConfig, outcome_of: Callable[[Config], determinism.Outcome], engine: str, stage: int
) -> None:
    outcome = outcome_of(make_config(engine, stage=stage, gpus=3, deterministic=True))
    if "not installed" in outcome.reason:
        pytest.skip(outcome.reason)
    assert outcome.reason == "" and len(outcome.runs) == 2
    assert outcome.equal(), outcome.runs


@pytest.mark.parametrize(("fault", "equal"), [("none", True), ("unrepeatable", False)])
def test_an_engine_whose_runs_differ_in_the_last_bit_is_detected(
    make_config: MakeConfig, outcome_of: Callable[[Config], determinism.Outcome], fault: str, equal: bool
) -> None:
    engine = {"name": "wrong", "package": "tests.wrong_engine", "fault": fault}
    by_setting = {("wrong", 0, "digits", "fp32", 2): outcome_of(make_config(engine, gpus=2, deterministic=True))}
    outcomes = {(setting, True): outcome for setting, outcome in by_setting.items()}
    assert all(not outcome.reason and outcome.equal() is equal for outcome in by_setting.values())
    shown = "| wrong | 0 |  | 1 of 1 |  |" if equal else "| wrong | 0 |  | 0 of 1 | digits fp32 2 ranks deterministic |"
    assert determinism.table(outcomes).splitlines()[-1] == shown


def test_no_run_is_no_proof(make_config: MakeConfig) -> None:
    once = determinism.Outcome(runs=[([[1.0]], "ab")])
    assert not once.equal() and not determinism.Outcome().equal()
    assert replace(once, runs=once.runs * 2).equal()


@pytest.mark.parametrize(("mode", "staleness"), [("async", None), ("bounded", 1)])
def test_determinism_that_an_engine_cannot_give_is_rejected_by_its_name(
    make_config: MakeConfig, mode: str, staleness: int | None
) -> None:
    def planned(gpus: int, deterministic: bool, **options: object) -> Cell:
        config = make_config("parameter_server", gpus=gpus, deterministic=deterministic)
        config.engine = config.engine | options
        return plan([config], CPU_ONLY, cores=2)[0]

    rejected = planned(2, True, mode=mode, staleness=staleness)
    assert (rejected.status, rejected.reason) == (
        "unsupported",
        f"engine=parameter_server has no deterministic=true: with engine.mode={mode} gradients are applied in the "
        "order in which they arrive",
    )
    assert planned(2, False, mode=mode, staleness=staleness).status is None
    assert planned(1, True, mode=mode, staleness=staleness).status is None
    assert planned(2, True).status is None
