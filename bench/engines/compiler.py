"""``compile=true``: what it needs, what cannot go with it, and how forwards are compiled.

Needs torch only where it compiles: plans are made with it.
"""

from __future__ import annotations

import inspect
import os
import shutil
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any

from bench.engines.spec import EngineSpec, EngineUnavailable, EngineUnsupported, Traits

if TYPE_CHECKING:
    from torch import nn

TRAITS = Traits(own_random="the model draws random numbers, and compiled code (compile=true) draws others")
LIMIT = 8
"""Recompilations of one forward, torch's default."""


def check_compile(engine: str, spec: EngineSpec) -> None:
    """Raises EngineUnavailable without a compiler, EngineUnsupported with activation checkpointing, and for a budget of
    activations without ``compile=true``."""
    if not spec.compile:
        if spec.checkpointing_budget is not None:
            raise EngineUnsupported(
                f"engine={engine} has no checkpointing_budget={spec.checkpointing_budget:g} with compile=false: the "
                "compiler chooses what is computed again; valid: compile=true, checkpointing=full or selective"
            )
        return
    _need_compiler(spec.device)
    if spec.checkpointing != "none":
        raise EngineUnsupported(
            f"engine={engine} has no checkpointing={spec.checkpointing} with compile=true: the compiler decides what "
            "backward computes again; valid: checkpointing=none with checkpointing_budget, compile=false"
        )


def _need_compiler(device: str) -> None:
    """torch.compile writes C++ for a CPU; on a GPU, Triton builds its launchers with a C compiler."""
    override = os.environ.get("CXX" if device == "cpu" else "CC")
    tried = (override,) if override else ("g++",) if device == "cpu" else ("gcc", "clang")
    if not any(shutil.which(compiler) for compiler in tried):
        name = "C++ compiler" if device == "cpu" else "C compiler"
        variable = "CXX" if device == "cpu" else "CC"
        raise EngineUnavailable(
            f"compile=true needs a {name}, and {' or '.join(tried)} is not installed; "
            f"install g++ (on Debian and Ubuntu: apt-get install g++) or set {variable} to a compiler"
        )


def use_budget(spec: EngineSpec) -> None:
    """Sets the activation memory budget of all that this process compiles from here on."""
    if spec.checkpointing_budget is not None:
        from torch._functorch import config

        config.activation_memory_budget = spec.checkpointing_budget


def compile_units(engine: str, units: Sequence[nn.Module]) -> None:
    """Compiles the forward of each unit; hooks around it, which gather and free parameters, are not compiled.

    Raises EngineUnsupported without units, and a unit's forward raises it at torch's limit of recompilations, beyond
    which it would run without being compiled.
    """
    if not units:
        raise EngineUnsupported(
            f"engine={engine} has no compile=true for a workload without units: it compiles their forward; "
            "valid: compile=false, units by workload.units, engine=torch at stage=0 or 1"
        )
    allow_recompilations(len(units))
    for unit in units:
        # Not unit.compile(): that gives up in hooks, and then leaves alone what lies in torch.nn (a unit that is a
        # Linear).
        unit.forward = compiled(f"engine={engine}", unit.forward)


def counts_apart() -> bool:
    """Whether this torch can count the recompilations of each compiled forward, and not only of all of one class."""
    import torch

    return "isolate_recompiles" in inspect.signature(torch.compile).parameters


def allow_recompilations(units: int) -> None:
    """Without ``counts_apart``, raises torch's limits to what ``units`` of one class may need together."""
    from torch._dynamo import config

    if not counts_apart() and config.recompile_limit < LIMIT * units:
        config.recompile_limit = LIMIT * units
        config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, LIMIT * units)


def compiled(engine: str, forward: Callable[..., Any]) -> Callable[..., Any]:
    """``forward``, compiled. Raises EngineUnsupported when called beyond torch's limit of recompilations."""
    import torch
    from torch._dynamo.exc import FailOnRecompileLimitHit

    torch._dynamo.config.fail_on_recompile_limit_hit = True
    apart: dict[str, Any] = {"isolate_recompiles": True} if counts_apart() else {}
    compiled_forward = torch.compile(forward, **apart)

    @wraps(forward)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return compiled_forward(*args, **kwargs)
        except FailOnRecompileLimitHit as error:
            raise EngineUnsupported(
                f"{engine} has no compile=true for this workload: {forward.__qualname__} reached torch's limit of "
                f"recompilations ({torch._dynamo.config.recompile_limit}), beyond which it runs without being "
                "compiled; valid: compile=false, inputs of the same shapes and types in every call"
            ) from error

    return call
