"""What FullyShardedDataParallel does not support, and the reason that is given."""

from __future__ import annotations

from typing import Any

import pytest

from bench.engines import check_settings, fsdp1
from bench.engines.spec import EngineSpec, EngineUnsupported, OptionInvalid

OPTIONS = {"backward_prefetch": "pre", "forward_prefetch": False, "limit_all_gathers": True}


def check(**changes: Any) -> None:
    settings = {"stage": 3, "world_size": 4, "device": "cpu", "backend": "gloo", "options": OPTIONS} | changes
    check_settings("fsdp1", "bench.engines.fsdp1", EngineSpec(**settings))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"stage": 0},
            "has no stage=0: .* its NO_SHARD is deprecated in favor of DistributedDataParallel; valid: s",
        ),
        ({"stage": 1}, "has no stage=1: "),
        ({"overlap": True}, "at stage=3 cannot set overlap=true on device=cpu: .* overlaps by CUDA streams"),
        (
            {"overlap": False, "device": "cuda"},
            "at stage=3 cannot set overlap=false: .* always communicates",
        ),
        ({"shard_size": 3}, "at stage=3 has no shard_size=3: valid with gpus=4: 2, 4"),
        ({"optimizer": "muon"}, "has no optimizer=muon: Muon needs whole matrices"),
        ({"optimizer": "adam8bit"}, "has no optimizer=adam8bit: it has sgd, adam, adamw, rmsprop$"),
        ({"bucket_mb": 1.0}, "has no bucket_mb=1.0: .* per unit, not per bucket"),
        (
            {"offload": "params"},
            "has no offload=params: .* CPUOffload needs an accelerator; valid: engine=torch",
        ),
        (
            {"stage": 2, "options": OPTIONS | {"backward_prefetch": "post"}},
            "at stage=2 has no engine.backward_prefetch=post: SHARD_GRAD_OP keeps units gathered, .*; valid: pre",
        ),
        (
            {"options": OPTIONS | {"limit_all_gathers": False}},
            "at stage=3 has no engine.limit_all_gathers=false on device=cpu: .* no CUDA streams; valid: true",
        ),
        ({"compile": True}, "has no compile=true: .*valid: engine=torch at stage=2 or 3"),
    ],
    ids=str,
)
def test_what_it_lacks_is_unsupported_with_a_reason(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineUnsupported, match=f"engine=fsdp1 {message}"):
        check(**changes)


def test_overlap_is_what_streams_give() -> None:
    check(overlap=False)
    check(overlap=True, device="cuda")


def test_options_are_supported_where_they_take_effect() -> None:
    check(options=OPTIONS | {"backward_prefetch": "none", "forward_prefetch": True})
    check(options=OPTIONS | {"limit_all_gathers": False}, device="cuda", backend="nccl")


def test_a_misspelt_option_lists_the_valid_values() -> None:
    with pytest.raises(OptionInvalid, match=r"engine\.backward_prefetch=early is not valid; valid: pre, post, none"):
        check(options=OPTIONS | {"backward_prefetch": "early"})


def test_a_torch_without_the_wrapper_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fsdp1.is_in_torch()
    monkeypatch.setattr(fsdp1, "is_in_torch", lambda: False)
    with pytest.raises(EngineUnsupported, match="the installed torch has no FullyShardedDataParallel"):
        check()
