"""Options of DeepSpeed's offload."""

from __future__ import annotations

from typing import Any

import pytest

from bench.engines.deepspeed.offload import PIN_BACKEND, check_offload
from bench.engines.spec import EngineSpec, EngineUnsupported

OPTIONS = {"kernel": "torch", "offload_device": "cpu", "nvme_path": None, "pin_memory": True}


def check(offload: str, device: str = "cpu", **changes: Any) -> None:
    options = OPTIONS | changes
    backend = "gloo" if device == "cpu" else "nccl"
    check_offload(EngineSpec(stage=3, offload=offload, options=options, world_size=2, device=device, backend=backend))


@pytest.mark.parametrize(
    ("offload", "option", "value", "valid"),
    [
        ("none", "offload_device", "nvme", "engine.offload_device=cpu, offload=optimizer"),
        ("none", "nvme_path", "drive", "engine.nvme_path=null, offload=optimizer"),
        ("none", "pin_memory", False, "engine.pin_memory=true, offload=optimizer"),
        ("optimizer", "nvme_path", "drive", "engine.nvme_path=null, engine.offload_device=nvme"),
        ("optimizer", "pin_memory", False, "engine.pin_memory=true, device=cuda"),
    ],
)
def test_an_option_without_effect_is_unsupported(
    offload: str, option: str, value: object, valid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(PIN_BACKEND, raising=False)
    check(offload)
    with pytest.raises(EngineUnsupported, match=f"engine.{option}=.* has no effect with .*; valid: {valid}"):
        check(offload, **{option: value})


def test_an_option_with_effect_is_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PIN_BACKEND, raising=False)
    check("optimizer", device="cuda", pin_memory=False)
    monkeypatch.setenv(PIN_BACKEND, "native")
    check("optimizer", pin_memory=False)
