"""What a workload builds: the same weights each time, on the CPU in fp32, in units that forward visits in order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.workload_cases import (
    every_workload,
    load,
    same,
    shared,
    tiny_workloads,
    weights,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@every_workload
def test_weights_are_the_same_each_time_and_for_each_instance(name: str) -> None:
    reference = weights(shared(name).build())
    for module in (shared(name).build(), load(name).build()):
        tensors = weights(module)
        assert list(tensors) == list(reference)
        assert all(torch.equal(tensors[key], reference[key]) for key in reference)


@tiny_workloads
def test_another_seed_gives_other_weights_and_samples(name: str) -> None:
    other = load(name, seed=1)
    assert not same(tuple(shared(name).build().parameters()), tuple(other.build().parameters()))
    assert not same(shared(name).batch(range(4)), other.batch(range(4)))


@every_workload
def test_the_global_generators_are_left_alone(name: str) -> None:
    torch.manual_seed(7)
    before, numpy_before = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].copy()
    load(name).build()
    shared(name).batch(range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], numpy_before)


@every_workload
def test_a_model_is_built_on_the_cpu_in_fp32_for_training(name: str) -> None:
    module = shared(name).build()
    assert module.training
    assert {(p.device.type, p.dtype) for p in module.parameters()} == {("cpu", torch.float32)}


@every_workload
def test_units_are_in_the_module_and_do_not_nest(name: str) -> None:
    module = shared(name).build()
    units = shared(name).units(module)
    assert len(units) > 1 or name == "linear"
    modules = {id(part) for part in module.modules()} - {id(module)}
    inside = [{id(part) for part in unit.modules()} for unit in units]
    assert all(parts <= modules for parts in inside)
    assert sum(map(len, inside)) == len(set().union(*inside))
    owned = [id(parameter) for unit in units for parameter in unit.parameters()]
    assert len(owned) == len(set(owned))


@every_workload
def test_units_are_in_the_order_that_forward_visits_them(name: str) -> None:
    module = shared(name).build()
    units = shared(name).units(module)
    visited: list[nn.Module] = []
    for unit in units:
        unit.register_forward_pre_hook(lambda part, _: visited.append(part))
    with torch.no_grad():
        shared(name).loss(module, shared(name).batch(range(2)))
    assert [id(unit) for unit in visited] == [id(unit) for unit in units]
