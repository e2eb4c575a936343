"""Modules that several engines cannot train: each check names the unsupported part at setup."""

from __future__ import annotations

import torch
from torch import nn

from bench.engines.param_owners import holders
from bench.engines.spec import EngineUnsupported


def reject_sparse(engine: str, module: nn.Module) -> None:
    """Raises EngineUnsupported for sparse gradients, which are not reduced and which the optimizers do not take."""
    for name, part in module.named_modules():
        if isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.sparse:
            raise EngineUnsupported(f"engine={engine}: {name or 'the module'} has sparse gradients (sparse=True)")


def reject_scripted(engine: str, module: nn.Module) -> None:
    """Raises EngineUnsupported for a scripted module, which takes no hooks."""
    for name, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise EngineUnsupported(
                f"engine={engine}: {name or 'the module'} is scripted (torch.jit.script), so it takes no hooks; "
                "valid: a module that is not scripted, engine=native, a lower stage"
            )


def reject_hooked(engine: str, module: nn.Module) -> None:
    """Raises EngineUnsupported for a hook on a parameter's gradient, which the engine's own parameters would lose."""
    for name, weight in module.named_parameters():
        if weight._backward_hooks or weight._post_accumulate_grad_hooks:
            raise EngineUnsupported(
                f"engine={engine}: {name} has a hook on its gradient (Tensor.register_hook), which would not be called "
                "with the gradient of the whole parameter; valid: a module without one"
            )


def reject_strided(engine: str, module: nn.Module, why: str) -> None:
    """Raises EngineUnsupported for a parameter that is not contiguous (channels_last, transposed)."""
    for name, weight in module.named_parameters():
        if not weight.is_contiguous():
            raise EngineUnsupported(
                f"engine={engine}: {name} is not contiguous (shape {tuple(weight.shape)}, strides {weight.stride()}), "
                f"{why}; valid: a contiguous parameter, engine=native"
            )


def reject_empty(engine: str, module: nn.Module, why: str) -> None:
    """Raises EngineUnsupported for a parameter without elements."""
    for name, weight in module.named_parameters():
        if not weight.numel():
            raise EngineUnsupported(f"engine={engine}: {name} has no elements, {why}; valid: engine=native")


def reject_for_fully_shard(engine: str, module: nn.Module, units: list[nn.Module]) -> None:
    """Raises EngineUnsupported for what ``fully_shard`` cannot cut, or would gather with one of its units only."""
    reject_strided(engine, module, "which fully_shard does not take")
    reject_uncut(engine, module, units, "fully_shard")


def reject_uncut(engine: str, module: nn.Module, units: list[nn.Module], wrapper: str) -> None:
    """Raises EngineUnsupported for what no wrapper that shards units can cut, or gathers with one of its units only."""
    reject_empty(engine, module, f"which {wrapper} does not reduce")
    reject_scripted(engine, module)
    reject_hooked(engine, module)
    places_by_id = holders(module, units)
    for name, weight in module.named_parameters():
        if not weight.dim():
            raise EngineUnsupported(f"engine={engine}: {name} is a scalar, which {wrapper} cannot cut")
        if len(places_by_id[id(weight)]) > 1:
            raise EngineUnsupported(
                f"engine={engine}: {name} is tied across units, and {wrapper} gathers it with one of them only"
            )
