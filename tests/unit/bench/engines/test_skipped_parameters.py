"""Models that skip parameters: what the reference sees of it, and which engines reject them before ranks train."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench import engines
from bench.engines.spec import EngineSpec, EngineUnsupported
from bench.worker.reached import Reached
from results.model import Model, Parameter, StepProperties


class Experts(nn.Module):
    """Experts 0 and 1 by the sign of the first feature; 2 never."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.experts[int(inputs[0, 0] > 0)](inputs)  # type: ignore[no-any-return]


def trained(signs: list[int]) -> Reached:
    """Micro-batches with these signs, one after another."""
    module = Experts()
    reached = Reached(module)
    loss = reached.watching(lambda model, batch: model(batch).sum())
    for sign in signs:
        loss(module, torch.full((1, 2), float(sign))).backward()
    return reached


def names(*experts: int) -> list[str]:
    return [f"experts.{number}.{kind}" for number in experts for kind in ("weight", "bias")]


@pytest.mark.parametrize(
    ("signs", "ranks", "skipped", "uneven"),
    [
        ([1, 1, 1, 1], 2, names(0, 2), []),
        ([1, -1, 1, -1], 2, names(0, 1, 2), []),  # two micro-batches a rank: ranks do the same
        ([1, 1, -1, -1], 2, names(0, 1, 2), names(0, 1)),
        ([1, -1, -1, 1], 4, names(0, 1, 2), names(0, 1)),
        ([1, -1, -1, 1], 1, names(0, 1, 2), []),
    ],
)
def test_parameters_that_some_micro_batches_skip_are_named(
    signs: list[int], ranks: int, skipped: list[str], uneven: list[str]
) -> None:
    reached = trained(signs)
    assert reached.skipped() == skipped
    assert reached.uneven(ranks, len(signs) // ranks) == uneven


TORCH = {"gradient_as_bucket_view": True, "static_graph": False, "find_unused_parameters": False, "powersgd_rank": 1}
FSDP1 = {"backward_prefetch": "pre", "forward_prefetch": False, "limit_all_gathers": True}
EVEN, UNEVEN = StepProperties(["a", "b"], []), StepProperties(["a", "b"], ["b"])
DIFFERENTIATES = StepProperties(differentiates=True)
LATE = StepProperties(used_outside=["head.weight"], used_bare=["head.weight"])
EARLY = StepProperties(used_outside=["a", "b"], used_early=["a", "b"])
THREADED = StepProperties(in_threads=["head", "tail"])
ENCODES = StepProperties(first_use=".encode")


@pytest.mark.parametrize(
    ("engine", "stage", "options", "step", "message"),
    [
        ("torch", 0, TORCH, EVEN, "a and 1 more parameter get no gradient in some micro-batches, .*find_unused_param"),
        ("torch", 1, TORCH, UNEVEN, "DistributedDataParallel waits for all; valid: engine.find_unused_parameters=true"),
        ("torch", 3, TORCH, UNEVEN, "b gets no gradient on some ranks only, so the collectives of fully_shard"),
        ("deepspeed", 1, {}, UNEVEN, "b gets no gradient on some ranks only.*valid: stage=0, engine=native"),
        ("tensor_parallel", 3, {"degree": 2}, UNEVEN, "b gets no gradient on some ranks only"),
        (
            "fsdp1",
            3,
            FSDP1,
            EVEN,
            "a and 1 more parameter get no gradient in some micro-batches, and its part of the",
        ),
        ("fsdp1", 2, FSDP1, DIFFERENTIATES, "FullyShardedDataParallel has no gradients of gradients"),
        ("fsdp1", 3, FSDP1, LATE, "the loss uses head.weight outside of the forward of the sharding unit, when Fully"),
        ("fsdp1", 2, FSDP1, EARLY, "the loss uses a and 1 more parameter before the forward of the sharding unit"),
        ("fsdp1", 2, FSDP1, LATE, ""),
        ("fsdp1", 3, FSDP1, THREADED, "forward of head and 1 more module runs in a Python thread"),
        ("torch", 1, TORCH | {"find_unused_parameters": True}, UNEVEN, ""),
        ("torch", 3, TORCH, EVEN, ""),
        ("deepspeed", 0, {}, UNEVEN, ""),
        (
            "torch",
            2,
            TORCH,
            DIFFERENTIATES,
            r"computed from gradients \(create_graph=True\).*valid: engine=torch at st",
        ),
        ("deepspeed", 0, {}, DIFFERENTIATES, "computed from gradients.*valid: engine=native"),
        ("torch", 0, TORCH, DIFFERENTIATES, ""),
        ("native", 3, {}, DIFFERENTIATES, ""),
        ("torch", 3, TORCH, LATE, "the loss uses head.weight outside of the forward of the sharding unit, when fully_"),
        ("torch", 2, TORCH, EARLY, "the loss uses a and 1 more parameter before the forward of the sharding unit"),
        ("deepspeed", 3, {}, LATE, "the loss uses head.weight outside of the forward of any module"),
        ("deepspeed", 2, {}, LATE, ""),
        ("native", 3, {}, LATE, ""),
        ("torch", 2, TORCH, LATE, ""),
        ("deepspeed", 3, {}, EVEN, ""),
        ("native", 2, {}, UNEVEN, ""),
        ("torch", 3, TORCH, ENCODES, ""),
        ("native", 3, {}, THREADED, "forward of head and 1 more module runs in a Python thread.*valid: stage=0, 1, 2"),
        ("torch", 2, TORCH, THREADED, "forward of head and 1 more module runs in a Python thread"),
        ("deepspeed", 3, {}, THREADED, "forward of head and 1 more module runs in a Python thread"),
        ("tensor_parallel", 0, {"degree": 2}, THREADED, "forward of head and 1 more module runs in a Python thread"),
        ("native", 2, {}, THREADED, ""),
        ("torch", 1, TORCH, THREADED, ""),
        ("deepspeed", 2, {}, THREADED, ""),
    ],
)
def test_an_engine_whose_ranks_would_not_match_rejects_the_model(
    engine: str, stage: int, options: dict[str, Any], step: StepProperties, message: str
) -> None:
    spec = EngineSpec(stage=stage, world_size=4, device="cpu", backend="gloo", options=options)
    if not message:
        engines.check_model(f"bench.engines.{engine}", spec, step)
        return
    with pytest.raises(EngineUnsupported, match=message) as rejection:
        engines.check_model(f"bench.engines.{engine}", spec, step)
    assert str(rejection.value).startswith(f"engine={engine} at stage={stage}: ")


@pytest.mark.parametrize("engine", ["tensor_parallel", "pipeline"])
def test_an_engine_that_needs_a_call_of_the_module_rejects_another_loss_before_ranks_start(engine: str) -> None:
    spec = EngineSpec(stage=0, world_size=4, device="cpu", backend="gloo", options={"degree": 2})
    with pytest.raises(EngineUnsupported, match=f"engine={engine}: the loss uses module.encode without calling"):
        engines.check_model(f"bench.engines.{engine}", spec, ENCODES)


def test_the_shares_of_a_model_that_stage_3_keeps_whole_are_counted() -> None:
    sizes = [([10], -1), ([5, 8], 0), ([5], 0), ([2, 20], 1), ([2], -1)]
    parameters = [Parameter(str(number), shape, True, unit) for number, (shape, unit) in enumerate(sizes)]
    model = Model("mine", "sample", 1, 0.0, parameters, 0, "noise", True, "")
    assert (model.unit_count, model.root_share, model.largest_unit_share) == (2, 12 / 97, 45 / 97)
