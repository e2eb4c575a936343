"""The part of a module that each stage of a pipeline has."""

from __future__ import annotations

from torch import Tensor, nn

from bench.engines.precision import autocast
from bench.engines.spec import EngineUnsupported


def chain_of(module: nn.Module) -> list[nn.Module]:
    """Modules that, called one after another, equal ``module``. Raises EngineUnsupported if it is no such chain."""
    name = type(module).__name__
    declared = getattr(module, "pipeline_plan", None)
    if declared is not None:
        parts = list(declared)
    elif isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        parts = list(module)
    else:
        raise EngineUnsupported(
            "engine=pipeline cuts an nn.Sequential without a forward of its own, or what a module's pipeline_plan "
            f"lists; {name} is neither"
        )
    missing = {id(weight) for weight in module.parameters()} - {id(w) for part in parts for w in part.parameters()}
    if missing:
        lost = next(name for name, weight in module.named_parameters() if id(weight) in missing)
        raise EngineUnsupported(f"engine=pipeline cannot cut {name}: its pipeline_plan lacks {lost}")
    return parts


def cut(parts: list[nn.Module], units: list[nn.Module], degree: int) -> list[list[nn.Module]]:
    """``parts`` in ``degree`` runs with equal numbers of ``units``; a part without a unit stays with the one before."""
    wanted = {id(unit) for unit in units}
    counts = [sum(id(inner) in wanted for inner in part.modules()) for part in parts]
    stages: list[list[nn.Module]] = [[] for _ in range(degree)]
    seen = stage = 0
    for part, count in zip(parts, counts, strict=True):
        if count:
            stage = seen * degree // sum(counts)
        stages[stage].append(part)
        seen += count
    if not all(stages):
        raise EngineUnsupported(
            f"engine=pipeline cannot cut a chain of {sum(counts)} units into engine.degree={degree} stages"
        )
    return stages


def reject_what_stages_share(module: nn.Module, stages: list[list[nn.Module]]) -> None:
    """Raises EngineUnsupported for a weight that two stages would have: each would train a copy of its own."""
    owner: dict[int, int] = {}
    for index, parts in enumerate(stages):
        for weight in nn.ModuleList(parts).parameters():
            if owner.setdefault(id(weight), index) != index:
                name = next(name for name, other in module.named_parameters() if other is weight)
                raise EngineUnsupported(
                    f"engine=pipeline cannot cut {type(module).__name__}: stages {owner[id(weight)]} and {index} share "
                    f"{name} (tied weights; gpt has workload.tie=false)"
                )


def reject_untrained_stage(module: nn.Module, stages: list[list[nn.Module]]) -> None:
    """Raises EngineUnsupported for a stage that is frozen: its rank would have nothing to update."""
    for index, parts in enumerate(stages):
        if not any(weight.requires_grad for weight in nn.ModuleList(parts).parameters()):
            raise EngineUnsupported(
                f"engine=pipeline cannot cut {type(module).__name__}: stage {index} has no weight to train"
            )


class Stage(nn.Module):
    """A run of the chain. Autocast is inside, since a schedule calls forward and backward in turns."""

    def __init__(self, parts: list[nn.Module], precision: str, device_type: str) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.precision = precision
        self.device_type = device_type

    def forward(self, value: Tensor) -> Tensor:
        with autocast(self.precision, self.device_type):
            for part in self.parts:
                value = part(value)
        return value
