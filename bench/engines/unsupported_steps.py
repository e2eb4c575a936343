"""Training steps that several engines cannot follow: each check names what the reference observed. Needs no torch."""

from __future__ import annotations

from typing import Literal

from bench.engines.spec import EngineSpec, EngineUnsupported
from results.model import StepProperties

Uses = Literal["used_outside", "used_early", "used_bare"]
USES: dict[Uses, str] = {
    "used_outside": "outside of the forward of the sharding unit",
    "used_early": "before the forward of the sharding unit",
    "used_bare": "outside of the forward of any module",
}
"""Properties about parameters that a loss uses, in words."""


def reject_first_use(step: StepProperties, engine: str) -> None:
    """Raises EngineUnsupported for a loss that does not begin with a call of the module."""
    if step.first_use:
        raise EngineUnsupported(
            f"engine={engine}: the loss uses module{step.first_use} without calling the module; "
            "valid: a loss of module(inputs), engine=native, torch, deepspeed"
        )


def reject_uses(step: StepProperties, engine: str, uses: Uses, why: str, valid: str) -> None:
    """Raises EngineUnsupported if the property ``uses`` has any: parameters that the loss uses without a forward."""
    names: list[str] = getattr(step, uses)
    if names:
        where = USES[uses]
        raise EngineUnsupported(f"engine={engine}: the loss uses {counted(names)} {where}, {why}; valid: {valid}")


def reject_threads(step: StepProperties, engine: str, spec: EngineSpec, valid: str) -> None:
    """Raises EngineUnsupported for forwards in other threads, where each forward issues collectives."""
    if step.in_threads:
        raise EngineUnsupported(
            f"engine={engine} at stage={spec.stage}: the forward of {counted(step.in_threads, 'module')} runs in a "
            "Python thread other than the loss's, so ranks would issue collectives in different orders; "
            f"valid: {valid}, a loss that calls all modules in its own thread"
        )


def reject_skipped(step: StepProperties, engine: str, spec: EngineSpec, why: str, valid: str) -> None:
    """Raises EngineUnsupported for parameters that get no gradient in some micro-batches, and names the first."""
    _reject_skips(step.skipped, "in some micro-batches", engine, spec, why, valid)


def reject_uneven(step: StepProperties, engine: str, spec: EngineSpec, why: str, valid: str) -> None:
    """Raises EngineUnsupported for parameters that get a gradient on some ranks only, and names the first."""
    _reject_skips(step.uneven, "on some ranks only", engine, spec, why, valid)


def _reject_skips(names: list[str], where: str, engine: str, spec: EngineSpec, why: str, valid: str) -> None:
    if names:
        verb = "get no gradient" if len(names) > 1 else "gets no gradient"
        raise EngineUnsupported(
            f"engine={engine} at stage={spec.stage}: {counted(names)} {verb} {where}, {why}; valid: {valid}"
        )


def reject_differentiation(step: StepProperties, engine: str, spec: EngineSpec, why: str, valid: str) -> None:
    """Raises EngineUnsupported for a loss that is computed from gradients."""
    if step.differentiates:
        raise EngineUnsupported(
            f"engine={engine} at stage={spec.stage}: the loss is computed from gradients (create_graph=True), "
            f"{why}; valid: {valid}"
        )


def counted(names: list[str], what: str = "parameter") -> str:
    """Such as ``head.weight and 2 more parameters``."""
    more = len(names) - 1
    return names[0] + (f" and {more} more {what}{'s' if more > 1 else ''}" if more else "")
