"""What Accelerate does not support, and the reason that is given."""

from __future__ import annotations

from typing import Any

import pytest

from bench.engines import accelerate, check_settings
from bench.engines.spec import EngineSpec, EngineUnavailable, EngineUnsupported


def check(**changes: Any) -> None:
    options = {"gradient_as_bucket_view": True}
    settings = {"stage": 0, "world_size": 4, "device": "cpu", "backend": "gloo", "options": options} | changes
    check_settings("accelerate", "bench.engines.accelerate", EngineSpec(**settings))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": 3}, "has no stage=3: Accelerate ignores its FSDP plugin on a CPU .1.15., and on a GPU it was not"),
        ({"precision": "amp_fp16"}, "has no precision=amp_fp16: Accelerate ignores mixed_precision=fp16 on a CPU"),
        ({"overlap": False}, "cannot set overlap=false: DistributedDataParallel always communicates in backward"),
        ({"compression": "powersgd"}, "has no compression=powersgd: .*; valid: engine=torch"),
        ({"compression": "bf16", "precision": "bf16"}, "has no compression=bf16 with precision=bf16: "),
        (
            {"bucket_mb": 25.0},
            "has no bucket_mb=25: Accelerate drops a value equal to its default.*valid: null, 24.9",
        ),
        ({"shard_size": 2}, "has no shard_size=2: DistributedDataParallel shards nothing"),
    ],
    ids=str,
)
def test_what_it_lacks_is_unsupported_with_a_reason(
    changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerate, "INSTALLED", True)
    with pytest.raises(EngineUnsupported, match=f"engine=accelerate {message}"):
        check(**changes)


def test_without_the_library_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerate, "INSTALLED", False)
    with pytest.raises(EngineUnavailable, match=r"pip install 'ddp-zero-bench\[accelerate\]'"):
        check()
