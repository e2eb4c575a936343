"""Modules that are built in bf16, all or in part: a bf16 precision trains them, and any other is rejected by name."""

from __future__ import annotations

from typing import Any

import pytest

from bench.launch.launcher import Launcher
from bench.plan.jobs import Jobs
from tests.conftest import MakeCell, RunCheck, assert_parity

ENGINES = ("native", "torch", "deepspeed")


def built(kind: str) -> dict[str, Any]:
    return {"name": kind, "factory": "tests.models:Odd", "kind": kind}


@pytest.mark.parametrize(
    ("engine", "stage", "kind", "precision"),
    [
        ("native", 0, "half", "bf16"),
        ("native", 3, "half_in_part", "bf16_master"),
        ("torch", 0, "half", "bf16"),
        ("torch", 3, "half_in_part", "bf16_master"),
    ],
)
def test_a_bf16_precision_trains_them_as_one_process_does(
    engine: str,
    stage: int,
    kind: str,
    precision: str,
    make_cell: MakeCell,
    run_check: RunCheck,
) -> None:
    assert_parity(
        run_check(make_cell(engine=engine, stage=stage, gpus=2, precision=precision, workload=built(kind), lr=0.01))
    )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("kind", "name"), [("half", "0.weight"), ("half_in_part", "3.weight")])
def test_a_precision_with_fp32_weights_rejects_them_also_in_the_reference(
    engine: str, kind: str, name: str, make_cell: MakeCell, launcher: Launcher, scratch: Any
) -> None:
    for precision, purpose in (("fp32", "timing"), ("fp32", "reference"), ("amp_bf16", "timing")):
        cell = make_cell(engine=engine, gpus=2, precision=precision, workload=built(kind))
        result = launcher.launch(getattr(Jobs(cell, scratch), purpose)())
        assert result.status == "unsupported", result
        assert f"precision={precision} trains fp32 weights, but the module was built with {name} in bfloat16" in (
            result.reason
        )
