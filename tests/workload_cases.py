"""Every workload of conf/, each in a size that runs here, for the tests of workloads."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

import workloads
from workloads import Workload
from workloads.base import Batch

CONF = Path(__file__).resolve().parents[1] / "conf" / "workload"
LIBRARIES = ("hf", "timm", "torchvision")
"""Workloads that have no model until it is named."""
NAMES = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem not in ("collectives", *LIBRARIES))
SMALL: dict[str, dict[str, Any]] = {"vit_b_16": {"size": "tiny"}, "module": {"path": "workloads.cnn_cifar:network"}}
"""Options without which a workload is too large to run here, or is none."""
TINY = [name for name in NAMES if not name.startswith("resnet")]

every_workload = pytest.mark.parametrize("name", NAMES)
tiny_workloads = pytest.mark.parametrize("name", TINY)


def settings(name: str) -> dict[str, Any]:
    document = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    assert isinstance(document, dict)
    options: dict[str, Any] = document["workload"]
    return dict(options)


def load(name: str, seed: int = 0, data_dir: str | None = None, **options: Any) -> Workload:
    chosen = settings(name) | SMALL.get(name, {}) | options
    del chosen["name"]
    return workloads.load(chosen.pop("factory"), seed=seed, data_dir=data_dir, options=chosen)


@cache
def shared(name: str) -> Workload:
    return load(name)


def name_of(name: str) -> str:
    """What a workload calls itself where nothing but its configuration is set."""
    options = settings(name)
    del options["name"]
    return workloads.load(options.pop("factory"), seed=0, data_dir=None, options=options).info.name


def weights(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.state_dict())


def same(left: Batch, right: Batch) -> bool:
    return len(left) == len(right) and all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
