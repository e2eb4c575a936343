"""Quantized communication of DeepSpeed (ZeRO++): where it is supported, and its configuration."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from bench.engines.deepspeed import check_quantize, traits
from bench.engines.deepspeed.adapter import reject_unquantizable, zero
from bench.engines.spec import EngineSpec, EngineUnavailable, EngineUnsupported


def spec(**changes: Any) -> EngineSpec:
    return EngineSpec(
        **{"stage": 3, "world_size": 4, "device": "cuda", "backend": "nccl", "quantize": "weights"} | changes
    )


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is installed here."""
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.19.8")


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
        ({"world_size": 1}, "gpus=1: no shard is communicated; valid: quantize=none, gpus of at least 2"),
    ],
)
def test_what_its_kernels_do_not_do_is_unsupported(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(EngineUnsupported, match=f"engine=deepspeed has no quantize=.*{why}"):
        check_quantize(spec(**changes))


def test_a_version_whose_kernel_was_not_read_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    for version, is_read in (("0.18.9", False), ("0.19.7", False), ("0.19.8+cu128", True), ("0.20.0", True)):
        monkeypatch.setattr("importlib.metadata.version", lambda name, version=version: version)
        if is_read:
            check_quantize(spec())
            continue
        check_quantize(spec(quantize="none"))
        with pytest.raises(EngineUnavailable, match=f"needs deepspeed 0.19.8 or later; {version} is installed"):
            check_quantize(spec())


def test_quantized_weights_are_in_its_configuration_and_outside_parity() -> None:
    check_quantize(spec())
    assert zero(spec(), 1000, 100)["zero_quantized_weights"] is True
    assert "zero_quantized_weights" not in zero(spec(quantize="none"), 1000, 100)
    assert traits(spec()).outside_parity and not traits(spec(quantize="none")).outside_parity


def test_a_parameter_whose_shards_its_kernel_cannot_divide_is_unsupported_by_name() -> None:
    reject_unquantizable(nn.Linear(8, 32), 4)
    with pytest.raises(EngineUnsupported, match="bias has 10 elements, and its kernel needs a multiple of 32"):
        reject_unquantizable(nn.Linear(32, 10), 4)
    with pytest.raises(EngineUnsupported, match="bias has 31 elements"):  # 8 per rank with padding
        reject_unquantizable(nn.Linear(32, 31), 4)
