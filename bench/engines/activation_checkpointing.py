"""Activation checkpointing of sharding units, by ``torch.utils.checkpoint`` without reentrant autograd.

    full       a unit keeps its inputs; backward computes its forward again
    selective  it also keeps the outputs of matrix products, convolutions and attention; backward computes the rest

Only ``forward`` of a unit is replaced. Hooks of the unit, by which engines gather and free its parameters, surround it,
and do not run when backward computes it again. Chen et al., Training Deep Nets with Sublinear Memory Cost (2016);
selective: Korthikanti et al., Reducing Activation Recomputation in Large Transformer Models (MLSys 2023).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from bench.engines.spec import EngineUnsupported

aten = torch.ops.aten

PRODUCTS = (
    *("mm", "addmm", "bmm", "baddbmm", "convolution", "_grouped_mm", "_scaled_mm"),
    *("_scaled_dot_product_flash_attention", "_scaled_dot_product_flash_attention_for_cpu"),
    *("_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention"),
    "_scaled_dot_product_fused_attention_overrideable",
)
"""Operators whose outputs ``selective`` keeps; a name that this torch lacks is passed over."""

MUTATED = "selective activation checkpoint has been mutated"
"""Part of torch's error about an output that was kept and then changed."""

Recompute = Callable[[nn.Module], AbstractContextManager[None]]
"""The context in which an engine has a unit's forward computed again."""


def checkpoint_units(units: list[nn.Module], mode: str, recompute: Recompute | None = None) -> None:
    """Checkpoints the forward of each unit as ``mode`` (``none``, ``full``, ``selective``) says.

    Raises EngineUnsupported for a unit whose forward cannot be replaced.
    """
    if mode == "none":
        return
    for unit in units:
        if isinstance(unit, torch.jit.ScriptModule):
            raise EngineUnsupported(
                f"checkpointing={mode} is not supported for a scripted module (torch.jit.script), whose forward "
                "cannot be replaced; valid: checkpointing=none"
            )
        unit.forward = functools.partial(run_checkpointed, unit.forward, unit, mode, recompute)


def run_checkpointed(
    forward: Callable[..., Any], unit: nn.Module, mode: str, recompute: Recompute | None, *inputs: Any, **named: Any
) -> Any:
    """Calls ``forward``. If gradients are computed, backward will compute it again."""
    if not torch.is_grad_enabled():
        return forward(*inputs, **named)
    contexts = functools.partial(contexts_of, unit, mode, recompute)
    arguments: dict[str, Any] = {"use_reentrant": False, "context_fn": contexts, **hooks_argument(), **named}
    return checkpoint(forward, *inputs, **arguments)


def contexts_of(
    unit: nn.Module, mode: str, recompute: Recompute | None
) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """The contexts of one call: of its forward, and of the computation in backward."""
    forward, again = (
        create_selective_checkpoint_contexts(products()) if mode == "selective" else (nullcontext(), nullcontext())
    )
    return forward, recomputation(unit, recompute(unit) if recompute else nullcontext(), again)


@contextmanager
def recomputation(
    unit: nn.Module, of_engine: AbstractContextManager[None], of_torch: AbstractContextManager[Any]
) -> Iterator[None]:
    """Computes a unit again: its parameters are there, and its buffers (BatchNorm's statistics) do not move twice."""
    with ExitStack() as opened:
        opened.enter_context(of_engine)
        opened.enter_context(unmoved_buffers(unit))
        opened.enter_context(of_torch)
        try:
            yield
        except RuntimeError as error:
            if MUTATED not in str(error):
                raise
            raise EngineUnsupported(
                f"checkpointing=selective is not supported for {type(unit).__name__}: it changes the output of a "
                "matrix product or convolution in place (nn.ReLU(inplace=True)); valid: checkpointing=full, none"
            ) from error


@contextmanager
def unmoved_buffers(unit: nn.Module) -> Iterator[None]:
    before = [(buffer, buffer.detach().clone()) for buffer in unit.buffers()]
    try:
        yield
    finally:
        for buffer, values in before:
            buffer.data.copy_(values)  # past the version counter: autograd may have saved the buffer


@functools.cache
def products() -> Callable[..., CheckpointPolicy]:
    """The policy of ``selective``."""
    kept = {getattr(aten, name) for name in PRODUCTS if hasattr(aten, name)}

    def policy(context: Any, operator: Any, *arguments: Any, **named: Any) -> CheckpointPolicy:
        is_kept = getattr(operator, "_overloadpacket", None) in kept
        return CheckpointPolicy.MUST_SAVE if is_kept else CheckpointPolicy.PREFER_RECOMPUTE

    return policy


@functools.cache
def hooks_argument() -> dict[str, bool]:
    """Products are no weights, so an engine's saved-tensor hooks need not see them; torch 2.15 warns otherwise."""
    name = "respect_saved_tensors_hooks"
    return {name: False} if name in inspect.signature(checkpoint).parameters else {}
