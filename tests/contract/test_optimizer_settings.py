"""Hyperparameters and the schedule of the learning rate, sharded and whole, against a single process."""

from __future__ import annotations

import pytest

from tests.conftest import MakeCell, RunCheck, assert_parity

SETTINGS = {
    "optimizer": "adamw",
    "weight_decay": 0.5,
    "beta2": 0.9,
    "lr": 0.01,
    "lr_schedule": "linear",
    "lr_warmup": 1,
    "lr_steps": 4,
}


@pytest.mark.parametrize(("engine", "stage"), [("native", 3), ("torch", 1)])
def test_training_equals_a_single_process(engine: str, stage: int, make_cell: MakeCell, run_check: RunCheck) -> None:
    """The rate is another one at each of the three steps."""
    assert_parity(run_check(make_cell(engine=engine, stage=stage, gpus=2, **SETTINGS)))


def test_a_hyperparameter_that_the_optimizer_lacks_is_unsupported(make_cell: MakeCell) -> None:
    cell = make_cell(engine="native", momentum=0.5)
    assert cell.status == "unsupported"
    assert "engine=native has no momentum=0.5 with optimizer=adam; valid: beta1, beta2, eps" in cell.reason
