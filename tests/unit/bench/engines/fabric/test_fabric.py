"""What Fabric does not support, and the reason that is given."""

from __future__ import annotations

from typing import Any

import pytest

from bench.engines import check_settings, fabric
from bench.engines.spec import EngineSpec, EngineUnavailable, EngineUnsupported


def check(**changes: Any) -> None:
    options = {"gradient_as_bucket_view": True}
    settings = {"stage": 3, "world_size": 4, "device": "cpu", "backend": "gloo", "options": options} | changes
    check_settings("fabric", "bench.engines.fabric", EngineSpec(**settings))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"stage": 1},
            "has no stage=1: Fabric has no strategy that shards optimizer state alone; valid: stage=",
        ),
        ({"precision": "amp_fp16"}, "has no precision=amp_fp16: on a CPU Fabric replaces 16-mixed by bf16-mixed"),
        ({"bucket_mb": 1.0}, "at stage=3 has no bucket_mb: fully_shard communicates per unit"),
        ({"overlap": True}, "at stage=3 cannot set overlap=true on device=cpu: fully_shard overlaps by CUDA streams"),
        ({"stage": 0, "overlap": False}, "at stage=0 cannot set overlap=false: "),
        ({"stage": 0, "precision": "bf16_master"}, "at stage=0 has no precision=bf16_master: "),
        ({"device": "cuda"}, "at stage=3 has no backend=gloo on device=cuda: .* a GPU for each rank .*engine=torch"),
        ({"shard_size": 2}, "has no shard_size=2: ModelParallelStrategy has a mesh of data and tensor parallelism"),
    ],
    ids=str,
)
def test_what_it_lacks_is_unsupported_with_a_reason(
    changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fabric, "INSTALLED", True)
    with pytest.raises(EngineUnsupported, match=f"engine=fabric {message}"):
        check(**changes)


def test_without_the_library_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fabric, "INSTALLED", False)
    with pytest.raises(EngineUnavailable, match=r"pip install 'ddp-zero-bench\[fabric\]'"):
        check()
