"""Modules that an engine cannot train: the error names the unsupported part, before the first step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.launch.launcher import Launcher
from tests.conftest import MakeCell

SPARSE = "table has sparse gradients (sparse=True)"


@pytest.mark.parametrize(
    ("engine", "stage", "kind", "why"),
    [
        ("native", 0, "sparse", SPARSE),
        ("torch", 0, "sparse", SPARSE),
        ("torch", 3, "sparse", SPARSE),
        ("torch", 1, "mixed_types", "has no stage=1 for a module of float32 and float64"),
        ("torch", 2, "scalar", "at stage=2: scale is a scalar, which fully_shard cannot cut"),
        ("native", 2, "complex", "spectrum is torch.complex64"),
        ("torch", 2, "strided", "at stage=2: convolution.weight is not contiguous"),
        ("torch", 3, "empty", "at stage=3: nothing has no elements"),
        ("torch", 2, "tied", "at stage=2: first.weight is tied across units"),
        ("torch", 3, "shared", "at stage=3: first.1.weight is tied across units"),
        ("native", 0, "hooked", "0.weight has a hook on its gradient"),
        ("native", 3, "threaded", "in a Python thread other than its own, so ranks"),
        ("torch", 3, "hooked", "0.weight has a hook on its gradient"),
        ("deepspeed", 1, "sparse", SPARSE),
        ("deepspeed", 0, "scalar", "scale is a scalar"),
        ("deepspeed", 3, "odd_shapes", "scale is a scalar"),
        ("torch", 3, "scripted_inside", "at stage=3: 1 is scripted"),
        ("deepspeed", 3, "scripted_inside", "at stage=3: 1 is scripted"),
        ("fsdp1", 2, "scalar", "at stage=2: scale is a scalar, which FullyShardedDataParallel cannot cut"),
        ("fsdp1", 3, "tied", "at stage=3: first.weight is tied across units"),
        ("fsdp1", 2, "complex", "spectrum is torch.complex64; valid: floating-point parameters"),
        ("torch", 0, "unused", "at stage=0: some parameters got no gradient in a micro-batch"),
        ("deepspeed", 0, "strided", "convolution.weight is not contiguous"),
        ("deepspeed", 3, "empty", "at stage=3: nothing has no elements"),
        ("deepspeed", 2, "complex", "spectrum is torch.complex64"),
        ("deepspeed", 1, "double", "layers.0.weight is torch.float64; it takes fp32 parameters"),
        ("deepspeed", 2, "mixed_types", "last.weight is torch.float64; it takes fp32 parameters"),
        ("tensor_parallel", 0, "sparse", SPARSE),
        ("tensor_parallel", 3, "sliced_scaled", "at stage=3: scale is a scalar, which fully_shard cannot cut"),
        ("pipeline", 0, "sparse", SPARSE),
        ("pipeline", 0, "half_frozen", "stage 0 has no weight to train"),
    ],
)
def test_what_cannot_be_trained_is_rejected_by_its_name(
    engine: str,
    stage: int,
    kind: str,
    why: str,
    make_cell: MakeCell,
    launcher: Launcher,
    timing_job: Callable[..., Any],
) -> None:
    workload = {"name": kind, "factory": "tests.models:Odd", "kind": kind}
    cell = make_cell(engine=engine, stage=stage, gpus=2, workload=workload)
    if cell.status == "unavailable":
        pytest.skip(cell.reason)
    result = launcher.launch(timing_job(cell))
    assert result.status == "unsupported", result
    assert f"engine={engine}" in result.reason
    assert why in result.reason
