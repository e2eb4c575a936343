"""The update of a step on buckets and optimizers that record what is done with them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock, call

import pytest
import torch

from bench.engines.native import step
from bench.engines.native.loss_scaling import LossScale
from bench.engines.native.policy import POLICIES
from bench.engines.spec import EngineSpec


def test_after_a_skipped_update_the_next_step_gathers_from_all_ranks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "gradient_factor", lambda *given: None)
    spec = EngineSpec(stage=3, world_size=2, device="cpu", backend="gloo", precision="amp_fp16")
    optimizer: Any = MagicMock()
    reducer: Any = SimpleNamespace(gradients=[optimizer.gradients])
    training = step.TrainingStep(
        torch.nn.Identity(),
        spec,
        POLICIES[3],
        torch.device("cpu"),
        schedule=MagicMock(),
        reducer=reducer,
        optimizers=[optimizer],
        learning_rate=MagicMock(),
        loss_scale=LossScale(enabled=True),
    )
    training.update()
    assert optimizer.mock_calls == [
        call.start_step(),
        call.skip_step(),
        call.bucket.gather.forget(),
        call.gradients.clear(),
    ]
