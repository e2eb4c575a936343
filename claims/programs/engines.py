"""Engines of this suite on the ranks of a program: a small model that they train, and the batches of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from bench.engines.base import Batch, Engine, RankContext
from bench.engines.native.adapter import create as native
from bench.engines.parameter_server.adapter import create as parameter_server
from bench.engines.spec import EngineSpec
from bench.engines.torch.adapter import create as torch_own
from bench.groups import group_files

WIDTH, LAYERS, RANK_BATCH = 32, 4, 16
ADAPTERS: dict[str, Callable[[], Engine]] = {
    "native": native,
    "torch": torch_own,
    "parameter_server": parameter_server,
}
"""Imported before ranks are forked: torch's takes seconds."""


def model(seed: int = 0, width: int = WIDTH) -> nn.Sequential:
    """Layers of equal width; a bucket of ``BUCKET_MB`` holds one of them. The same weights on every rank."""
    torch.manual_seed(seed)
    layers = [part for _ in range(LAYERS) for part in (nn.Linear(width, width), nn.Tanh())]
    return nn.Sequential(*layers[:-1])


BUCKET_MB = 1.1 * 4 * WIDTH * (WIDTH + 1) / (1 << 20)


def batch(step: int, rank: int, seed: int = 0) -> Batch:
    """A rank's share of a step's samples."""
    generator = torch.Generator().manual_seed(1_000_003 * seed + 1_009 * step + rank)
    inputs = torch.randn(RANK_BATCH, WIDTH, generator=generator)
    return inputs, inputs.roll(1, dims=1)


def loss(module: nn.Module, samples: Batch) -> Tensor:
    inputs, targets = samples
    return F.mse_loss(module(inputs), targets)


def engine(name: str, stage: int, rank: int, ranks: int, module: nn.Module | None = None, **settings: Any) -> Engine:
    """An engine set up on ``module`` (None: a new ``model()``), with a bucket per layer where it has buckets."""
    module = module or model()
    if name == "native" or stage < 2:
        settings = {"bucket_mb": BUCKET_MB} | settings
    units: list[nn.Module] = [part for part in module.children() if isinstance(part, nn.Linear)]
    return set_up(name, module, units, spec_of(name, ranks, stage=stage, **settings), rank)


def spec_of(name: str, ranks: int, *, own: dict[str, Any] | None = None, **settings: Any) -> EngineSpec:
    """The settings of an engine: its own options are those of conf/engine, except for ``own``."""
    options = {key: value for key, value in group_files("engine")[name].items() if key not in ("name", "package")}
    return EngineSpec(world_size=ranks, device="cpu", backend="gloo", options=options | (own or {}), **settings)


def set_up(name: str, module: nn.Module, units: list[nn.Module], spec: EngineSpec, rank: int) -> Engine:
    made = ADAPTERS[name]()
    store = dist.distributed_c10d._get_default_store()
    made.setup(module, units, spec, RankContext(rank, spec.world_size, torch.device("cpu"), store))
    return made


def train(trained: Engine, steps: range, rank: int, seed: int = 0) -> None:
    for step in steps:
        trained.forward_backward(batch(step, rank, seed), loss, sync=True)
        trained.optimizer_step()


def weights(trained: Engine) -> Tensor:
    """All parameters in a row, by name."""
    return torch.cat([weight.detach().flatten() for _, weight in sorted(trained.full_state_dict().items())])


def mean_gradients(module: nn.Module, step: int, rank: int, ranks: int) -> None:
    """Gradients of all ranks' samples, in plain torch."""
    module.zero_grad()
    (loss(module, batch(step, rank)) / ranks).backward()
    for weight in module.parameters():
        dist.all_reduce(gradient_of(weight))


def gradient_of(weight: nn.Parameter) -> Tensor:
    assert weight.grad is not None
    return weight.grad


def flat(module: nn.Module) -> Tensor:
    return torch.cat([weight.detach().flatten() for _, weight in sorted(module.named_parameters())])
