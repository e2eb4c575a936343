"""Engines: one package each (see ``base``), named in conf/engine/; a user's own may live anywhere on Python's path.

Reads from an engine's package what it honours and what its ranks import, without importing torch.
``python -m bench.engines`` prints it as a table.

What every engine uses:

    base.py               the protocol of engines
    spec.py               the settings of an engine, and its declaration of support
    unsupported.py        modules that engines cannot train
    unsupported_steps.py  training steps that they cannot follow
    precision.py          dtypes of weights and computation
    optimizers.py         optimizers and learning rates
    muon.py               optimizer=muon
    adam8bit.py           optimizer=adam8bit
    kept_state.py         what a rank keeps from step to step, with an optimizer of torch
    scaling.py            dynamic loss scaling
    offload.py            state in host memory
    compiler.py           compile=true
    activation_checkpointing.py  checkpointing=full and selective
    whole_loss.py         a loss that does more than call its module
    batches.py            tensors of a batch
    param_owners.py       which unit has which parameter
    views.py              parameters as views of flat tensors
    exchange.py           plain data between ranks
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from types import ModuleType

from bench.engines.spec import Capabilities, EngineSpec, EngineUnavailable, EngineUnsupported, Traits
from results.model import StepProperties
from results.resolved import EngineDescription

REQUIRED = ("CAPABILITIES", "PRELOAD", "check_settings")


def load(package: str) -> ModuleType:
    """The engine's package. Raises EngineUnsupported, naming it, if it cannot be imported or is no engine."""
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise EngineUnsupported(f"engine.package={package} cannot be imported ({error})") from error
    missing = [name for name in REQUIRED if not hasattr(module, name)]
    if missing:
        raise EngineUnsupported(f"engine.package={package} is not an engine: it lacks {' and '.join(missing)}")
    return module


def check_settings(name: str, package: str, spec: EngineSpec) -> None:
    """Raises EngineUnsupported or EngineUnavailable if the engine cannot honour ``spec``."""
    module = load(package)
    capabilities: Capabilities = module.CAPABILITIES
    capabilities.check(name, spec)
    module.check_settings(spec)
    if spec.optimizer == "adam8bit" and importlib.util.find_spec("torchao") is None:
        raise EngineUnavailable(
            "optimizer=adam8bit needs torchao, which is not installed; pip install 'ddp-zero-bench[adam8bit]'"
        )


def backends(package: str) -> tuple[str, ...]:
    """The backends that the engine can use; none of a broken package."""
    with contextlib.suppress(EngineUnsupported):
        names: tuple[str, ...] = load(package).CAPABILITIES.backends
        return names
    return ()


def check_model(package: str, spec: EngineSpec, step: StepProperties) -> None:
    """Raises EngineUnsupported if the engine cannot follow the training step."""
    module = load(package)
    if hasattr(module, "check_model"):
        module.check_model(spec, step)


def traits(package: str, spec: EngineSpec) -> Traits:
    """How a launch with ``spec`` differs from plain data parallelism, for a spec that is supported."""
    module = load(package)
    engine_traits: Traits = module.traits(spec) if hasattr(module, "traits") else Traits()
    return engine_traits


def expected(package: str, spec: EngineSpec) -> EngineDescription:
    """The entries of ``describe`` that follow from the settings alone; empty if the engine does not declare them."""
    module = load(package)
    values: EngineDescription = module.expected(spec) if hasattr(module, "expected") else {}
    return values


def preload(*packages: str) -> tuple[str, ...]:
    """Modules that the engines' ranks need and that the fork server can import once; none of a broken package."""
    modules: dict[str, None] = {}
    for package in packages:
        with contextlib.suppress(EngineUnsupported):
            modules |= dict.fromkeys((*load(package).PRELOAD, f"{package}.adapter"))
    return tuple(modules)
