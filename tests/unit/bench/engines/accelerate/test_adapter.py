"""Accelerate's environment: what ranks set, and what they delete."""

from __future__ import annotations

import os

import pytest
import torch
from torch.distributed import HashStore

from bench.engines.accelerate import adapter
from bench.engines.base import RankContext


def test_variables_that_would_replace_settings_are_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4", "ACCELERATE_USE_CPU": "true", "HOME": "kept"}
    monkeypatch.setattr(os, "environ", variables)
    adapter.set_variables(RankContext(1, 2, torch.device("cpu"), HashStore()))
    assert not [name for name in os.environ if name.startswith("ACCELERATE_")]
    assert (os.environ["HOME"], os.environ["RANK"], os.environ["WORLD_SIZE"]) == ("kept", "1", "2")
