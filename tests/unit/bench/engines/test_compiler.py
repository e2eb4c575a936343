"""``compile=true``: every unit is compiled, or the configuration is unsupported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch._functorch import config as functorch

from bench.engines.compiler import check_compile, compile_units, counts_apart, use_budget
from bench.engines.spec import EngineSpec, EngineUnavailable, EngineUnsupported

VARIANTS = 10
"""More than torch compiles of one forward (8)."""


class Scaled(nn.Module):
    """A unit that is compiled again for every factor, and for every other name."""

    def __init__(self, factor: str) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, inputs: Tensor, name: str = "") -> Tensor:
        return inputs * len(self.factor) + len(name)


@pytest.fixture(params=[True, False], ids=["counts apart", "counts together"])
def without_inductor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Dynamo's graphs, run as they are: limits are dynamo's. An older torch counts all forwards of a class together."""
    compile_: Any = torch.compile

    def apart(forward: Any, *, isolate_recompiles: bool = False) -> Any:
        return compile_(forward, backend="eager", isolate_recompiles=isolate_recompiles)

    def older(forward: Any) -> Any:
        return compile_(forward, backend="eager")

    if request.param and not counts_apart():
        pytest.skip("this torch counts together")
    monkeypatch.setattr(torch, "compile", apart if request.param else older)
    torch.compiler.reset()
    counters.clear()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=False, recompile_limit=8):
        yield
    torch.compiler.reset()


@pytest.mark.usefixtures("without_inductor")
def test_more_units_of_a_class_than_the_limit_are_all_compiled() -> None:
    units = [Scaled("x" * number) for number in range(VARIANTS)]
    compile_units("native", units)
    for number, unit in enumerate(units):
        assert unit(torch.ones(2)).tolist() == [number, number]
    assert counters["stats"]["unique_graphs"] == VARIANTS


@pytest.mark.usefixtures("without_inductor")
def test_a_unit_that_reaches_the_limit_is_unsupported() -> None:
    unit = Scaled("x")
    compile_units("native", [unit])
    with pytest.raises(EngineUnsupported, match=r"Scaled.forward reached .* \(8\).*; valid: compile=false"):
        for number in range(VARIANTS):
            unit(torch.ones(2), "n" * number)


def test_a_workload_without_units_is_unsupported() -> None:
    with pytest.raises(EngineUnsupported, match=r"engine=native .* without units: .*; valid: compile=false, units by"):
        compile_units("native", [])


def test_a_budget_limits_the_activations_that_compiled_code_keeps() -> None:
    spec = EngineSpec(compile=True, world_size=1, device="cpu", backend="gloo")
    weights = [torch.full((8, 8), 0.1, requires_grad=True) for _ in range(4)]

    def forward(inputs: Tensor) -> Tensor:
        for weight in weights:
            inputs = torch.tanh(inputs @ weight)
        return inputs

    kept = []
    for budget in (None, 0.0):
        torch.compiler.reset()
        with functorch.patch(activation_memory_budget=1.0):
            use_budget(replace(spec, checkpointing_budget=budget))
            output = torch.compile(forward, backend="aot_eager_decomp_partition")(torch.ones(4, 8))
            assert output.grad_fn is not None
            kept.append(len(output.grad_fn.saved_tensors))  # with the weights and the input
    torch.compiler.reset()
    assert kept[0] > kept[1], kept


def test_a_budget_without_compilation_is_unsupported() -> None:
    spec = EngineSpec(checkpointing_budget=0.5, world_size=1, device="cpu", backend="gloo")
    with pytest.raises(EngineUnsupported, match=r"no checkpointing_budget=0.5 with compile=false: .*; valid: compile="):
        check_compile("native", spec)


def test_a_missing_compiler_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "not-installed")
    spec = EngineSpec(compile=True, world_size=1, device="cpu", backend="gloo")
    with pytest.raises(EngineUnavailable, match=r"not-installed is not installed; install g\+\+ .* or set CXX"):
        check_compile("native", spec)
