"""Quantized communication of DeepSpeed (ZeRO++): where it is supported, and its configuration."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from bench.engines.deepspeed import check_quantize, traits
from bench.engines.deepspeed.adapter import reject_unquantizable, zero
from bench.engines.spec import EngineSpec, EngineUnsupported


def spec(**changes: Any) -> EngineSpec:
    return EngineSpec(
        **{"stage": 3, "world_size": 4, "device": "cuda", "backend": "nccl", "quantize": "weights"} | changes
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            {"device": "cpu", "backend": "gloo"},
            "device=cpu: its kernels .* need CUDA; valid: quantize=none, engine=native",
        ),
        ({"quantize": "gradients"}, "reads gradients as fp16"),
        ({"quantize": "weights_and_gradients"}, "reads gradients as fp16"),
        ({"stage": 2}, "stage=2: parameters are whole; valid: quantize=none, stage=3"),
    ],
)
def test_what_its_kernels_do_not_do_is_unsupported(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(EngineUnsupported, match=f"engine=deepspeed has no quantize=.*{why}"):
        check_quantize(spec(**changes))


def test_quantized_weights_are_in_its_configuration_and_outside_parity() -> None:
    check_quantize(spec())
    assert zero(spec(), 1000, 100)["zero_quantized_weights"] is True
    assert "zero_quantized_weights" not in zero(spec(quantize="none"), 1000, 100)
    assert traits(spec()).outside_parity and not traits(spec(quantize="none")).outside_parity


def test_a_parameter_whose_shards_its_kernel_cannot_divide_is_unsupported_by_name() -> None:
    reject_unquantizable(nn.Linear(8, 32), 4)
    with pytest.raises(EngineUnsupported, match="bias has 3 elements per rank"):
        reject_unquantizable(nn.Linear(32, 10), 4)
